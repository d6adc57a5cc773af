"""`tessella convert`: official files become folders that work like trained runs, and come back bit for bit."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file

from tessella.experiments import hub, systems
from tessella.experiments.cli import config_groups
from tessella.experiments.compose import compose_config
from tessella.tokenizers.checkpoints import export_weights, official_names

from .image_files import fill_folder

VIT = {"width": 32, "layers": 1, "heads": 4}
ONE_D = {
    "image_size": 16,
    "patch_size": 4,
    "encoder": VIT,
    "decoder": VIT,
    "num_latent_tokens": 6,
    "token_size": 6,
    "codebook_size": 40,
    "use_l2_norm": True,
    "proxy_codebook_size": 32,
    "pixel_vqgan": {
        "codebook_size": 32, "z_channels": 8, "hidden_channels": 32, "channel_mult": [1, 1, 2],
        "num_res_blocks": 1, "resolution": 16, "num_resolutions": 3, "num_channels": 3, "dropout": 0.0,
    },
}  # fmt: skip
# A tiny official configuration for each system.
TINY = {
    "chameleon": {
        "embed_dim": 6, "n_embed": 30, "norm_num_groups": 2,
        "ddconfig": {
            "double_z": False, "z_channels": 10, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 8,
            "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16], "dropout": 0.0,
        },
    },
    "emu3": {
        "codebook_size": 30, "embed_dim": 4, "z_channels": 4, "double_z": False, "in_channels": 3, "out_channels": 3,
        "temporal_downsample_factor": 2, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [1],
        "dropout": 0.0,
    },
    "llamagen": {
        "ch": 8, "norm_num_groups": 4, "num_res_blocks": 1, "encoder_ch_mult": [1, 2], "decoder_ch_mult": [1, 2],
        "z_channels": 16, "codebook_size": 48, "codebook_embed_dim": 8,
    },
    "maskgit_vqgan": {
        "codebook_size": 40, "z_channels": 8, "hidden_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1,
        "resolution": 16, "num_resolutions": 2, "num_channels": 3, "dropout": 0.0, "commitment_cost": 0.25,
    },
    "one_d_piece": {**ONE_D, "strict_length_assertion": False},
    "siglip": {
        "arch": {"image_size": 16, "patch_size": 4, "width": 32, "layers": 2, "heads": 4, "mlp_ratio": 4},
        "select_layer": -1,
    },
    "titok": ONE_D,
    "tokenflow": {
        "teacher": "clipb_224", "embed_dim": 24, "teacher_dim": 20, "sem_dec_heads": 4, "sem_dec_depth": 2,
        "pixel_stride": 4, "grid_native": 4, "image_size": 16, "ch": 32, "num_res_blocks": 1,
        "encoder_ch_mult": [2, 1, 1], "decoder_ch_mult": [2, 1, 1], "z_channels": 16, "codebook_size": 96,
        "codebook_embed_dim": 3, "semantic_code_dim": 6, "sem_enc_layers": 2, "sem_enc_heads": 3, "sem_enc_mlp": 40,
        "scales": [1, 2, 3, 4], "infer_interpolate": False, "run_image_size": 16,
    },
}  # fmt: skip
TOKENIZERS = sorted(set(systems.system_names()) - {"siglip"})


def small(name: str) -> list[str]:
    """The image size, for the systems whose configuration leaves it open (and which are large by themselves)."""
    free = "image_size" in inspect.signature(systems.system(name).from_official_config).parameters
    return ["image_size=16"] if free else []


def official_state(name: str) -> dict[str, torch.Tensor]:
    """What a release of this system would hold, with random weights."""
    torch.manual_seed(0)
    module = systems.system(name).from_official_config(TINY[name]).eval()
    state = {
        key: value.clone()
        for key, value in export_weights(module, next(iter(systems.layouts(name, module).values()))).items()
    }
    return {key: torch.rand_like(value) * 0.1 if value.is_floating_point() else value for key, value in state.items()}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def release(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """An official folder: weights and configuration."""
    folder.mkdir()
    state = official_state(name)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TINY[name]))
    return state


def assert_same(actual: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert actual[key].dtype == tensor.dtype, key
        assert torch.equal(actual[key], tensor), key


def test_every_system_has_a_tiny_configuration_here():
    assert set(systems.system_names()) <= TINY.keys()


@pytest.mark.parametrize("name", systems.system_names())
def test_official_to_ours_to_official_is_exact(name, place, tessella):
    state = release(place / "release", name)
    there = tessella("convert", name, "release", "runs/imported", *small(name))
    assert there.code == 0, there.err
    assert there.last_line == "runs/imported"
    assert systems.system(name).LICENCE in there.out
    assert "parameters" in there.out
    record = json.loads((place / "runs/imported/run.json").read_text())
    assert record["status"] == "finished"
    assert record["command"] == " ".join(["tessella convert", name, "release runs/imported", *small(name)])
    assert record["imported"]["files"][0]["name"] == "model.safetensors"
    assert sum(record["parameters"].values()) > 1000
    back = tessella("convert", name, "runs/imported", "back/model.safetensors")
    assert back.code == 0, back.err
    assert back.last_line == "back/model.safetensors"
    assert_same(load_file("back/model.safetensors"), state)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_imported_tokenizer_reconstructs(name, place, tessella):
    release(place / "release", name)
    assert tessella("convert", name, "release", "runs/imported", *small(name)).code == 0
    fill_folder(place / "photos", 1)
    outcome = tessella("reconstruct", "photos/000.png", "run=runs/imported")
    assert outcome.code == 0, outcome.err
    assert "PSNR" in outcome.out


def test_an_imported_tokenizer_is_measured_on_the_data_one_names(place, tessella, tiny):
    release(place / "release", "llamagen")
    assert tessella("convert", "llamagen", "release", "runs/vq", "image_size=32").code == 0
    settings = [override for override in tiny if override.startswith("evaluation.")]
    unnamed = tessella("evaluate", "run=runs/vq", *settings)
    assert unnamed.code == 2
    assert "data=folder data.train=photos" in unnamed.err
    fill_folder(place / "photos", 60)
    outcome = tessella("evaluate", "run=runs/vq", "data=folder", "data.train=photos", *settings)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((place / "runs/vq/metrics.json").read_text())["metrics"]
    assert metrics["rec/psnr"]["n"] > 0
    again = tessella("evaluate", "run=runs/vq", *settings)  # on the same data
    assert again.code == 0, again.err
    assert json.loads((place / "runs/vq/metrics.json").read_text())["metrics"] == metrics
    report = tessella("report", "run=runs/vq")
    assert report.code == 0, report.err


def test_an_imported_tokenizer_is_read_and_written_by_a_unified_model(workshop, tessella, tiny):
    release(workshop / "release", "llamagen")
    release(workshop / "tower", "siglip")
    assert tessella("convert", "llamagen", "release", "runs/imported", "image_size=16").code == 0
    assert tessella("convert", "siglip", "tower", "runs/tower").code == 0
    pair = ["tokenizer.generation.folder=runs/imported", "tokenizer.understanding.folder=runs/tower"]
    outcome = tessella("train", *tiny, "phase=unified", "tokenizer=trained_pair", *pair, "out=runs/janus")
    assert outcome.code == 0, outcome.err
    assert json.loads((workshop / "runs/janus/run.json").read_text())["inputs"].keys() == {
        "generation",
        "understanding",
    }
    alone = tessella("evaluate", "run=runs/tower", "data=scenes")
    assert alone.code == 2
    assert "semantic encoder" in alone.err


def test_a_pickle_with_more_around_the_weights_and_tensors_without_use(place, tessella):
    state = official_state("llamagen") | {"quantize.codebook_used": torch.zeros(7)}
    torch.save({"model": state, "steps": 3}, place / "mine.pt")
    (place / "mine.json").write_text(json.dumps(TINY["llamagen"]))
    outcome = tessella("convert", "llamagen", "mine.pt", "runs/vq")
    assert outcome.code == 0, outcome.err
    assert "1 (quantize.codebook_used) without use" in outcome.out
    assert load_file("runs/vq/unused.safetensors").keys() == {"quantize.codebook_used"}
    assert tessella("convert", "llamagen", "runs/vq", "back.safetensors").code == 0
    assert_same(load_file("back.safetensors"), state)


def test_chameleon_keeps_its_configuration_beside_its_weights(place, tessella):
    state = official_state("chameleon")
    torch.save({"state_dict": state}, place / "vqgan.ckpt")
    params = {**TINY["chameleon"], "lossconfig": {"target": "some.Loss", "params": {"disc_start": 1}}}
    (place / "vqgan.yaml").write_text(json.dumps({"model": {"target": "some.VQModel", "params": params}}))
    outcome = tessella("convert", "chameleon", "vqgan.ckpt", "ours", "image_size=16")
    assert outcome.code == 0, outcome.err
    assert "by vqgan.yaml" in outcome.out
    assert tessella("convert", "chameleon", "ours", "back.safetensors").code == 0
    assert_same(load_file("back.safetensors"), state)


def test_half_precision_stays_half_precision(place, tessella):
    state = release(place / "release", "siglip")
    half = {key: tensor.bfloat16() for key, tensor in state.items()}
    save_file(half, place / "release/model.safetensors")
    assert tessella("convert", "siglip", "release", "tower").code == 0
    assert tessella("convert", "siglip", "tower", "back.safetensors").code == 0
    assert_same(load_file("back.safetensors"), half)
    save_file({key: tensor.double() / 3 for key, tensor in state.items()}, place / "release/model.safetensors")
    lossy = tessella("convert", "siglip", "release", "other")
    assert lossy.code == 2
    assert "cannot hold exactly" in lossy.err


def test_transformers_files_go_back_as_transformers_files(place, tessella):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 48}
    SiglipVisionModel(SiglipVisionConfig(**sizes, num_attention_heads=4)).save_pretrained(place / "tower")
    there = tessella("convert", "siglip", "tower", "ours")
    assert there.code == 0, there.err
    assert tessella("convert", "siglip", "ours", "back.safetensors").code == 0
    assert_same(load_file("back.safetensors"), load_file("tower/model.safetensors"))


OURS = [
    (system, option)
    for option in config_groups()["tokenizer"]
    for system in systems.system_names()
    if option in (system, systems.USUAL.get(system), {"llamagen": "vq8"}.get(system)) or option.startswith(f"{system}_")
]


@pytest.mark.parametrize(("name", "option"), OURS)
def test_every_published_yaml_has_an_official_layout(name, option):
    with torch.device("meta"):
        module = instantiate(compose_config("train", [f"tokenizer={option}"]).tokenizer)
    for layout in systems.layouts(name, module).values():
        assert official_names(module, layout)


def test_our_own_yaml_gives_the_sizes(place, tessella):
    state = official_state("llamagen")
    save_file(state, place / "vq.safetensors")
    sizes = [
        f"{key}tokenizer.{side}.{name}={value}"
        for side in ("encoder", "decoder")
        for key, name, value in (
            ("", "channels", 8), ("", "channel_multipliers", "[1,2]"), ("", "num_res_blocks", 1),
            ("", "attention_levels", "[1]"), ("", "z_channels", 16), ("++", "num_groups", 4),
        )
    ]  # fmt: skip
    sizes += ["tokenizer.quantizer.codebook_size=48", "tokenizer.image_size=32"]
    there = tessella("convert", "llamagen", "vq.safetensors", "ours", "tokenizer=vq16", *sizes)
    assert there.code == 0, there.err
    assert "codebook_size: 48" in (place / "ours/model.yaml").read_text()
    assert tessella("convert", "llamagen", "ours", "back.safetensors").code == 0
    assert_same(load_file("back.safetensors"), state)


def test_a_hub_that_does_not_answer_is_told_with_what_to_do(place, tessella, monkeypatch):
    import huggingface_hub

    class Unreachable(Exception):
        """Like the errors of the hub's HTTP library, which are no OSError."""

    def no_answer(self, name):
        raise Unreachable("connection refused")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", no_answer)
    outcome = tessella("convert", "llamagen", "hub:someone/vq", "runs/vq")
    assert outcome.code == 2
    assert "Without the network: download its file of weights" in outcome.err


