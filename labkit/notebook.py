"""One source file as two notebooks: the learner's, with stubs, and the solved one.

A source is a jupytext percent file. What stands in it is marked, so that nothing is written twice:

    code cell      # bootstrap           the first cell, for JupyterLab, Colab and Binder
                   # exercise: 04.2      the library's own code; for the learner its stub
                   # quiz: 04.q1 04.q2   questions; solved, with their answers
    in code        ### BEGIN SOLUTION    lines up to ### END SOLUTION, which the learner writes
    in Markdown    <!-- exercise: 04.2 -->, <!-- hints: 04.2 -->, <!-- badges -->, <!-- minutes -->

Both notebooks have the same cells in the same order, and the same bytes on every build.
"""

import ast
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from labkit import exercises
from labkit.project import LabkitError

COMPARED = "nbval-check-output"  # the tag of a cell whose output is the same on every machine
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
BOOTSTRAP = """\
import importlib.util, sys

if importlib.util.find_spec("labkit") is None:  # outside a checkout
    source = "git+{address}@v{version}"
    keep = "--no-deps" if "google.colab" in sys.modules else ""  # Colab keeps its own torch
    %pip install -q {{keep}} "labkit @ {{source}}" bitsandbytes trl starlette uvicorn"""
STUB = "raise NotImplementedError"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION\n?", re.M | re.S)
LEFT_OVER = re.compile(
    r"### (?:BEGIN|END) SOLUTION|<!-- (?:exercise|hints|badges|minutes)|"
    r"^# (?:bootstrap$|(?:exercise|quiz):)",
    re.M,
)


class SourceError(LabkitError):
    """A source file of a notebook that cannot be built; says where."""


@dataclass(frozen=True)
class Facts:
    """What the text of a notebook takes from outside its source."""

    address: str  # of the repository, such as https://github.com/owner/name
    version: str
    minutes: str  # how long it takes, as a phrase

    def badges(self, name: str) -> str:
        """Links that open the learner's notebook in Colab and on Binder."""
        repository = self.address.removeprefix("https://github.com/")
        path = f"notebooks/{name}.ipynb"
        colab = f"https://colab.research.google.com/github/{repository}/blob/main/{path}"
        binder = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{path}"
        return (
            "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"({colab}) [![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})"
        )


def learner(source: Path, facts: Facts) -> NotebookNode:
    """The learner's notebook: stubs instead of solutions, no outputs."""
    return _notebook(source, facts, solved=False)


def solved(source: Path, facts: Facts) -> NotebookNode:
    """The solved notebook, not executed yet."""
    return _notebook(source, facts, solved=True)


def _notebook(source: Path, facts: Facts, solved: bool) -> NotebookNode:
    read = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    made = nbformat.v4.new_notebook(metadata=METADATA)
    for index, cell in enumerate(read.cells):
        text = _cell(source, cell, facts, solved)
        if found := LEFT_OVER.search(text):
            raise SourceError(
                f"{source.name}, cell {index}: {found[0]!r} stands where it has no use"
            )
        new = (
            nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        )
        seed = f"{source.stem} {index}".encode()
        made.cells.append(new(text, id=hashlib.sha256(seed).hexdigest()[:8]))
        tags = [tag for tag in cell.metadata.get("tags", []) if solved or tag != COMPARED]
        if tags:
            made.cells[-1].metadata["tags"] = tags
    return made


def _cell(source: Path, cell: NotebookNode, facts: Facts, solved: bool) -> str:
    text = cell.source
    if cell.cell_type != "code":
        return _markdown(text, source.stem, facts)
    if text.strip() == "# bootstrap":
        return BOOTSTRAP.format(address=facts.address, version=facts.version)
    if marked := re.fullmatch(r"# (exercise|quiz): (.+)", text.strip()):
        kind, id = marked.groups()
        return _exercise(id, solved) if kind == "exercise" else _quiz(id.split(), solved)
    if solved:
        return re.sub(r"^ *### (?:BEGIN|END) SOLUTION\n?", "", text, flags=re.M).rstrip()
    return SOLUTION.sub(lambda found: f"{found[1]}{STUB}\n", text).rstrip()


def _markdown(text: str, name: str, facts: Facts) -> str:
    def headline(id: str) -> str:
        e = exercises.find(id)
        return f"### Exercise {id}: {e.title} ({e.minutes} min, difficulty {e.difficulty} of 5)"

    kinds: dict[str, Callable[[str], str]] = {
        "exercise": headline,
        "hints": lambda id: exercises.folded_hints(exercises.find(id)),
        "badges": lambda _: facts.badges(name),
        "minutes": lambda _: facts.minutes,
    }
    form = re.compile(r"<!-- (?:(exercise|hints): (\S+)|(badges|minutes)) -->")
    return form.sub(lambda found: kinds[found[1] or found[3]](found[2]), text)


def _exercise(id: str, solved: bool) -> str:
    code = exercises.source_of(exercises.find(id))
    code = re.sub(r"  # noqa: [A-Z0-9, ]+$", "", code, flags=re.M)  # for the linter alone
    return code.rstrip() if solved else stub(code)


def _quiz(ids: list[str], solved: bool) -> str:
    lines = []
    for id in ids:
        choices = exercises.quiz(id).letters
        right = next(letter for letter, choice in choices.items() if choice.right)
        lines += [f'display(quiz("{id}"))']
        lines += [f'display(quiz("{id}").answer("{right}"))'] if solved else []
    return "\n".join(lines)


def stub(code: str) -> str:
    """A function or class with its signatures and docstrings, and NotImplementedError inside.

    A plain value, `name = 7`, becomes `name = None`.
    """
    definition = ast.parse(code).body[0]
    if isinstance(definition, ast.Assign):
        return f"{ast.unparse(definition.targets[0])} = None"
    lines = code.splitlines()
    kept: list[str] = []
    _stub(definition, lines, kept, start=0)
    return "\n".join(kept)


def _stub(node: ast.stmt, lines: list[str], kept: list[str], start: int) -> None:
    """Append what the learner sees of `node`, whose text begins at line `start`."""
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    has_docstring = ast.get_docstring(node) is not None
    body = node.body[has_docstring:]
    end = node.body[0].end_lineno if has_docstring else _first_line(node.body[0]) - 1
    kept += lines[start:end]
    methods = [part for part in body if isinstance(part, ast.FunctionDef)]
    if isinstance(node, ast.FunctionDef) or not methods:
        kept.append(" " * node.body[0].col_offset + STUB)
    else:
        for method in methods:
            kept.append("")
            _stub(method, lines, kept, _first_line(method) - 1)


def _first_line(node: ast.stmt) -> int:
    """Where a statement begins, its decorators included."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
