"""`tessella reconstruct`: a picture, or a folder of them, through a trained tokenizer, side by side."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from ..tokenizers.base import ImageTokenizer


def main(cfg: DictConfig) -> None:
    for line in run(cfg):
        print(line)


def load_tokenizer(folder: Path) -> ImageTokenizer:
    """The tokenizer of a tokenizer run, or the one inside a unified run."""
    from .build import trained
    from .runs import read_json

    if read_json(folder / "run.json")["phase"] == "unified":
        from .trained_unified import load_unified

        return load_unified(folder).tokenizer
    return trained(folder)


def run(cfg: DictConfig) -> list[str]:
    """Write original and reconstruction of every picture; returns one line per picture: file, PSNR, bits.

    Raises:
        ValueError: no run, no picture, or a file that is not a picture.
    """
    import torch

    from ..metrics.reconstruction import psnr
    from .build import resolve_run
    from .pictures import grid, image_files, make_folder, prepare, read_pixels, to_uint8, write_png

    files = image_files(Path(cfg.image))
    folder = resolve_run(cfg.run, ("tokenizer", "unified"))
    if cfg.run is None:
        print(f"using {folder}", file=sys.stderr)
    out = make_folder(Path(cfg.out))
    tokenizer = load_tokenizer(folder)
    lines = []
    for file in files:
        original = prepare(read_pixels(file), tokenizer.image_size)
        images = original[None].float() / 255
        with torch.inference_mode():
            reconstruction = tokenizer.decode(tokenizer.encode(images).latents)
        inside = file.relative_to(cfg.image) if file != Path(cfg.image) else Path(file.name)
        target = out / inside.with_name(f"{inside.name}.png" if inside.suffix != ".png" else inside.name)
        write_png(target, grid([[original, to_uint8(reconstruction)[0]]], scale=max(1, 256 // tokenizer.image_size)))
        bits = (
            ""
            if tokenizer.bits_per_image is None
            else f", {tokenizer.num_tokens} tokens = {tokenizer.bits_per_image:.0f} bits"
        )
        lines.append(f"{target}: PSNR {psnr(images, reconstruction).item():.2f} dB at {tokenizer.image_size} px{bits}")
    return lines


if __name__ == "__main__":
    from .cli import main as tessella

    tessella(["reconstruct", *sys.argv[1:]])
