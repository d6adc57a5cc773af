"""Encoded image files to RGB pixels: which decoder, and what becomes of everything that is not plain RGB.

JPEG goes through simplejpeg in its accurate mode (slow DCT, smooth chroma upsampling). Pillow takes every other format,
and the JPEG kinds simplejpeg has no RGB conversion for (CMYK, YCCK, unusual chroma subsampling).
Grey and palette images become RGB, transparency is composited on white, 16-bit grey is rounded to 8 bits, the first
frame of an animation counts, and EXIF orientation is applied.
"""

import io
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
ORIENTATION_TAG = 0x0112  # EXIF 2.3, table 4


class ImageError(ValueError):
    """Why one file cannot be used, in a few words; data sets count it, name it and go on."""


def header_size(data: bytes) -> tuple[int, int]:
    """(height, width) as stored, from the first bytes of a file; costs microseconds and decodes nothing.

    Raises:
        ImageError: not an image, or a header that cannot be read.
    """
    layout = _jpeg_layout(data)
    if layout is not None:
        return layout[0], layout[1]
    with _open(data) as image:
        return image.height, image.width


def decode(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """One encoded image as (H, W, 3) uint8 RGB, upright.

    Args:
        out: (H', W', 3) uint8 in C order, decoded into where that saves a copy: `out` is then what is returned. When
            it is not, nothing can be said about its content.

    Raises:
        ImageError: not an image, truncated or corrupt (a JPEG with any decoder warning counts as corrupt).
    """
    layout = _jpeg_layout(data)
    if layout is None or layout[2]:
        return _decode_with_pillow(data)
    import simplejpeg

    fits = out is not None and out.shape == (*layout[:2], 3)
    buffer = out if fits else None
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, buffer=buffer, strict=True)
    except ValueError as error:
        raise ImageError(f"corrupt JPEG: {error}") from None
    if buffer is not None:
        pixels = buffer
    orientation = _jpeg_orientation(data)
    return pixels if orientation == 1 else _upright(pixels, orientation)


def _jpeg_layout(data: bytes) -> tuple[int, int, bool] | None:
    """Height, width and whether it is CMYK, of a JPEG that simplejpeg reads; None for everything else."""
    if data[:2] != b"\xff\xd8":
        return None
    import simplejpeg

    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None  # unusual subsampling or a broken header: Pillow decides which
    return int(height), int(width), colorspace in ("CMYK", "YCCK")


def _open(data: bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise ImageError("the file is empty")
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ImageError(f"not an image: the file starts with {data[:12]!r}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"unreadable header: {error}") from None


def _decode_with_pillow(data: bytes) -> np.ndarray:
    from PIL import Image, ImageOps

    with _open(data) as image:
        name = image.format
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
            raise ImageError(f"corrupt {name}: {error}") from None
    if upright.mode.startswith("I;16"):
        # convert("RGB") would clip at 255; 65535 / 257 = 255 exactly
        grey = (np.asarray(upright).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if upright.mode in ("I", "F"):
        raise ImageError(f"32-bit pixels (mode {upright.mode}) have no defined white; save as 8 or 16 bits")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(upright.convert("RGB"))


def _jpeg_orientation(data: bytes) -> int:
    """EXIF orientation 1-8; 1, upright, where there is none or it is damaged.

    Walks the segments before the scan, since a search or Pillow's own parse would cost a tenth of a decode.
    """
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":  # start of scan
        if data[position + 1 : position + 2] == b"\xe1" and data[position + 4 : position + 10] == b"Exif\0\0":
            with _open(data) as image:
                return image.getexif().get(ORIENTATION_TAG, 1)
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation; a value outside 1-8 means nothing and leaves the image alone."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
