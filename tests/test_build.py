"""Building the notebooks: what is stale, what is kept, what is refused."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from labkit import build, notebook, project
from labkit.project import LabkitError

CHECKOUT = project.ROOT
NEW = "https://github.com/other-owner/other.name"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A checkout to spoil: what the build reads and writes, built without running it."""
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / name, tmp_path)
    skipped = shutil.ignore_patterns(".ipynb_checkpoints")
    for name in ("notebooks", "data/measurements"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=skipped)
    monkeypatch.setattr(project, "ROOT", tmp_path)
    assert build.main(["--no-execute"]) == 0
    return tmp_path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def first(folder):
    return min((folder / "notebooks" / "source").glob("*.py"))


# What is stale


def test_the_built_files_are_those_of_their_sources():
    assert build.stale() == []


def test_nothing_is_stale_after_a_build_and_a_second_one_changes_no_byte(copy):
    before = tree(copy)
    assert build.stale() == []
    build.main(["--no-execute"])
    assert tree(copy) == before


def test_a_changed_source_makes_both_its_notebooks_stale(copy):
    with first(copy).open("a", encoding="utf-8") as file:
        file.write("\n# %% [markdown]\n# One more line.\n")
    name = f"{first(copy).stem}.ipynb"
    assert build.stale() == [f"notebooks/{name}", f"notebooks/solutions/{name}"]


def test_a_changed_title_makes_the_map_stale_too(copy):
    edit(first(copy), "# # What", "# # Which")
    assert "README.md" in build.stale()


def test_a_lost_and_an_orphaned_notebook_are_stale(copy):
    lost = copy / "notebooks" / f"{first(copy).stem}.ipynb"
    orphan = copy / "notebooks" / "solutions" / "99_gone.ipynb"
    kept = copy / "notebooks" / ".ipynb_checkpoints" / "draft.ipynb"
    kept.parent.mkdir()
    shutil.copy(lost, kept)
    lost.rename(orphan)
    assert build.stale() == [f"notebooks/{lost.name}", "notebooks/solutions/99_gone.ipynb"]


def test_another_output_is_not_stale_and_other_code_is(copy):
    path = copy / "notebooks" / "solutions" / f"{first(copy).stem}.ipynb"
    made = nbformat.read(path, as_version=4)
    cells = [cell for cell in made.cells if cell.cell_type == "code"]
    cells[1].outputs = [new_output("stream", text="another machine\n")]
    path.write_text(build.text_of(made), encoding="utf-8")
    assert build.stale() == []
    cells[1].source += "\n"
    path.write_text(build.text_of(made), encoding="utf-8")
    assert build.stale() == [f"notebooks/solutions/{path.name}"]


def test_check_names_what_is_stale_and_changes_nothing(copy, capsys):
    edit(copy / "README.md", "](notebooks/", "](elsewhere/")
    before = tree(copy)
    capsys.readouterr()
    assert build.main(["--check"]) == 1
    assert capsys.readouterr().out == "stale: README.md; run make notebooks\n"
    assert tree(copy) == before
    build.main(["--no-execute"])
    assert build.main(["--check"]) == 0


def test_a_notebook_that_a_merge_broke_is_named_in_one_line(copy, capsys):
    path = copy / "notebooks" / "solutions" / f"{first(copy).stem}.ipynb"
    edit(path, "{", "<<<<<<< HEAD\n{")
    assert build.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"labkit.build: notebooks/solutions/{path.name} is no notebook: delete it, "
        "then run make notebooks\n"
    )


def test_a_readme_without_its_places_is_refused(copy):
    edit(copy / "README.md", "<!-- /map -->", "")
    with pytest.raises(LabkitError, match=r"no place between <!-- map --> and <!-- /map -->"):
        build.readme()


