"""Two commands set everything up: pins, ranges, environment, Makefile and README agree."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import labkit
from labkit import project, smollm

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RANGES = [Requirement(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"]]
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]
PINS = {canonicalize_name(re.split("==", line)[0]): Requirement(line) for line in LINES}
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}
MAC = {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"}


def pinned_version(name):
    return str(PINS[canonicalize_name(name)].specifier).removeprefix("==")


# Pins and ranges


def test_every_line_of_constraints_pins_one_version_and_no_place():
    assert len(PINS) == len(LINES)
    for line in LINES:
        assert re.fullmatch(r'[\w.-]+==[\w.]+(; sys_platform == "\w+")?', line), line


@pytest.mark.parametrize("wanted", RANGES, ids=str)
def test_every_direct_dependency_has_a_pin_inside_its_range(wanted):
    assert wanted.specifier.contains(pinned_version(wanted.name))


def test_torch_has_the_version_of_the_workbook_and_its_cuda_packages_no_pin():
    assert pinned_version("torch") == "2.13.0"
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))]


def needed(environment):
    """The packages that `.[lab]` brings on a platform, by the metadata of what is installed."""
    from importlib import metadata

    found, to_do = set(), [(r.name, "") for r in RANGES]
    while to_do:
        name, extra = to_do.pop()
        name = canonicalize_name(name)
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            asked = [Requirement(text) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:  # a package of another platform
            continue
        for one in asked:
            if one.marker is None or one.marker.evaluate(environment | {"extra": extra}):
                to_do += [(one.name, more) for more in ("", *one.extras)]
    return {
        name for name, _ in found if not name.startswith(("nvidia-", "cuda-", "triton", "labkit"))
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", [{}, WINDOWS, MAC], ids=["here", "windows", "mac"])
def test_everything_needed_directly_or_not_is_pinned(platform, python):
    missing = needed({"python_version": python, **platform}) - set(PINS)
    assert not missing, f"constraints.txt has no line for {sorted(missing)}"


def test_no_pin_is_left_over():
    every = set().union(*(needed(platform) for platform in ({}, WINDOWS, MAC)))
    assert set(PINS) <= every, f"nothing needs {sorted(set(PINS) - every)}"


# environment.yml


def test_the_environment_names_no_package_that_another_file_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment == {
        "name": "labkit",
        "channels": ["conda-forge"],
        "dependencies": [
            "python=3.11",
            "pip",
            {"pip": ["-c constraints.txt", "-e .[lab]"]},
        ],
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pip_block_of_the_environment_installs_and_the_doctor_is_content(tmp_path):
    copy = tmp_path / "copy"  # an editable install writes its path into the environment
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    environment = yaml.safe_load((copy / "environment.yml").read_text(encoding="utf-8"))
    block = copy / "requirements.txt"
    block.write_text("\n".join(environment["dependencies"][-1]["pip"]), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-compile", "-r", block.name],
        cwd=copy,
        check=True,
    )
    done = subprocess.run(
        [python, "-m", "labkit.doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    shutil.rmtree(tmp_path / "venv")  # a gigabyte that no later test needs
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^OK  packages +(\d+) of \1 as pinned$", done.stdout, re.M), done.stdout


# The Makefile


@pytest.fixture
def clone(tmp_path):
    """A folder with what the set-up reads, and a PATH that holds its tools but no Python."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "awk", "df", "touch"):
        (tools / tool).symlink_to(shutil.which(tool))
    return tmp_path


def say(clone, name, text, status=0):
    """Put a program on the clone's PATH that says one line, whatever it is asked."""
    script = clone / "bin" / name
    script.write_text(f"#!{shutil.which('sh')}\necho {text}\nexit {status}\n", encoding="utf-8")
    script.chmod(0o755)


