"""The published systems whose files we read, and which of our modules an official file fits.

A system is a module `tokenizers/official_<system>.py` with SOURCE, LICENCE, from_official_config, layout and unwrap;
one whose files come in several layouts has `layouts` besides. Adding a system edits nothing here.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from yaml import YAMLError

from ..tokenizers.checkpoints import Layout, official_names
from .cli import config_groups, unknown
from .compose import compose_config
from .runs import PACKAGE, plain

USUAL = {"llamagen": "vq16"}  # our yaml for a system, where it is not called like the system
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


def system_names() -> list[str]:
    """Of the modules that say where their files come from (others are parts that systems share)."""
    files = sorted((PACKAGE / "tokenizers").glob("official_*.py"))
    return [file.stem.removeprefix("official_") for file in files if "SOURCE" in file.read_text()]


def system(name: str) -> Any:
    """The module of a system.

    Raises:
        ValueError: no such system; names the nearest.
    """
    if name not in system_names():
        raise ValueError(unknown(name, system_names(), "system"))
    return import_module(f"tessella.tokenizers.official_{name}")


@dataclass(frozen=True)
class Architecture:
    """What an official file is loaded into: the node that builds it, and where its sizes come from, in words."""

    node: dict[str, Any]
    origin: str


def architecture(name: str, weights: Path, options: Any) -> Architecture:
    """By our `tokenizer=`, the official `config=`, the configuration beside the weights, or the system's usual one.

    Args:
        options: the configuration of the command: `tokenizer` (a node, or absent), `config`, `image_size`.

    Raises:
        ValueError: the configuration cannot be read, or there are several of ours and none was chosen.
    """
    if options.get("tokenizer") is not None:
        _refuse(options, "config", "leave one of them out: config is an official file, tokenizer one of our own")
        _refuse(options, "image_size", "with tokenizer= write tokenizer.image_size")
        return Architecture(plain(options.tokenizer), "the tokenizer= given")
    file = Path(options.config).expanduser() if options.config else config_beside(weights)
    if file is not None:
        return Architecture(official_node(name, read_config(file), options.image_size), str(file))
    published = getattr(system(name), "PUBLISHED", {}).get(weights.name)  # files that have no configuration beside them
    if published is not None:
        return Architecture(
            official_node(name, plain(published), options.image_size), f"the published sizes of {weights.name}"
        )
    ours = [
        option
        for option in config_groups()["tokenizer"]
        if option == USUAL.get(name, name) or option.startswith(f"{name}_")
    ]
    if len(ours) != 1:
        raise ValueError(
            f"{weights}: its sizes are unknown, because no configuration lies beside it; name one of ours, "
            f"{', '.join(f'tokenizer={option}' for option in ours) or 'tokenizer=<name>'}, or an official one, "
            "config=<file>."
        )
    _refuse(options, "image_size", f"write tokenizer={ours[0]} tokenizer.image_size")
    return Architecture(plain(compose_config("train", [f"tokenizer={ours[0]}"]).tokenizer), f"tokenizer={ours[0]}")


def _refuse(options: Any, key: str, instead: str) -> None:
    if options[key] is not None:
        raise ValueError(f"{key}={options[key]} has no use here; {instead}.")


def config_beside(weights: Path) -> Path | None:
    """The official configuration of a file or folder of weights: config.* in the same folder, or of the file's name."""
    folder, names = (weights, []) if weights.is_dir() else (weights.parent, [weights.stem])
    candidates = [folder / f"{name}{suffix}" for name in [*names, "config"] for suffix in CONFIG_SUFFIXES]
    if weights.is_dir():
        yamls = [file for file in sorted(weights.iterdir()) if file.suffix in (".yaml", ".yml")]
        candidates += yamls if len(yamls) == 1 else []
    return next((file for file in candidates if file.is_file()), None)


def read_config(file: Path) -> dict[str, Any]:
    """An official configuration as plain values.

    Raises:
        ValueError: the file is missing, or no json or yaml mapping.
    """
    try:
        content = json.loads(file.read_text()) if file.suffix == ".json" else plain(OmegaConf.load(file))
    except FileNotFoundError:
        raise ValueError(
            f"config={file} does not exist; give an official configuration file (.yaml or .json)."
        ) from None
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{file} cannot be read as a configuration: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}; needed is an official configuration.")
    return content


def official_node(name: str, config: dict[str, Any], image_size: int | None) -> dict[str, Any]:
    """The node that builds our module from an official configuration."""
    node: dict[str, Any] = {"_target_": f"tessella.tokenizers.official_{name}.from_official_config", "_convert_": "all"}
    if image_size is not None:
        if "image_size" not in inspect.signature(system(name).from_official_config).parameters:
            raise ValueError(f"image_size={image_size}: the official configuration of {name} fixes it; leave it out.")
        node["image_size"] = int(image_size)
    return {**node, "_args_": [config]}


def build(this: Architecture) -> nn.Module:
    """The module of an architecture, with random weights.

    Raises:
        ValueError: the official configuration is of something else.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(OmegaConf.create(this.node))
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, KeyError):
            raise ValueError(
                f"{this.origin} has no field {cause}, so it is no configuration of this system; name another with "
                "config=<file>, or one of ours with tokenizer=<name>."
            ) from None
        if isinstance(cause, TypeError | AttributeError):
            raise ValueError(f"{this.origin} is no configuration of this system: {cause}.") from None
        raise


def layouts(name: str, module: nn.Module) -> dict[str, Layout]:
    """Every layout that files of this system have, the usual one first.

    Raises:
        ValueError: the module is of another kind.
    """
    official = system(name)
    try:
        return official.layouts(module) if hasattr(official, "layouts") else {name: official.layout(module)}
    except (AttributeError, KeyError, AssertionError, ValueError):
        raise ValueError(f"a {type(module).__name__} is no tokenizer of {name}; which system is it of?") from None


def fitting_layout(name: str, module: nn.Module, official: Mapping[str, Tensor]) -> tuple[str, Layout]:
    """The layout with the most keys in common with an official file."""
    known = layouts(name, module)
    best = max(known, key=lambda key: len(official_names(module, known[key]).keys() & official.keys()))
    return best, known[best]
