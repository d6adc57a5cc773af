"""Our tokenizers compute what the official implementations computed, case by case.

TESSELLA_PARITY_DIR=<folder> runs another set of cases than the small spread in tests/fixtures/parity. A case is claimed
by its system and component; which file holds it or how it is called has no meaning.
"""

import importlib
import json
from pathlib import Path

import pytest
import torch

from .parity_cases import case_files, load_case

SYSTEMS = sorted(file.stem.removeprefix("parity_") for file in Path(__file__).parent.glob("parity_*.py"))
SYSTEMS.remove("cases")

# Language models, sequence layouts and sampling: components of the unified model, not of a tokenizer.
UNIFIED = {
    ("chameleon", "guidance+sampling_distribution"),
    ("chameleon", "language_model:forward"),
    ("chameleon", "vocabulary+layout"),
    ("emu3", "layout+constraint+sizes"),
    ("janus", "multimodality_causal_lm"),
    ("janus", "sequence_layout"),
    ("janusflow", "multimodality_causal_lm"),
    ("janusflow", "sequence_layout"),
    ("llamagen", "ar_transformer:c2i"),
    ("llamagen", "ar_transformer:t2i"),
    ("tokenflow", "next_scale_lm"),
    ("tokenflow", "sampling_filter"),
    ("tokenflow", "understanding_projector"),
}


def checks() -> dict:
    """(system, component) -> check. One module may hold checks of several systems: its CHECKS name them in full."""
    found = {}
    for system in SYSTEMS:
        for key, check in importlib.import_module(f".parity_{system}", __package__).CHECKS.items():
            pair = key if isinstance(key, tuple) else (system, key)
            assert pair not in found.keys() | UNIFIED, f"two checks claim {pair}"
            found[pair] = check
    return found


def tokenizer_cases() -> list[Path]:
    """Every case of the folder that is not listed as one of the unified model."""
    facts = ((file, json.loads(file.read_text())) for file in case_files())
    return [file for file, case in facts if (case["system"], case["component"]) not in UNIFIED]


@pytest.fixture(scope="module")
def claimed() -> dict:
    return checks()


@pytest.mark.parametrize("file", tokenizer_cases(), ids=lambda file: file.stem)
def test_case(file: Path, claimed: dict):
    case = load_case(file)
    pair = (case.system, case.component)
    assert pair in claimed, f"{file.name}: no check for component {case.component!r} of {case.system!r}"
    torch.manual_seed(0)
    claimed[pair](case)
    case.done()