def make(clone, *arguments):
    """The exit status of make and the lines it wrote, but for its own closing one."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")}
    done = subprocess.run(
        [shutil.which("make"), *arguments],
        cwd=clone,
        capture_output=True,
        text=True,
        env=kept | {"PATH": str(clone / "bin")},
    )
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if not line.startswith("make: ***")]


def test_too_old_a_python_is_one_clear_line(clone):
    say(clone, "python3", "3.9")
    status, lines = make(clone, "lab")
    assert status != 0
    assert lines == [
        "No Python 3.11, 3.12 or 3.13 was found (python3 is 3.9): install one, or name it: "
        "make PYTHON=/path/to/python3.12"
    ]


def test_too_new_a_python_that_was_named_is_one_clear_line(clone):
    say(clone, "python3", "3.12")
    say(clone, "python3.14", "3.14")
    status, lines = make(clone, "lab", "PYTHON=python3.14")
    assert status != 0
    assert len(lines) == 1
    assert "(python3.14 is 3.14)" in lines[0]


def test_no_python_at_all_is_one_clear_line(clone):
    status, lines = make(clone, "test")
    assert status != 0
    assert len(lines) == 1
    assert lines[0].startswith("No Python 3.11, 3.12 or 3.13 was found: install one")


def test_a_python_on_the_path_that_does_not_run_is_passed_over(clone):
    say(clone, "python3.13", "3.13", status=127)  # the stub of a version manager
    say(clone, "python3.12", "3.12")
    _, lines = make(clone, "lab", "ROOM=0")
    assert lines[0] == "Making .venv with python3.12"


def test_no_room_on_the_disk_is_one_clear_line_and_nothing_is_made(clone):
    say(clone, "python3.11", "3.11")
    status, lines = make(clone, "lab", "ROOM=1000000")
    assert status != 0
    assert len(lines) == 1
    assert re.fullmatch(
        r"Only [\d.]+ GB are free on this disk, and the set-up needs 1000000 GB: "
        r"free some space, then run make again",
        lines[0],
    )
    assert not (clone / ".venv").exists()


def ready(clone):
    """The clone as a first call leaves it."""
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (clone / ".venv" / "ready").touch()
    return clone


def test_the_first_call_installs_under_the_pins(clone):
    _, lines = make(clone, "-n", "lab")
    assert '.venv/bin/python -m pip install -c constraints.txt -e ".[lab]"' in lines


@pytest.mark.parametrize("target", ["lab", "test", "notebooks", "finetune", "test-colab"])
def test_a_second_call_installs_nothing(clone, target):
    status, lines = make(ready(clone), "-n", target)
    assert status == 0
    assert lines
    assert not [line for line in lines if "pip" in line or "venv " in line]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_list_of_packages_is_installed_anew(clone, name):
    stamp = (ready(clone) / ".venv" / "ready").stat().st_mtime
    os.utime(clone / name, (stamp + 10, stamp + 10))
    _, lines = make(clone, "-n", "lab")
    assert [line for line in lines if "pip install -c constraints.txt -e" in line]


def installing(clone, unless):
    """The clone with a Python in .venv that installs what it is told to, `unless` it is that."""
    python = ready(clone) / ".venv" / "bin" / "python"
    (clone / ".venv" / "ready").unlink()
    script = f'#!{shutil.which("sh")}\ncase "$*" in *{unless}) exit 1 ;; esac\n'
    python.write_text(script, encoding="utf-8")
    python.chmod(0o755)
    return clone


@pytest.mark.parametrize("package", ["torch", "[[]lab[]]"])
def test_an_install_that_breaks_off_is_not_taken_for_done(clone, package):
    status, _ = make(installing(clone, unless=package), "notebooks")
    assert status != 0
    assert not (clone / ".venv" / "ready").exists()


def test_an_install_that_ends_well_is_remembered(clone):
    first = make(installing(clone, unless="nothing"), "notebooks")
    second = make(clone, "notebooks")
    assert (first[0], second[0]) == (0, 0)
    assert len([line for line in first[1] if "pip install" in line]) == 2
    assert second[1] == [".venv/bin/python -m labkit.build "]


def test_each_target_runs_what_it_promises(clone):
    promised = {
        "lab": ".venv/bin/jupyter lab notebooks/00_start_here.ipynb --port=1",
        "test": "OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadgroup "
        "--no-loadscope-reorder --port=1",
        "notebooks": ".venv/bin/python -m labkit.build --port=1",
        "finetune": ".venv/bin/python -m labkit.finetune --port=1",
        "test-real": ".venv/bin/python -m pytest -m real --port=1",
        "test-colab": ".venv/bin/python -m pytest -m colab --port=1",
    }
    ready(clone)
    for target, command in promised.items():
        assert make(clone, "-n", target, "ARGS=--port=1")[1][-1] == command
    tests = make(clone, "-n", "test")[1]
    assert tests[:2] == [".venv/bin/ruff check .", ".venv/bin/ruff format --check ."]


def test_the_real_model_is_installed_as_the_library_says():
    assert f"$(BIN)/python -m {smollm.WHEEL['install']}\n" in MAKEFILE


def test_make_alone_lists_every_target_and_installs_nothing(clone):
    status, lines = make(clone)
    targets = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.M)[1].split()
    assert status == 0
    assert [line.split()[1] for line in lines] == targets
    assert not (clone / ".venv").exists()


def test_the_server_runs_make_test_and_demands_a_browser():
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert text.index("LABKIT_BROWSER=required") < text.index("make test")


# README.md


def between(name):
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.S)[1]


def layout():
    lines = between("layout").strip().removeprefix("```text\n").removesuffix("\n```").splitlines()
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in lines)


def kept():
    """The files that git keeps, or will once they are added."""
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(name) for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_the_layout_names_everything_there_is():
    wanted = set()
    for path in kept():
        top, *rest = path.parts
        if top == ".ci":
            wanted.add(str(path))
        elif not rest:
            wanted.add(top)
        else:
            wanted.add(f"{top}/")
        if top == "labkit" and path.name != "__init__.py":
            wanted.add(str(path) if len(rest) == 1 else f"{top}/{rest[0]}/")
        if top in ("data", "notebooks"):
            wanted |= {f"{folder}/" for folder in path.parents if folder.parts[1:]}
        if top in ("data", "notebooks") and len(rest) == 1:
            wanted.add(str(path))
    assert wanted <= set(layout()), f"README.md does not list {sorted(wanted - set(layout()))}"


def test_the_layout_names_nothing_that_is_not_there():
    names = {str(path) for path in kept()}
    names |= {f"{folder}/" for path in kept() for folder in path.parents}
    assert set(layout()) <= names, f"there is no {sorted(set(layout()) - names)}"


def test_the_layout_says_of_each_module_what_the_map_of_labkit_says():
    said = dict(re.findall(r"^    (\w+) {2,}(.+)$", labkit.__doc__, re.M))
    listed = {
        path.removeprefix("labkit/").removesuffix("/").removesuffix(".py"): text
        for path, text in layout().items()
        if path.startswith("labkit/") and path != "labkit/"
    }
    assert list(listed.items()) == list(said.items())


def test_every_link_carries_the_one_address():
    owner = project.address().removeprefix("https://github.com/")
    links = re.findall(r"(?:github\.com|/github|/gh)/([\w.-]+/[\w.-]+)", README)
    assert len(links) >= 3
    assert set(links) == {owner}


def test_the_map_names_both_notebooks_with_their_questions():
    rows = [line.split("|")[1:3] for line in between("map").splitlines()[2:]]
    names = [re.search(r"\((notebooks/\w+\.ipynb)\)", row[0])[1] for row in rows]
    assert names == [path for path in layout() if path.endswith(".ipynb")]
    assert all(row[1].strip().endswith("?") for row in rows)


def test_the_readme_says_the_versions_and_the_room_that_the_makefile_asks_for():
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert "Python 3.11, 3.12 or 3.13" in README
    assert f"{re.search(r'^ROOM .= (.+)$', MAKEFILE, re.M)[1]} GB of free disk" in README
    assert f"version = {{{PROJECT['version']}}}" in README


def test_the_readme_lists_every_target_of_make():
    targets = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.M)[1].split()
    assert re.findall(r"^\| `make ([a-z-]+)", README, re.M) == targets
