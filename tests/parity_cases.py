"""Recorded outputs of official implementations: one `Case` per json file, and how checks compare with it."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tessella.tokenizers.checkpoints import Layout, export_weights, import_weights

FIXTURES = Path(__file__).parent / "fixtures" / "parity"


@dataclass
class Case:
    """One recorded call. `weights`, `inputs` and `outputs` have official names; `facts` is the whole json."""

    name: str
    facts: dict[str, Any]
    tensors: dict[str, Tensor]
    compared: set[str] = field(default_factory=set)

    @property
    def system(self) -> str:
        return self.facts["system"]

    @property
    def component(self) -> str:
        return self.facts["component"]

    @property
    def config(self) -> dict[str, Any]:
        return self.facts["config"]

    @property
    def weights(self) -> dict[str, Tensor]:
        return self._part("weights/")

    @property
    def inputs(self) -> dict[str, Tensor]:
        return self._part("input/")

    @property
    def outputs(self) -> dict[str, Tensor]:
        return self._part("output/")

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}

    def import_into(self, module: torch.nn.Module, layout: Layout, prefix: str = "") -> dict[str, Tensor]:
        """Load the weights (those under `prefix`, without it) strictly; exporting them must give them back exactly."""
        official = {key[len(prefix) :]: tensor for key, tensor in self.weights.items() if key.startswith(prefix)}
        unused = import_weights(module, official, layout)
        exported = export_weights(module, layout, unused)
        assert exported.keys() == official.keys()
        for key, tensor in official.items():
            assert exported[key].dtype == tensor.dtype, key
            assert torch.equal(exported[key], tensor), key
        return unused

    def close(self, actual: Tensor, name: str) -> None:
        """Compare with output `name` at the case's own tolerance."""
        wanted = self.outputs[name]
        tolerance = self.facts["tolerance"]
        torch.testing.assert_close(
            actual.detach().to(wanted.dtype),
            wanted,
            atol=float(tolerance["atol"]),
            rtol=float(tolerance["rtol"]),
            msg=lambda message: f"{self.name}, output {name}: {message}",
        )
        self.compared.add(name)

    def exact(self, actual: Tensor, name: str) -> None:
        """Compare integers (ids, pixels, masks) with output `name`: equal, not close."""
        wanted = self.outputs[name]
        assert actual.shape == wanted.shape, f"{name}: {tuple(actual.shape)}, recorded {tuple(wanted.shape)}"
        wrong = int((actual.to(wanted.dtype) != wanted).sum())
        assert wrong == 0, f"{self.name}, output {name}: {wrong} of {wanted.numel()} differ"
        self.compared.add(name)

    def done(self) -> None:
        """Fail if some recorded output was never compared."""
        left = sorted(self.outputs.keys() - self.compared)
        assert not left, f"{self.name}: outputs never compared: {', '.join(left)}"


def cases_folder() -> Path:
    """Where the cases are: TESSELLA_PARITY_DIR, or the small spread beside the tests."""
    return Path(os.environ.get("TESSELLA_PARITY_DIR") or FIXTURES)


def case_files() -> list[Path]:
    return sorted(cases_folder().rglob("*.json"))


def load_case(file: Path) -> Case:
    tensors = file.with_suffix(".safetensors")
    return Case(file.stem, json.loads(file.read_text()), load_file(tensors) if tensors.exists() else {})
