"""Weights in the layout of an official release: strict import into one of our modules, and export back, bit for bit.

Every system has a module official_<system>.py beside this one. It builds the module from the official configuration and
gives its `Layout`, the table between official key names and ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

PICKLES = (".pt", ".pth", ".bin", ".ckpt")


class Conversion(NamedTuple):
    """A weight that both sides store in different shapes; the two functions are exact inverses."""

    to_ours: Callable[[Tensor], Tensor]
    to_official: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layout:
    """How an official file names the weights of one of our modules.

    Args:
        prefixes: official prefix of a key -> ours; of several that fit, the longest is replaced. A prefix ends where a
            name ends, at a dot or at the end of the key; "" stands for all keys and keeps them as they are.
        unused: official keys, or prefixes that end in a dot, which no module of ours needs (statistics, layers behind
            the one that is read). Import hands them back, export takes them again.
        conversions: our key -> how to reshape its tensor.
        stacked: official key -> the keys of ours whose tensors it holds one after the other along the first axis (the
            queries, keys and values of an attention in one matrix). Each has the same share of it.
        columns: official key -> (key of ours, start, stop): where ours has it in these columns (codebooks side by side
            under one index).
        own: keys of ours that official files do not have (counters of a quantizer); import leaves them as they are.
    """

    prefixes: Mapping[str, str]
    unused: tuple[str, ...] = ()
    conversions: Mapping[str, Conversion] = field(default_factory=dict)
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)
    own: tuple[str, ...] = ()

    def is_unused(self, official_key: str) -> bool:
        return any(
            official_key.startswith(name) if name.endswith(".") else official_key == name for name in self.unused
        )


def import_weights(module: nn.Module, official: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Fill the parameters and buffers of `module` from official weights; returns the tensors the layout calls unused.

    Raises:
        ValueError: official keys that are missing, unexpected or of another shape; the module is left as it was.
    """
    names = official_names(module, layout)
    ours = module.state_dict()
    unused = {key: tensor for key, tensor in official.items() if key not in names and layout.is_unused(key)}
    missing = [key for key in names if key not in official]
    unexpected = [key for key in official if key not in names and key not in unused]
    converted, misshapen = {}, []
    for key, our_keys in names.items():
        if key not in official:
            continue
        wanted = tuple(_to_official(ours, key, our_keys, layout).shape)
        if tuple(official[key].shape) != wanted:
            misshapen.append(f"{key} {tuple(official[key].shape)} (needed: {wanted})")
        elif key in layout.columns:
            our_key, start, stop = layout.columns[key]
            converted.setdefault(our_key, ours[our_key].clone())[:, start:stop] = official[key]
        elif our_keys[0] in layout.conversions:
            converted[our_keys[0]] = layout.conversions[our_keys[0]].to_ours(official[key])
        else:
            # a counter has no dimension to divide
            parts = official[key].chunk(len(our_keys)) if len(our_keys) > 1 else (official[key],)
            converted.update(zip(our_keys, parts, strict=True))
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if keys
    ]
    if problems:
        raise ValueError(f"the official weights do not fit this configuration; keys {'; '.join(problems)}.")
    module.load_state_dict(ours | converted, strict=True)
    return unused


def export_weights(module: nn.Module, layout: Layout, unused: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights of `module` under their official names, with `unused` tensors of the import put back."""
    ours = module.state_dict()
    official = {
        key: _to_official(ours, key, our_keys, layout).detach().contiguous()
        for key, our_keys in official_names(module, layout).items()
    }
    return official | dict(unused or {})


def _to_official(ours: Mapping[str, Tensor], key: str, our_keys: tuple[str, ...], layout: Layout) -> Tensor:
    """The tensor of the official `key`."""
    if key in layout.columns:
        our_key, start, stop = layout.columns[key]
        return ours[our_key][:, start:stop]
    first, *others = our_keys
    if others:
        return torch.cat([ours[key] for key in our_keys])
    conversion = layout.conversions.get(first)
    return conversion.to_official(ours[first]) if conversion else ours[first]


def official_names(module: nn.Module, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Official key -> our key (several, where it stacks them), for everything the module stores.

    Raises:
        ValueError: a key of ours that the layout gives no official name, or two keys with the same one.
    """
    to_official = {ours: official for official, ours in layout.prefixes.items()}
    names: dict[str, tuple[str, ...]] = dict(layout.stacked)
    names |= {key: (columns[0],) for key, columns in layout.columns.items()}
    named = {key for keys in layout.stacked.values() for key in keys} | set(layout.own)
    named |= {columns[0] for columns in layout.columns.values()}
    for key in module.state_dict():
        if key in named:
            continue
        fitting = [prefix for prefix in to_official if fits(key, prefix)]
        if not fitting:
            raise ValueError(f"the layout gives no official name to {key}.")
        prefix = max(fitting, key=len)
        name = (to_official[prefix] + key[len(prefix) :]).removeprefix("." if not to_official[prefix] else "")
        if name in names:
            raise ValueError(f"the layout gives {key} and {', '.join(names[name])} the same official name {name}.")
        names[name] = (key,)
    return names


def fits(key: str, prefix: str) -> bool:
    return not prefix or key == prefix or key.startswith(prefix if prefix.endswith(".") else prefix + ".")


def read_official(path: Path) -> dict[str, Any]:
    """What an official file holds: a state dict, or a dict around it (which `official_<system>.unwrap` opens).

    `path` is a .safetensors file, a pickle of tensors (read with weights_only, so it cannot run code), or a folder with
    exactly one of them; shards of one model in a folder count as one.

    Raises:
        ValueError: no such file, several that could be meant, or one that cannot be read.
    """
    return {key: value for file in weight_files(path) for key, value in read_file(file).items()}


def weight_files(path: Path) -> list[Path]:
    """The files that `read_official` reads for `path`; safetensors before pickles."""
    if not path.is_dir():
        if not path.is_file():
            raise ValueError(f"{path} does not exist; give an official file of weights or a folder with one.")
        return [path]
    files = [file for file in sorted(path.iterdir()) if file.suffix == ".safetensors"] or [
        file for file in sorted(path.iterdir()) if file.suffix in PICKLES
    ]
    if not files or (len(files) > 1 and not all("-of-" in file.name for file in files)):
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(f"{path} must hold one file of weights (.safetensors {' '.join(PICKLES)}); found: {found}.")
    return files


def read_file(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no readable safetensors file: {error}.") from None
    if path.suffix not in PICKLES:
        raise ValueError(f"{path} is no file of weights; read are .safetensors and {' '.join(PICKLES)}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files and for pickles with more than tensors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as a file of tensors alone (weights_only): {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; needed is a dict of tensors.")
    return content
