"""Every command on tiny runs: what a user types works, from any folder, and leaves what the documentation says."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file

from .image_files import fill_folder

STEPS = ("recipe.tokenizer.steps=2", "recipe.siglip.steps=2", "recipe.unified.steps=2")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def times(folder: Path, name: str) -> dict[str, int]:
    """When each file of this name below a folder was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob(name)}


# train ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "metrics", "pictures"),
    [
        (
            "vq",
            {"rec/psnr", "rec/ssim", "rec/oracle/all", "codebook/usage"},
            {"originals": 64, "reconstructions": 64, "contributions": 64, "patches/8": 8},
        ),
        ("siglip", {"sem/retrieval"}, {}),
        (
            "unified",
            {"gen/oracle/all", "und/accuracy", "und/caption_bits_per_byte"},
            {"samples": 64, "questioned": 64},
        ),
    ],
)
def test_a_run_folder_holds_what_is_documented(run, metrics, pictures, trained):
    folder = trained / "runs" / run
    record = read(folder / "run.json")
    assert record["status"] == "finished"
    assert record["command"].startswith("tessella train ")
    assert record["steps"] == 4
    assert record["training_seconds"] > 0
    assert record["images_per_second"] > 0
    assert record["peak_memory_bytes"] > 1e8
    assert record["data"]["train_size"] == 64
    found = read(folder / "metrics.json")
    assert metrics <= found["metrics"].keys()
    assert all(row["n"] >= 1 for row in found["metrics"].values())
    assert all(isinstance(reason, str) for reason in found["absent"].values())
    saved = load_file(folder / "pictures.safetensors")
    assert saved.keys() == pictures.keys()
    for name, side in pictures.items():
        channels = 1 if name == "contributions" else 3
        assert saved[name].dtype == np.uint8
        assert saved[name].shape[1:] == (channels, side, side)
    with open(folder / "curves.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len([row for row in rows if row["train/loss"]]) == 4
    assert yaml.safe_load((folder / "config.yaml").read_text())["recipe"]
    assert not (folder / "checkpoints" / "last.ckpt").exists()
    assert not (folder / ".owner").exists()


def test_a_unified_run_names_the_runs_it_was_built_on(trained):
    inputs = read(trained / "runs/unified/run.json")["inputs"]
    assert inputs["generation"]["fingerprint"] == read(trained / "runs/vq/run.json")["fingerprint"]
    assert inputs["understanding"]["fingerprint"] == read(trained / "runs/siglip/run.json")["fingerprint"]
    assert read(trained / "runs/siglip/run.json")["inputs"].keys() == {"warm_start"}


def test_multirun_trains_one_run_for_each_seed(tessella, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = tessella("train", "--multirun", *tiny, *STEPS, "seed=0,1")
    assert outcome.code == 0, outcome.err
    records = [read(path) for path in tmp_path.glob("runs/tokenizer-*/run.json")]
    assert sorted(record["seed"] for record in records) == [0, 1]
    assert all("seed=0,1" in record["command"] for record in records)


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "ablate", "sample", "reconstruct", "ask", "convert", "report"]
)
def test_cfg_job_prints_the_configuration_and_runs_nothing(command, tessella, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = tessella(command, "--cfg", "job")
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load(outcome.out.replace("???", "null"))
    assert not list(tmp_path.iterdir())


def test_flags_and_overrides_come_in_any_order(tessella, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["--cfg", "job", "seed=3"], ["seed=3", "--cfg=job"], ["seed=3", "-c", "job", "--resolve"]):
        assert yaml.safe_load(tessella("train", *arguments).out)["seed"] == 3


# evaluate -------------------------------------------------------------------------------------------------------------


def test_evaluate_measures_again_with_its_own_settings(workshop, tessella, contents):
    before = contents(workshop)
    outcome = tessella("evaluate", "run=runs/vq", "evaluation.num_images=16", "evaluation.distances=false")
    assert outcome.code == 0, outcome.err
    assert outcome.last_line == "runs/vq"
    assert read(workshop / "runs/vq/metrics.json")["metrics"]["rec/psnr"]["n"] == 16
    after = contents(workshop)
    assert after["runs/vq/weights.safetensors"] == before["runs/vq/weights.safetensors"]
    assert {p: d for p, d in after.items() if "/vq/" not in p} == {p: d for p, d in before.items() if "/vq/" not in p}


def test_a_unified_run_stands_alone(workshop, tessella, tiny):
    """Its inputs may be gone: it is evaluated, sampled and asked from its own folder, moved elsewhere."""
    shutil.move(workshop / "runs/unified", workshop / "kept")
    shutil.rmtree(workshop / "runs")
    before = read(workshop / "kept/metrics.json")
    settings = [override for override in tiny if override.startswith("evaluation.")]
    assert tessella("evaluate", "run=kept", *settings).code == 0
    assert read(workshop / "kept/metrics.json") == before
    assert tessella("sample", "a red circle", "run=kept").code == 0


# sample, reconstruct, ask ---------------------------------------------------------------------------------------------


def test_sample_writes_every_image_and_a_grid(workshop, tessella):
    prompts = "prompt=[a red circle,'a blue square, at the top']"
    outcome = tessella("sample", prompts, "run=runs/unified", "num=2", "seed=5")
    assert outcome.code == 0, outcome.err
    files = [Path(line) for line in outcome.out.splitlines()]
    assert [file.name for file in files] == [
        "a-red-circle-seed5.png", "a-red-circle-seed6.png",
        "a-blue-square-at-the-top-seed5.png", "a-blue-square-at-the-top-seed6.png", "grid.png",
    ]  # fmt: skip
    images = [np.asarray(Image.open(file)) for file in files]
    assert [image.shape for image in images[:4]] == [(64, 64, 3)] * 4
    assert not np.array_equal(images[0], images[1])
    assert Image.open(files[0]).info["prompt"] == "a red circle"
    again = tessella("sample", "a red circle", "run=runs/unified", "seed=6", "out=again")
    assert np.array_equal(np.asarray(Image.open(Path(again.out.splitlines()[0]))), images[1])


@pytest.mark.parametrize(
    "prompt", ['a "red" circle, {big} [and] ${blue} = 50% größer', "it's 'quoted' \\ here", "a: b", "ends \\"]
)
def test_a_prompt_may_hold_any_character(prompt, workshop, tessella):
    outcome = tessella("sample", prompt, "run=runs/unified")
    assert outcome.code == 0, outcome.err
    assert Image.open(workshop / outcome.out.splitlines()[0]).info["prompt"] == prompt


def test_commands_work_from_any_folder_and_find_the_newest_run(workshop, tessella, monkeypatch):
    newest = tessella("sample", "a red circle")
    assert newest.code == 0, newest.err
    assert newest.notes == ["using runs/unified"]
    (workshop / "elsewhere").mkdir()
    monkeypatch.chdir(workshop / "elsewhere")
    named = tessella("sample", "a red circle", f"run={workshop / 'runs/unified'}")
    assert named.code == 0, named.err
    pictures = [Image.open(workshop / place / "samples/grid.png") for place in (".", "elsewhere")]
    assert np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))


