"""Every benchmark runs at tiny sizes and finds that all contenders give the same results. Times are not looked at."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
NAMES = sorted(path.stem.removeprefix("bench_") for path in BENCHMARKS.glob("bench_*.py"))
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@pytest.fixture
def options(monkeypatch):
    """Sets the command line of a benchmark run inside this process, which is faster than importing everything anew."""
    threads, loaded = torch.get_num_threads(), set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)  # or the benchmark would start this process over
    yield lambda *words: monkeypatch.setattr(sys, "argv", ["bench.py", *map(str, words)])
    torch.set_num_threads(threads)
    for name in {"compare", "untrained", "tokenizer_peers"} & (set(sys.modules) - loaded):
        del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_contenders_agree(name, tmp_path, options):
    options("--quick", "--json", tmp_path / "measured.json")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / f"bench_{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    measured = json.loads((tmp_path / "measured.json").read_text())
    assert measured["benchmark"] == name
    assert measured["checks"]
    assert all(check["agrees"] for check in measured["checks"])
    assert all(row["rate"] > 0 for table in measured["tables"] for row in table["rows"].values())
    assert not any(goal["judged"] for goal in measured["goals"])
    if measured["absent"]:
        pytest.skip(f"some peers are missing, and their rows with them: {measured['absent']}")


def test_a_benchmark_starts_alone_with_the_threads_asked_for(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "bench_images.py"), "--quick", "--threads", "2", "--json", "out.json"]
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((tmp_path / "out.json").read_text())
    assert (measured["threads"], measured["judged_by"]) == (2, "wall_seconds")
    assert done.stdout.count("Image loading and id cache") == 1


def test_disagreements_fail_and_missed_goals_do_not(tmp_path, options, capsys):
    import compare  # pyright: ignore[reportMissingImports]

    options("--json", tmp_path / "measured.json")
    bench = compare.Benchmark("nothing", "Sums", ("torch", "no-such-library"))
    assert bench.peer("no_such_library", "no-such-library") is None
    contenders = {"long": lambda: sum(range(200_000)), "short": lambda: sum(range(2_000))}
    rows = bench.race("sums", contenders, work=1, unit="sums", rounds=3)
    ratio = bench.ratio(rows, "short", ("long", "absent"))
    assert ratio > 5
    assert bench.ratio(rows, "short", "absent") is None
    bench.goal("short over long", ratio, at_least=1e9)
    bench.goal("short over long", ratio, at_most=1e9)
    bench.goal("short over absent", None, at_least=1)
    assert bench.finish() == 0
    bench.check("sums", rows["long"].result == rows["short"].result, "other ranges")
    assert bench.finish() == 1
    said = capsys.readouterr().out
    assert "no-such-library: not installed" in said
    assert "DISAGREES: sums" in said
    assert "short over absent" not in said
    record = json.loads((tmp_path / "measured.json").read_text())
    assert [goal["met"] for goal in record["goals"]] == [False, True]
    assert record["versions"]["no-such-library"] == "absent"


def test_peak_memory_counts_from_what_was_resident(options):
    import compare  # pyright: ignore[reportMissingImports]

    kept = bytearray(b"\1") * (64 * 2**20)
    extra = compare.peak_extra_bytes(lambda: bytearray(b"\1") * (32 * 2**20))
    assert len(kept) == 64 * 2**20
    assert 31 * 2**20 < extra < 40 * 2**20
