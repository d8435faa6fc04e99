"""Quiz questions: every choice has a reason, the right one and the wrong ones.

A module `exNN.py` holds the questions of its notebook in a list `QUESTIONS`. A question shows
itself as radio buttons in a notebook and as plain text anywhere; both are made of `lines()`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from labkit import project
from labkit.exercises import engine, progress
from labkit.exercises.exercise import Verdict


@dataclass(frozen=True)
class Choice:
    """One choice of a question, and why it is right or wrong."""

    text: str
    reason: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with exactly one right choice; choices are called a, b, c in order.

    Raises ValueError where no choice or more than one is right, or a reason is missing.
    """

    id: str  # such as "04.q1"
    text: str
    choices: Sequence[Choice]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d\d\.q[1-9]\d?", self.id):
            raise ValueError(f'question id {self.id!r}: write notebook and number, as in "04.q1"')
        right = sum(choice.right for choice in self.choices)
        if right != 1:
            raise ValueError(f"{self.id}: {right} choices are right; exactly one must be")
        if not all(choice.reason.strip() for choice in self.choices):
            raise ValueError(f"{self.id}: a choice has no reason")

    @property
    def letters(self) -> dict[str, Choice]:
        """The choices by letter."""
        return {chr(ord("a") + place): choice for place, choice in enumerate(self.choices)}

    def labels(self) -> dict[str, str]:
        """What stands beside each button, by letter."""
        return {letter: f"{letter}) {choice.text}" for letter, choice in self.letters.items()}

    def lines(self) -> list[str]:
        """What the learner reads, line by line."""
        ask = f'answer here, or with quiz("{self.id}").answer("a")'
        return [f"Question {self.id}: {self.text}", *self.labels().values(), ask]

    def verdict(self, letter: str) -> Verdict:
        """The verdict on one choice, without recording it.

        Raises LabkitError for a letter that is no choice.
        """
        letter = str(letter).strip().lower()
        if letter not in self.letters:
            there = ", ".join(self.letters)
            raise project.LabkitError(f'{self.id} has no choice "{letter}"; answer {there}')
        choice = self.letters[letter]
        state = "passed" if choice.right else "not yet"
        return Verdict(state, f"{letter}) {choice.reason}", self.id)

    def answer(self, letter: str) -> Verdict:
        """The verdict on one choice, recorded in the progress file."""
        verdict = self.verdict(letter)
        note = progress.record(self.id, verdict.state).note
        return Verdict(verdict.state, verdict.message, self.id, note)

    def __str__(self) -> str:
        question, *choices, ask = self.lines()
        return "\n".join([question, *(f"  {choice}" for choice in choices), f"({ask})"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        question, *choices, ask = self.lines()
        listed = "".join(f"<div>{escape(choice)}</div>" for choice in choices)
        return f"<p><strong>{escape(question)}</strong></p>{listed}<p>({escape(ask)})</p>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        from labkit import widgets  # here, so that the exercises work without ipywidgets

        question, *_, ask = self.lines()
        options = [(label, letter) for letter, label in self.labels().items()]

        def answered(letter: str) -> str:
            return self.answer(letter)._repr_html_()

        return widgets.shown(lambda: widgets.question(question, options, ask, answered))


def questions(notebook: str | None = None) -> list[Question]:
    """The quiz questions of one notebook, or of all of them, in order."""
    wanted = engine.notebooks() if notebook is None else [notebook]
    return [q for number in wanted for q in getattr(engine.module(number), "QUESTIONS", [])]


def quiz(id: str) -> Question:
    """The question of that id: shows itself, and takes `.answer("b")`.

    Raises LabkitError for an id that does not exist; the message lists those that do.
    """
    there = {question.id: question for question in questions(id.partition(".")[0])}
    if id not in there:
        raise project.LabkitError(f'there is no question "{id}"; there are {", ".join(there)}')
    return there[id]
