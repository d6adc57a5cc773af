"""The command line: `tessella <command> [hydra overrides]`.

Kept light on purpose: help answers without importing torch, Hydra or Lightning. Each command is a module of this
package with `main(cfg)`; Hydra composes its configuration from `conf/<command>.yaml`.
"""

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from .. import __version__

CONF = Path(__file__).resolve().parent.parent / "conf"

COMMANDS = {
    "train": "train one tokenizer, its semantic encoder, or the unified model around it",
    "evaluate": "measure a trained run again and rewrite its metrics and pictures",
    "ablate": "train and compare several tokenizer designs inside the same LLM, and write one report",
    "sample": "generate images from prompts with a trained unified model",
    "reconstruct": "encode and decode images with a trained tokenizer, side by side",
    "ask": "ask a trained unified model questions about a picture",
    "convert": "read a published tokenizer into a run folder, or write one back",
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
    "sample": ["tessella sample 'a small red circle at the top left' run=runs/ablate/single_vq"],
    "reconstruct": [
        "tessella reconstruct photo.jpg run=runs/my-vq",
        "tessella reconstruct photos tokenizer=runs/my-one-d-piece keep=1,4,16,32",
    ],
    "ask": ["tessella ask picture.png 'what colour is the shape?' run=runs/ablate/decoupled"],
    "convert": [
        "tessella convert llamagen vq_ds16_c2i.pt runs/llamagen",
        "tessella convert llamagen vq_ds16_c2i.pt runs/llamagen-384 image_size=384",
        "tessella convert emu3 hub:BAAI/Emu3-VisionTokenizer runs/emu3",
        "tessella convert llamagen runs/llamagen back.safetensors",
    ],
    "report": ["tessella report run=runs/ablate"],
}

POSITIONAL = {
    "sample": ("prompt",),
    "reconstruct": ("image",),
    "ask": ("image", "question"),
    "convert": ("system", "source", "out"),
}

# Keys that stand for another one of the command, and keys whose value is a list also when written 1,4,16.
SAME_AS = {"reconstruct": {"tokenizer": "run"}}
LISTS = {"reconstruct": ("keep",)}

# Keys of single runs, which a study sets for each of its stages.
NOT_FOR_STUDIES = {
    "phase": "each stage of a design has its phase; `tessella train` takes this key.",
    "seed": "a study has a list of seeds; use seeds=[0,1,2].",
    "out": "a study lies in runs/<study>; use study=<name>.",
    "warm_start": "each stage of a design names what it starts from; `tessella train` takes this key.",
    "tokenizer": "a design names its stages' tokenizers; change designs.<design>.stages.<stage>.overrides=[...].",
}

# Hydra's flags and the values each takes (None: no value; an empty tuple: any).
FLAGS: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--config-dir", "-cd", "--package", "-p"), ()),
    **dict.fromkeys(("--multirun", "-m", "--run", "-r", "--resolve", "--hydra-help"), None),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; exits with 0, 2 (bad input), 130 (Ctrl-C) or 143 (SIGTERM)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return
    if arguments[0] in ("-V", "--version"):
        print(f"tessella {__version__}")
        return
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        refuse("tessella", unknown(command, COMMANDS, "command"))
    if any(argument in ("-h", "--help") for argument in rest):
        print(command_help(command))
        return
    run_command(command, rest)


def run_command(command: str, arguments: Sequence[str]) -> None:
    """Compose the configuration of `command` from `arguments` and call its `main(cfg)`."""
    flags, overrides = sort_arguments(command, arguments)
    overrides = forward_to_stages(overrides) if command == "ablate" else overrides

    from .compose import run_with_hydra
    from .runs import remember_command

    def call(cfg):
        return import_module(f"tessella.experiments.{command}").main(cfg)

    remember_command(command, *arguments)
    run_with_hydra(command, call, overrides, flags)


def refuse(program: str, text: str) -> NoReturn:
    """End the program for bad input: one line on standard error, exit code 2."""
    print(f"{program}: error: {text}", file=sys.stderr)
    raise SystemExit(2)


def sort_arguments(command: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags with their values, and overrides; a plain argument (a prompt, a picture) becomes one of its key.

    Flags and overrides may come in any order; after `--` nothing is a flag.
    """
    names = list(POSITIONAL.get(command, ()))
    flags: list[str] = []
    plain: list[str] = []
    overrides: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        name = argument.split("=", 1)[0]
        if argument == "--":
            plain += queue
            break
        if name in FLAGS:
            accepted = FLAGS[name]
            if accepted is not None and "=" not in argument:
                argument = f"{name}={queue.pop(0) if queue else ''}"
            value = argument.partition("=")[2]
            if accepted and value not in accepted:
                refuse(f"tessella {command}", unknown(value, accepted, f"value of {name}"))
            flags.append(argument)
        elif argument.startswith("-"):
            refuse(f"tessella {command}", unknown(argument, FLAGS, "flag") + " Overrides have the form key=value.")
        elif argument.startswith(("+", "~")) or _looks_like_override(argument):
            overrides.append(_plain_override(command, argument))
        else:
            plain.append(argument)
    if len(plain) > len(names):
        takes = " ".join(name.upper() for name in names) or "overrides of the form key=value only"
        refuse(f"tessella {command}", f"cannot place the argument {plain[len(names)]!r}; it takes {takes}.")
    return flags, [f"{name}={_quoted(value)}" for name, value in zip(names, plain, strict=False)] + overrides


def _plain_override(command: str, override: str) -> str:
    """An override in Hydra's terms: the command's own key for an alias, brackets around a list."""
    key, _, value = override.partition("=")
    key = SAME_AS.get(command, {}).get(key, key)
    if key in LISTS.get(command, ()) and "," in value and not value.startswith("["):
        value = f"[{value}]"
    return f"{key}={value}" if "=" in override else override


def forward_to_stages(overrides: Sequence[str]) -> list[str]:
    """Of the overrides of a study, those it does not know itself go to each of its stages, as `overrides=[...]`."""
    own = _top_keys("ablate") | {"design", "designs"}
    valid = own | (_top_keys("train") | set(config_groups())) - NOT_FOR_STUDIES.keys() - {"defaults", "hydra"}
    kept: list[str] = []
    forwarded: list[str] = []
    for override in overrides:
        key = re.split(r"[=@./]", override.lstrip("+~"), maxsplit=1)[0]
        if key in NOT_FOR_STUDIES:
            refuse("tessella ablate", f"{override}: {NOT_FOR_STUDIES[key]}")
        if key not in valid | {"hydra"} and not override.startswith("+"):
            refuse("tessella ablate", unknown(key, valid, "key or group"))
        (kept if key in own | {"hydra"} else forwarded).append(override)
    return [*kept, f"overrides=[{','.join(map(_quoted, forwarded))}]"] if forwarded else kept


def _top_keys(command: str) -> set[str]:
    return {line.split(":")[0] for line in (CONF / f"{command}.yaml").read_text().splitlines() if line[:1].isalpha()}


def _looks_like_override(argument: str) -> bool:
    key = argument.split("=", 1)[0]
    return "=" in argument and not any(character.isspace() for character in key) and "?" not in key


def _quoted(value: str) -> str:
    """A quoted value of Hydra's grammar, where a backslash means itself unless a quote, or `${`, follows."""
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), escaped)
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
        if names and group != "." and not group.endswith("common"):  # common/: parts that options share
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
