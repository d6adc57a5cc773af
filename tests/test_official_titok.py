"""TiTok and One-D-Piece as published: our yaml files, configurations, key names."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from tessella.tokenizers import official_one_d_piece, official_titok
from tessella.tokenizers.checkpoints import export_weights, import_weights
from tessella.tokenizers.one_d_vae import OneDVAE
from tessella.tokenizers.titok_stages import ProxyStage

CONF = Path(__file__).parents[1] / "conf" / "tokenizer"
YAMLS = sorted(file.stem for pattern in ("titok_*", "one_d_piece_*") for file in CONF.glob(f"{pattern}.yaml"))


def published(name):
    """The official configuration of one of our yaml files, as its release writes it."""
    letters = {"s": "small", "b": "base", "l": "large"}
    size = name.split("_")[1 if name.startswith("titok") else 3]
    sides = size.rstrip("0123456789")
    is_vae, is_single = name.endswith("_vae"), name.endswith(("_vae", "_vq"))
    model = {
        "vit_enc_model_size": letters[sides[0]],
        "vit_dec_model_size": letters[sides[-1]],
        "vit_enc_patch_size": 16,
        "vit_dec_patch_size": 16,
        "num_latent_tokens": int(size[len(sides) :]),
    }
    if is_vae:
        model |= {"quantize_mode": "vae", "token_size": 16}
    else:
        model |= {"codebook_size": 8192 if is_single else 4096, "token_size": 64 if is_single else 12}
        model |= {"use_l2_norm": not is_single, "commitment_cost": 0.25}
    if is_single:
        model |= {"finetune_decoder": False, "is_legacy": False}
    if name.startswith("one_d_piece"):
        model |= {"strict_length_assertion": False}
    return {"model": {"vq_model": model}, "dataset": {"preprocessing": {"crop_size": 256}}}


@pytest.mark.parametrize("name", YAMLS)
def test_our_yaml_is_the_published_configuration(name):
    system = official_one_d_piece if name.startswith("one_d_piece") else official_titok
    with torch.device("meta"):
        official = system.from_official_config(published(name))
        with initialize_config_module("tessella.conf", version_base="1.3"):
            ours = instantiate(compose(overrides=[f"+tokenizer={name}"]).tokenizer)
    assert type(ours) is type(official)
    assert str(ours) == str(official)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in official.state_dict().items()}
    assert ours.encoder.legacy_reshape == official.encoder.legacy_reshape
    assert (ours.image_size, ours.min_tokens) == (official.image_size, official.min_tokens)
    assert getattr(ours, "tail_drop", None) == getattr(official, "tail_drop", None)
    if not isinstance(ours, OneDVAE):
        assert ours.quantizer.normalize == official.quantizer.normalize


def test_bare_files_are_known_by_name():
    with torch.device("meta"):
        for name, config in official_titok.PUBLISHED.items():
            module = official_titok.from_official_config(config)
            assert str(module.num_tokens) in name
    assert official_titok.loss_terms(config) == {"commitment": 0.25, "codebook": 1.0}
    assert official_titok.loss_terms({"quantize_mode": "vae"}) == {"kl": 1e-6}


TINY = {
    "image_size": 8,
    "patch_size": 2,
    "encoder": {"width": 12, "layers": 1, "heads": 2},
    "decoder": {"width": 12, "layers": 1, "heads": 2},
    "num_latent_tokens": 6,
    "token_size": 4,
    "codebook_size": 16,
    "use_l2_norm": True,
}


class Proxy(torch.nn.Module):
    """Stands in for a trained tokenizer: something with weights, and codes for a 4 x 4 grid."""

    image_size, vocab_size, num_tokens = 8, 10, 16

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))


def test_stage_one_with_a_proxy_has_the_official_keys_of_one_without():
    bare = official_titok.from_official_config(TINY | {"finetune_decoder": False, "proxy_codebook_size": 10})
    full = ProxyStage(bare.encoder, bare.quantizer, bare.decoder, proxy=Proxy())
    official = {key: value + 1 for key, value in export_weights(bare, official_titok.layout(bare)).items()}
    checkpoint = {"ema": official, "model": {}}
    assert import_weights(full, official_titok.unwrap(checkpoint), official_titok.layout(full)) == {}
    exported = export_weights(full, official_titok.layout(full))
    assert exported.keys() == official.keys()
    assert all(torch.equal(exported[key], value) for key, value in official.items())


def test_clustering_and_bare_state_dicts_are_read():
    config = TINY | {"finetune_decoder": False, "is_legacy": False, "clustering_vq": True}
    module = official_titok.from_official_config(config)
    official = export_weights(module, official_titok.layout(module))
    assert "quantize.embed_prob" in official
    assert official_titok.unwrap(official) is official
    import_weights(module, official, official_titok.layout(module))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantize_mode": "fsq"}, "'vq' or 'vae'"),
        ({"is_legacy": False}, "two stages go with is_legacy true"),
        ({"quantize_mode": "vae", "finetune_decoder": False}, "one stage with"),
    ],
)
def test_configurations_without_a_model_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        official_titok.from_official_config(TINY | change)


def test_one_d_piece_refuses_configurations_of_titok():
    with pytest.raises(ValueError, match="strict_length_assertion: false"):
        official_one_d_piece.from_official_config(TINY)


@pytest.mark.parametrize(
    ("name", "value", "says"), [("num_tokens", 4, "4 codes an image"), ("vocab_size", 9, "9 codes")]
)
def test_a_proxy_that_does_not_fit_the_decoder_is_refused(name, value, says):
    bare = official_titok.from_official_config(TINY | {"finetune_decoder": False, "proxy_codebook_size": 10})
    proxy = Proxy()
    setattr(proxy, name, value)
    with pytest.raises(ValueError, match=says):
        ProxyStage(bare.encoder, bare.quantizer, bare.decoder, proxy=proxy)
