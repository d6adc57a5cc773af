"""`tessella reconstruct`: a picture, or a folder of them, through a trained tokenizer, side by side."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from ..tokenizers.base import ImageTokenizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What came back of one picture: from its first `kept` ids, or from all it has (None: continuous latents)."""

    image: "Tensor"  # (3, H, W) in [0, 1]
    psnr: float  # dB
    kept: int | None
    bits: float | None

    @property
    def size(self) -> str:
        if self.kept is None or self.bits is None:
            return "continuous latents"
        return f"{self.kept} token{'s'[: self.kept != 1]} = {self.bits:.0f} bits"


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
    """Write original and reconstructions of every picture; returns a line for each: file, PSNR, tokens and bits.

    With `keep` there is a reconstruction, and a line, for each number of leading tokens; several pictures end in a line
    with the mean PSNR of each. Sizes and PSNR also stand below the pictures and in the text fields of the file.

    Raises:
        ValueError: no run, no picture, a file that is not a picture, or tokens that do not decode.
    """
    from ..metrics.images import to_uint8
    from .build import resolve_run
    from .pictures import grid, image_files, make_folder, prepare, read_pixels, with_captions, write_png

    files = image_files(Path(cfg.image))
    folder = resolve_run(cfg.run, ("tokenizer", "unified"))
    if cfg.run is None:
        print(f"using {folder}", file=sys.stderr)
    tokenizer = load_tokenizer(folder)
    keep = None if cfg.keep is None else check_keep(tokenizer, cfg.keep)
    out = make_folder(Path(cfg.out))
    scale = max(1, 256 // tokenizer.image_size)
    lines: list[str] = []
    scores: dict[str, list[float]] = {}
    for file in files:
        original = prepare(read_pixels(file), tokenizer.image_size)
        found = reconstructions(tokenizer, original[None].float() / 255, keep)
        sheet = grid([[original, *(to_uint8(one.image).cpu() for one in found)]], scale=scale)
        words = ["original", *(f"{one.size}, {one.psnr:.2f} dB" for one in found)]
        inside = file.relative_to(cfg.image) if file != Path(cfg.image) else Path(file.name)
        target = out / inside.with_name(f"{inside.name}.png" if inside.suffix != ".png" else inside.name)
        fields = {"run": str(folder)} | {one.size: f"PSNR {one.psnr:.2f} dB" for one in found}
        write_png(target, with_captions(sheet, words), fields)
        for one in found:
            lines.append(f"{target}: PSNR {one.psnr:.2f} dB at {tokenizer.image_size} px, {one.size}")
            scores.setdefault(one.size, []).append(one.psnr)
    if keep is not None and len(files) > 1:
        lines += [f"mean of {len(v)} pictures: PSNR {sum(v) / len(v):.2f} dB, {size}" for size, v in scores.items()]
    return lines


def reconstructions(tokenizer: ImageTokenizer, images: "Tensor", keep: list[int] | None) -> list[Reconstruction]:
    """What comes back of one image (1, 3, H, W) in [0, 1] from each number of leading ids; None: from everything."""
    import torch

    from ..metrics.reconstruction import psnr

    found = []
    with torch.inference_mode():
        encoding = tokenizer.encode(images)
        whole = None if tokenizer.vocab_size is None else tokenizer.num_tokens
        for kept in keep or [whole]:
            if kept == whole or kept is None or encoding.ids is None:
                back = tokenizer.decode(encoding.latents)
            else:
                back = tokenizer.decode(tokenizer.dequantize(encoding.ids[:, :kept]))
            total = tokenizer.bits_per_image
            bits = None if total is None or kept is None else total * kept / tokenizer.num_tokens
            found.append(Reconstruction(back[0], psnr(images, back).item(), kept, bits))
    return found


def check_keep(tokenizer: ImageTokenizer, keep: Any) -> list[int]:
    """The numbers of leading tokens in `keep`, a number or a list of them.

    Raises:
        ValueError: one that does not decode; names the nearest that do.
    """
    from .evaluate_prefixes import whole_prefixes

    wanted: list[Any] = [keep] if isinstance(keep, int | str | float) else list(keep)
    if tokenizer.vocab_size is None:
        raise ValueError(
            f"keep={_listed(wanted)}: this tokenizer has continuous latents and no tokens; leave keep out."
        )
    valid = whole_prefixes(tokenizer) or [tokenizer.num_tokens]
    if not wanted:
        raise ValueError(f"keep is empty; give numbers of tokens, such as keep={valid[0]},{valid[-1]}.")
    for kept in wanted:
        if isinstance(kept, bool) or not isinstance(kept, int):
            raise ValueError(f"keep={_listed(wanted)}: {kept!r} is no number of tokens; give integers, as in keep=1,4.")
        if kept not in valid:
            raise ValueError(f"keep={kept} tokens of this tokenizer do not decode; {_decodable(valid, kept)}.")
    return list(dict.fromkeys(wanted))


def _decodable(valid: list[int], kept: int) -> str:
    if len(valid) == 1:
        return f"it needs all of its {valid[0]}: keep={valid[0]}"
    if valid == list(range(valid[0], valid[-1] + 1)):
        return f"use {valid[0]} to {valid[-1]}"
    near = sorted(sorted(valid, key=lambda length: abs(length - kept))[:2])
    return f"nearest are {near[0]} and {near[1]} (whole steps: {_listed(valid)})"


def _listed(values: list[Any]) -> str:
    return ",".join(map(str, values))


if __name__ == "__main__":
    from .cli import main as tessella

    tessella(["reconstruct", *sys.argv[1:]])
