"""PSNR and SSIM against scikit-image, image by image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tessella.metrics.reconstruction import ReconstructionMetrics, psnr, ssim


def pictures(n: int, height: int, width: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat areas, edges and texture, with a noisy copy of each."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, (height + 7) // 8, (width + 7) // 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, scale_factor=8)[..., :height, :width].contiguous()
    images[..., : height // 2, : width // 2] = 0.93  # a flat quarter, as backgrounds are
    reconstructions = (images + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    return images, reconstructions


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 50), (11, 11)])
@pytest.mark.parametrize("noise", [0.003, 0.05, 0.4])
def test_values_match_scikit_image(height: int, width: int, noise: float) -> None:
    images, reconstructions = pictures(3, height, width, noise)
    ours_psnr, ours_ssim = psnr(images, reconstructions), ssim(images, reconstructions)
    for i in range(3):
        a, b = (batch[i].numpy().astype(np.float64) for batch in (images, reconstructions))
        assert ours_psnr[i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4)
        expected = structural_similarity(
            a, b, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
        )
        assert ours_ssim[i] == pytest.approx(expected, abs=5e-7)


def test_split_value_is_the_mean_over_images_whatever_the_batches() -> None:
    images, reconstructions = pictures(7, 32, 32, 0.1)
    reconstructions[0] = images[0] * 0.5  # PSNR of the mean error would differ from the mean PSNR
    scores = ReconstructionMetrics()
    for part in (slice(0, 3), slice(3, 7)):
        scores.update(images[part], reconstructions[part])
    rows = scores.rows()
    assert rows["rec/psnr"]["n"] == rows["rec/ssim"]["n"] == 7
    assert rows["rec/psnr"]["value"] == pytest.approx(psnr(images, reconstructions).mean().item())
    assert rows["rec/ssim"]["value"] == pytest.approx(ssim(images, reconstructions).mean().item())


def test_exact_copies_have_finite_best_scores() -> None:
    images, _ = pictures(2, 16, 16, 0.1)
    assert psnr(images, images).tolist() == pytest.approx([100.0, 100.0])
    assert ssim(images, images).tolist() == pytest.approx([1.0, 1.0])


def test_reconstructions_are_scored_as_displayed() -> None:
    images = torch.ones(1, 3, 16, 16)
    assert psnr(images, images + 0.3).item() == pytest.approx(100.0)


def test_half_precision_is_scored_in_float32() -> None:
    images, reconstructions = pictures(2, 32, 32, 0.1)
    half = reconstructions.bfloat16()
    assert torch.equal(ssim(images, half), ssim(images, half.float()))


@pytest.mark.parametrize(
    ("images", "reconstructions", "message"),
    [
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 3, 16, 16), "divide uint8"),
        (torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), float("nan")), "reconstructions hold NaN"),
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17), "same shape"),
        (torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16), "at least 11x11"),
    ],
)
def test_wrong_input_is_named(images: torch.Tensor, reconstructions: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ssim(images, reconstructions)


def test_empty_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="no image was scored"):
        ReconstructionMetrics().rows()
