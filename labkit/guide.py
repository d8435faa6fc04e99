"""Which way to adapt a model: five questions, an answer, and what each part of it rests on.

    advise(Answers(memory="tight", tenants="many"))     Advice: a method, and reasons with numbers
    paths()                                             the advice for every set of answers
    explorer()                                          the questions as menus

The rule, in the order it is applied:

    1  a base that does not fit is rounded to 4 bits: QLoRA; else LoRA
    2  a method that the serving rules out is out
    3  another method is advised only where the score is short, and only if its rows are ahead in
       every recorded case of that many steps, each interval of the paired difference beside zero

Old skills choose no method: the rates were tuned by the task alone, and LoRA at half of its rate
keeps more of them as well, so these rows cannot tell a method from its rate.

The reasons are those of `labkit.grounds`. The rows are of the tiny model and one task: that a
method is not ahead there does not say that it never is.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape

from labkit import fair, grounds
from labkit.explore import Explorer, Menu
from labkit.grounds import Reason
from labkit.table import Table
from labkit.verdicts import Case

QUESTIONS = {  # field of Answers: the question, and each answer in words
    "memory": (
        "Does the base in 16 bits fit the GPU, with a run around it?",
        {"fits": "it fits", "tight": "it does not"},
    ),
    "quality": (
        "What is short, with rate and rank tuned?",
        {"enough": "nothing", "short": "the score", "forgets": "old skills"},
    ),
    "tenants": ("How many adapters share the base?", {"one": "one", "many": "many"}),
    "serving": (
        "How will it answer?",
        {"merged": "merged into the base", "vllm": "unmerged, by vLLM"},
    ),
    "steps": ("How many steps can be paid?", {"few": "a few", "more": "20 or more"}),
}
CASES = {"few": (Case(16, 8), Case(2, 8)), "more": (Case(16, 20),)}
UNLOADED = ("DoRA", "AdaLoRA", "VeRA")  # kinds of adapter that vLLM does not load


@dataclass(frozen=True)
class Answers:
    """One answer to each of QUESTIONS.

    Raises:
        ValueError: names the question and its answers.
    """

    memory: str = "fits"
    quality: str = "enough"
    tenants: str = "one"
    serving: str = "merged"
    steps: str = "few"

    def __post_init__(self) -> None:
        for name, (_, words) in QUESTIONS.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(words)}")

    @property
    def said(self) -> dict[str, str]:
        """Each answer in words."""
        return {name: words[getattr(self, name)] for name, (_, words) in QUESTIONS.items()}

    @property
    def plain(self) -> str:
        """The method that stays unless another is shown to be better."""
        return "QLoRA" if self.memory == "tight" else "LoRA"

    @property
    def cases(self) -> tuple[Case, ...]:
        """The recorded comparisons that these answers are about."""
        return CASES[self.steps]


@dataclass(frozen=True)
class Advice:
    """A method for a set of answers, and why."""

    answers: Answers
    method: str
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return "\n".join([f"Advice: {self.method}", *(f"- {reason}" for reason in self.reasons)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<li>{escape(r.text)} <small>[{escape(r.source)}]</small></li>" for r in self.reasons
        )
        return f"<p><strong>Advice: {self.method}</strong></p><ul>{lines}</ul>"


def left(answers: Answers) -> list[str]:
    """The methods that the answers leave beside the plain one."""
    on_rounded = {"QLoRA", *fair.PAIRS}
    fit = [n for n in fair.METHODS if (n in on_rounded) == (answers.memory == "tight")]
    out = {answers.plain, "full", *(UNLOADED if answers.serving == "vllm" else ())}
    return [name for name in fit if name not in out]


def worth(rows: Sequence[fair.Row], answers: Answers) -> list[str]:
    """Of the methods that are left, those shown to have a lower loss in every case of these steps.

    None where the score is not short.
    """
    if answers.quality != "short":
        return []
    ahead = [fair.ahead(rows, case) for case in answers.cases]
    return [name for name in left(answers) if all(name in found for found in ahead)]


def choose(rows: Sequence[fair.Row], answers: Answers) -> str:
    """The plain method, or of those that are worth it the one with the lowest loss."""
    better = worth(rows, answers)
    loss = {n: fair.mean(rows, n, answers.cases[0], "task_loss").middle for n in better}
    return min(loss, key=loss.__getitem__, default=answers.plain)


def advise(answers: Answers, rows: Sequence[fair.Row] | None = None) -> Advice:
    """The method for these answers, with its reasons.

    Args:
        rows: of the sweep of variants; None: those that are recorded.
    """
    rows = grounds.rows_of("variants.jsonl") if rows is None else rows
    rows = [row for row in rows if row["steps"] == answers.cases[0].steps]
    chosen = choose(rows, answers)
    reasons = [grounds.on_memory(rows, answers.cases[0]), grounds.on_rate(rows, answers.cases[0])]
    if answers.quality == "enough":
        reasons.append(grounds.SUFFICES)
    elif answers.quality == "forgets":
        reasons.append(grounds.on_old_skills(rows, left(answers), answers.cases))
    elif chosen == answers.plain:
        reasons.append(grounds.none_ahead(rows, chosen, left(answers), answers.cases))
    else:
        reasons += [grounds.one_ahead(rows, chosen, answers.cases), grounds.price(chosen)]
    reasons.append(grounds.on_tenants(answers.tenants == "many", answers.serving == "merged"))
    if answers.serving == "vllm":
        reasons.append(grounds.NOT_IN_VLLM)
    return Advice(answers, chosen, tuple(reasons))


def paths(rows: Sequence[fair.Row] | None = None) -> list[Advice]:
    """The advice for every set of answers."""
    names = [field.name for field in fields(Answers)]
    each = itertools.product(*(QUESTIONS[name][1] for name in names))
    return [advise(Answers(**dict(zip(names, one, strict=True))), rows) for one in each]


def table(rows: Sequence[fair.Row] | None = None) -> Table:
    """Every path: a line for what is to be trained, a column for how it is to answer."""
    lines: dict[str, list[str]] = {}
    head: dict[str, None] = {}
    for advice in paths(rows):
        said = advice.answers.said
        line = f"16 bits: {said['memory']}; short: {said['quality']}; steps: {said['steps']}"
        lines.setdefault(line, []).append(advice.method)
        head[f"{said['tenants']}, {said['serving']}"] = None
    return Table(("", *head), [(line, *cells) for line, cells in lines.items()])


def explorer() -> Explorer:
    """The questions as menus; `table()` is their twin on paper."""
    first = Answers()
    menus = [
        Menu(name, text, [(word, answer) for answer, word in words.items()], getattr(first, name))
        for name, (text, words) in QUESTIONS.items()
    ]
    return Explorer(menus, lambda **answers: advise(Answers(**answers)))
