"""A run folder has one owner at a time, and none once its owner is dead."""

import subprocess
import sys

import pytest

from tessella.experiments import run_folder
from tessella.experiments.run_folder import RunFolder, RunFolderBusy

OWNER = """
import sys, time
from pathlib import Path
from tessella.experiments.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(60)
"""


def test_a_living_owner_is_named_and_a_killed_one_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0.3)
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", OWNER, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "owned\n"
        with pytest.raises(RunFolderBusy, match=f"process {process.pid} is working"), RunFolder(folder):
            pass
        assert (folder / ".owner").read_text() == str(process.pid)
    finally:
        process.kill()
        process.wait()
    with RunFolder(folder) as owned:
        owned.write_record(status="running")
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    for _ in range(2):
        with RunFolder(tmp_path / "run"):
            assert (tmp_path / "run" / ".owner").is_file()
        assert not (tmp_path / "run").exists()


def test_an_owner_file_that_another_process_removed_is_not_owned(tmp_path, monkeypatch):
    """The last owner removes its file between our opening and our lock."""
    folder, real, opened = tmp_path / "run", run_folder.fcntl.flock, []

    def flock(held, operation):
        if not opened:
            (folder / ".owner").unlink()
        opened.append(held)
        real(held, operation)

    monkeypatch.setattr(run_folder.fcntl, "flock", flock)
    with RunFolder(folder):
        assert (folder / ".owner").is_file()
    assert len(opened) == 2
    assert opened[0].closed
