"""The learner's notebooks with the versions that Colab has, in a folder outside the checkout.

Colab's image of August 2026: Python 3.13, torch 2.11, transformers 5.15, ipywidgets 7.7 and IPython
7.34. google.colab is a stub; the wheel of this checkout stands in for the repository's address.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from labkit import build, project

ROOT = Path(__file__).parents[1]
COLAB = {
    "torch": "2.11.0",
    "transformers": "5.15.0",
    "peft": "0.20.0",
    "accelerate": "1.14.0",
    "numpy": "2.1.3",
    "ipywidgets": "7.7.1",
    "ipython": "7.34.0",
}
BESIDE = ["datasets", "httpx", "matplotlib", "psutil", "ipykernel", "nbclient", "setuptools<81"]
KEPT = ["torch", "transformers", "numpy", "ipywidgets", "peft", "accelerate"]
RUN = """
import sys, nbformat
from nbclient import NotebookClient
made = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(made, timeout=900, kernel_name="python3").execute()
nbformat.write(made, sys.argv[1])
"""

pytestmark = pytest.mark.colab


def find_python():
    """A Python 3.13: the one LABKIT_COLAB_PYTHON names, or the one on the PATH, if it runs."""
    for name in (os.environ.get("LABKIT_COLAB_PYTHON"), "python3.13", sys.executable):
        path = shutil.which(name) if name else None
        ask = [path, "-c", "import sys; print(sys.version_info[:2] == (3, 13))"]
        if path and subprocess.run(ask, capture_output=True, check=False).stdout == b"True\n":
            return path
    return None


def versions(python):
    code = "from importlib import metadata as m; import json, sys; " \
           "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"  # fmt: skip
    done = subprocess.run([python, "-c", code, *KEPT], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A venv as Colab would have it, its Python and its versions before any notebook ran."""
    if not (python := find_python()):
        pytest.skip("no Python 3.13 here: name one with LABKIT_COLAB_PYTHON")
    folder = Path(os.environ.get("LABKIT_COLAB_VENV") or tmp_path_factory.mktemp("colab"))
    made = folder / "bin" / "python"
    if not made.is_file():
        subprocess.run([python, "-m", "venv", folder], check=True)
        pins = [f"{name}=={version}" for name, version in COLAB.items()]
        subprocess.run([made, "-m", "pip", "install", "-q", *pins, *BESIDE], check=True)
    where = [made, "-c", "import site; print(site.getsitepackages()[0])"]
    packages = Path(subprocess.run(where, capture_output=True, text=True).stdout.strip())
    (packages / "google" / "colab").mkdir(parents=True, exist_ok=True)
    (packages / "google" / "colab" / "__init__.py").touch()
    (packages / "stub_colab.pth").write_text("import google.colab\n")
    subprocess.run(
        [made, "-m", "pip", "uninstall", "-q", "-y", "labkit", "trl", "bitsandbytes"], check=True
    )
    return made, versions(made)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """This checkout as a wheel, with its data."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT]
    subprocess.run(pip, check=True)
    return next(folder.glob("labkit-*.whl"))


@pytest.mark.parametrize("source", build.sources(), ids=lambda path: path.stem)
def test_a_notebook_runs_in_colab_and_replaces_nothing_of_it(colab, wheel, source, tmp_path):
    python, before = colab
    made = nbformat.read(build.places(source)[0], as_version=4)
    first = next(cell for cell in made.cells if cell.cell_type == "code")
    remote = f"git+{project.address()}@v{project.version()}"
    assert remote in first.source
    first.source = first.source.replace(remote, wheel.as_uri())
    path = tmp_path / "notebook.ipynb"
    nbformat.write(made, path)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"LABKIT_QUICK": "1", "LABKIT_MODEL": "tiny", "LABKIT_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [python, "-c", RUN, path], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert versions(python) == before
