"""From configuration to objects, and from run folders back to trained ones."""

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save
from torch import nn
from yaml import YAMLError

from ..data.base import DataSource, ImageDataset
from .runs import digest, plain, read_json, write_atomic
from .steps import step_seed

TRAINED = "tessella.experiments.build.trained"


@dataclass(frozen=True)
class Data:
    """The three splits of one source at one image size."""

    source: DataSource
    train: ImageDataset
    val: ImageDataset
    test: ImageDataset

    def record(self) -> dict[str, Any]:
        """What `run.json` keeps of the data."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {
            "name": self.train.name,
            "fingerprint": {name: split.fingerprint for name, split in splits.items()},
            "preparation": self.train.preparation,
            "image_size": self.train.image_size,
            **{f"{name}_size": len(split) for name, split in splits.items()},
        }

    def skipped(self) -> list[list[str]]:
        """[file, reason] of every unusable file met so far."""
        return [[str(key), str(why)] for split in (self.train, self.val, self.test) for key, why in split.skipped]


def open_data(cfg: DictConfig, image_size: int) -> Data:
    """The configured source, split, at the tokenizer's image size."""
    source = instantiate(cfg.data)
    train, val, test = (source.split(name, image_size=image_size) for name in ("train", "val", "test"))
    data = Data(source, train, val, test)
    for key, why in data.skipped()[:10]:
        print(f"not used: {key}: {why}", file=sys.stderr)
    return data


def data_identity(cfg: DictConfig) -> dict[str, str]:
    """Fingerprints of the training and the test split, independent of any tokenizer (taken at 64 pixels)."""
    key = digest(plain(cfg.data))
    if key not in _identities:  # a study asks for every stage, and a large source is hashed for minutes
        data = open_data(cfg, 64)
        _identities[key] = {"train": data.train.fingerprint, "test": data.test.fingerprint}
    return _identities[key]


_identities: dict[str, dict[str, str]] = {}


def build_seeded(node: Any, seed: int, stream: str, **parts: Any) -> Any:
    """Instantiate `node` with initial weights that depend on (seed, stream) alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(step_seed(seed, -1, stream))
        return instantiate(node, **parts)


def trained(folder: str | Path) -> Any:
    """The trained object of a run folder (a tokenizer or a semantic encoder), in eval mode, frozen.

    Raises:
        ValueError: not the folder of a finished run, or its weights do not fit its model.yaml.
    """
    folder = Path(folder)
    node = trained_node(folder)
    if "_target_" not in node:
        raise ValueError(f"{folder} is a unified run; needed is the run folder of a tokenizer or a semantic encoder.")
    module = instantiate(OmegaConf.create(node))
    load_weights(module, folder)
    return module.eval().requires_grad_(False)


def trained_node(folder: Path) -> dict[str, Any]:
    """The node of model.yaml, which builds the object without any other run folder."""
    record = read_json(folder / "run.json")
    if record["status"] != "finished":
        raise ValueError(
            f"{folder}: this run is {record['status']}, not finished; run its command again: {record['command']}"
        )
    return _saved_node(folder, record)


def _saved_node(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    file = folder / "model.yaml"
    try:
        return plain(OmegaConf.load(file))
    except (OSError, YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {error}; run the command again: {record['command']}") from error


def rebuilt(cfg: DictConfig, folder: Path) -> DictConfig:
    """The configuration of a trained run with the parts that its own folder holds: its inputs may be gone."""
    node = _saved_node(folder, read_json(folder / "run.json"))
    parts = {key: node[key] for key in ("tokenizer", "llm")} if cfg.phase == "unified" else {"tokenizer": node}
    cfg = cfg.copy()
    for key, part in parts.items():
        cfg[key] = part
    return cfg


def expand_trained(node: Any) -> Any:
    """Replace every `trained` node by the node that builds it: the result needs no other folder, only weights."""
    node = plain(node)
    if isinstance(node, dict):
        if node.get("_target_") == TRAINED:
            return trained_node(Path(node["folder"]))
        return {key: expand_trained(value) for key, value in node.items()}
    return [expand_trained(value) for value in node] if isinstance(node, list) else node


def identify_trained(node: Any) -> Any:
    """Replace every `trained` node by the hash of its weights: what a fingerprint must depend on."""
    node = plain(node)
    if isinstance(node, dict):
        if node.get("_target_") == TRAINED:
            record = read_json(Path(node["folder"]) / "run.json")
            if record.get("status") != "finished":
                raise ValueError(f"{node['folder']} is {record.get('status')}, not finished; run it to its end first.")
            return {"weights": record.get("weights")}
        return {key: identify_trained(value) for key, value in node.items()}
    return [identify_trained(value) for value in node] if isinstance(node, list) else node


def trained_inputs(node: Any, name: str = "tokenizer") -> dict[str, Any]:
    """The trained runs a node is made of: {name: {"fingerprint", "folder"}}."""
    node = plain(node)
    found: dict[str, Any] = {}
    if isinstance(node, dict):
        if node.get("_target_") == TRAINED:
            record = read_json(Path(node["folder"]) / "run.json")
            return {name: {"fingerprint": record["fingerprint"], "folder": str(Path(node["folder"]).resolve())}}
        for key, value in node.items():
            found.update(trained_inputs(value, key))
    return found


def node_of(builder: Any) -> dict[str, Any]:
    """The node that instantiates a dataclass."""
    return {"_target_": f"{type(builder).__module__}.{type(builder).__qualname__}", **asdict(builder)}


def _without_downloads(node: Any) -> Any:
    """`pretrained` names first weights; those that are saved beside the node take their place."""
    if isinstance(node, dict):
        return {key: None if key == "pretrained" else _without_downloads(value) for key, value in node.items()}
    return [_without_downloads(value) for value in node] if isinstance(node, list) else node


def save_weights(module: nn.Module, node: Any, folder: Path) -> str:
    """Write weights.safetensors and model.yaml, which needs no other folder and no download; the weights' sha256."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    content = save(state)
    write_atomic(folder / "weights.safetensors", content)
    write_atomic(folder / "model.yaml", OmegaConf.to_yaml(OmegaConf.create(_without_downloads(expand_trained(node)))))
    return hashlib.sha256(content).hexdigest()


