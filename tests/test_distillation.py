"""A tokenizer with semantic codes learns from a frozen teacher, which stays outside of it."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tessella.experiments.compose import compose_config
from tessella.experiments.distillation import Distillation
from tessella.experiments.study import plan_stages
from tessella.experiments.train import plan
from tessella.metrics.semantic import FeatureAgreement
from tessella.tokenizers.base import VisionEncoder
from tessella.tokenizers.cnn_light import LightDecoder, LightEncoder
from tessella.tokenizers.quantizers.dual import DualQuantizer
from tessella.tokenizers.semantic_light import LightSemanticDecoder, LightVisionEncoder
from tessella.tokenizers.siglip_small import SmallSigLIP
from tessella.tokenizers.tokenflow import TokenFlow

FLOW = ("tokenizer=nano/tokenflow", "teacher=runs/siglip", "warm_start=runs/siglip")
FROZEN = "recipe.tokenizer.frozen=[semantic_encoder]"


class MeanColors(VisionEncoder):
    """The mean color of every 4 x 4 patch: a teacher whose features are known."""

    def __init__(self, image_size: int, feature_dim: int = 3):
        super().__init__()
        self.image_size, self.feature_dim, self.num_features = image_size, feature_dim, (image_size // 4) ** 2
        self.gain = torch.nn.Parameter(torch.ones(()))

    def features(self, images: Tensor) -> Tensor:
        return self.gain * F.avg_pool2d(images, 4).flatten(2).transpose(1, 2)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def towers() -> dict:
    return {"patch_size": 4, "widths": (8, 8), "num_blocks": (1, 1)}


def token_flow(feature_dim: int = 3) -> TokenFlow:
    """16 px images, a grid of 2 x 2 cells."""
    torch.manual_seed(0)
    return TokenFlow(
        LightVisionEncoder(image_size=16, **towers()),
        LightEncoder(**towers()),
        DualQuantizer(8, 4, 4),
        LightDecoder(in_channels=4, **towers()),
        LightSemanticDecoder(in_dim=4, feature_dim=feature_dim, width=8, num_blocks=1),
    )


def small_siglip(**changes) -> SmallSigLIP:
    sizes = {"image_size": 16, "embedding_dim": 8, "text_dim": 8, "text_layers": 1, "max_words": 4, **towers()}
    return SmallSigLIP(**(sizes | changes))


# Parts ----------------------------------------------------------------------------------------------------------------


def test_a_light_encoder_that_starts_from_a_siglip_gives_its_features():
    torch.manual_seed(0)
    siglip, encoder, images = small_siglip(), LightVisionEncoder(image_size=16, **towers()), torch.rand(2, 3, 16, 16)
    assert not torch.equal(encoder.features(images), siglip.features(images))
    encoder.start_from(siglip)
    assert torch.equal(encoder.features(images), siglip.features(images))


@pytest.mark.parametrize("changes", [{"num_blocks": (1, 2)}, {"num_blocks": (0, 1)}, {"widths": (8, 16)}])
def test_a_light_encoder_starts_from_equal_sizes_alone(changes):
    with pytest.raises(ValueError, match="same patch_size, widths and num_blocks"):
        LightVisionEncoder(image_size=16, **towers()).start_from(small_siglip(**changes))


def test_a_light_encoder_needs_whole_cells():
    with pytest.raises(ValueError, match="image_size=20 does not divide into 8x8 cells"):
        LightVisionEncoder(image_size=20, **towers())


@pytest.mark.parametrize(("num_blocks", "far"), [(0, False), (1, True)])
def test_blocks_let_the_semantic_decoder_see_neighboring_codes(num_blocks, far):
    torch.manual_seed(0)
    decoder = LightSemanticDecoder(in_dim=4, feature_dim=5, width=8, num_blocks=num_blocks)
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter)
    codes = torch.randn(2, 9, 4)
    changed = codes.clone()
    changed[:, 4] += 1
    one, other = decoder(codes), decoder(changed)
    assert one.shape == (2, 9, 5)
    assert not torch.equal(one[:, 4], other[:, 4])
    assert torch.equal(one[:, 3], other[:, 3]) != far


# Teacher --------------------------------------------------------------------------------------------------------------


def test_targets_are_the_features_of_the_teacher_at_each_cell():
    images = torch.rand(2, 3, 16, 16)
    coarse = F.avg_pool2d(images, 8).flatten(2).transpose(1, 2)  # (2, 4, 3)
    distillation = Distillation(MeanColors(16), token_flow())  # 4 x 4 features for 2 x 2 cells
    torch.testing.assert_close(distillation.targets(images), coarse)
    smaller = Distillation(MeanColors(8), token_flow())
    resized = F.interpolate(images, (8, 8), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(smaller.targets(images), smaller.teacher.features(resized))


def test_the_loss_compares_cell_by_cell_and_trains_the_tokenizer_alone():
    tokenizer, images = token_flow(), torch.rand(2, 3, 16, 16)
    distillation = Distillation(MeanColors(16), tokenizer)
    tokenizer.train()
    latents = tokenizer.encode(images).latents
    loss = distillation.loss(images, latents)
    decoded, targets = tokenizer.semantic_decode(latents), distillation.targets(images)
    pairs = zip(decoded.flatten(0, 1), targets.flatten(0, 1), strict=True)
    torch.testing.assert_close(loss, 1 - torch.stack([a @ b / (a.norm() * b.norm()) for a, b in pairs]).mean())
    loss.backward()
    assert distillation.teacher.gain.grad is None
    assert not distillation.teacher.training
    trained = {name.split(".")[0] for name, p in tokenizer.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"semantic_decoder", "to_semantic", "semantic_encoder"}
    distillation.check_frozen()
    with torch.no_grad():
        distillation.teacher.gain.add_(1)
    with pytest.raises(RuntimeError, match="frozen weights moved during training: gain"):
        distillation.check_frozen()


def test_a_teacher_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"set tokenizer.semantic_decoder.feature_dim=3\."):
        Distillation(MeanColors(16), token_flow(feature_dim=5))
    teacher = MeanColors(16)
    teacher.num_features = 15
    with pytest.raises(ValueError, match="gives 15 features per image"):
        Distillation(teacher, token_flow())


def test_agreement_is_the_mean_cosine_and_its_floor_that_of_the_best_constant():
    torch.manual_seed(0)
    decoded, targets = torch.randn(5, 4, 3), torch.randn(5, 4, 3) + 1
    agreement = FeatureAgreement()
    for part in (slice(0, 2), slice(2, 5)):
        agreement.update(decoded[part], targets[part])
    (row,) = agreement.rows().values()
    expected = F.cosine_similarity(decoded, targets, dim=-1).mean()
    assert row["value"] == pytest.approx(float(expected), abs=1e-6)
    assert row["n"] == 5
    units = F.normalize(targets, dim=-1)
    best = F.normalize(units.mean(0), dim=-1)  # (4, 3)
    assert row["floor"] == pytest.approx(float((units * best).sum(-1).mean()), abs=1e-6)
    with pytest.raises(ValueError, match="both must be"):
        agreement.update(decoded, targets[:, :2])
    with pytest.raises(ValueError, match="at least one image"):
        FeatureAgreement().rows()


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flow(trained, tiny, tmp_path_factory) -> Path:
    """A working folder with the usual runs and runs/flow, a TokenFlow taught by runs/siglip; never written to."""
    import os

    from tessella.experiments import cli

    folder = tmp_path_factory.mktemp("flow")
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    before = os.getcwd()
    os.chdir(folder)
    try:
        cli.main(["train", *tiny, *FLOW, FROZEN, "out=runs/flow"])
    finally:
        os.chdir(before)
    return folder


def test_the_teacher_is_no_part_of_the_tokenizer_and_stays_as_it_was(flow, trained):
    weights = load_file(flow / "runs/flow/weights.safetensors")
    assert {name.split(".")[0] for name in weights} == {
        "semantic_encoder", "to_semantic", "pixel_encoder", "to_pixel", "quantizer", "from_pixel", "pixel_decoder",
        "semantic_decoder",
    }  # fmt: skip
    assert "runs" not in (flow / "runs/flow/model.yaml").read_text()
    before, after = (folder / "runs/siglip/weights.safetensors" for folder in (trained, flow))
    assert before.read_bytes() == after.read_bytes()


def test_a_frozen_semantic_encoder_keeps_the_weights_it_started_from(flow):
    weights, siglip = (load_file(flow / f"runs/{name}/weights.safetensors") for name in ("flow", "siglip"))
    kept = [name for name in weights if name.startswith("semantic_encoder.")]
    assert kept
    for name in kept:
        assert torch.equal(weights[name], siglip[name.removeprefix("semantic_encoder.")])


def test_a_taught_run_says_what_it_learned_and_from_whom(flow):
    record = read(flow / "runs/flow/run.json")
    teacher = read(flow / "runs/siglip/run.json")["fingerprint"]
    assert record["inputs"]["teacher"]["fingerprint"] == record["inputs"]["warm_start"]["fingerprint"] == teacher
    row = read(flow / "runs/flow/metrics.json")["metrics"]["sem/cosine"]
    assert -1 <= row["value"] <= 1
    assert 0 < row["floor"] <= 1
    with open(flow / "runs/flow/curves.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len([row for row in rows if row["train/loss/semantic"]]) == 4
    assert any(row["val/sem/cosine"] for row in rows)


def test_a_taught_tokenizer_needs_its_teacher_neither_to_run_nor_to_be_measured(flow, tessella, tmp_path, monkeypatch):
    shutil.copytree(flow, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    options = ("evaluation.num_images=8", "evaluation.distances=false", "evaluation.pictures=4")
    before = read(Path("runs/flow/metrics.json"))["metrics"]["sem/cosine"]["value"]
    assert tessella("evaluate", "run=runs/flow", *options).code == 0
    assert read(Path("runs/flow/metrics.json"))["metrics"]["sem/cosine"]["value"] == pytest.approx(before, abs=1e-6)
    config = Path("runs/flow/config.yaml")
    config.write_text(config.read_text().replace(str(flow), "gone"))
    outcome = tessella("evaluate", "run=runs/flow", *options)
    assert outcome.code == 0, outcome.err
    found = read(Path("runs/flow/metrics.json"))
    assert "rec/psnr" in found["metrics"]
    assert "sem/cosine" not in found["metrics"]
    assert "gone" in found["absent"]["sem/cosine"]


def test_a_taught_run_continues_from_a_checkpoint_without_its_teacher(flow, workshop, tessella, tiny, monkeypatch):
    def die(*_: object) -> str:
        raise KeyboardInterrupt

    command = ["train", *tiny, *FLOW, FROZEN, "trainer.checkpoint_seconds=0", "out=again"]
    with monkeypatch.context() as patch:
        patch.setattr("tessella.experiments.build.save_weights", die)
        assert tessella(*command).code == 130
    state = torch.load("again/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in state if "teacher" in name or ".text." in name]
    assert tessella(*command).code == 0
    whole, again = (load_file(folder / "weights.safetensors") for folder in (flow / "runs/flow", Path("again")))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("change", [["teacher=runs/other"], ["warm_start=runs/other"], ["recipe.tokenizer.frozen=[]"]])
def test_teacher_start_and_frozen_parts_decide_the_fingerprint(change, workshop, tiny):
    shutil.copytree("runs/siglip", "runs/other")
    record = read(Path("runs/other/run.json")) | {"weights": "others"}
    Path("runs/other/run.json").unlink()
    Path("runs/other/run.json").write_text(json.dumps(record))
    usual, changed = (plan(compose_config("train", [*tiny, *FLOW, FROZEN, *more])) for more in ([], change))
    assert usual.fingerprint != changed.fingerprint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tokenizer=nano/tokenflow"], "give teacher=<run folder of a semantic encoder>"),
        (["teacher=runs/siglip"], "VQTokenizer has no semantic decoder"),
        ([*FLOW, "teacher=runs/vq"], "teacher is a VQTokenizer; needed is a vision encoder"),
        ([*FLOW, "warm_start=runs/vq"], "runs/vq holds a VQTokenizer, from which TokenFlow cannot start"),
        (["warm_start=runs/siglip"], "from which VQTokenizer cannot start"),
        ([*FLOW, "recipe.tokenizer.frozen=[semantic]"], "the parts of TokenFlow are semantic_encoder, to_semantic"),
        ([*FLOW, "tokenizer.semantic_decoder.feature_dim=8"], "set tokenizer.semantic_decoder.feature_dim=64"),
    ],
)
def test_a_wrong_teacher_or_start_is_one_sentence(arguments, words, workshop, tessella, tiny):
    outcome = tessella("train", *tiny, *arguments, "out=runs/wrong")
    assert outcome.code == 2
    assert words in outcome.notes[-1]


def test_a_teacher_by_name_teaches_a_larger_grid_to_a_smaller(workshop, tessella, tiny):
    """Any vision encoder of conf/tokenizer: here SigLIP's tower with sizes of this test and random weights."""
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "mlp_size": 16}
    outcome = tessella(
        "train", *tiny, "tokenizer=nano/tokenflow", "tokenizer@teacher=siglip",
        *(f"teacher.{key}={value}" for key, value in sizes.items()),
        "tokenizer.semantic_decoder.feature_dim=16", "out=runs/named",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert read(Path("runs/named/run.json"))["inputs"] == {}
    assert "sem/cosine" in read(Path("runs/named/metrics.json"))["metrics"]


# Designs --------------------------------------------------------------------------------------------------------------


def test_the_design_shares_its_teacher_and_its_variant_shares_the_pixels():
    cfg = compose_config("ablate", ["design=[single_vq,decoupled,tokenflow,tokenflow_pixel_only]"])
    planned = {design: seeds[0] for design, seeds in plan_stages(cfg).items()}
    assert planned["tokenflow"]["siglip"] is planned["decoupled"]["siglip"]
    assert planned["tokenflow_pixel_only"]["vq"] is planned["single_vq"]["vq"]
    stages = planned["tokenflow"]
    folders = {stages["siglip"]: "/runs/siglip", stages["tokenflow"]: "/runs/flow"}
    taught = stages["tokenflow"].train_overrides(folders)
    assert {"teacher='/runs/siglip'", "warm_start='/runs/siglip'", FROZEN} <= set(taught)
    assert "tokenizer.folder='/runs/flow'" in stages["unified"].train_overrides(folders)


def test_variant_and_design_have_the_same_pixel_parts():
    flow, pixels = (compose_config("train", [f"tokenizer=nano/{name}"]).tokenizer for name in ("tokenflow", "vq"))
    assert flow.pixel_encoder == pixels.encoder
    assert flow.pixel_decoder == pixels.decoder
    assert flow.quantizer.pixel_dim == pixels.quantizer.dim
    assert flow.quantizer.codebook_size == pixels.quantizer.codebook_size


def test_the_report_shows_agreement_with_the_teacher_and_its_floor(flow, tmp_path):
    from tessella.experiments.report import build_report

    shutil.copytree(flow / "runs/flow", tmp_path / "flow")
    page = build_report(tmp_path / "flow").read_text()
    assert "teacher cosine" in page
    results = read(tmp_path / "flow/report/results.json")["designs"]["flow"]["results"]
    (row,) = [row for row in results if row["name"] == "sem/cosine"]
    assert row["floor"] < 1
    assert row["better"] == "higher"
