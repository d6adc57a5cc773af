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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_module
from hydra import main as hydra_main
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from .cli import config_groups
from .run_folder import RunFolderBusy
from .stopping import Stopped

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
        except YAMLError as error:
            raise ValueError(f"a configuration file is not yaml: {error}") from error
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, config_name, overrides)) from error


def tokenizer_folders(overrides: Sequence[str]) -> list[str]:
    """`tokenizer=<run folder>`, `teacher=<run folder>`: rewritten to the node that loads the trained object."""
    rewritten: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        folder = Path(value.strip("'\"")).expanduser()
        if key in ("tokenizer", "teacher") and value and (folder / "run.json").is_file():
            rewritten.append("tokenizer=trained" if key == "tokenizer" else "tokenizer@teacher=trained")
            rewritten.append(f"{key}.folder='{folder.resolve()}'")
        else:
            rewritten.append(override)
    return rewritten


def run_with_hydra(
    command: str, call: Callable[[DictConfig], Any], overrides: Sequence[str], flags: Sequence[str] = ()
) -> None:
    """Run `call(cfg)` with the composed configuration, or what Hydra's flags ask for (`--multirun`, `--cfg job`, ...).

    Without flags Hydra's own entry point is left out: it would compose everything three times.
    """
    overrides = tokenizer_folders(overrides)
    folders = [Path(flag.partition("=")[2]).resolve() for flag in flags if flag.startswith(("--config-dir=", "-cd="))]
    found_in = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []

    def task(cfg: DictConfig) -> Any:
        try:
            return call(cfg)
        except (Exception, Stopped, KeyboardInterrupt) as error:
            fail(command, error)  # here, since Hydra would print a stack

    task.__module__ = "__main__"
    arguments, terminated = sys.argv, signal.signal(signal.SIGTERM, _terminate)
    sys.argv = [f"tessella {command}", *flags, *overrides]
    try:
        several = {"-m", "--multirun"} & set(flags)
        jobs = [compose_config(command, [*found_in, *job]) for job in (_jobs(overrides) if several else [overrides])]
        if flags or any(override.startswith(("hydra", "+hydra", "++hydra")) for override in overrides):
            hydra_main(config_path=f"pkg://{CONFIG_MODULE}", config_name=command, version_base="1.3")(task)()
        else:
            task(jobs[0])
    except (Exception, Stopped, KeyboardInterrupt) as error:
        fail(command, error)
    finally:
        sys.argv = arguments
        signal.signal(signal.SIGTERM, terminated)


def _jobs(overrides: Sequence[str]) -> Iterator[list[str]]:
    """What `--multirun` will compose: every value of every sweep at least once, beside the others' first values."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices: list[list[str]] = []
    for override, text in zip(parsed, overrides, strict=True):
        sweep = override.is_discrete_sweep() and not isinstance(override.value(), Glob)
        values = (
            [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()] if sweep else []
        )
        choices.append(values or ([] if override.is_sweep_override() else [text]))
    choices = [values for values in choices if values]
    first = [values[0] for values in choices]
    yield first
    for i, values in enumerate(choices):
        yield from ([*first[:i], value, *first[i + 1 :]] for value in values[1:])


def _terminate(signum: int, frame: object) -> None:
    """SIGTERM outside training ends the program the way Ctrl-C does, so that `finally` blocks run."""
    if threading.current_thread() is threading.main_thread():
        raise Stopped(128 + signum, "terminated.")


def fail(command: str, error: BaseException) -> NoReturn:
    """End the program with one line (or the stack trace when HYDRA_FULL_ERROR=1)."""
    if isinstance(error, KeyboardInterrupt):
        error = Stopped(128 + signal.SIGINT, "interrupted.")
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and not isinstance(error, Stopped):
        traceback.print_exception(error)
        raise SystemExit(2)
    cause = root_cause(error)
    if isinstance(cause, MissingMandatoryValue):
        cause = ValueError(
            f"{cause.full_key} has no value; give one: {cause.full_key}=... (see `tessella {command} --help`)"
        )
    if isinstance(cause, Stopped):
        print(f"tessella {command}: {cause}", file=sys.stderr)
        raise SystemExit(cause.exit_code)
    expected = isinstance(cause, ValueError | OSError | RunFolderBusy)
    kind = "" if expected else f"{type(cause).__name__}: "
    text = " ".join(str(cause).split()) or type(cause).__name__
    if not expected and "TESSELLA_PARENT" in os.environ:
        traceback.print_exception(error)  # a stage's log is where its study sends the reader
    hint = "" if expected else " (HYDRA_FULL_ERROR=1 shows the stack)"
    print(f"tessella {command}: error: {kind}{text}{hint}", file=sys.stderr)
    raise SystemExit(2)


def root_cause(error: BaseException) -> BaseException:
    """Hydra wraps what a constructor raised; the user needs the constructor's own words."""
    from hydra.errors import InstantiationException

    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def explain(error: BaseException, config_name: str, overrides: Sequence[str] = ()) -> str:
    """One line from a composition error, with the nearest valid names."""
    text = str(error)
    missing = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if missing:
        return _explain_option(missing.group(1))
    sweep = re.search(r"Ambiguous value for argument '([^']+)'", text)
    if sweep:
        key, _, value = sweep.group(1).partition("=")
        return f"{key}={value} lists several values: add --multirun to run each, or write {key}=[{value}] for a list."
    key = re.search(r"(?:Could not override|override) '([^']+)'|Key '([^']+)' is not in struct", text)
    if key:
        return _explain_key(next(filter(None, key.groups())), config_name, text, overrides)
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


def _explain_key(key: str, config_name: str, text: str, overrides: Sequence[str]) -> str:
    key = key.lstrip("+~")
    full = re.search(r"full_key: (\S+)", text)
    key = full.group(1) if full and full.group(1).endswith(key) else key
    keys = sorted(set(_valid_keys(config_name, overrides)) | set(config_groups()))
    above, _, last = key.rpartition(".")
    siblings = [name for name in keys if name.rpartition(".")[0] == above]
    near = [
        f"{above}.{name}".lstrip(".")
        for name in get_close_matches(last, [n[len(above) :].lstrip(".") for n in siblings], n=3)
    ]
    near += [name for name in get_close_matches(key, keys, n=3, cutoff=0.7) if name not in near]
    near += [name for name in keys if name.rsplit(".", 1)[-1] == last and name not in near][:3]
    if not near:
        named = f"{above} has" if siblings and above else "Top-level keys:"
        listed = siblings if siblings and above else sorted({name.split(".")[0] for name in keys})
        return f"{key}: no such key or group. {named} {', '.join(name.rsplit('.', 1)[-1] for name in listed)}."
    return f"{key}: no such key or group. Nearest: {', '.join(near)}. (add a new key with +{key}=...)"


def _valid_keys(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Dotted names of every key there is with the options that the overrides choose."""
    groups = config_groups()
    choices = [override for override in overrides if override.split("=", 1)[0] in groups]
    for chosen in (choices, []):
        with suppress(HydraException, OmegaConfBaseException):
            GlobalHydra.instance().clear()
            with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
                return flatten_keys(compose(config_name, overrides=chosen))
    return []


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
