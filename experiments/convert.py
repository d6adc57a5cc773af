"""`tessella convert`: a published tokenizer into one of our run folders, and back into an official file."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..tokenizers.base import ImageTokenizer
from ..tokenizers.checkpoints import Layout, export_weights, import_weights, official_names, read_official, weight_files
from . import build, hub, runs, systems

UNUSED = "unused.safetensors"


def main(cfg: DictConfig) -> None:
    for line in run(cfg):
        print(line)


def run(cfg: DictConfig) -> list[str]:
    """Import or export, told by what `cfg.source` is; returns what was done, line by line, the path written last.

    Raises:
        ValueError: no such system or file, a configuration that does not fit, or `cfg.out` exists.
    """
    name, source = str(cfg.system), Path(str(cfg.source)).expanduser()
    official, out = systems.system(name), Path(str(cfg.out)).expanduser()
    title = f"{name}: {official.SOURCE}; licence: {official.LICENCE}"
    if out.exists():
        raise ValueError(f"out={out} exists and is not overwritten; name a new one.")
    if (source / "model.yaml").is_file():
        return [title, *export_folder(name, source, out), str(out)]
    if out.suffix == ".safetensors":
        raise ValueError(f"out={out}: an official file becomes a folder; name a folder.")
    path = hub.fetch(str(cfg.source)) if str(cfg.source).startswith(hub.PREFIX) else source
    return [title, *import_official(name, path, out, cfg), str(out)]


def import_official(name: str, path: Path, out: Path, cfg: DictConfig) -> list[str]:
    """Write the run folder of an official file or folder at `path`."""
    files = [describe_file(file) for file in weight_files(path)]
    official = state_dict_of(systems.system(name).unwrap(read_official(path)), path)
    architecture = systems.architecture(name, path, cfg)
    module = systems.build(architecture)
    layout_name, layout = systems.fitting_layout(name, module, official)
    try:
        unused = import_weights(module, official, layout)
    except ValueError as error:
        raise ValueError(
            f"{path} is no {name} of the sizes of {architecture.origin}: {error} Name others with "
            "tokenizer=<name> (ours) or config=<official file>."
        ) from None
    state = in_official_precision(module, official, layout)
    check_exact(module, layout, unused, official)
    names = official_names(module, layout)
    ours = sum(len(keys) for keys in names.values())
    left = sorted(module.state_dict().keys() - {key for keys in names.values() for key in keys})
    imported = {
        "system": name,
        "source": systems.system(name).SOURCE,
        "licence": systems.system(name).LICENCE,
        "given": str(cfg.source),
        "files": files,
        "architecture": architecture.origin,
        "layout": layout_name,
        "tensors": len(names),
        "unused": len(unused),
    }
    write_folder(out, module, architecture.node, state, unused, imported)
    kept = f"{in_words(unused)} without use here" + (f", kept in {UNUSED}" if unused else "")
    return [
        *(f"read: {file['name']}, {file['bytes'] / 1e6:.1f} MB, sha256 {file['sha256']}" for file in files),
        f"built: {type(module).__name__} by {architecture.origin}, {parameters_in_words(module)}",
        f"mapped: {len(names)} official tensors ({layout_name}) to {ours} of ours; {kept}",
        *([f"not in the file, as built: {', '.join(left)}"] if left else []),
        "checked: exporting gives back every official tensor bit for bit",
    ]


def export_folder(name: str, folder: Path, out: Path) -> list[str]:
    """Write the official file of one of our run folders."""
    if out.suffix != ".safetensors":
        raise ValueError(f"out={out}: one of our folders becomes an official file; name it {out.name}.safetensors.")
    imported = runs.read_json(folder / "run.json").get("imported") or {}
    if imported.get("system", name) != name:
        raise ValueError(
            f"{folder} holds a tokenizer of {imported['system']}; write tessella convert {imported['system']}."
        )
    module = build.trained(folder)
    module.load_state_dict(
        load_file(folder / "weights.safetensors"), assign=True
    )  # the precision of the file, not ours
    known = systems.layouts(name, module)
    layout_name = imported.get("layout") or next(iter(known))
    unused = load_file(folder / UNUSED) if (folder / UNUSED).is_file() else {}
    official = export_weights(module, known[layout_name], unused)
    runs.write_atomic(out, save({key: tensor.clone() for key, tensor in official.items()}))
    return [
        f"read: {folder}, a {type(module).__name__} of {parameters_in_words(module)}",
        f"mapped: {len(official)} official tensors ({layout_name}), {in_words(unused)} of them kept from the import",
    ]


def state_dict_of(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    other = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if other or not content:
        raise ValueError(
            f"{path} holds no state dict of this system: {', '.join(map(repr, other[:3])) or 'it is empty'}."
        )
    return dict(content)


def in_official_precision(module: nn.Module, official: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our state dict in the number formats of the official file: half the size, where that is half precision."""
    state = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in module.state_dict().items()}
    for key, our_keys in official_names(module, layout).items():
        state |= {our_key: state[our_key].to(official[key].dtype) for our_key in our_keys}
    return state


