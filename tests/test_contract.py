"""Every tokenizer yaml keeps the contract: published sizes by shape on the meta device, nano sizes for real."""

import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from tessella.tokenizers.base import ImageTokenizer, VisionEncoder

CONF = Path(__file__).parents[1] / "conf"


def config_names(folder: Path) -> list[str]:
    """Names of the yaml files that stand for themselves (those with ??? need a trained run)."""
    files = sorted(folder.glob("*.yaml"))
    return [
        str(file.relative_to(CONF / "tokenizer").with_suffix("")) for file in files if "???" not in file.read_text()
    ]


PUBLISHED = config_names(CONF / "tokenizer")
CPU_SIZES = [name for size in ("nano", "photo") for name in config_names(CONF / "tokenizer" / size)]


def build(name: str):
    with initialize_config_module("tessella.conf", version_base="1.3"):
        return instantiate(compose(overrides=[f"+tokenizer={name}"]).tokenizer)


def check_contract(tokenizer: ImageTokenizer | VisionEncoder, device: str) -> None:
    images = torch.rand(2, 3, tokenizer.image_size, tokenizer.image_size, device=device)
    assert tokenizer.features(images).shape == (2, tokenizer.num_features, tokenizer.feature_dim)
    if isinstance(tokenizer, VisionEncoder):
        return
    encoding = tokenizer.encode(images)
    assert encoding.latents.shape == (2, tokenizer.num_latents, tokenizer.latent_dim)
    assert tokenizer.decode(encoding.latents).shape == images.shape
    if tokenizer.vocab_size is None:
        assert encoding.ids is None
        assert tokenizer.bits_per_image is None
        return
    ids = encoding.ids
    assert ids is not None
    assert ids.shape == (2, tokenizer.num_tokens)
    assert ids.dtype == torch.int64
    assert tokenizer.bits_per_image == pytest.approx(tokenizer.num_tokens * math.log2(tokenizer.vocab_size))
    assert tokenizer.dequantize(ids).shape == encoding.latents.shape
    shortest = tokenizer.dequantize(ids[:, : tokenizer.min_tokens])
    assert tokenizer.decode(shortest).shape == images.shape
    predicted = tokenizer.num_tokens - tokenizer.step_lengths[0]  # the ids of all steps but the first need inputs
    assert tokenizer.step_inputs(ids).shape == (2, predicted, tokenizer.latent_dim)
    if device != "meta":
        assert torch.equal(tokenizer.dequantize(ids), encoding.latents)
        assert 0 <= int(ids.min()) <= int(ids.max()) < tokenizer.vocab_size
        pictures = tokenizer.decode(encoding.latents)
        assert 0 <= pictures.min() <= pictures.max() <= 1


def test_there_is_something_to_check():
    assert {"vq16", "chameleon", "siglip", "janus"} <= set(PUBLISHED)
    assert {"nano/vq", "nano/siglip", "nano/decoupled"} <= set(CPU_SIZES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_keeps_the_contract(name):
    with torch.device("meta"), torch.no_grad():
        check_contract(build(name).eval(), "meta")


@pytest.mark.parametrize("name", CPU_SIZES)
def test_cpu_config_keeps_the_contract(name):
    torch.manual_seed(0)
    with torch.no_grad():
        check_contract(build(name).eval(), "cpu")


@pytest.mark.parametrize(
    ("name", "part", "count"),
    [
        ("vq16", "", 71_883_403),
        ("vq16", "encoder", 29_298_176),
        ("vq16", "decoder", 42_449_795),
        ("vq8", "", 70_109_835),
        ("vq8", "encoder", 28_559_232),
        ("vq8", "decoder", 41_415_171),
        ("chameleon", "", 68_718_467),
        ("maskgit_vqgan", "encoder", 23_775_104),
        ("maskgit_vqgan", "decoder", 30_478_339),
        ("janus", "generation", 71_883_403),
        ("emu3", "", 270_740_287),
        ("tokenflow_b_256", "", 376_569_643),
        ("tokenflow_b_256", "pixel_encoder", 29_298_176),
        ("tokenflow_b_256", "pixel_decoder", 237_117_187),
        ("tokenflow_b", "pixel_decoder", 42_449_795),
        ("tokenflow_xl", "", 554_009_963 - 30_480_160),  # without layers that nothing reads: test_official_tokenflow.py
        ("titok_s128", "", 83_674_639),
        ("titok_s128", "decoder.head.renderer", 30_478_339),
        ("titok_b64", "", 204_814_095),
        ("titok_l32", "", 641_054_735),
        ("titok_bl64_vq", "", 390_016_148),
        ("titok_sl256_vq", "", 330_260_884),
        ("one_d_piece_s256", "", 83_871_247),
        ("one_d_piece_b256", "", 205_256_463),
        ("one_d_piece_l256", "", 641_742_863),
    ],
)
def test_parameters_are_as_published(name, part, count):
    with torch.device("meta"):
        module = build(name).get_submodule(part)
    assert sum(parameter.numel() for parameter in module.parameters()) == count
