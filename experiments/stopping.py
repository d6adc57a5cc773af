"""How work is asked to stop, by Ctrl-C, by SIGTERM or because its study is gone, and how it ends with all saved."""

import os
import signal
import threading
import time
from typing import Any


class Stopped(BaseException):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has saved what it had; carries the exit code.

    No Exception, so that no library's `except Exception` swallows it.
    """

    def __init__(self, exit_code: int, message: str = "stopped; the same command continues.") -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Notes SIGTERM and Ctrl-C while it is active, so that work ends at a point where everything is saved.

    A second Ctrl-C ends the program at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.take_signals()
        return self

    def take_signals(self) -> None:
        """Handle SIGTERM and Ctrl-C from now on, whoever handled them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, frame: object) -> None:
        if self.received is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signum

    def check(self, where: str) -> None:
        """Raise `Stopped` when a stop was asked for."""
        if self.received is not None:
            raise Stopped(128 + self.received, f"stopped {where}; the same command continues.")


def end_with_parent() -> None:
    """Stop this stage, as SIGTERM does, when the study that started it is gone (kill -9 included)."""
    parent = int(os.environ.get("TESSELLA_PARENT", 0))
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
