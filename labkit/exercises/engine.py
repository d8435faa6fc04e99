"""What a notebook calls: check, use, hint, solution, and where the exercises are found.

    check("04.2", mask_prompt)              one line: passed, not yet or not tried
    mask_prompt = use("04.2", mask_prompt)  yours where it passes, else the library's
    hint("04.2")                            the next of three hints
    solution("04.2")                        the library's own code

The exercises of notebook NN live in `labkit/exercises/exNN.py`, found by that name. Two switches
are for the tests: LABKIT_STRICT=1 makes `check` raise unless the verdict is "passed".
LABKIT_FALLBACK=0 does so too, and `use` then replaces only what a check has already reported: an
answer that no check looked at stays what it is, and fails where it is used.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import labkit.exercises
from labkit import project
from labkit.exercises import progress
from labkit.exercises.exercise import HINTS, Exercise, Verdict
from labkit.exercises.judging import judged

_given: dict[str, int] = {}  # hints shown in this session, by exercise
_reported: set[str] = set()  # exercises whose check has raised in this session


@dataclass(frozen=True)
class Hint:
    """One of three hints; a notebook renders its formulas."""

    id: str
    step: int
    text: str

    def __str__(self) -> str:
        return f"{self.id} hint {self.step} of {HINTS}: {self.text}"

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"**{self.id} hint {self.step} of {HINTS}**: {self.text}"


@dataclass(frozen=True)
class Solution:
    """The source of the library's answer, shown as code."""

    id: str
    code: str

    def __str__(self) -> str:
        return self.code

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.code}```"


def notebooks() -> list[str]:
    """The numbers of the notebooks that have exercises, such as "00"."""
    found = pkgutil.iter_modules(labkit.exercises.__path__)
    return sorted(m.name[2:] for m in found if re.fullmatch(r"ex\d\d", m.name))


def module(notebook: str) -> ModuleType:
    """The exercise module of one notebook.

    Raises LabkitError where that notebook has none.
    """
    if notebook not in notebooks():
        there = ", ".join(notebooks())
        raise project.LabkitError(f'no notebook "{notebook}" has exercises here; {there} do')
    return importlib.import_module(f"labkit.exercises.ex{notebook}")


def exercises(notebook: str | None = None) -> list[Exercise]:
    """The exercises of one notebook, or of all of them, in order."""
    wanted = notebooks() if notebook is None else [notebook]
    return [exercise for number in wanted for exercise in module(number).EXERCISES]


def find(id: str) -> Exercise:
    """The exercise of that id.

    Raises LabkitError for an id that does not exist; the message lists those that do.
    """
    there = {exercise.id: exercise for exercise in exercises(id.partition(".")[0])}
    if id not in there:
        raise project.LabkitError(f'there is no exercise "{id}"; there are {", ".join(there)}')
    return there[id]


def check(id: str, answer: object) -> Verdict:
    """The verdict on the learner's `answer`, recorded in the progress file.

    Raises AssertionError where the verdict is not "passed" and a switch of the tests asks for it.
    """
    verdict = _verdict(find(id), answer)
    note = progress.record(id, verdict.state).note
    verdict = Verdict(verdict.state, verdict.message, id, note, verdict.printed)
    if not verdict and (project.strict() or not project.fallback()):
        _reported.add(id)
        raise AssertionError(str(verdict))
    return verdict


def _verdict(exercise: Exercise, answer: object) -> Verdict:
    """The judge's verdict, except on the library's own object: after `use` the learner's name may
    stand for it, and the check cell run again must not count it as solved."""
    if callable(answer) and answer is exercise.solution:
        own = f"this is the library's own; run the cell that defines {exercise.stub} again"
        return Verdict("not tried", own, exercise.id)
    return judged(exercise, answer)


def use(id: str, answer: object) -> Any:  # noqa: ANN401
    """`answer` where it passes its judge, else the library's own; says which in one line."""
    exercise = find(id)
    if not project.fallback() and id not in _reported:
        return answer
    verdict = _verdict(exercise, answer)
    whose = "yours" if verdict else f"the library's (yours: {verdict.state})"
    # The one line that is printed here: the value itself goes to the learner's variable.
    print(f"{id} {exercise.stub}: from here on {whose}")
    return answer if verdict else exercise.solution


def hint(id: str, step: int | None = None) -> Hint:
    """The next hint of an exercise, or the one that `step` (1 to 3) asks for.

    Raises LabkitError for a step outside 1 to 3.
    """
    exercise = find(id)
    step = min(_given.get(id, 0) + 1, HINTS) if step is None else step
    if step not in range(1, HINTS + 1):
        raise project.LabkitError(f"{id} has no hint {step}; ask for 1, 2 or {HINTS}")
    _given[id] = max(step, _given.get(id, 0))
    text = exercise.hints[step - 1]
    return Hint(id, step, _with_code(exercise, text) if step == HINTS else text)


def solution(id: str) -> Solution:
    """The source of the library's own solution."""
    return Solution(id, source_of(find(id)))


def folded_hints(exercise: Exercise) -> str:
    """The three hints as folded Markdown, for the notebook's own text."""
    *early, why = exercise.hints
    names = ("a question", "a formula", "the solution and why")
    texts = [*early, _with_code(exercise, why)]
    folds = [
        f"<details><summary>Hint {step}: {name}</summary>\n\n{text}\n\n</details>"
        for step, (name, text) in enumerate(zip(names, texts, strict=True), start=1)
    ]
    return "\n".join(folds)


def _with_code(exercise: Exercise, why: str) -> str:
    return f"{why}\n\n```python\n{source_of(exercise)}```"


def source_of(exercise: Exercise) -> str:
    """The source of an exercise's solution, dedented, under the name of the stub.

    Raises LabkitError where the solution is neither a function, a class nor a plain value.
    """
    answer = exercise.solution
    if isinstance(answer, (int, float, str, tuple, list, dict)):
        return f"{exercise.stub} = {answer!r}\n"
    try:
        source = textwrap.dedent(inspect.getsource(answer))
    except (OSError, TypeError) as error:
        kind = type(answer).__name__
        raise project.LabkitError(
            f"{exercise.id}: no source for its solution, a {kind}; make it a function or a class"
        ) from error
    return _renamed(source, answer.__name__, exercise.stub)


def _renamed(source: str, old: str, new: str) -> str:
    """`source` with its function or class called `new`, where it calls itself too."""
    definition = ast.parse(source).body[0]
    nodes = list(ast.walk(definition))
    own = any(isinstance(n, ast.arg) and n.arg == old for n in nodes)  # a parameter of that name
    places = [] if own else [n for n in nodes if isinstance(n, ast.Name) and n.id == old]
    lines = source.splitlines(keepends=True)
    for node in sorted(places, key=lambda n: (n.lineno, n.col_offset), reverse=True):
        line = lines[node.lineno - 1].encode()  # ast counts columns in bytes
        start, end = node.col_offset, node.col_offset + len(old.encode())
        lines[node.lineno - 1] = (line[:start] + new.encode() + line[end:]).decode()
    head = definition.lineno - 1
    lines[head] = re.sub(rf"\b(def|class)(\s+){re.escape(old)}\b", rf"\1\g<2>{new}", lines[head])
    return "".join(lines)


def solution_names(exercise: Exercise) -> dict[str, Any]:
    """The names that the module of the solution knows: what a wrong answer as text may use."""
    made_in: Callable[..., Any] | ModuleType | None = inspect.getmodule(exercise.solution)
    return dict(vars(made_in or sys.modules[exercise.judge.__module__]))