def check_exact(
    module: nn.Module, layout: Layout, unused: Mapping[str, Tensor], official: Mapping[str, Tensor]
) -> None:
    """Raise unless exporting gives back the official tensors bit for bit."""
    exported = export_weights(module, layout, unused)
    for key, tensor in official.items():
        same = exported[key].to(tensor.dtype)
        if not torch.equal(_bits(same), _bits(tensor)):
            raise ValueError(f"{key} is {tensor.dtype}, which our {exported[key].dtype} cannot hold exactly.")


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def write_folder(
    out: Path,
    module: nn.Module,
    node: Mapping[str, Any],
    state: Mapping[str, Tensor],
    unused: Mapping[str, Tensor],
    imported: Mapping[str, Any],
) -> None:
    """A folder like that of a finished run, there at once or not at all."""
    parts = runs.plain(build.expand_trained(node))
    staged = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    staged.mkdir(parents=True)
    try:
        content = save(dict(state))
        weights = hashlib.sha256(content).hexdigest()
        runs.write_atomic(staged / "weights.safetensors", content)
        if unused:
            runs.write_atomic(staged / UNUSED, save({key: tensor.contiguous() for key, tensor in unused.items()}))
        runs.write_atomic(staged / "model.yaml", OmegaConf.to_yaml(OmegaConf.create(parts)))
        runs.write_json(staged / "run.json", record_of(module, parts, weights, imported))
        staged.rename(out)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def record_of(module: nn.Module, node: Any, weights: str, imported: Mapping[str, Any]) -> dict[str, Any]:
    """run.json of an imported tokenizer or semantic encoder: nothing was trained here."""
    is_tokenizer = isinstance(module, ImageTokenizer)
    return {
        "schema": runs.SCHEMA,
        "phase": "tokenizer" if is_tokenizer else "siglip",
        "status": "finished",
        "fingerprint": runs.digest({"weights": weights, "model": node}),
        "command": runs.command_line(),
        "started": runs.now(),
        "finished": runs.now(),
        "git": runs.git_state(),
        "versions": runs.versions(),
        "host": runs.host(),
        "parameters": build.count_parameters(dict(module.named_children())),
        "tokens_per_image": module.num_tokens if is_tokenizer else None,
        "bits_per_image": module.bits_per_image if is_tokenizer else None,
        "codebook_size": module.vocab_size if is_tokenizer else None,
        "inputs": {},
        "weights": weights,
        "imported": dict(imported),
    }


def describe_file(file: Path) -> dict[str, Any]:
    with open(file, "rb") as stream:
        return {
            "name": file.name,
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(stream, "sha256").hexdigest(),
        }


def parameters_in_words(module: nn.Module) -> str:
    parts = build.count_parameters(dict(module.named_children()))
    return (
        f"{sum(p.numel() for p in module.parameters()):,} parameters ("
        + ", ".join(f"{name} {count:,}" for name, count in parts.items() if count)
        + ")"
    )


def in_words(tensors: Mapping[str, Tensor]) -> str:
    names = ", ".join(list(tensors)[:3]) + (", ..." if len(tensors) > 3 else "")
    return f"{len(tensors)} ({names})" if tensors else "none"


if __name__ == "__main__":
    import sys

    from .cli import main as tessella

    tessella(["convert", *sys.argv[1:]])
