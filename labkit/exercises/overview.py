"""The progress board: what is solved, what is next, as a live widget and as plain text.

Both are made of the same rows. The widget follows JupyterLab's light and dark themes through its
CSS variables and moves as soon as a check passes, in this notebook or in another one.
"""

import ast
import importlib.util
import string
from collections.abc import Callable
from dataclasses import dataclass, fields
from html import escape
from typing import Any

from labkit.exercises import engine, progress
from labkit.exercises.exercise import COLOURS, STATES, Exercise
from labkit.exercises.questions import Question

MARKS = {"passed": "[x]", "not yet": "[~]", "not tried": "[ ]"}
HEADLINES = {
    "Exercise": (Exercise, "{title} ({minutes} min, difficulty {difficulty} of 5)"),
    "Question": (Question, "{text}"),
}
BAR, HIGH = 240, 10  # width and height of a progress bar, in pixels
TRACK = "var(--jp-layout-color3, rgba(128, 128, 128, 0.35))"


@dataclass(frozen=True)
class Row:
    """One exercise or question on the board."""

    id: str
    title: str
    state: str

    def __str__(self) -> str:
        return f"{MARKS[self.state]} {self.id} {self.title}"


@dataclass(frozen=True)
class Section:
    """The rows of one notebook."""

    title: str
    rows: tuple[Row, ...]

    @property
    def done(self) -> int:
        return sum(row.state == "passed" for row in self.rows)

    def __str__(self) -> str:
        return f"{self.title}: {self.done} of {len(self.rows)}"


@dataclass(frozen=True)
class Board:
    """The board at one moment. In a notebook it shows a widget that stays up to date."""

    sections: tuple[Section, ...]
    note: str = ""

    def headline(self) -> str:
        done = sum(section.done for section in self.sections)
        return f"Progress: {done} of {sum(len(s.rows) for s in self.sections)} passed"

    def key(self) -> str:
        return ", ".join(f"{MARKS[state]} {state}" for state in reversed(STATES))

    def lines(self) -> list[str]:
        """What the learner reads, line by line."""
        lines = [self.headline()]
        for section in self.sections:
            lines += [str(section), *(str(row) for row in section.rows)]
        return [*lines, self.key(), *([self.note] if self.note else [])]

    def __str__(self) -> str:
        rows = {str(row) for section in self.sections for row in section.rows}
        return "\n".join(f"  {line}" if line in rows else line for line in self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [f"<div><strong>{escape(self.headline())}</strong></div>"]
        for section in self.sections:
            rows = "".join(_row(row) for row in section.rows)
            title = f'<div style="margin-top:8px">{escape(str(section))}</div>'
            parts.append(f"{title}{_bar(section)}<div>{rows}</div>")
        parts.append(f'<div style="margin-top:8px">{escape(self.key())}</div>')
        if self.note:
            parts.append(f'<div role="alert">{escape(self.note)}</div>')
        ink = "color:var(--jp-content-font-color1, inherit);line-height:1.5"
        return f'<div class="labkit-board" style="{ink}">{"".join(parts)}</div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        from labkit import widgets  # here, so that the exercises work without ipywidgets

        return widgets.shown(lambda: widgets.live(_html_now, progress.subscribe, _follow()))


def _row(row: Row) -> str:
    """The state is in the mark's own characters; the colour beside it only repeats it."""
    style = f"border-left:4px solid {COLOURS[row.state]};padding-left:8px"
    mark = f'<code style="background:none;color:inherit">{MARKS[row.state]}</code>'
    return f'<div style="{style}">{mark} {escape(row.id)} {escape(row.title)}</div>'


def _bar(section: Section) -> str:
    """How much of a notebook is passed, drawn as inline SVG."""
    share = section.done / max(1, len(section.rows))
    full = f'width="{BAR}" height="{HIGH}"'
    return (
        f'<svg {full} viewBox="0 0 {BAR} {HIGH}" role="img" aria-label="{escape(str(section))}">'
        f'<rect {full} rx="3" style="fill:{TRACK}"/>'
        f'<rect width="{BAR * share:.0f}" height="{HIGH}" rx="3" '
        f'style="fill:{COLOURS["passed"]}"/></svg>'
    )


def _html_now() -> str:
    return board()._repr_html_()


def _follow() -> Callable[[], None]:
    """Tells the board when another notebook changed the file since the last look."""
    seen = progress.stamp()

    def look() -> None:
        nonlocal seen
        now = progress.stamp()
        if now != seen:
            seen = now
            progress.tell()

    return look


def board() -> Board:
    """The progress over all notebooks, now."""
    now = progress.load()
    sections = []
    for number in engine.notebooks():
        title, items = outline(source(number))
        rows = tuple(Row(id, headline, now.state(id)) for id, headline in items)
        sections.append(Section(f"{number} {title}", rows))
    return Board(tuple(sections), now.note)


def source(notebook: str) -> str:
    """The text of an exercise module."""
    spec = importlib.util.find_spec(f"labkit.exercises.ex{notebook}")
    return spec.loader.get_source(spec.name)


def outline(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Title of a notebook, and id and headline of each exercise and question, in order.

    Read from the module's text: to import every module would load torch, transformers and PEFT,
    many seconds for a list of titles. So these few fields must be written as plain literals.
    """
    title, items = "", []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TITLE":
            title = ast.literal_eval(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in HEADLINES:
            items.append((node.lineno, *_headline(node)))
    return title, [(id, headline) for _, id, headline in sorted(items)]


def _headline(call: ast.Call) -> tuple[str, str]:
    """Id and headline of one `Exercise(...)` or `Question(...)` as it is written."""
    kind, form = HEADLINES[ast.unparse(call.func)]
    written = dict(zip([field.name for field in fields(kind)], call.args, strict=False))
    written |= {keyword.arg: keyword.value for keyword in call.keywords}
    wanted = {name for _, name, _, _ in string.Formatter().parse(form) if name}
    told = {name: ast.literal_eval(written[name]) for name in wanted}
    return ast.literal_eval(written["id"]), form.format(**told)
