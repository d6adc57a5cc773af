"""Every command is also a module: `python -m tessella.experiments.<command>`."""

import runpy
import subprocess
import sys

import pytest

from tessella.experiments import cli


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_a_command_is_a_module(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["module.py", "--help"])
    runpy.run_module(f"tessella.experiments.{command}", run_name="__main__")
    assert capsys.readouterr().out == cli.command_help(command) + "\n"


def test_a_module_takes_the_arguments_of_its_command(tmp_path):
    command = [sys.executable, "-m", "tessella.experiments.sample", "a dot", "run=nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr
        == "tessella sample: error: run=nowhere is not a run folder (no run.json) and not a design of a study.\n"
    )
