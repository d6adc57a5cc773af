"""Hydra around a command: composition, error messages of one line, exit codes.

Exit codes: 0 done, 2 bad input (one line on standard error; `HYDRA_FULL_ERROR=1` shows the stack), 130 Ctrl-C,
143 SIGTERM.
"""

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra import main as hydra_main
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .cli import config_groups
from .runs import RunFolderBusy, Stopped

CONFIG_MODULE = "tessella.conf"


def compose_config(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration `tessella <config_name> <overrides>` would run with, as a plain DictConfig.

    Raises:
        ValueError: one line naming the wrong group, key or value and the nearest valid names.
    """
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        try:
            return compose(config_name, overrides=tokenizer_folders(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, config_name)) from error


def tokenizer_folders(overrides: Sequence[str]) -> list[str]:
    """`tokenizer=<run folder>` restores a trained tokenizer: rewritten to the node that loads it."""
    rewritten: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        folder = Path(value.strip("'\"")).expanduser()
        if key == "tokenizer" and value and (folder / "run.json").is_file():
            rewritten.append("tokenizer=trained")
            rewritten.append(f"tokenizer.folder='{folder.resolve()}'")
        else:
            rewritten.append(override)
    return rewritten


def run_with_hydra(command: str, call: Callable[[DictConfig], Any], arguments: Sequence[str]) -> None:
    """Run `call(cfg)` under Hydra's own command line (`--multirun`, `--cfg job`, `--resolve`, launchers)."""
    arguments = tokenizer_folders(arguments)
    plain = [argument for argument in arguments if not argument.startswith("-")]
    flags = {argument for argument in arguments if argument.startswith("-")}
    if not flags & {"-m", "--multirun"} and RunMode.RUN:
        try:
            compose_config(command, plain)
        except ValueError as error:
            fail(command, error)

    signal.signal(signal.SIGTERM, _terminate)

    def task(cfg: DictConfig) -> Any:
        try:
            return call(cfg)
        except Exception as error:
            fail(command, error)

    sys.argv = [f"tessella {command}", *arguments]
    task.__module__ = "__main__"
    hydra_main(config_path=f"pkg://{CONFIG_MODULE}", config_name=command, version_base="1.3")(task)()


def _terminate(signum: int, frame: object) -> None:
    """SIGTERM outside training ends the program the way Ctrl-C does, so that `finally` blocks run."""
    if threading.current_thread() is threading.main_thread():
        raise Stopped(128 + signum, "terminated.")


def fail(command: str, error: BaseException) -> None:
    """End the program with one line (or the stack trace when HYDRA_FULL_ERROR=1)."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and not isinstance(error, Stopped):
        traceback.print_exception(error)
        raise SystemExit(2)
    cause = root_cause(error)
    if isinstance(cause, Stopped):
        print(f"tessella {command}: {cause}", file=sys.stderr)
        raise SystemExit(cause.exit_code)
    expected = isinstance(cause, ValueError | OSError | RunFolderBusy)
    kind = "" if expected else f"{type(cause).__name__}: "
    text = " ".join(str(cause).split()) or type(cause).__name__
    hint = "" if expected else " (HYDRA_FULL_ERROR=1 shows the stack)"
    print(f"tessella {command}: error: {kind}{text}{hint}", file=sys.stderr)
    raise SystemExit(2)


def root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a constructor raised; the user needs the constructor's own words."""
    from hydra.errors import InstantiationException

    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def explain(error: BaseException, config_name: str) -> str:
    """One line from a composition error, with the nearest valid names."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing:
        return _explain_option(missing.group(1))
    key = re.search(r"(?:Could not override|override) '([^']+)'|Key '([^']+)' is not in struct", text)
    if key:
        return _explain_key(next(filter(None, key.groups())), config_name, text)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"{first} (see `tessella {config_name} --help`)"


def _explain_option(path: str) -> str:
    groups = config_groups()
    group, _, option = path.partition("/")
    if group in groups and option:
        options = groups[group]
        near = get_close_matches(option, options, n=3, cutoff=0.4)
        hint = f" Nearest: {', '.join(near)}." if near else ""
        return f"{group}={option}: no such option.{hint} Available: {', '.join(options)}."
    return f"no config {path!r}. Groups: {', '.join(groups)}."


def _explain_key(key: str, config_name: str, text: str) -> str:
    key = key.lstrip("+~")
    full = re.search(r"full_key: (\S+)", text)
    key = full.group(1) if full and full.group(1).endswith(key) else key
    try:
        GlobalHydra.instance().clear()
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            cfg = compose(config_name)
        keys = sorted(flatten_keys(cfg)) + sorted(config_groups())
    except (HydraException, OmegaConfBaseException):
        keys = sorted(config_groups())
    near = get_close_matches(key, keys, n=4, cutoff=0.5)
    last = key.rsplit(".", 1)[-1]
    near += [name for name in keys if name.rsplit(".", 1)[-1] == last and name not in near][:3]
    hint = (
        f" Nearest: {', '.join(near)}."
        if near
        else f" Top-level keys: {', '.join(sorted({k.split('.')[0] for k in keys}))}."
    )
    return f"{key}: no such key or group.{hint} (add a new key with +{key}=...)"


def flatten_keys(node: Any, prefix: str = "") -> list[str]:
    """Dotted names of every key below `node`."""
    keys: list[str] = []
    if OmegaConf.is_dict(node):
        for name in node:
            path = f"{prefix}.{name}" if prefix else str(name)
            keys.append(path)
            if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
                keys.extend(flatten_keys(node[name], path))
    return keys
