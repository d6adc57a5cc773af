"""Contenders that do the same work, timed in turns in one process, and the ratio of their medians beside a goal.

Every round runs each contender once, so that whatever else the machine does falls on all of them alike. The first round
warms up and is not counted. Ratios are of processor time on one thread, which neighbors on the machine disturb least,
and of wall time on more threads. A missed goal is printed; only results that disagree make a benchmark fail.
"""

import argparse
import gc
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Row:
    """Medians of one contender. `peak_extra_bytes` is None where memory was not asked for."""

    wall_seconds: float
    cpu_seconds: float
    peak_extra_bytes: int | None
    result: Any  # of the round that warms up


class Benchmark:
    """One file of measurements: its options, its tables, and how it ends.

    Args:
        name: of the benchmark, as in bench_<name>.py.
        description: printed first, and by --help.
        packages: whose versions are recorded.
        add_options: gives the parser options of this benchmark alone, which are then in `options`.
    """

    def __init__(
        self,
        name: str,
        description: str,
        packages: Sequence[str],
        add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    ) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--quick", action="store_true", help="tiny sizes, in seconds; its ratios say nothing")
        parser.add_argument("--threads", type=int, default=1, help="processor threads of every contender (default: 1)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
        add_options(parser)
        options = self.options = parser.parse_args()
        if options.threads < 1:
            parser.error(f"--threads {options.threads} must be at least 1")
        self.quick: bool = options.quick
        self.threads: int = options.threads
        _use_threads(self.threads)
        self._json: Path | None = options.json
        self._disagreements = 0
        self._record = {
            "benchmark": name,
            "quick": self.quick,
            "threads": self.threads,
            "judged_by": self._clock,
            "cpu": _cpu_name(),
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
            "tables": [],
            "goals": [],
            "checks": [],
            "absent": {},
        }
        print(f"{description}\n{_cpu_name()}; {self.threads} thread(s)")
        print(", ".join(f"{package} {number}" for package, number in self._record["versions"].items()))
        if self.quick:
            print("smoke run: tiny sizes, so the ratios say nothing")

    @property
    def _clock(self) -> str:
        return "cpu_seconds" if self.threads == 1 else "wall_seconds"

    def peer(self, module: str, package: str) -> ModuleType | None:
        """An installed peer; None, after one line that says so, where it is missing."""
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            reason = f"not installed ({error})"
        print(f"{package}: {reason}; its rows are absent")
        self._record["absent"][package] = reason
        return None

    def race(
        self,
        title: str,
        contenders: Mapping[str, Callable[[], object]],
        *,
        work: float,
        unit: str,
        rounds: int,
        memory_rounds: int = 0,
    ) -> dict[str, Row]:
        """Time contenders in turns and print their table; the first one is what the others are compared with.

        Args:
            work: units of work in one call, the same for all.
            rounds: counted rounds, after the one that warms up.
            memory_rounds: further rounds, not timed, that measure the peak of extra memory.
        """
        walls: dict[str, list[float]] = {name: [] for name in contenders}
        cpus: dict[str, list[float]] = {name: [] for name in contenders}
        rounds = 1 if self.quick else rounds
        results = {name: run() for name, run in contenders.items()}
        gc.collect()
        gc.freeze()  # collecting before each run then looks at that run's leftovers alone
        for _ in range(rounds):
            for name, run in contenders.items():
                gc.collect()
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                cpus[name].append(time.process_time() - cpu)
                walls[name].append(time.perf_counter() - wall)
        gc.unfreeze()
        rows = {
            name: Row(
                statistics.median(walls[name]),
                statistics.median(cpus[name]),
                _peak(run, memory_rounds),
                results[name],
            )
            for name, run in contenders.items()
        }
        self._print_table(f"{title} (median of {rounds})", rows, work, unit)
        return rows

    def _print_table(self, title: str, rows: Mapping[str, Row], work: float, unit: str) -> None:
        first = next(iter(rows.values()))
        with_memory = first.peak_extra_bytes is not None
        width = max(map(len, rows))
        print(f"\n{title}")
        header = f"  {'':{width}}  {'wall s':>9}  {'cpu s':>9}  {unit + '/s':>12}  {'wall x':>7}  {'cpu x':>7}"
        print(header + (f"  {'peak MB':>8}" if with_memory else ""))
        for name, row in rows.items():
            rate = work / getattr(row, self._clock)
            line = f"  {name:{width}}  {row.wall_seconds:9.4f}  {row.cpu_seconds:9.4f}  {rate:12,.4g}"
            line += f"  {first.wall_seconds / row.wall_seconds:7.2f}  {first.cpu_seconds / row.cpu_seconds:7.2f}"
            print(line + (f"  {row.peak_extra_bytes / 1e6:8.1f}" if row.peak_extra_bytes is not None else ""))
        table = {
            name: {
                "wall_seconds": row.wall_seconds,
                "cpu_seconds": row.cpu_seconds,
                "rate": work / getattr(row, self._clock),
                "peak_extra_bytes": row.peak_extra_bytes,
            }
            for name, row in rows.items()
        }
        self._record["tables"].append({"title": title, "unit": unit, "work": work, "rows": table})

    def ratio(self, rows: Mapping[str, Row], ours: str, than: str | Sequence[str]) -> float | None:
        """How many times faster a contender is than the fastest of some others; None where none of them ran."""
        others = [
            getattr(rows[name], self._clock) for name in ((than,) if isinstance(than, str) else than) if name in rows
        ]
        return min(others) / getattr(rows[ours], self._clock) if others else None

    def goal(
        self,
        what: str,
        value: float | None,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        unit: str = "x",
        stretch: bool = False,
    ) -> None:
        """Print a figure beside its goal; None (a peer is missing) prints nothing."""
        if value is None:
            return
        met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        bound = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
        verdict = "not judged" if self.quick else "met" if met else "not met"
        print(f"  {what}: {value:.3g} {unit}, {'stretch ' * stretch}goal {bound}: {verdict}")
        entry = {
            "what": what,
            "value": value,
            "unit": unit,
            "goal": bound,
            "stretch": stretch,
            "met": met,
            "judged": not self.quick,
        }
        self._record["goals"].append(entry)

    def check(self, what: str, agrees: bool, detail: str) -> None:
        """Print whether results agree; one disagreement makes the benchmark fail."""
        self._disagreements += not agrees
        print(f"  {'agrees' if agrees else 'DISAGREES'}: {what} ({detail})")
        self._record["checks"].append({"what": what, "agrees": bool(agrees), "detail": detail})

    def finish(self) -> int:
        """Write the JSON file if one was asked for; the exit code."""
        if self._json is not None:
            self._json.write_text(json.dumps(self._record, indent=1) + "\n", encoding="utf-8")
        return 1 if self._disagreements else 0


def _peak(run: Callable[[], object], rounds: int) -> int | None:
    return int(statistics.median(peak_extra_bytes(run) for _ in range(rounds))) if rounds else None


def peak_extra_bytes(run: Callable[[], object]) -> int:
    """Resident memory at the highest point of a call, above what was resident before it (Linux)."""
    import ctypes

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed blocks that stay resident would hide what the call needs
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts over
    before = _resident("VmRSS")
    run()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}; memory can be measured on Linux alone.")


def _use_threads(count: int) -> None:
    """Linear algebra libraries read their number of threads when they are loaded: start over where it was another."""
    wanted = dict.fromkeys(THREAD_VARIABLES, str(count))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    import torch

    torch.set_num_threads(count)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
