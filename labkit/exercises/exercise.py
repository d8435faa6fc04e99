"""What an exercise is: a judge, a solution, three hints and a bank of wrong answers.

A module `exNN.py` beside this one holds the exercises of notebook NN in a list `EXERCISES`. The
bank is data: each `Wrong` is a published mistake, and the suite runs every one through the judge.

    judge(answer)   None when the answer is right, else one sentence that names the slip
    solution        the library's own function, so that nothing is written twice
    wrong           at least three answers that must be rejected, each with a message of its own
"""

import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

STATES = ("not tried", "not yet", "passed")  # from worst to best
HINTS = 3  # a question, a formula, the reason why the solution is written so
COLOURS = {  # JupyterLab's own variables follow its theme; the fallbacks read on both grounds
    "passed": "var(--jp-success-color1, #2e9d47)",
    "not yet": "var(--jp-warn-color1, #d9822b)",
    "not tried": "var(--jp-border-color1, #8a8a8a)",
}


@dataclass(frozen=True)
class Verdict:
    """What a judge found. One line in a notebook; true only when it passed."""

    state: str  # one of STATES
    message: str
    id: str = ""
    note: str = ""  # about the progress file, where the learner has to know
    printed: str = ""  # what the answer wrote to stdout and stderr while it was judged

    def __bool__(self) -> bool:
        return self.state == "passed"

    def __str__(self) -> str:
        line = f"{self.id} {self.state}: {self.message}".strip()
        return f"{line} ({self.note})" if self.note else line

    __repr__ = __str__

    def _repr_html_(self) -> str:
        line = escape(str(self)).replace(self.state, f"<strong>{self.state}</strong>", 1)
        folded = ""
        if self.printed:
            folded = (
                "<details><summary>what your code printed</summary>"
                f"<pre>{escape(self.printed)}</pre></details>"
            )
        style = f"border-left:4px solid {COLOURS[self.state]};padding:2px 0 2px 8px"
        return f'<div role="status" style="{style}">{line}{folded}</div>'


@dataclass(frozen=True)
class Wrong:
    """A mistake that the judge must reject with a verdict that contains `message`.

    `answer` is the wrong object itself, or its source as text: code that defines a name, the
    stub's or any other; the last definition counts. Text sees the names of the solution's module.
    """

    name: str
    answer: Any
    message: str

    def build(self, names: dict[str, Any] | None = None) -> object:
        """The wrong answer as an object."""
        if not isinstance(self.answer, str):
            return self.answer
        scope = dict(names or {})
        before = set(scope)
        exec(textwrap.dedent(self.answer), scope)
        made = re.findall(r"^(?:def|class)\s+(\w+)|^(\w+)\s*=", textwrap.dedent(self.answer), re.M)
        new = [def_ or set_ for def_, set_ in made] or sorted(set(scope) - before)
        return scope[new[-1]]


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    `copies`: the answer sees deep copies of what the judge gives it, so that a learner who changes
    an input in place does not change the judge's. Switch it off where changing the input is the
    task (a training loop) or where the input is a whole model.
    `seconds`: how long the judge may take before the answer is stopped.

    Raises ValueError where a field is out of its range.
    """

    id: str
    title: str
    minutes: int
    difficulty: int  # 1 to 5
    judge: Callable[[Any], str | None]
    solution: Any
    stub: str  # the name that the learner's notebook gives the answer
    hints: Sequence[str]
    wrong: Sequence[Wrong] = ()
    seconds: float = 10.0
    copies: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d\d\.[1-9]\d?", self.id):
            raise ValueError(f'exercise id {self.id!r}: write notebook and number, as in "04.2"')
        if self.difficulty not in range(1, 6):
            raise ValueError(f"{self.id}: difficulty {self.difficulty} is not one of 1 to 5")
        if len(self.hints) != HINTS:
            raise ValueError(f"{self.id}: {len(self.hints)} hints; a question, a formula, a why")
        if not self.stub.isidentifier():
            raise ValueError(f"{self.id}: the stub {self.stub!r} is not a Python name")

    @property
    def praise(self) -> str:
        """What a passed judge says: the first line of its docstring, else the title."""
        return (self.judge.__doc__ or self.title).strip().splitlines()[0]
