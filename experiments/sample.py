"""`tessella sample`: images from prompts, one file each and a grid."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from . import runs
from .limits import check_values


def main(cfg: DictConfig) -> None:
    for path in run(cfg):
        print(path)


def run(cfg: DictConfig) -> list[Path]:
    """Write `num` images for every prompt; returns the files, the grid last.

    Raises:
        ValueError: no run, no prompt, or a sampling value out of range.
    """
    prompts = _prompts(cfg.prompt)
    check_values(cfg)

    from ..metrics.images import to_uint8
    from ..unified.generate import write_images
    from .build import build_sampling, resolve_run
    from .pictures import file_stem, grid, make_folder, write_png
    from .trained_unified import load_unified

    sampling = build_sampling(cfg)
    folder = resolve_run(cfg.run, ("unified",))
    if cfg.run is None:
        print(f"using {folder}", file=sys.stderr)
    out = make_folder(Path(cfg.out))
    model = load_unified(folder)
    captions = [prompt for prompt in prompts for _ in range(cfg.num)]
    seeds = [int(cfg.seed) + i for _ in prompts for i in range(cfg.num)]
    ids = write_images(model, captions, seeds=seeds, sampling=sampling)
    images = to_uint8(model.tokenizer.decode(model.tokenizer.dequantize(ids))).cpu()

    files = []
    for caption, seed, image in zip(captions, seeds, images, strict=True):
        file = out / f"{file_stem(caption)}-seed{seed}.png"
        write_png(
            file, image, {"prompt": caption, "seed": str(seed), "run": str(folder), "config": str(runs.plain(cfg))}
        )
        files.append(file)
    rows = [list(images[i : i + cfg.num]) for i in range(0, len(images), cfg.num)]
    write_png(out / "grid.png", grid(rows, scale=max(1, 128 // images.shape[-1])))
    return [*files, out / "grid.png"]


def _prompts(prompt: object) -> list[str]:
    prompts = [str(part).strip() for part in (runs.plain(prompt) if not isinstance(prompt, str) else [prompt])]  # type: ignore[union-attr]
    if not prompts or not all(prompts):
        raise ValueError("prompt is empty; say what to draw: tessella sample 'a red circle'.")
    return prompts


if __name__ == "__main__":
    from .cli import main as tessella

    tessella(["sample", *sys.argv[1:]])
