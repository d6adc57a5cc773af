"""The command line: `tessella <command> [hydra overrides]`.

Kept light on purpose: help answers without importing torch, Hydra or Lightning. Each command is a module of this
package with `main(cfg)`; Hydra composes its configuration from `conf/<command>.yaml`.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .. import __version__

CONF = Path(__file__).resolve().parent.parent / "conf"

COMMANDS = {
    "train": "train one tokenizer, its semantic encoder, or the unified model around it",
    "evaluate": "measure a trained run again and rewrite its metrics and pictures",
    "ablate": "train and compare several tokenizer designs inside the same LLM, and write one report",
    "sample": "generate images from prompts with a trained unified model",
    "reconstruct": "encode and decode images with a trained tokenizer, side by side",
    "ask": "ask a trained unified model questions about a picture",
    "report": "rebuild the report of a study, or of run folders",
}

EXAMPLES = {
    "train": [
        "tessella train phase=tokenizer tokenizer=nano/vq",
        "tessella train phase=unified tokenizer=runs/my-vq recipe.unified.steps=2000 seed=1",
        "tessella train --multirun seed=0,1,2",
    ],
    "evaluate": ["tessella evaluate run=runs/my-run"],
    "ablate": [
        "tessella ablate",
        "tessella ablate 'seeds=[0,1,2]' study=three-seeds",
        "tessella ablate data=folder data.train=photos 'design=[single_vq]'",
    ],
    "sample": ["tessella sample 'a small red circle at the top left' run=runs/ablate/designs/single_vq"],
    "reconstruct": ["tessella reconstruct photo.jpg run=runs/my-vq"],
    "ask": ["tessella ask picture.png 'what colour is the shape?' run=runs/ablate/designs/decoupled"],
    "report": ["tessella report run=runs/ablate"],
}

POSITIONAL = {"sample": ("prompt",), "reconstruct": ("image",), "ask": ("image", "question")}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; exits with 0, 1 (stopped), 2 (bad input) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return
    if arguments[0] in ("-V", "--version"):
        print(f"tessella {__version__}")
        return
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise SystemExit(f"tessella: {unknown(command, COMMANDS, 'command')}")
    if any(argument in ("-h", "--help") for argument in rest):
        print(command_help(command))
        return
    run_command(command, rest)


def run_command(command: str, arguments: Sequence[str]) -> None:
    """Compose the configuration of `command` from `arguments` and call its `main(cfg)`."""
    from .compose import run_with_hydra

    def call(cfg):
        return import_module(f"tessella.experiments.{command}").main(cfg)

    overrides = positional_to_overrides(command, arguments)
    run_with_hydra(command, call, forward_to_stages(overrides) if command == "ablate" else overrides)


def positional_to_overrides(command: str, arguments: Sequence[str]) -> list[str]:
    """Plain arguments (a prompt, an image) become the override of their key; overrides and flags pass through."""
    names = list(POSITIONAL.get(command, ()))
    plain: list[str] = []
    rest: list[str] = []
    for argument in arguments:
        is_override = argument.startswith(("-", "+", "~")) or _looks_like_override(argument)
        (rest if is_override else plain).append(argument)
    if len(plain) > len(names):
        takes = " ".join(name.upper() for name in names) or "overrides of the form key=value only"
        raise SystemExit(f"tessella {command}: cannot place the argument {plain[len(names)]!r}; it takes {takes}.")
    return [f"{name}={_quoted(value)}" for name, value in zip(names, plain, strict=False)] + rest


def forward_to_stages(overrides: Sequence[str]) -> list[str]:
    """Of the overrides of a study, those it does not know itself go to each of its stages, as `overrides=[...]`."""
    own = {line.split(":")[0] for line in (CONF / "ablate.yaml").read_text().splitlines() if line[:1].isalpha()}
    own |= {"design", "designs", "hydra"}
    kept: list[str] = []
    forwarded: list[str] = []
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0].split("@")[0].split(".")[0].split("/")[0]
        (kept if override.startswith("-") or key in own else forwarded).append(override)
    return [*kept, f"overrides=[{','.join(map(_quoted, forwarded))}]"] if forwarded else kept


def _looks_like_override(argument: str) -> bool:
    key = argument.split("=", 1)[0]
    return "=" in argument and not any(character.isspace() for character in key) and "?" not in key


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


def unknown(given: str, valid, kind: str) -> str:
    """One sentence: what was given, the nearest valid names, all valid names."""
    from difflib import get_close_matches

    names = sorted(valid)
    near = get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    return f"no {kind} {given!r}.{hint} Available: {', '.join(names)}."


def config_groups() -> dict[str, list[str]]:
    """Every config group and its options, read from the yaml files on disk."""
    groups: dict[str, list[str]] = {}
    for folder, _, files in sorted(os.walk(CONF)):
        names = sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))
        group = Path(folder).relative_to(CONF).as_posix()
        if names and group != ".":
            top, _, below = group.partition("/")
            groups.setdefault(top, []).extend(f"{below}/{name}" if below else name for name in names)
    return groups


def help_text() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"tessella {__version__}: image tokenizers as swappable parts of one autoregressive LLM",
        "",
        "usage: tessella <command> [key=value ...]",
        "",
        "commands:",
        *(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()),
        "",
        *_group_lines(),
        "",
        "`tessella <command> --help` explains one command; `--cfg job` prints its configuration; `--multirun` sweeps.",
    ]
    return "\n".join(lines)


def command_help(command: str) -> str:
    positional = " ".join(f"[{name.upper()}]" for name in POSITIONAL.get(command, ()))
    keys = _own_keys(command)
    lines = [
        f"usage: tessella {command} {positional}{' ' if positional else ''}[key=value ...]",
        "",
        COMMANDS[command],
        "",
        "examples:",
        *(f"  {example}" for example in EXAMPLES[command]),
        "",
        *_group_lines(),
        "",
        f"configuration (conf/{command}.yaml; override any key, `--cfg job` prints all of it resolved):",
        *(f"  {line}" for line in keys.splitlines()),
    ]
    return "\n".join(lines)


def _own_keys(command: str) -> str:
    """The command's yaml without the plumbing of Hydra."""
    text = (CONF / f"{command}.yaml").read_text().split("\nhydra:")[0]
    return "\n".join(
        line for line in text.splitlines() if "override hydra/" not in line and "_self_" not in line
    ).rstrip()


def _group_lines() -> list[str]:
    groups = config_groups()
    width = max(map(len, groups), default=0)
    return ["config groups:", *(f"  {name:<{width}}  {', '.join(options)}" for name, options in groups.items())]


if __name__ == "__main__":
    main()
