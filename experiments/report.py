"""`tessella report`: rebuild the report of a study, of one run folder, or of a folder of runs."""

from pathlib import Path

from omegaconf import DictConfig

from .report_collect import collect
from .report_export import terminal_table, to_csv, to_json
from .report_html import page
from .report_tables import Results, results
from .runs import write_atomic, write_json


def build_report(study_folder: Path) -> Path:
    """Write `report/index.html`, `results.csv` and `results.json` into the folder; returns the path of index.html.

    A pure function of the files in the folder: building twice writes the same bytes.

    Raises:
        ValueError: no study or run is there, or a file in it is damaged; names it.
    """
    found = results(collect(study_folder))
    return write_report(found)


def write_report(found: Results) -> Path:
    """The three files, made before the first is written: a damaged folder leaves an earlier report alone."""
    folder = found.study.folder / "report"
    values, table, html = to_json(found), to_csv(found), page(found)
    write_json(folder / "results.json", values)
    write_atomic(folder / "results.csv", table.encode(errors="replace"))
    write_atomic(folder / "index.html", html)
    return folder / "index.html"


def print_table(study_folder: Path) -> None:
    """The main columns of the report on the terminal; 200 characters wide where there is no terminal."""
    _print(results(collect(study_folder)))


def _print(found: Results) -> None:
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=200)).print(terminal_table(found))


def main(cfg: DictConfig) -> Path:
    """Build the report of `cfg.run`, print its table, and its path as the last line."""
    found = results(collect(Path(cfg.run)))
    path = write_report(found)
    _print(found)
    print(path)
    return path


if __name__ == "__main__":
    import sys

    from .cli import main as tessella

    tessella(["report", *sys.argv[1:]])
