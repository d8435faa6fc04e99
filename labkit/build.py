"""Build the notebooks, their links and the map in the README from the sources.

    python -m labkit.build                  every notebook, the solved ones executed
    python -m labkit.build --only 04        one of them
    python -m labkit.build --no-execute     text alone; outputs of unchanged cells stay
    python -m labkit.build --check          say what is stale, change nothing
    python -m labkit.build --address URL    a fork's address, in every link

Executed means: a fresh kernel, in strict mode, on the tiny model. How long that took is recorded in
data/measurements/notebook_minutes.json, from which the notebooks and the README take their minutes.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit import notebook, project
from labkit.notebook import Facts
from labkit.project import LabkitError

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_SECONDS = 600  # the longest that one cell may run


def root() -> Path:
    """The checkout.

    Raises:
        LabkitError: in an installed wheel, which has no sources.
    """
    if project.ROOT is None:
        raise LabkitError("notebooks are built in a checkout: clone the repository first")
    return project.ROOT


def sources(only: Sequence[str] = ()) -> list[Path]:
    """The source files, or those whose names begin with one of `only`.

    Raises:
        LabkitError: if a beginning in `only` fits none.
    """
    every = sorted((root() / "notebooks" / "source").glob("[0-9][0-9]_*.py"))
    for start in only:
        if not any(path.stem.startswith(start) for path in every):
            there = ", ".join(path.stem for path in every)
            raise LabkitError(f"no notebook begins with {start!r}; there are {there}")
    return [path for path in every if path.stem.startswith(tuple(only) or "")]


def timings() -> dict[str, dict[str, Any]]:
    """Seconds that each notebook took, by its name and then by device ("cpu", "gpu")."""
    path = project.data("measurements", "notebook_minutes.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def minutes(name: str) -> str:
    """How long a notebook takes to run, as a phrase made of what was measured."""
    measured = timings().get(name, {})
    cores = measured.get("cpu", {}).get("cores")
    kinds = {"cpu": f"on {'two' if cores == 2 else cores} CPU cores", "gpu": "on a GPU"}
    parts = [
        f"{max(1, math.ceil(measured[kind]['seconds'] / 60))} min {where}"
        for kind, where in kinds.items()
        if kind in measured
    ]
    return ", ".join(parts) or "not measured yet"


def facts(name: str) -> Facts:
    """What the text of a notebook takes from the project."""
    return Facts(project.address(), project.version(), minutes(name))


def execute(made: NotebookNode, folder: Path) -> float:
    """Run a notebook in a fresh kernel, in place; returns the seconds.

    Raises:
        LabkitError: if a cell fails, or its output names a path of this machine or warns.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    begin = time.perf_counter()
    with _environment():
        client = NotebookClient(
            made,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise LabkitError(f"a cell failed: {error}") from error
    seconds = time.perf_counter() - begin
    made.metadata = nbformat.from_dict(notebook.METADATA)
    for cell in made.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            _tidy(cell, output)
    return seconds


@contextmanager
def _environment() -> Iterator[None]:
    """Strict, with folders of its own; as it was before, afterwards."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as aside:
        os.environ |= {
            "LABKIT_STRICT": "1",
            "LABKIT_HOME": f"{aside}/home",
            "LABKIT_RUNS": f"{aside}/runs",
            "LABKIT_MODEL": os.environ.get("LABKIT_MODEL", "tiny"),
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


def _tidy(cell: NotebookNode, output: NotebookNode) -> None:
    """Keep the static twin of a widget, and nothing of this machine."""
    output.get("data", {}).pop(WIDGET_VIEW, None)
    text = json.dumps(output)
    for path in (str(root()), str(Path.home()), sys.prefix, tempfile.gettempdir()):
        if len(path) > 1 and json.dumps(path)[1:-1] in text:
            raise LabkitError(f"this cell:\n{cell.source}\nnames {path}:\n{output}")
    if output.get("name") == "stderr":
        raise LabkitError(f"this cell warns:\n{cell.source}\n{output.text}")


def _code(made: NotebookNode) -> Iterator[tuple[tuple[str, int], NotebookNode]]:
    """Each code cell by its code, and by how many cells before it hold the same."""
    seen: Counter[str] = Counter()
    for cell in made.cells:
        if cell.cell_type == "code":
            yield (cell.source, seen[cell.source]), cell
            seen[cell.source] += 1


def keep_outputs(made: NotebookNode, before: NotebookNode | None) -> None:
    """Copy outputs from the notebook on disk into cells whose code is still the same."""
    old = dict(_code(before)) if before else {}
    for key, cell in _code(made):
        if key in old:
            cell.outputs = old[key].outputs
            cell.execution_count = old[key].execution_count


def text_of(made: NotebookNode) -> str:
    """A notebook as the bytes that are written."""
    nbformat.validate(made)
    return nbformat.writes(made, indent=1) + "\n"


def places(source: Path) -> tuple[Path, Path]:
    """Where the learner's and the solved notebook of a source are written."""
    folder = root() / "notebooks"
    return folder / f"{source.stem}.ipynb", folder / "solutions" / f"{source.stem}.ipynb"


def read(path: Path) -> NotebookNode:
    """A notebook on disk.

    Raises:
        LabkitError: if it is none, as after a merge that stopped half-way.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        name = path.relative_to(root())
        raise LabkitError(f"{name} is no notebook: delete it, then run make notebooks") from error


def build(source: Path, run: bool) -> dict[Path, str]:
    """The files that a source gives, by path."""
    here, there = places(source)
    if run:
        made = notebook.solved(source, facts(source.stem))
        record(source.stem, "cpu", execute(made, here.parent))
        outputs = made  # the minutes in its text are older than this run: take them anew
    else:
        outputs = read(there) if there.is_file() else None
    made = notebook.solved(source, facts(source.stem))
    keep_outputs(made, outputs)
    return {here: text_of(notebook.learner(source, facts(source.stem))), there: text_of(made)}


def record(name: str, kind: str, seconds: float) -> None:
    """Keep how long a notebook took."""
    path = project.data("measurements", "notebook_minutes.json")
    found = timings()
    said = {"seconds": round(seconds), "cores": os.cpu_count(), "date": date.today().isoformat()}
    found[name] = found.get(name, {}) | {kind: said}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def readme() -> str:
    """README.md with its badges and its map of notebooks made anew."""
    text = (root() / "README.md").read_text(encoding="utf-8")
    rows = ["| notebook | question | time | exercises |", "|---|---|---|---|"]
    for source in sources():
        made = notebook.learner(source, facts(source.stem))
        title = made.cells[0].source.splitlines()[0].removeprefix("# ")
        number = sum(cell.source.startswith("check(") for cell in made.cells)
        link = f"[{source.stem}](notebooks/{source.stem}.ipynb)"
        rows.append(f"| {link} | {title} | {minutes(source.stem)} | {number} |")
    first = sources()[0].stem
    parts = {"badges": facts(first).badges(first), "map": "\n".join(rows)}
    for name, part in parts.items():
        form = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if not form.search(text):
            raise LabkitError(
                f"README.md has no place between <!-- {name} --> and <!-- /{name} -->"
            )
        text = form.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text)
    return text


def stale() -> list[str]:
    """The built files that differ from what their sources give; outputs are not compared."""
    made = {path: text for source in sources() for path, text in build(source, run=False).items()}
    made[root() / "README.md"] = readme()
    old = [
        path
        for path, text in made.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    folder = root() / "notebooks"
    orphans = [path for path in folder.rglob("*.ipynb") if path not in made]
    kept = [path for path in orphans if ".ipynb_checkpoints" not in path.parts]
    return sorted(str(path.relative_to(root())) for path in [*old, *kept])


def readdress(url: str) -> None:
    """Write another address into pyproject.toml, the one place that holds it, and into what repeats
    it: README.md, and the outputs of the solved notebooks.

    Raises:
        LabkitError: if it is no address of a repository on GitHub.
    """
    url = url.removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise LabkitError(f"{url!r} is not of the form https://github.com/OWNER/NAME")
    old, new = (a.removeprefix("https://github.com/") for a in (project.address(), url))
    link = re.compile(rf"(?<=/)(github(?:\.com)?|gh)/{re.escape(old)}(?![\w-])")  # or Colab, Binder
    ran = [there for _, there in map(places, sources()) if there.is_file()]
    for path in (root() / "pyproject.toml", root() / "README.md", *ran):
        text = path.read_text(encoding="utf-8")
        path.write_text(link.sub(rf"\1/{new}", text), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m labkit.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="*", default=(), help="numbers or names of notebooks")
    parser.add_argument("--check", action="store_true", help="say what is stale")
    parser.add_argument("--no-execute", action="store_true", help="make the text alone")
    parser.add_argument("--address", help="the address of a fork")
    asked = parser.parse_args(arguments)
    if asked.address and asked.only:
        parser.error("an address stands in every notebook: leave --only away")
    try:
        if asked.check:
            old = stale()
            for path in old:
                print(f"stale: {path}; run make notebooks")
            return 1 if old else 0
        if asked.address:
            readdress(asked.address)
        for source in sources(asked.only):
            files = build(source, run=not (asked.no_execute or asked.address))
            for path, text in files.items():
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
                print(path.relative_to(root()))
        (root() / "README.md").write_text(readme(), encoding="utf-8")
    except LabkitError as error:
        print(f"labkit.build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
