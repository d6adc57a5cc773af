"""The report says what the run folders say: the same numbers everywhere, nothing loaded, nothing hidden or guessed."""

import csv
import importlib.util
import json
import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tessella.experiments import report
from tessella.experiments.report_charts import log_ticks, ticks
from tessella.experiments.report_collect import collect
from tessella.experiments.report_curves import read_curves, thin
from tessella.experiments.report_metrics import column_decimals, printed, quantity
from tessella.experiments.report_tables import Column, Value, results, summarize


def _fixture():
    """tests/ is no package: the maker of studies is loaded from its file."""
    path = Path(__file__).with_name("report_fixture.py")
    spec = importlib.util.spec_from_file_location("report_fixture", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_fixture"] = module
    spec.loader.exec_module(module)
    return module


fixture = _fixture()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete study of two designs and three seeds, with its report."""
    folder = fixture.make_study(tmp_path_factory.mktemp("finished") / "nano")
    report.build_report(folder)
    return folder


@pytest.fixture
def study(finished, tmp_path):
    """A copy that a test may break."""
    shutil.copytree(finished, tmp_path / "nano", ignore=shutil.ignore_patterns("report"))
    return tmp_path / "nano"


def page_of(folder: Path) -> str:
    return report.build_report(folder).read_text()


def results_of(folder: Path) -> dict:
    return json.loads((folder / "report" / "results.json").read_text())


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def text_of(page: str) -> str:
    return " ".join(" ".join(ElementTree.fromstring(page.split("\n", 1)[1]).find("body").itertext()).split())


class _Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.links, self.names = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]
        if tag not in ("img", "meta", "br", "hr", "col"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_json_holds_every_recorded_metric_unrounded(finished):
    found = results_of(finished)
    for name in ("single_vq", "decoupled"):
        design = found["designs"][name]
        rows = {row["name"]: row for row in design["results"]}
        for seed in ("0", "1", "2"):
            for stage in design["stages"][seed].values():
                recorded = json.loads((finished / stage["folder"] / "metrics.json").read_text())["metrics"]
                for metric, entry in recorded.items():
                    assert rows[metric]["seeds"][seed]["value"] == entry["value"]
                    assert rows[metric]["seeds"][seed]["n"] == entry["n"]


def test_csv_and_page_hold_the_same_numbers_as_the_json(finished):
    with open(finished / "report" / "results.csv", newline="") as file:
        lines = {(row["design"], row["seed"], row["name"]): row for row in csv.DictReader(file)}
    page = (finished / "report" / "index.html").read_text()
    shown = set(re.findall(r'<data value="([^"]+)">', page))
    for name, design in results_of(finished)["designs"].items():
        for row in design["results"]:
            assert float(lines[name, "mean", row["name"]]["value"]) == row["mean"]
            for seed, value in row["seeds"].items():
                assert float(lines[name, seed, row["name"]]["value"]) == value["value"]
                assert lines[name, seed, row["name"]]["stage"] == value["stage"]
            if not row["name"].startswith("und/floor"):  # floors stand below the accuracies they belong to
                assert repr(row["mean"]) in shown, row["name"]


def test_printed_numbers_are_the_rounded_means(finished):
    page = (finished / "report" / "index.html").read_text()
    psnr = next(r for r in results_of(finished)["designs"]["single_vq"]["results"] if r["name"] == "rec/psnr")
    assert f'<data value="{psnr["mean"]!r}">{psnr["mean"]:.2f}</data>' in page
    assert f"{psnr['low']:.2f}\u2009–\u2009{psnr['high']:.2f}" in page


def test_page_is_well_formed_and_loads_nothing(finished):
    page = (finished / "report" / "index.html").read_text()
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert "script" not in balance.names
    assert "link" not in balance.names
    assert balance.links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in balance.links)
    assert not re.search(r"https?://|url\(|@import", page)
    anchors = re.findall(r'id="([^"]+)"', page)
    assert {link[1:] for link in balance.links if link.startswith("#")} <= set(anchors)


def test_building_twice_writes_the_same_bytes(study):
    names = ("index.html", "results.csv", "results.json")
    page_of(study)
    first = [(study / "report" / name).read_bytes() for name in names]
    page_of(study)
    assert first == [(study / "report" / name).read_bytes() for name in names]


def test_absent_metrics_stand_with_their_reason(finished):
    words = text_of((finished / "report" / "index.html").read_text())
    assert "alexnet-owt-7be5be79.pth is not in ~/.cache/torch/hub/checkpoints" in words
    absent = results_of(finished)["designs"]["single_vq"]["absent"]
    assert absent["rec/lpips"].startswith("alexnet")
    assert absent["sem/retrieval"] == "this design has no stage that measures it"
    with open(finished / "report" / "results.csv", newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["name"] == "rec/rfid" and r["design"] == "single_vq")
    assert row["value"] == ""
    assert "inception" in row["absent"]


def test_unfinished_study_says_what_is_missing(study):
    listing = json.loads((study / "study.json").read_text())["designs"]["decoupled"]["seeds"]
    shutil.rmtree(study / listing["2"]["stages"]["unified"])
    edit(study / listing["1"]["stages"]["unified"] / "run.json", lambda run: run.update(status="running"))
    (study / listing["0"]["stages"]["siglip"] / "metrics.json").unlink()
    edit(study / "study.json", lambda record: record["designs"]["decoupled"]["seeds"].pop("0"))
    words = text_of(page_of(study))
    found = results_of(study)
    assert not found["complete"]
    assert {(row["seed"], row["stage"]) for row in found["missing"]} == {(0, None), (1, "unified"), (2, "unified")}
    assert "This study is not complete." in words
    assert "Decoupled SigLIP + VQ, seed 0: not started" in words
    assert "says status running" in words
    assert "holds no run.json" in words
    rows = {row["name"] for row in found["designs"]["decoupled"]["results"]}
    assert "gen/oracle/all" not in rows
    assert "cost/training_seconds" not in rows  # a sum over some stages would flatter
    assert "status running" in found["designs"]["decoupled"]["absent"]["gen/oracle/all"]
    assert "0 of 3 seeds finished" in words
    assert "s so far" in words


def test_stages_the_study_has_planned_but_not_reached_are_missing(study):
    stages = {"vq": {"phase": "tokenizer"}, "llm": {"phase": "unified"}}
    plan = {"single_vq": {"stages": stages}, "later": {"stages": stages}}

    def change(record):
        record["config"] = {"designs": plan}
        for seed, listed in record["designs"]["single_vq"]["seeds"].items():
            llm = listed["stages"].pop("unified")
            listed["stages"] |= {} if seed == "2" else {"llm": llm}
        record["designs"]["later"] = {"title": "Later", "seeds": {}}

    edit(study / "study.json", change)
    words = text_of(page_of(study))
    assert "Single VQ, seed 2, llm: not started" in words
    assert "Later, seed 0, 1 and 2: not started" in words
    rows = {row["name"]: row for row in results_of(study)["designs"]["single_vq"]["results"]}
    assert set(rows["size/parameters"]["seeds"]) == {"0", "1"}  # not the tokenizer's alone for seed 2
    assert set(rows["cost/training_seconds"]["seeds"]) == {"0", "1"}


def test_empty_study_still_makes_a_page(tmp_path):
    fixture.write(tmp_path / "study.json", {"schema": 1, "name": "new", "designs": {"a": {"title": "A", "seeds": {}}}})
    assert "A: not started" in text_of(page_of(tmp_path))


def test_single_seed_marks_no_winner_and_says_why(tmp_path):
    page = page_of(fixture.make_study(tmp_path / "one", seeds=(0,)))
    assert 'class="best"' not in page
    assert 'class="tie"' not in page
    assert "≈ tie" not in page
    assert "One seed: how much training itself varies is not known" in text_of(page)
    assert results_of(tmp_path / "one")["ahead"] == []
    kinds = {row["name"]: row["interval"] for row in results_of(tmp_path / "one")["designs"]["single_vq"]["results"]}
    assert kinds["gen/oracle/all"] == "wilson"
    assert kinds["und/accuracy/colour"] == "given"
    assert kinds["rec/psnr"] == "none"


def test_best_needs_an_interval_that_overlaps_no_other(study):
    def psnr(values):
        for design, level in values.items():
            for seed in range(3):
                stage = json.loads((study / "study.json").read_text())["designs"][design]["seeds"][str(seed)]["stages"]
                change = lambda m, v=level[seed]: m["metrics"].update({"und/accuracy": {"value": v, "n": 500}})  # noqa: E731
                edit(study / stage["unified"] / "metrics.json", change)
        page_of(study)
        return next(row for row in results_of(study)["ahead"] if row["name"] == "und/accuracy")

    ahead = psnr({"single_vq": (0.90, 0.91, 0.90), "decoupled": (0.99, 0.985, 0.99)})
    assert (ahead["designs"], ahead["clear"]) == (["decoupled"], True)
    ahead = psnr({"single_vq": (0.90, 0.99, 0.93), "decoupled": (0.99, 0.985, 0.99)})
    assert (set(ahead["designs"]), ahead["clear"]) == ({"single_vq", "decoupled"}, False)


def test_numbers_from_one_shared_run_are_no_contest(finished):
    found = results_of(finished)
    assert "rec/psnr" not in {row["name"] for row in found["ahead"]}
    page = (finished / "report" / "index.html").read_text()
    assert "same runs" in page
    words = text_of(page)
    assert "Single VQ and Decoupled SigLIP + VQ use the same trained vq (3 runs, one per seed)" in words


def test_unlike_protocols_never_share_a_column(study):
    stages = json.loads((study / "study.json").read_text())["designs"]["decoupled"]["seeds"]
    for listed in stages.values():
        edit(
            study / listed["stages"]["unified"] / "metrics.json",
            lambda content: content["metrics"]["gen/fd_efflite0"].update(n=2048),
        )
    words = text_of(page_of(study))
    found = results(collect(study))
    assert len(found.columns("gen/fd_efflite0")) == 2
    assert len(found.columns("gen/kd_efflite0")) == 1
    assert "n 2048" in words
    assert all(row["name"] != "gen/fd_efflite0" for row in results_of(study)["ahead"])


def test_ceiling_and_floor_stand_beside_generation_and_answers(finished):
    rows = {row["name"]: row for row in results_of(finished)["designs"]["single_vq"]["results"]}
    assert rows["gen/oracle/shape"]["ceiling"] == rows["rec/oracle/shape"]["mean"]
    assert rows["gen/oracle/shape"]["floor"] == 0.333
    assert rows["und/accuracy/place"]["floor"] == rows["und/floor/place"]["mean"]
    words = text_of((finished / "report" / "index.html").read_text())
    assert "ceiling 0.857" in words
    assert "chance 0.333" in words


def test_training_seconds_count_shared_stages_in_full_for_every_design(finished):
    for design in results_of(finished)["designs"].values():
        rows = {row["name"]: row for row in design["results"]}
        for seed, stages in design["stages"].items():
            total = sum(stage["training_seconds"] for stage in stages.values())
            assert rows["cost/training_seconds"]["seeds"][seed]["value"] == pytest.approx(total)
    words = text_of((finished / "report" / "index.html").read_text())
    assert "trained once and is counted in full for each" in words


def test_a_proxy_is_paid_for_but_never_measured_as_the_design(study):
    path = study / "study.json"
    first = json.loads(path.read_text())["designs"]["single_vq"]["seeds"]["0"]["stages"]["vq"]
    proxy = fixture.write_run(study / "stages" / "tokenizer-proxy", "tokenizer", 0, {"rec/kid": {"value": 9.0, "n": 5}})

    def change(record):
        stages = {"proxy": f"stages/{proxy.name}"} | record["designs"]["single_vq"]["seeds"]["0"]["stages"]
        record["designs"]["single_vq"]["seeds"] = {"0": {"stages": stages}}

    edit(path, change)
    page_of(study)
    rows = {row["name"]: row for row in results_of(study)["designs"]["single_vq"]["results"]}
    assert "rec/kid" not in rows
    assert rows["rec/psnr"]["seeds"]["0"]["stage"] == first
    assert rows["cost/training_seconds/proxy"]["mean"] > 0


@pytest.mark.parametrize(
    ("key", "value", "title"),
    [
        ("data_order", "f" * 64, "Same data in the same order"),
        ("llm_init", "e" * 64, "Same initial weights of the LLM"),
        ("steps", 7, "Same optimizer steps and batch"),
    ],
)
def test_an_unfair_comparison_is_said_so(study, key, value, title):
    stages = json.loads((study / "study.json").read_text())["designs"]["decoupled"]["seeds"]["1"]["stages"]
    edit(study / stages["unified"] / "run.json", lambda run: run.update({key: value}))
    page = page_of(study)
    assert f'class="check unequal"><h4>{title}' in page
    assert "study.json says equal, the run folders say otherwise." in text_of(page)
    check = "optimizer_steps" if key == "steps" else key
    assert results_of(study)["checks"][check]["equal"] is False


def test_fairness_digests_are_shown_and_hold(finished):
    checks = results_of(finished)["checks"]
    assert all(check["equal"] for check in checks.values())
    digest = checks["data_order"]["by_seed"]["2"]["decoupled"]
    assert digest == fixture.sha256("order 2")
    assert digest[:16] in (finished / "report" / "index.html").read_text()


def test_configuration_versions_and_commands_are_in_the_page(finished):
    words = text_of((finished / "report" / "index.html").read_text())
    assert "note: <a & b>" in words  # from config.yaml, escaped on the way
    assert "tessella train phase=unified seed=2" in words
    assert "lightning 2.6.6" in words
    assert "0123456789ab" in words
    assert "-seed: 0 +seed: 1" in words
    assert "The same run as under Single VQ, seed 0." in words


def test_single_run_and_folder_of_runs_make_reports(finished, tmp_path):
    vq = finished / "stages" / "tokenizer-vq0"
    alone = shutil.copytree(vq, tmp_path / "alone")
    words = text_of(page_of(alone))
    assert "One run" in words
    assert "Fairness" not in words
    runs = tmp_path / "runs"
    for name in ("tokenizer-vq0", "siglip-0", "unified-decoupled0", "unified-single_vq0"):
        shutil.copytree(finished / "stages" / name, runs / name)
        edit(runs / name / "run.json", lambda run: _relative_inputs(run))
    words = text_of(page_of(runs))
    assert "nothing says that they were trained alike" in words
    found = results_of(runs)
    assert found["kind"] == "runs"
    assert set(found["designs"]) == {"unified-decoupled0", "unified-single_vq0"}
    assert set(found["designs"]["unified-decoupled0"]["stages"]["0"]) == {"generation", "understanding", "unified"}
    assert found["complete"]
    edit(runs / "unified-single_vq0" / "run.json", lambda run: run.update(status="trained", seed=3))
    words = text_of(page_of(runs))
    assert "Not everything here has finished." in words
    assert "unified-single_vq0, seed 3, unified: trained, not evaluated" in words
    assert len(results_of(runs)["missing"]) == 1  # another run's seed is not missing here
    rows = {row["name"] for row in found["designs"]["unified-decoupled0"]["results"]}
    assert {"rec/psnr", "sem/retrieval", "gen/oracle/all"} <= rows


def _relative_inputs(run):
    for source in run["inputs"].values():
        source["folder"] = Path(source["folder"]).name


def test_a_run_whose_input_is_gone_says_so(finished, tmp_path):
    run = shutil.copytree(finished / "stages" / "unified-single_vq0", tmp_path / "run")
    edit(run / "run.json", lambda content: content["inputs"]["tokenizer"].update(folder="/nowhere/vq"))
    assert "not found (run.json names /nowhere/vq as its tokenizer input)" in text_of(page_of(run))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nothing", "does not exist"),
        (lambda folder: folder, "holds neither study.json nor run.json"),
        (lambda folder: fixture.write(folder / "s" / "study.json", {}) or folder, "it holds the studies s"),
        (lambda folder: fixture.write(folder / "study.json", {"designs": {}}) or folder, "lists no designs"),
        (lambda folder: fixture.write(folder / "study.json", "{") or folder, "is not JSON"),
    ],
)
def test_wrong_folders_are_one_clear_line(tmp_path, make, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        report.build_report(make(tmp_path))
    assert "\n" not in str(error.value)


def test_damaged_pictures_are_named_and_leave_the_earlier_report(study):
    before = page_of(study)
    (study / "stages" / "tokenizer-vq0" / "pictures.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match=r"pictures\.safetensors is damaged"):
        report.build_report(study)
    assert (study / "report" / "index.html").read_text() == before


def test_pictures_are_the_saved_pixels(finished):
    import base64
    import io

    import numpy as np
    from PIL import Image
    from safetensors.numpy import load_file

    page = (finished / "report" / "index.html").read_text()
    found = {m for m in re.findall(r"data:image/png;base64,([^\"]+)", page)}
    pixels = {np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))).tobytes() for one in found}
    saved = load_file(finished / "stages" / "unified-decoupled0" / "pictures.safetensors")
    for image in (*saved["samples"], *saved["questioned"]):
        assert image.transpose(1, 2, 0).tobytes() in pixels


def test_samples_and_answers_are_marked_right_and_wrong(study):
    def change(notes):
        notes["sample_verdicts"][0] = {"colour": True, "place": False, "size": None, "shape": False, "all": False}
        notes["questions"][0].update(answer="red", predicted=" Red")
        notes["questions"][1].update(answer="circle", predicted="")

    edit(study / "stages" / "unified-single_vq0" / "pictures.json", change)
    words = text_of(page_of(study))
    assert "✗ place, shape" in words
    assert "not scored" in words
    assert "✓ Red" in words
    assert "✗ (nothing)" in words


def test_designs_without_pictures_and_differing_prompts_are_said(study):
    (study / "stages" / "tokenizer-vq0" / "pictures.safetensors").unlink()
    for seed in range(3):
        (study / "stages" / f"unified-decoupled{seed}" / "pictures.safetensors").unlink()
    words = text_of(page_of(study))
    assert "No generated images yet: Decoupled SigLIP + VQ." in words
    assert "saved test images, seed 1. Below each" in words


def test_ten_designs_fit(tmp_path):
    designs = ["single_vq", "decoupled", *(f"design_{k}" for k in range(8))]
    page = page_of(fixture.make_study(tmp_path / "ten", designs, seeds=(0, 1)))
    assert "design_7" in text_of(page)
    assert 'class="tie"' in page


def test_main_prints_the_table_and_ends_with_the_path(finished, capsys):
    path = report.main(OmegaConf.create({"run": str(finished)}))
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert lines[-1] == str(path)
    assert any("Single VQ" in line and "±" in line for line in lines)
    report.print_table(finished)
    assert "3 seeds" in capsys.readouterr().out


def test_shared_runs_count_once_in_an_interval():
    column = Column("rec/psnr", "{}")
    one = summarize(column, [Value(0, 30.0, "a"), Value(1, 30.0, "a")])
    two = summarize(column, [Value(0, 30.0, "a"), Value(1, 32.0, "b")])
    assert (one.kind, one.low, one.runs) == ("none", None, 1)
    assert two.kind == "t"
    assert two.mean == 31.0
    assert two.low == pytest.approx(31 - 12.7062, abs=1e-3)  # t(1) at 0.975 times standard error 1


def test_a_share_on_which_all_seeds_agree_is_not_certain():
    same = summarize(Column("gen/oracle/all", "{}"), [Value(k, 1.0, str(k), n=82) for k in range(3)])
    assert same.kind == "wilson"
    assert same.low == pytest.approx(0.9552, abs=1e-3)
    spread = summarize(Column("gen/oracle/all", "{}"), [Value(k, v, str(k), n=82) for k, v in enumerate((0.9, 1.0))])
    assert (spread.low, spread.high) == (pytest.approx(0.3147, abs=1e-3), 1.0)  # clipped to a share


def test_numbers_print_with_the_decimals_of_their_column():
    assert printed("rec/psnr", 33.104, 2) == "33.10"
    assert printed("gen/kd_efflite0", -0.00001, 3) == "0.000"
    assert printed("gen/kd_efflite0", -0.02, 3) == "\u22120.020"
    assert printed("size/parameters/llm", 1_234_567, 3) == "1.235"
    assert printed("codebook/perplexity", 12345.6, 0) == "12\u202f346"
    assert column_decimals("gen/kd_efflite0", [0.0123, 4.0]) == 4
    assert column_decimals("gen/fd_efflite0", [643.0, 503.0]) == 0
    assert column_decimals("gen/fd_efflite0", [0.0]) == 0
    assert quantity("gen/oracle/kind/binding").label == "binding"
    assert quantity("new/metric").label == "new/metric"


def test_unknown_numbers_keep_a_place(study):
    edit(
        study / "stages" / "unified-decoupled0" / "metrics.json",
        lambda content: content["metrics"].update({"gen/novel": {"value": 0.123, "n": 4}}),
    )
    words = text_of(page_of(study))
    assert "Other recorded numbers" in words
    assert "gen/novel" in words


def test_curves_are_read_thinned_and_skip_what_is_not_finite(tmp_path):
    (tmp_path / "curves.csv").write_text("step,epoch,train/loss,val/x\n1,0,2.0,\n2,0,nan,0.5\n3,0,1.0,inf\n")
    assert read_curves(tmp_path / "curves.csv") == {"train/loss": [(1, 2.0), (3, 1.0)], "val/x": [(2, 0.5)]}
    assert read_curves(tmp_path / "none.csv") == {}
    long = [(float(step), float(step)) for step in range(1000)]
    short = thin(long, 10)
    assert len(short) == 10
    assert short[-1] == (999.0, 949.5)
    assert thin(long[:5], 10) == tuple(long[:5])


def test_a_proxy_curve_is_dashed_beside_its_design(study):
    proxy = fixture.write_run(study / "stages" / "tokenizer-proxy", "tokenizer", 0, {})
    fixture.write_curves(proxy, {"train/loss": (1.0, 0.1)})

    def change(record):
        stages = record["designs"]["single_vq"]["seeds"]["0"]["stages"]
        record["designs"]["single_vq"]["seeds"]["0"]["stages"] = {"proxy": f"stages/{proxy.name}"} | stages

    edit(study / "study.json", change)
    page = page_of(study)
    assert "Single VQ: proxy (dashed)" in text_of(page)
    assert 'stroke-dasharray="5 3"' in page


def test_ticks_are_round_and_span_the_values():
    assert ticks(0, 10, 4) == [0, 2.5, 5, 7.5, 10]
    assert ticks(3.0, 3.0, 4) == [3.0]
    found = ticks(13.2, 33.9, 4)
    assert found[0] <= 13.2
    assert found[-1] >= 33.9
    assert log_ticks(0.02, 5) == [0.01, 0.1, 1.0, 10.0]
    assert len(log_ticks(1e-9, 1e9)) <= 6


def test_every_column_and_key_is_documented(finished):
    page = (Path(__file__).parent.parent / "docs" / "report.md").read_text()
    with open(finished / "report" / "results.csv", newline="") as file:
        columns = next(csv.reader(file))
    found = results_of(finished)
    design = found["designs"]["decoupled"]
    keys = {*columns, *found, *design, *design["results"][0], *design["results"][0]["seeds"]["0"]}
    keys |= {*design["stages"]["0"]["vq"], *found["ahead"][0], *found["checks"], *found["checks"]["llm_init"]}
    undocumented = [key for key in keys if not re.search(rf"[`.]{key}[`.\[]", page)]
    assert undocumented == []


def test_odd_text_cannot_break_the_page(study):
    edit(study / "study.json", lambda record: record["designs"]["single_vq"].update(title='<b>"&\x00\ud800'))
    words = text_of(page_of(study))
    assert '<b>"&\ufffd\ufffd' in words