@pytest.mark.parametrize("run", ["vq", "unified"])
def test_reconstruct_a_picture_and_a_folder(run, workshop, tessella):
    fill_folder(workshop / "photos", 3)
    single = tessella("reconstruct", "photos/001.png", f"run=runs/{run}")
    assert single.code == 0, single.err
    assert "PSNR" in single.out
    assert "64 tokens = 576 bits" in single.out
    whole = tessella("reconstruct", "photos", f"run=runs/{run}", "out=all")
    assert len(whole.out.splitlines()) == 3
    assert sorted(file.name for file in (workshop / "all").iterdir()) == ["000.png", "001.png", "002.png"]


def test_reconstruct_shows_the_original_beside_what_the_tokenizer_makes_of_it(workshop, tessella):
    """Left the picture as it was, colours and axes included."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:16, :, 0] = 250
    pixels[:, 48:, 1] = 200
    Image.fromarray(pixels).save(workshop / "photo.png")
    line = tessella("reconstruct", "photo.png", "run=runs/vq").out
    sheet = np.asarray(Image.open(workshop / line.split(":")[0]))
    scale = 256 // 64
    left = sheet[2 * scale : 66 * scale : scale, 2 * scale : 66 * scale : scale]
    assert np.array_equal(left, pixels)


@pytest.fixture
def ordered(workshop, monkeypatch):
    """runs/vq as a tokenizer whose leading rows of cells decode, the others empty."""
    from tessella.experiments import reconstruct

    load = reconstruct.load_tokenizer

    def load_ordered(folder):
        tokenizer = load(folder)
        kind = type(tokenizer)

        class Rows(kind):
            min_tokens = 8

            def dequantize(self, ids):
                latents = super().dequantize(ids)
                return torch.nn.functional.pad(latents, (0, 0, 0, self.num_latents - latents.shape[1]))

        tokenizer.__class__ = Rows
        tokenizer.step_lengths = (8,) * 8
        return tokenizer

    monkeypatch.setattr(reconstruct, "load_tokenizer", load_ordered)
    fill_folder(workshop / "photos", 2)
    return workshop


def test_reconstruct_from_few_tokens_stands_side_by_side(ordered, tessella):
    outcome = tessella("reconstruct", "photos/001.png", "tokenizer=runs/vq", "keep=8,32,64")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert [line.split("px, ")[1] for line in lines] == [
        "8 tokens = 72 bits", "32 tokens = 288 bits", "64 tokens = 576 bits",
    ]  # fmt: skip
    sheet = Image.open(ordered / "reconstructions/001.png")
    assert sheet.size == (4 * (2 + 64) * 4 + 8, (64 + 4) * 4 + 20)
    psnr = lines[1].split("PSNR ")[1].split(" at")[0]
    assert sheet.info["32 tokens = 288 bits"] == f"PSNR {psnr}"
    whole = tessella("reconstruct", "photos/001.png", "run=runs/vq", "out=whole").out
    assert whole.split("PSNR")[1] == lines[2].split("PSNR")[1] + "\n"


def test_reconstruct_of_a_folder_ends_with_the_means(ordered, tessella):
    lines = tessella("reconstruct", "photos", "run=runs/vq", "keep=[8,64,8]").out.splitlines()
    assert len(lines) == 2 * 2 + 2
    scores = [float(line.split("PSNR ")[1].split()[0]) for line in lines]
    assert lines[-1].startswith("mean of 2 pictures")
    assert scores[-1] == pytest.approx((scores[1] + scores[3]) / 2, abs=0.011)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("0", "keep=0 tokens of this tokenizer do not decode; nearest are 8 and 16"),
        ("8,20", "nearest are 16 and 24 (whole steps: 8,16,24,32,40,48,56,64)"),
        ("65", "nearest are 56 and 64"),
        ("some", "'some' is no number of tokens"),
        ("1.5", "1.5 is no number of tokens"),
        ("[]", "keep is empty"),
    ],
)
def test_tokens_that_do_not_decode_are_one_clear_line(keep, words, ordered, tessella):
    outcome = tessella("reconstruct", "photos", "run=runs/vq", f"keep={keep}")
    assert outcome.code == 2
    assert words in outcome.notes[-1]
    assert not (ordered / "reconstructions").exists()


def test_a_tokenizer_without_prefixes_keeps_all_or_nothing(workshop, tessella):
    fill_folder(workshop / "photos", 1)
    outcome = tessella("reconstruct", "photos", "run=runs/vq", "keep=3")
    assert outcome.code == 2
    assert "it needs all of its 64: keep=64." in outcome.err
    assert tessella("reconstruct", "photos", "run=runs/vq", "keep=64").code == 0


def test_ask_answers_each_question_alone(workshop, tessella):
    fill_folder(workshop / "photos", 1)
    one = tessella("ask", "photos/000.png", "what colour is the shape?", "run=runs/unified")
    assert one.code == 0, one.err
    two = tessella("ask", "photos/000.png", "question=['what colour is the shape?','is it big?']", "run=runs/unified")
    assert [line.split("\t")[0] for line in two.out.splitlines()] == ["what colour is the shape?", "is it big?"]
    assert two.out.splitlines()[0].split("\t")[1] == one.out.splitlines()[0]


# ablate and report ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny):
    """A study of all four designs through its real worker processes, and what it printed."""
    folder = tmp_path_factory.mktemp("study")
    command = [sys.executable, "-m", "tessella.experiments.cli", "ablate", "study=mine", *tiny, *STEPS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_ablate_ends_in_a_report_whose_path_is_the_last_line(study):
    folder, done = study
    assert done.stdout.splitlines()[-1] == str(folder / "runs/mine/report/index.html")
    assert "Single VQ" in done.stdout
    results = read(folder / "runs/mine/report/results.json")
    assert results["schema"] == 1
    page = (folder / "runs/mine/report/index.html").read_text()
    assert "SigLIP + VQ (decoupled)" in page


def test_a_study_trains_shared_stages_once_and_checks_fairness(study):
    record = read(study[0] / "runs/mine/study.json")
    stages = {design: node["seeds"]["0"]["stages"] for design, node in record["designs"].items()}
    assert stages["single_vq"].keys() == {"vq", "unified"}
    assert stages["decoupled"].keys() == {"vq", "siglip", "unified"}
    assert stages["tokenflow"].keys() == {"vq", "siglip", "tokenflow", "unified"}
    assert stages["one_d_piece"].keys() == {"one_d", "unified"}
    assert stages["single_vq"]["vq"] == stages["decoupled"]["vq"] == stages["tokenflow"]["vq"]
    assert stages["decoupled"]["siglip"] == stages["tokenflow"]["siglip"]
    assert stages["single_vq"]["unified"] != stages["decoupled"]["unified"]
    assert {"data_order", "llm_init", "optimizer_steps"} <= record["checks"].keys()
    assert all(check["equal"] for check in record["checks"].values())
    assert record["command"].startswith("tessella ablate study=mine")
    assert record["wall_seconds"] > 0


def test_a_finished_study_is_reused_and_an_override_reruns_what_depends_on_it(
    study, tessella, tiny, tmp_path, monkeypatch
):
    folder = tmp_path / "copy"
    shutil.copytree(study[0], folder)
    monkeypatch.chdir(folder)
    before = times(folder, "weights.safetensors")
    again = tessella("ablate", "study=mine", *tiny, *STEPS)
    assert again.code == 0, again.err
    assert again.err.count("reused") == 8
    assert times(folder, "weights.safetensors") == before
    changed = tessella("ablate", "study=mine", "design=[single_vq]", *tiny, *STEPS, "recipe.unified.steps=3")
    assert changed.code == 0, changed.err
    assert "all/vq: reused" in changed.err
    after = times(folder, "weights.safetensors")
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert "unified-" in next(iter(after.keys() - before.keys()))


def test_designs_of_a_study_are_sampled_asked_and_reported(study, tessella, tmp_path, monkeypatch, contents):
    shutil.copytree(study[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    fill_folder(Path("photos"), 1)
    for design in ("single_vq", "decoupled", "tokenflow", "one_d_piece"):
        run = f"run=runs/mine/{design}"
        assert tessella("sample", "a red circle", run).code == 0
        assert tessella("ask", "photos/000.png", "what colour is the shape?", run + "/seed0").code == 0
        assert tessella("reconstruct", "photos/000.png", run).code == 0
    before = contents(Path("runs/mine/report"))
    assert tessella("report", "run=runs/mine").code == 0
    assert contents(Path("runs/mine/report")) == before
    study_of_none = tessella("sample", "a red circle", "run=runs/mine")
    assert study_of_none.code == 2
    assert "runs/mine/decoupled" in study_of_none.err


@pytest.mark.parametrize("run", ["runs/vq", "runs"])
def test_report_of_a_run_and_of_a_folder_of_runs(run, workshop, tessella):
    outcome = tessella("report", f"run={run}")
    assert outcome.code == 0, outcome.err
    page = Path(outcome.last_line)
    assert page == workshop / run / "report/index.html"
    assert "<html" in page.read_text()[:400]
