"""LPIPS: the package's value when its backbone is there, a reason when it is not, never a download."""

import hashlib
import urllib.request
import warnings
from pathlib import Path

import pytest
import torch

from tessella.metrics import perceptual
from tessella.metrics.perceptual import LPIPS, absent_perceptual


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub folder, and an error for whoever tries to fill it."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something tried to download")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_absent_backbone_names_file_and_folder(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = absent_perceptual()["rec/lpips"]
    assert "alexnet-owt-7be5be79.pth" in reason
    assert str(hub) in reason
    with pytest.raises(ValueError, match="alexnet-owt-7be5be79"):
        LPIPS()
    (hub / "alexnet-owt-7be5be79.pth").write_bytes(b"half a file")
    assert "is damaged" in absent_perceptual()["rec/lpips"]
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    assert "lpips is not installed" in absent_perceptual()["rec/lpips"]


def test_present_backbone_gives_the_value_of_the_package(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a random backbone: the file's name follows its hash, as the real one's does."""
    import lpips
    import torchvision

    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet()
    torch.save({f"features.{key}": value for key, value in alexnet.features.state_dict().items()}, hub / "saved.pth")
    name = f"alexnet-{hashlib.sha256((hub / 'saved.pth').read_bytes()).hexdigest()[:8]}.pth"
    (hub / "saved.pth").rename(hub / name)
    monkeypatch.setattr(perceptual, "_BACKBONE_FILE", name)
    assert absent_perceptual() == {}

    images = torch.rand(3, 3, 64, 64)
    reconstructions = (images + 0.1 * torch.randn_like(images)).clamp(0, 1)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric = LPIPS()
    assert torch.equal(torch.get_rng_state(), state)
    with monkeypatch.context() as patch:
        patch.setattr("torchvision.models.alexnet", lambda pretrained: alexnet)
        published = lpips.LPIPS(net="alex", verbose=False)
    with torch.no_grad():
        expected = published(images * 2 - 1, reconstructions * 2 - 1).flatten()
    assert expected.min() > 1e-3
    torch.testing.assert_close(metric(images, reconstructions), expected, atol=1e-6, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(metric(images, reconstructions), expected, atol=1e-6, rtol=1e-4)
    assert metric(images, images).tolist() == [0, 0, 0]

    with pytest.raises(ValueError, match="no image was scored"):
        metric.rows()
    for part in (slice(0, 1), slice(1, 3)):
        metric.update(images[part], reconstructions[part])
    row = metric.rows()["rec/lpips"]
    assert row["value"] == pytest.approx(expected.mean().item(), rel=1e-4)
    assert row["n"] == 3
    with pytest.raises(ValueError, match="at least 32x32"):
        metric(images[..., :16, :16], images[..., :16, :16])
    with pytest.raises(ValueError, match="one shape for both"):
        metric(images, images[:1])
