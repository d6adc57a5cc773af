"""The folder of a run, or of a study, as the one process that works in it sees it."""

import fcntl
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from .runs import SCHEMA, read_json, write_json

LOCK_SECONDS = 20  # how long a start waits for the folder's last owner, which may be saving before it ends


class RunFolderBusy(Exception):
    """Another live process works in the run folder."""


class RunFolder:
    """One run folder, owned by this process while it works in it.

    Raises:
        RunFolderBusy: another live process works in the folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = folder / ".owner"  # holds the process id, for the message of others

    def __enter__(self) -> "RunFolder":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"cannot write in {self.folder} ({error.strerror}); choose another out=<folder>.") from error
        deadline = time.monotonic() + LOCK_SECONDS
        while (held := self._taken()) is None:
            if time.monotonic() > deadline:
                raise RunFolderBusy(
                    f"{self.folder}: process {self._owner()} is working in this run folder; wait for it or stop it."
                )
            time.sleep(0.2)
        self._held = held
        return self

    def _taken(self) -> TextIO | None:
        """The locked file; None while another process holds it. The system releases it when its process ends."""
        held = self._lock.open("a+")  # leaves what the owner wrote
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(held.fileno()).st_ino == self._lock.stat().st_ino:
                held.truncate(0)
                held.write(str(os.getpid()))
                held.flush()
                return held
        except (BlockingIOError, FileNotFoundError):  # or the last owner has removed the file in between
            pass
        held.close()
        return None

    def _owner(self) -> str:
        with suppress(OSError):
            return self._lock.read_text()
        return "of another user"

    def __exit__(self, *exc: object) -> None:
        self._lock.unlink(missing_ok=True)  # while it is locked: whoever opened it before finds that it is gone
        self._held.close()
        with suppress(OSError):
            self.folder.rmdir()  # of a run that was refused before it wrote anything

    def record(self) -> dict[str, Any]:
        """The content of run.json; empty before the run has begun."""
        path = self.folder / "run.json"
        return read_json(path) if path.is_file() else {}

    def write_record(self, **fields: Any) -> None:
        """Merge `fields` into run.json."""
        write_json(self.folder / "run.json", {"schema": SCHEMA, **self.record(), **fields})

    def write_metrics(self, metrics: Mapping[str, Any], absent: Mapping[str, str]) -> None:
        write_json(self.folder / "metrics.json", {"schema": SCHEMA, "metrics": dict(metrics), "absent": dict(absent)})