def load_weights(module: nn.Module, folder: Path) -> None:
    """Load weights.safetensors strictly: a missing, unexpected or misshapen key is an error that names it."""
    file = folder / "weights.safetensors"
    try:
        state = load_file(file)
    except FileNotFoundError:
        raise ValueError(f"{file} does not exist; run the command of {folder / 'run.json'} again.") from None
    except Exception as error:  # safetensors raises its own type for damaged files
        raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
    load_strict(module, state, str(file))
    # The format of training, in which convolutions are faster too; every reader of a run computes the same bits.
    nn.utils.convert_conv2d_weight_memory_format(module, torch.channels_last)


def load_strict(module: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """`load_state_dict` with every difference named in one line."""
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)}, needs {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{title}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            for title, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", shapes))
            if names
        ]
        raise ValueError(
            f"{origin} does not fit {type(module).__name__} ({'; '.join(parts)}): is it of another design?"
        )
    module.load_state_dict(state)


def resolve_run(run: str | None, phases: tuple[str, ...]) -> Path:
    """The run folder that `run=` means: a run folder, `<study>/<design>[/seed<k>]`, or the newest below ./runs (null).

    Raises:
        ValueError: no such run; names what there is.
    """
    if run is None:
        newest = _newest_run(Path("runs"), phases)
        if newest is None:
            raise ValueError(f"no finished {' or '.join(phases)} run below ./runs; name one with run=<folder>.")
        return newest
    path = Path(run).expanduser()
    if (path / "run.json").is_file():
        phase = read_json(path / "run.json").get("phase")
        if phase not in phases:
            raise ValueError(f"run={run} is a {phase} run; this command needs a {' or '.join(phases)} run.")
        return path
    if (path / "study.json").is_file():
        names = sorted(read_json(path / "study.json")["designs"])
        raise ValueError(
            f"run={run} is a study; name one of its designs: {', '.join(f'run={path / name}' for name in names)}."
        )
    for study, design, seed in (
        (path.parent, path.name, None),
        (path.parents[1] if len(path.parts) > 1 else path, path.parent.name, path.name),
    ):
        if (study / "study.json").is_file():
            return _run_of_design(study, design, seed, phases)
    raise ValueError(f"run={run} is not a run folder (no run.json) and not a design of a study.")


def _run_of_design(study: Path, design: str, seed: str | None, phases: tuple[str, ...]) -> Path:
    designs = read_json(study / "study.json")["designs"]
    if design not in designs:
        raise ValueError(f"{study} has no design {design!r}; it has {', '.join(sorted(designs))}.")
    seeds = designs[design]["seeds"]
    chosen = seed.removeprefix("seed") if seed else sorted(seeds, key=int)[0]
    if chosen not in seeds:
        raise ValueError(f"{study / design} has no seed {chosen!r}; it has {', '.join(sorted(seeds))}.")
    for folder in reversed(list(seeds[chosen]["stages"].values())):
        if (study / folder / "run.json").is_file() and read_json(study / folder / "run.json").get("phase") in phases:
            return study / folder
    raise ValueError(f"{study / design} has no finished {' or '.join(phases)} run yet.")


def _newest_run(root: Path, phases: tuple[str, ...]) -> Path | None:
    found: list[tuple[float, Path]] = []
    for folder, below, files in os.walk(root):
        if "run.json" in files:
            below.clear()
            with suppress(ValueError, OSError):
                record = read_json(Path(folder) / "run.json")
                if record.get("phase") in phases and record.get("status") == "finished":
                    found.append((os.stat(Path(folder) / "run.json").st_mtime, Path(folder)))
    return max(found)[1] if found else None


def build_sampling(node: Any) -> Any:
    """`unified.sampling.Sampling` from the keys cfg_scale, temperature, top_k, top_p of a configuration."""
    from ..unified.sampling import Sampling

    return Sampling(temperature=node.temperature, guidance=node.cfg_scale, top_k=node.top_k, top_p=node.top_p)


def count_parameters(parts: dict[str, nn.Module]) -> dict[str, int]:
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def freeze(module: nn.Module) -> Callable[[], None]:
    """Freeze `module`; the returned check raises when a weight has moved since."""
    module.eval().requires_grad_(False)
    before = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def check() -> None:
        moved = [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])]
        if moved:
            raise RuntimeError(f"frozen weights moved during training: {', '.join(moved[:3])}")

    return check
