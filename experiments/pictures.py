"""Image files in and out: what the commands read from and show to people."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.images import IMAGE_SUFFIXES


def read_pixels(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8.

    Raises:
        ValueError: no such file, or not a picture that can be read; names it.
    """
    from ..data.images import decode

    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a picture file ({', '.join(IMAGE_SUFFIXES[:4])}, ...).")
    try:
        return decode(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def prepare(pixels: np.ndarray, image_size: int) -> Tensor:
    """(H, W, 3) uint8 brought to (3, size, size) uint8 as evaluation data is."""
    from ..data.preparation import Preparation

    preparation = Preparation()
    square = preparation.view(preparation.resized(pixels, image_size), image_size, 0, None)  # (size, size, 3)
    return torch.from_numpy(square.transpose(2, 0, 1).copy())  # a copy: decoders may hand over read-only arrays


def image_files(path: Path) -> list[Path]:
    """The picture itself, or every picture below a folder, sorted.

    Raises:
        ValueError: nothing there.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"{path} holds no pictures ({', '.join(IMAGE_SUFFIXES)}).")
        return files
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; give a picture file ({', '.join(IMAGE_SUFFIXES[:4])}, ...) or a folder."
        )
    return [path]


def make_folder(path: Path) -> Path:
    """The folder that a command writes its pictures into (`out`), made before work begins.

    Raises:
        ValueError: it cannot be made; names it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out={path} is no folder to write in ({error.strerror}); choose another out=<folder>."
        ) from error
    return path


def grid(rows: list[list[Tensor]], *, scale: int = 1, gap: int = 2) -> Tensor:
    """Rows of (3, H, W) uint8 pictures of one size -> one (3, H', W') picture on white; pixels repeat `scale` times."""
    height, width = rows[0][0].shape[-2:]
    columns = max(map(len, rows))
    sheet = torch.full((3, len(rows) * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = gap + r * (height + gap), gap + c * (width + gap)
            sheet[:, top : top + height, left : left + width] = picture
    return sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def with_captions(sheet: Tensor, captions: list[str], height: int = 20) -> Tensor:
    """A (3, H, W) uint8 grid of one row with a line of text below each of its columns."""
    from PIL import Image, ImageDraw

    columns = len(captions)
    strip = Image.new("RGB", (sheet.shape[2], height), "white")
    draw = ImageDraw.Draw(strip)
    for column, caption in enumerate(captions):
        draw.text((sheet.shape[2] * (column + 0.5) / columns, height / 2), caption, fill="black", anchor="mm")
    below = torch.from_numpy(np.asarray(strip).transpose(2, 0, 1).copy())
    return torch.cat([sheet, below], 1)


def write_png(path: Path, image: Tensor, text: dict[str, str] | None = None) -> None:
    """Write a (3, H, W) uint8 picture; `text` goes into the file's own fields (prompt, seed, run)."""
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from .runs import write_atomic

    fields = PngInfo()
    for name, value in (text or {}).items():
        fields.add_itxt(name, value)
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="PNG", pnginfo=fields)
    write_atomic(path, buffer.getvalue())


def file_stem(text: str, length: int = 60) -> str:
    """A prompt as a file name: letters, digits and dashes."""
    words = "".join(character if character.isalnum() else " " for character in text.lower()).split()
    return "-".join(words)[:length].rstrip("-") or "empty"
