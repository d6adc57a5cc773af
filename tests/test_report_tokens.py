"""What a report shows of tokens: quality by bits, few tokens to all, contribution maps, shared codes, confusion."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tessella.experiments.report import build_report
from tessella.experiments.report_charts import round_log_ticks
from tessella.experiments.report_collect import collect
from tessella.experiments.report_confusion import confusion
from tessella.experiments.report_prefixes import lengths
from tessella.experiments.report_tables import results
from tessella.experiments.report_tokens import heat_uri

from . import report_fixture as fixture

KEPT = {1: 19.0, 4: 24.5, 16: 30.25, 64: 33.1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fixture.make_study(tmp_path_factory.mktemp("tokens") / "nano", ["single_vq", "decoupled", "ordered"], [0, 1])


@pytest.fixture
def study(plain, tmp_path):
    """Two seeds of three designs: `ordered` has prefixes, maps and codes; `decoupled` a confusion."""
    folder = shutil.copytree(plain, tmp_path / "nano")
    for seed in (0, 1):
        give_prefixes(folder / f"stages/tokenizer-ordered{seed}", seed)
        values = {"names": ["red", "blue"], "counts": [[10, 1 + seed], [0, 7]]}
        fixture.write(folder / f"stages/siglip-{seed}/pictures.json", {"confusion": {"colour": values}})
    return folder


def give_prefixes(folder: Path, seed: int) -> None:
    tensors, notes = load_file(folder / "pictures.safetensors"), json.loads((folder / "pictures.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    for kept, value in KEPT.items():
        metrics["metrics"][f"rec/psnr/k={kept}"] = {"value": value + seed, "n": 512, "bits": kept * 9.0}
        metrics["metrics"][f"rec/ssim/k={kept}"] = {"value": value / 40, "n": 512, "bits": kept * 9.0}
        noisy = [fixture.damaged(image, 40 - value, kept) for image in tensors["originals"][:8]]
        tensors[f"reconstructions/k={kept}"] = np.stack(noisy)
    metrics["metrics"]["rec/psnr"]["value"] = KEPT[64] + seed
    metrics["metrics"]["rec/oracle/colour/k=4"] = {"value": 0.5, "n": 512, "floor": 0.2}
    maps = np.zeros((5, 1, 16, 16), np.uint8)
    maps[0], maps[1, 0, :8, :8], maps[4, 0, 8:, 8:] = 40, 255, 128
    tensors["contributions"] = maps
    tensors["patches/8"] = np.stack([image[:, :8, :8] for image in tensors["originals"][:5]])
    notes["contributions"] = {
        "scale": 0.25, "means": [0.1, 0.02, 0, 0, 0.01], "images": 8, "step_lengths": [1, 4], "seed": 0,
    }  # fmt: skip
    common = {"grid": 8, "rank": 1, "uses": 9}
    notes["shared_codes"] = [
        {**common, "by": "images", "code": 17, "images": 3, "patches": [[0, 0], [1, 0], [2, 0]]},
        {**common, "by": "detail", "code": 5, "images": 2, "patches": [[3, 0], [4, 0]]},
    ]
    save_file(tensors, folder / "pictures.safetensors")
    fixture.write(folder / "pictures.json", notes)
    fixture.write(folder / "metrics.json", metrics)


def part(page: str, anchor: str) -> str:
    return re.search(rf'<section id="{anchor}">.*?</section>', page, re.DOTALL)[0]


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


def found(folder: Path) -> dict:
    return json.loads((folder / "report/results.json").read_text())["designs"]


def test_a_study_without_such_data_has_no_such_sections(plain):
    page = build_report(plain).read_text()
    assert 'id="prefixes"' not in page
    assert 'id="tokens"' not in page
    assert "take for what" not in page
    assert found(plain)["single_vq"]["by_length"][0]["tokens"] == 64
    assert found(plain)["single_vq"]["token_changes"] == []
    assert found(plain)["single_vq"]["confusion"] == {}


def test_quality_by_bits_is_the_mean_over_seeds(study):
    build_report(study)
    rows = found(study)["ordered"]["by_length"]
    assert [(row["tokens"], row["bits"]) for row in rows] == [(1, 9.0), (4, 36.0), (16, 144.0), (64, 576.0)]
    assert [row["psnr"] for row in rows] == [value + 0.5 for value in KEPT.values()]
    assert len(found(study)["single_vq"]["by_length"]) == 1


def test_the_chart_has_a_line_for_prefixes_and_points_for_the_rest(study):
    section = part(build_report(study).read_text(), "prefixes")
    chart = re.search(r"<svg.*?</svg>", section, re.DOTALL)[0]
    assert chart.count("<path") == 1
    assert chart.count("<circle") == 4 + 1  # one point for the two designs that share a tokenizer
    assert "Single VQ and Decoupled SigLIP + VQ" in section
    assert ">500</text>" in chart


def test_every_prefix_metric_stands_in_a_table_and_nowhere_as_lacking(study):
    page = build_report(study).read_text()
    section = part(page, "prefixes")
    assert "4 tokens" in section
    assert "1 token\u00a0↑" in section
    assert "floor 0.200" in section
    for row in found(study)["ordered"]["results"]:
        if "/k=" in row["name"]:
            assert f'<data value="{row["mean"]!r}">' in section
    assert not [name for design in found(study).values() for name in design["absent"] if "/k=" in name]


def test_few_tokens_to_all_are_the_saved_pixels(study):
    section = part(build_report(study).read_text(), "prefixes")
    images = re.findall(r'src="(data:[^"]+)" alt="([^"]+)"', section)
    tensors = load_file(study / "stages/tokenizer-ordered0/pictures.safetensors")
    assert [alt for _, alt in images[:5]] == ["original", *(f"from {k} token{'s'[: k != 1]}" for k in KEPT)]
    assert np.array_equal(pixels(images[0][0]), tensors["originals"][0].transpose(1, 2, 0))
    assert np.array_equal(pixels(images[2][0]), tensors["reconstructions/k=4"][0].transpose(1, 2, 0))
    assert "36 bits" in section


def test_contribution_maps_stand_by_step_in_heat_colors(study):
    section = part(build_report(study).read_text(), "tokens")
    assert section.count('class="maps"') == 2
    assert "token 1: pixels change by 10.00 % on average" in section
    assert "changes by 25 % of the range" in section
    uri = next(uri for uri, alt in re.findall(r'src="(data:[^"]+)" alt="([^"]+)"', section) if alt == "token 2")
    heat = pixels(uri).astype(int).sum(2)
    assert (heat[:8, :8] > heat[8:, 8:].max()).all()
    assert heat[8:, :].std() == 0
    assert [row["means"] for row in found(study)["ordered"]["token_changes"]] == [[0.1, 0.02, 0, 0, 0.01]] * 2


def test_a_brighter_color_is_a_larger_value():
    ramp = pixels(heat_uri(np.arange(256, dtype=np.uint8)[None])).astype(int).sum(2)[0]
    assert (np.diff(ramp) >= 0).all()
    assert ramp[-1] > ramp[0] + 400


def test_patches_stand_below_their_own_code(study):
    section = part(build_report(study).read_text(), "tokens")
    figures = re.findall(r"<figure><figcaption>(code \d+) <small>(.*?)</small></figcaption>(.*?)</figure>", section)
    assert [(code, words, body.count("<img")) for code, words, body in figures] == [
        ("code 17", "most images, in 3 images", 3),
        ("code 5", "most detail, in 2 images", 2),
    ]
    tensors = load_file(study / "stages/tokenizer-ordered0/pictures.safetensors")
    first = re.search(r'src="([^"]+)"', figures[1][2])[1]
    assert np.array_equal(pixels(first), tensors["patches/8"][3].transpose(1, 2, 0))


def test_confusion_adds_up_the_seeds_of_a_design(study):
    section = part(build_report(study).read_text(), "understanding")
    assert "34 of 37 right" in section
    assert 'title="red taken for blue: 3"' in section
    designs = {design.name: design for design in collect(study).designs}
    assert confusion(designs["decoupled"])["colour"]["counts"] == [[20, 3], [0, 14]]
    assert confusion(designs["single_vq"]) == {}
    assert found(study)["decoupled"]["confusion"]["colour"]["names"] == ["red", "blue"]


def test_a_design_without_ids_has_no_lengths(study):
    for seed in (0, 1):
        for stage in (f"tokenizer-ordered{seed}", f"unified-ordered{seed}"):
            file = study / "stages" / stage / "run.json"
            run = json.loads(file.read_text())
            fixture.write(file, {**run, "bits_per_image": None, "tokens_per_image": None})
    read = results(collect(study))
    assert lengths(read, next(design for design in read.study.designs if design.name == "ordered")) == []
    assert "16 tokens" in build_report(study).read_text()


def test_round_ticks_lie_inside():
    assert round_log_ticks(9, 576) == [10, 20, 50, 100, 200, 500]
    assert round_log_ticks(3, 4) == []
