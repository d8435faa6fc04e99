"""The import arrows in labkit point one way, and the heavy libraries stay where they belong."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import labkit

PACKAGE = Path(__file__).parents[1] / "labkit"
ORDER = re.findall(r"^    (\w+) {2,}", labkit.__doc__, re.M)  # the map is the source
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """The entry of the map that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file imports, at its top or inside a function, by its full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_from_labkit(path):
    parts = [module.split(".") for module in imports(path)]
    return {p[1] for p in parts if p[0] == "labkit" and len(p) > 1} & set(ORDER)


def importers(library):
    """The entries of the map whose files import a library anywhere."""
    return {
        name_of(path) for path in FILES if any(m.split(".")[0] == library for m in imports(path))
    }


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_modules_above_it(name):
    above = set(ORDER[: ORDER.index(name)])
    for path in FILES:
        if name_of(path) == name:
            found = imported_from_labkit(path) - {name}
            assert found <= above, f"{path.name} imports {found - above}, which are not above it"


def test_the_map_lists_every_module_and_package_once():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(ORDER) == sorted(modules | packages)


def test_only_widgets_imports_ipywidgets():
    assert importers("ipywidgets") == {"widgets"}


def test_only_figures_imports_matplotlib():
    assert importers("matplotlib") <= {"figures"}


def test_only_modules_that_load_or_train_import_the_model_libraries():
    allowed = {
        "corpus",
        "data",
        "folders",
        "smollm",
        "linears",
        "paged",
        "models",
        "loss",
        "train",
        "prepare",
        "beside",
        "evaluate",
        "rounding",
        "adapters",
        "pretrain",
        "measure",
        "bench",
        "serve",
        "memory",  # the dry run and the measurement; the closed form needs neither
    }
    for library in ("transformers", "peft", "bitsandbytes", "trl"):
        assert importers(library) <= allowed, library


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("labkit.project", {"torch", "transformers", "numpy", "IPython", "ipywidgets"}),
        ("labkit.exercises", {"torch", "transformers", "numpy", "ipywidgets"}),
        ("labkit.exercises.compare", {"torch", "transformers", "numpy"}),
        ("labkit.doctor", {"torch", "transformers", "peft", "numpy"}),
        ("labkit.data", {"torch", "transformers"}),
        ("labkit.memory", {"torch", "numpy", "transformers", "IPython", "huggingface_hub"}),
        ("labkit.models", {"transformers", "peft", "bitsandbytes", "trl", "matplotlib"}),
    ],
)
def test_importing_a_module_brings_no_library_it_can_do_without(module, light):
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert not set(done.stdout.split()) & light