def test_a_hub_id_is_fetched_with_its_configuration(place, tessella, monkeypatch):
    import huggingface_hub

    release(place / "hub", "llamagen")
    fetched = []

    def download(repository: str, file: str) -> str:
        fetched.append((repository, file))
        return str(place / "hub" / file)

    monkeypatch.setattr(
        huggingface_hub.HfApi, "list_repo_files", lambda self, name: ["model.safetensors", "config.json"]
    )
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    outcome = tessella("convert", "llamagen", "hub:someone/vq", "runs/vq")
    assert outcome.code == 0, outcome.err
    assert fetched == [("someone/vq", "model.safetensors"), ("someone/vq", "config.json")]
    assert json.loads((place / "runs/vq/run.json").read_text())["imported"]["given"] == "hub:someone/vq"


def test_a_hub_id_with_several_files_of_weights_asks_for_one():
    assert hub.weights_among(["a.bin", "b.pt", "c.safetensors"], "hub:o/n") == ["c.safetensors"]
    assert hub.weights_among(["w-00001-of-00002.bin", "w-00002-of-00002.bin"], "hub:o/n")[1] == "w-00002-of-00002.bin"
    with pytest.raises(ValueError, match=r"holds 2 files of weights; name one: hub:o/n/a\.pt, hub:o/n/b\.pt"):
        hub.weights_among(["a.pt", "b.pt", "README.md"], "hub:o/n")
    with pytest.raises(ValueError, match="no file of weights"):
        hub.weights_among(["README.md"], "hub:o/n")
