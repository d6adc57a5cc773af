"""The layout is a promise: import directions, light start-up, names, and files of one concept each."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("tokenizers", "unified", "data", "metrics", "experiments")
ALLOWED = {
    "tokenizers": {"tokenizers"},
    "data": {"data"},
    "metrics": {"metrics"},
    "unified": {"unified", "tokenizers"},
    "experiments": set(ROOMS) | {""},
}
EXPERIMENTS_ALONE = {"lightning", "pytorch_lightning", "hydra", "omegaconf", "wandb", "logging"}
MODULES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(level, dotted module) of every import; level 0 is absolute."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.module is None:
                found += [(node.level, alias.name) for alias in node.names]
            else:
                found.append((node.level, node.module))
    return found


def test_rooms_import_only_what_they_may():
    wrong = []
    for path in MODULES:
        package = path.relative_to(ROOT).parent.parts
        for level, module in imports_of(path):
            if level == 0:
                if module.split(".")[0] == "tessella":
                    wrong.append(f"{path.name}: absolute import of {module}; use a relative one")
                if package[0] != "experiments" and module.split(".")[0] in EXPERIMENTS_ALONE:
                    wrong.append(f"{path.name} imports {module}, which is for experiments/ alone")
                continue
            target = (*package[: len(package) - level + 1], *module.split("."))
            room = target[0] if target[0] in ROOMS else ""
            if room not in ALLOWED[package[0]]:
                wrong.append(f"{'/'.join(package)}/{path.name} imports {'.'.join(target)}")
    assert not wrong, "\n".join(wrong)


def test_tokenizers_folder_never_shadows_the_tokenizers_package():
    assert not (ROOT / "tokenizers" / "__init__.py").exists()
    code = "import transformers, tokenizers; assert 'site-packages' in tokenizers.__file__, tokenizers.__file__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_import_and_help_load_no_heavy_library():
    code = (
        "import sys, tessella, tessella.experiments.cli as cli; cli.main(['--help']); cli.main(['train', '--help']);"
        "names = {'torch', 'torchvision', 'lightning', 'transformers', 'torchmetrics', 'wandb', 'hydra', 'numpy'};"
        "heavy = names & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tokenizer" in done.stdout
    assert "recipe" in done.stdout


def test_loading_and_evaluating_a_trained_model_imports_no_lightning():
    names = "build, evaluate_tokenizer, evaluate_unified, pictures, token_store, trained_unified"
    code = f"import sys; from tessella.experiments import {names}; assert 'lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_package_is_listed_for_the_wheel():
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for path in MODULES} | {Path("conf")}
    assert listed == {"tessella"} | {"tessella." + ".".join(folder.parts) for folder in folders}


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_drawer_for_everything(name):
    assert not [path for path in MODULES if path.stem == name]


def test_files_hold_one_concept():
    long = {path.relative_to(ROOT): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > 350}
    assert not long, long