def test_the_map_lists_each_notebook_with_its_title_and_exercises(copy):
    text = build.readme().split("<!-- map -->")[1].split("<!-- /map -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[3:]]
    for (link, title, time, number), source in zip(rows, build.sources(), strict=True):
        code = source.read_text(encoding="utf-8")
        assert link == f"[{source.stem}](notebooks/{source.stem}.ipynb)"
        assert code.splitlines()[1] == f"# # {title}"
        assert time == build.minutes(source.stem)
        assert int(number) == len(re.findall(r"^# exercise: ", code, re.M))


# Another address


def test_a_new_address_reaches_every_link(copy):
    old = project.address().removeprefix("https://github.com/")
    assert build.main(["--address", f"{NEW}.git/"]) == 0
    assert project.address() == NEW
    assert [path for path, text in tree(copy).items() if old.encode() in text] == []
    name = NEW.removeprefix("https://github.com/")
    for path in (copy / "README.md", *(copy / "notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        assert f"colab.research.google.com/github/{name}/blob" in text
        assert f"mybinder.org/v2/gh/{name}/main" in text
    for source in build.sources():
        for path in build.places(source):
            assert f"git+{NEW}@v{project.version()}" in path.read_text(encoding="utf-8")
    assert f"url     = {{{NEW}}}" in (copy / "README.md").read_text(encoding="utf-8")
    assert build.stale() == []


def test_an_address_that_goes_on_is_another_address(copy):
    longer = f"{project.address()}-fork"
    with (copy / "README.md").open("a", encoding="utf-8") as file:
        file.write(f"See {longer} and {project.address()}.git.\n")
    build.readdress(NEW)
    assert (copy / "README.md").read_text().endswith(f"See {longer} and {NEW}.git.\n")


def test_no_other_file_of_the_checkout_holds_the_address():
    old = project.address().removeprefix("https://github.com/").encode()
    files = [CHECKOUT / name for name in ("Makefile", "constraints.txt", "environment.yml")]
    for folder in ("labkit", "data", ".ci", "tests", "notebooks/source"):
        files += [path for path in (CHECKOUT / folder).rglob("*") if path.is_file()]
    named = [path for path in files if "__pycache__" not in path.parts]
    assert [path for path in named if old in path.read_bytes()] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://github.com/owner/name",
        "https://gitlab.com/owner/name",
        "https://github.com/owner",
        "https://github.com/owner/name/tree/main",
        'https://github.com/owner/na"me',
        "git@github.com:owner/name.git",
    ],
)
def test_an_address_of_no_repository_is_refused_and_nothing_changes(copy, capsys, url):
    before = tree(copy)
    assert build.main(["--address", url]) == 1
    assert "is not of the form https://github.com/OWNER/NAME" in capsys.readouterr().err
    assert tree(copy) == before


def test_an_address_is_for_all_notebooks(copy, capsys):
    before = tree(copy)
    with pytest.raises(SystemExit, match="2"):
        build.main(["--address", NEW, "--only", "00"])
    assert "leave --only away" in capsys.readouterr().err
    assert tree(copy) == before


# Which notebooks


def test_a_beginning_picks_its_notebook_and_one_that_fits_none_is_refused(copy, capsys):
    names = [path.stem for path in build.sources()]
    assert [path.stem for path in build.sources(["00"])] == names[:1]
    assert build.main(["--only", "77", "--no-execute"]) == 1
    said = capsys.readouterr().err
    assert said == (f"labkit.build: no notebook begins with '77'; there are {', '.join(names)}\n")


def test_a_wheel_builds_nothing(monkeypatch, capsys):
    monkeypatch.setattr(project, "ROOT", None)
    assert build.main([]) == 1
    assert "clone the repository first" in capsys.readouterr().err


# Outputs that stay


def coded(*pairs):
    """A notebook of code cells, each with a text as its output."""
    cells = [
        new_code_cell(code, execution_count=n, outputs=[new_output("stream", text=said)])
        for n, (code, said) in enumerate(pairs, 1)
    ]
    return new_notebook(cells=cells)


def outputs(made):
    return [(cell.execution_count, [o.text for o in cell.outputs]) for cell in made.cells]


def test_a_cell_keeps_its_output_where_it_moved_and_loses_it_where_it_changed():
    before = coded(("a", "1"), ("b", "2"), ("c", "3"))
    made = new_notebook(cells=[new_code_cell(code) for code in ("new", "c", "b + 1", "a")])
    build.keep_outputs(made, before)
    assert outputs(made) == [(None, []), (3, ["3"]), (None, []), (1, ["1"])]


def test_cells_with_the_same_code_keep_their_own_outputs():
    before = coded(("step()", "first"), ("step()", "second"))
    made = new_notebook(cells=[new_code_cell("step()") for _ in range(3)])
    build.keep_outputs(made, before)
    assert outputs(made) == [(1, ["first"]), (2, ["second"]), (None, [])]


def test_without_a_notebook_before_there_are_no_outputs():
    made = new_notebook(cells=[new_code_cell("a")])
    build.keep_outputs(made, None)
    assert outputs(made) == [(None, [])]


# Nothing of this machine


def test_a_widget_leaves_only_its_static_twin():
    shown = new_output("display_data", {build.WIDGET_VIEW: {}, "text/plain": "5 of 7"})
    build._tidy(new_code_cell("board()"), shown)
    assert shown.data == {"text/plain": "5 of 7"}


@pytest.mark.parametrize(
    "path", [lambda: CHECKOUT, Path.home, tempfile.gettempdir, lambda: build.sys.prefix]
)
def test_an_output_that_names_a_path_of_this_machine_is_refused_by_its_cell(path):
    said = new_output("execute_result", {"text/html": f"<p>{path()}/models</p>"})
    with pytest.raises(LabkitError, match=r"this cell:\nbase\nnames /"):
        build._tidy(new_code_cell("base"), said)


def test_a_path_with_a_letter_outside_ascii_is_refused_too(monkeypatch):
    monkeypatch.setattr(project, "ROOT", Path("/wörk/bench"))
    with pytest.raises(LabkitError, match="names /wörk/bench"):
        build._tidy(new_code_cell("x"), new_output("stream", text="in /wörk/bench/data\n"))


def test_a_warning_is_refused_and_a_print_is_not():
    build._tidy(new_code_cell("x"), new_output("stream", name="stdout", text="fine\n"))
    with pytest.raises(LabkitError, match=r"this cell warns:\nx\nDeprecated"):
        build._tidy(new_code_cell("x"), new_output("stream", name="stderr", text="Deprecated\n"))


# Execution


def test_a_notebook_runs_strict_and_apart_and_the_environment_is_as_before(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_HOME", "mine")
    monkeypatch.delenv("LABKIT_STRICT", raising=False)
    monkeypatch.delenv("LABKIT_MODEL", raising=False)
    before = dict(os.environ)
    code = """\
import os, tempfile
home, runs = (os.environ[f"LABKIT_{name}"] for name in ("HOME", "RUNS"))
apart = all(path.startswith(tempfile.gettempdir()) for path in (home, runs))
print(os.environ["LABKIT_STRICT"], os.environ["LABKIT_MODEL"], apart, home != runs)"""
    made = new_notebook(cells=[new_code_cell(code), new_code_cell("6 * 7")])
    assert 0 < build.execute(made, tmp_path) < 60
    assert dict(os.environ) == before
    assert made.cells[0].outputs[0].text == "1 tiny True True\n"
    assert made.cells[1].outputs[0].data == {"text/plain": "42"}
    assert made.metadata == notebook.METADATA
    assert [dict(cell.metadata) for cell in made.cells] == [{}, {}]


def test_a_cell_that_fails_ends_the_build_and_the_environment_is_as_before(tmp_path):
    before = dict(os.environ)
    made = new_notebook(cells=[new_code_cell("rank = 16\nassert rank == 8, 'the rank is off'")])
    with pytest.raises(LabkitError, match=r"(?s)a cell failed: .*the rank is off"):
        build.execute(made, tmp_path)
    assert dict(os.environ) == before


def test_a_build_that_runs_keeps_outputs_and_writes_the_minutes_it_took(copy, monkeypatch):
    source = first(copy)

    def run(made, folder):
        assert folder == copy / "notebooks"
        for cell in made.cells:
            if cell.cell_type == "code":
                cell.outputs = [new_output("stream", text="ran\n")]
        return 130.4

    monkeypatch.setattr(build, "execute", run)
    monkeypatch.setattr(build.os, "cpu_count", lambda: 2)
    files = build.build(source, run=True)
    here, there = build.places(source)
    assert all("3 min on two CPU cores" in text for text in files.values())
    ran = nbformat.reads(files[there], as_version=4)
    assert {o.text for c in ran.cells for o in c.get("outputs", [])} == {"ran\n"}
    bare = nbformat.reads(files[here], as_version=4)
    assert not any(cell.get("outputs") for cell in bare.cells)


# How long it takes


def test_what_was_measured_becomes_a_phrase(copy, monkeypatch):
    assert build.minutes("05_new") == "not measured yet"
    monkeypatch.setattr(build.os, "cpu_count", lambda: 2)
    build.record("05_new", "cpu", 60.4)
    assert build.minutes("05_new") == "1 min on two CPU cores"
    build.record("05_new", "gpu", 61)
    assert build.minutes("05_new") == "1 min on two CPU cores, 2 min on a GPU"
    monkeypatch.setattr(build.os, "cpu_count", lambda: 16)
    build.record("05_new", "cpu", 3.0)
    assert build.minutes("05_new") == "1 min on 16 CPU cores, 2 min on a GPU"


def test_a_record_leaves_the_others_and_says_where_and_when(copy):
    others = build.timings()
    build.record("05_new", "cpu", 12.6)
    path = copy / "data" / "measurements" / "notebook_minutes.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    new = found.pop("05_new")["cpu"]
    assert found == others
    assert (new["seconds"], new["cores"]) == (13, os.cpu_count())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", new["date"])
