"""Preparations of releases: geometry, rounding and what each of them is called in a configuration."""

import numpy as np
import pytest
from PIL import Image

from tessella.data.official_preparation import adm_center_crop, lanczos_center_crop, on_white, truncated_uint8
from tessella.data.preparation import Preparation


def picture(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(40, 90), (257, 63), (33, 33), (20, 24)])
@pytest.mark.parametrize("crop", [adm_center_crop, lanczos_center_crop])
def test_any_size_becomes_the_square(crop, height, width):
    square = crop(picture(height, width), 32)
    assert square.shape == (32, 32, 3)
    assert square.dtype == np.uint8


@pytest.mark.parametrize("crop", [adm_center_crop, lanczos_center_crop])
def test_the_right_size_stays_as_it_is(crop):
    pixels = picture(32, 32)
    assert np.array_equal(crop(pixels, 32), pixels)
    wide = picture(32, 51)  # nothing to resize: the center, its middle half a pixel to the left
    assert np.array_equal(crop(wide, 32), wide[:, 9:41])


def test_large_images_are_halved_with_a_box_first():
    pixels = picture(64, 64)
    boxes = pixels.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(adm_center_crop(pixels, 32) - boxes).max() <= 1  # Pillow rounds after each direction
    direct = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.abs(adm_center_crop(pixels, 32).astype(int) - direct).max() > 5


def test_transparent_pixels_are_white():
    pixels = picture(4, 5, 4)
    pixels[0, 0] = (10, 20, 30, 0)
    pixels[0, 1] = (10, 20, 30, 255)
    pixels[0, 2] = (0, 100, 255, 51)
    blended = on_white(pixels)
    assert blended[0, 0].tolist() == [255, 255, 255]
    assert blended[0, 1].tolist() == [10, 20, 30]
    assert blended[0, 2].tolist() == [204, 224, 255]
    opaque = pixels.copy()
    opaque[..., 3] = 255
    assert np.array_equal(on_white(opaque), pixels[..., :3])
    assert np.array_equal(on_white(pixels[..., :3]), pixels[..., :3])


def test_levels_are_cut_off_not_rounded():
    planes = np.array([-1.5, -1.0, 0.0, 0.999, 1.0, 1.5], dtype=np.float32).reshape(1, 1, 6).repeat(3, 0)
    assert truncated_uint8(planes)[0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


@pytest.mark.parametrize(("name", "crop"), [("adm", adm_center_crop), ("lanczos", lanczos_center_crop)])
def test_a_configuration_names_them(name, crop):
    policy, pixels = Preparation(resize=name), picture(70, 90)
    assert np.array_equal(policy.view(policy.resized(pixels, 32), 32, 0, None), crop(pixels, 32))
    assert policy.record(32)["resize"] == name
    assert policy.record(32)["filter"] != Preparation().record(32)["filter"]
