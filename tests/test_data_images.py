"""Decoding and preparation: every kind of file becomes the RGB square that its policy says."""

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageOps

from tessella.data.images import ImageError, decode, header_size
from tessella.data.preparation import Preparation


def picture(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    """Smooth colors, so that JPEG and resampling change little."""
    rows, columns = np.mgrid[0:height, 0:width]
    phase = np.random.default_rng(seed).random(3) * 6
    waves = [np.sin(rows / 9 + p) + np.cos(columns / 7 + 2 * p) for p in phase]
    return np.stack([(wave + 2) * 63.75 for wave in waves], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_lossless_files_give_their_pixels(kind):
    data = encoded(Image.fromarray(picture()), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(decode(data), picture())
    assert header_size(data) == (40, 56)


def test_jpeg_agrees_with_pillow():
    """Both are libjpeg-turbo in accurate mode."""
    data = encoded(Image.fromarray(picture()), "JPEG", quality=90)
    assert np.abs(decode(data).astype(int) - np.asarray(Image.open(io.BytesIO(data))).astype(int)).max() <= 1
    assert header_size(data) == (40, 56)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_has_three_equal_channels(kind):
    pixels = decode(encoded(Image.fromarray(picture()).convert("L"), kind))
    assert pixels.shape == (40, 56, 3)
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_palette_and_one_bit_images_become_rgb():
    palette = Image.fromarray(picture()).quantize(16)
    assert np.array_equal(decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(picture()).convert("1")
    assert set(np.unique(decode(encoded(bits, "PNG")))) == {0, 255}


def test_transparency_is_composited_on_white():
    layer = np.zeros((40, 40, 4), dtype=np.uint8)
    layer[..., 0] = 200
    layer[:20, :, 3] = 255
    layer[20:30, :, 3] = 128
    pixels = decode(encoded(Image.fromarray(layer), "PNG"))
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert np.abs(pixels[25, 0].astype(int) - [227, 127, 127]).max() <= 1
    assert pixels[35, 0].tolist() == [255, 255, 255]


def test_a_transparent_palette_color_is_white():
    image = Image.new("P", (40, 40))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 40, 20))
    pixels = decode(encoded(image, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[39, 0].tolist() == [255, 255, 255]


def test_cmyk_jpeg_becomes_rgb():
    data = encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    assert mean_difference(decode(data), picture()) < 4
    assert header_size(data) == (40, 56)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_rounded_to_eight(kind):
    ramp = np.linspace(0, 65535, 40 * 40).astype(np.uint16).reshape(40, 40)
    pixels = decode(encoded(Image.fromarray(ramp), kind))
    assert np.array_equal(pixels[..., 0], np.round(ramp / 257).astype(np.uint8))
    assert pixels.shape == (40, 40, 3)


def test_floating_point_pixels_are_refused():
    with pytest.raises(ImageError, match="32-bit pixels"):
        decode(encoded(Image.fromarray(np.ones((40, 40), dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture()), kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.abs(decode(data).astype(int) - upright.astype(int)).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("shape", [(40, 56), (56, 40)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_given_array_changes_no_pixel(kind, shape, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture()), kind, exif=exif)
    out = np.empty((*shape, 3), dtype=np.uint8)
    pixels = decode(data, out)
    assert np.array_equal(pixels, decode(data))
    assert (pixels is out) == (kind == "JPEG" and shape == (40, 56) and orientation == 1)


def test_damaged_exif_counts_as_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(picture()), "JPEG", exif=exif)
    place = data.index(b"Exif\0\0") + 6
    assert decode(data).shape == (56, 40, 3)
    assert decode(data[:place] + b"XXXX" + data[place + 4 :]).shape == (40, 56, 3)


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    assert decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda jpeg, png: b"hello, this is text", "not an image: the file starts with b'hello, this '"),
        (lambda jpeg, png: b"", "the file is empty"),
        (lambda jpeg, png: jpeg[:-100], "corrupt JPEG: Premature end"),
        (lambda jpeg, png: jpeg[:100], "corrupt JPEG|unreadable header|not an image"),
        (lambda jpeg, png: jpeg[:-2] + bytes(30) + jpeg[-2:], "corrupt JPEG: .*extraneous bytes"),
        (lambda jpeg, png: png[: len(png) // 2], "corrupt PNG: "),
    ],
)
def test_a_broken_file_says_what_is_wrong(make, reason):
    image = Image.fromarray(picture())
    with pytest.raises(ImageError, match=reason):
        decode(make(encoded(image, "JPEG"), encoded(image, "PNG")))


@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (64, 64), (37, 41)])
def test_shortest_side_then_center_crop_agrees_with_pillow(shape):
    pixels, size = picture(*shape), 32
    scale = size / min(shape)
    height, width = round(shape[0] * scale), round(shape[1] * scale)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    expected = np.asarray(resized.crop((left, top, left + size, top + size)))
    policy = Preparation()
    assert np.abs(policy.view(policy.resized(pixels, size), size, 0, None).astype(int) - expected).max() <= 2


def test_an_image_of_the_right_size_is_left_alone():
    pixels = picture(64, 64)
    assert np.array_equal(Preparation().resized(pixels, 64), pixels)


def test_small_images_are_enlarged():
    assert Preparation().resized(picture(32, 32), 64).shape == (64, 64, 3)


def test_squash_keeps_everything():
    pixels = picture(100, 50)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(Preparation(resize="squash").resized(pixels, 32).astype(int) - expected).max() <= 2


def test_pad_centers_on_black():
    padded = Preparation(resize="pad").resized(np.full((100, 50, 3), 200, dtype=np.uint8), 32)
    assert padded.shape == (32, 32, 3)
    assert (padded[:, 8:24] == 200).all()
    assert (padded[:, :8] == 0).all()
    assert (padded[:, 24:] == 0).all()


def test_letterbox_shows_all_of_a_picture_on_gray():
    shown = Preparation(resize="letterbox").resized(np.full((70, 29, 3), 200, dtype=np.uint8), 48)
    assert shown.shape == (48, 48, 3)
    assert (shown[:, :14] == 127).all()
    assert (shown[:, 14:33] == 200).all()  # 29 / 70 * 48 = 19.9 columns, cut
    assert (shown[:, 33:] == 127).all()


def test_chance_is_a_function_of_seed_step_and_index_alone():
    pixels = picture(32, 80)

    def views(seed: int, step: int) -> list[bytes]:
        policy = Preparation(crop="random", flip=0.5, seed=seed)
        resized = policy.resized(pixels, 32)
        return [policy.view(resized, 32, index, step).tobytes() for index in range(20)]

    assert views(0, 5) == views(0, 5)
    assert views(0, 5) != views(0, 6)
    assert views(0, 5) != views(1, 5)
    assert len(set(views(0, 5))) > 10


def test_random_crops_reach_both_ends_and_flips_have_their_probability():
    policy = Preparation(crop="random", flip=0.25)
    columns = np.broadcast_to(np.arange(36, dtype=np.uint8)[None, :, None], (32, 36, 3))
    views = [policy.view(columns, 32, index, step=0)[0, :, 0].astype(int) for index in range(2000)]
    flipped = np.array([view[0] > view[-1] for view in views])
    starts = np.array([min(view[0], view[-1]) for view in views])
    assert abs(flipped.mean() - 0.25) < 0.04  # standard deviation 0.01
    assert sorted(set(starts.tolist())) == [0, 1, 2, 3, 4]
    assert np.bincount(starts).min() > 320  # 400 expected, standard deviation 18


def test_the_plain_view_knows_no_chance():
    policy = Preparation(crop="random", flip=1.0)
    resized = policy.resized(picture(32, 80), 32)
    assert np.array_equal(policy.view(resized, 32, 0, None), resized[:, 24:56])
    plain = policy.plain()
    assert not plain.is_random
    assert np.array_equal(plain.view(plain.resized(picture(32, 80), 32), 32, 0, step=7), resized[:, 24:56])


def test_the_record_holds_plain_values():
    record = Preparation(crop="random", flip=0.5, seed=3).record(64)
    assert record["image_size"] == 64
    assert (record["resize"], record["crop"], record["flip"], record["augmentation_seed"]) == (
        "shortest",
        "random",
        0.5,
        3,
    )
    assert Preparation().record(64)["augmentation_seed"] is None
    assert all(isinstance(value, (str, int, float, type(None))) for value in record.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": "stretch"}, "resize='stretch' is unknown; use one of shortest, squash, pad"),
        ({"crop": "left"}, "crop='left' is unknown; use one of center, random"),
        ({"crop": "random", "resize": "pad"}, "crop=random has nothing to cut after resize=pad"),
        ({"flip": 1.5}, "nearest is 1"),
        ({"flip": -1}, "nearest is 0"),
        ({"flip": math.nan}, "no probability"),
        ({"min_size": 0}, "min_size=0"),
    ],
)
def test_impossible_policies_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**arguments)
