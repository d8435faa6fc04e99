"""A judge grades answers; how far it agrees with the rule is measured before it is trusted.

    judge        looks at                               for
    Rule         the right answer                       a test set, where it is known
    Questions    the letter, by asking a model          new letters, where nothing is known
    YesNo        the letter and the answer together     nothing, as its agreement shows

Anything with the two methods of `Judge` can be one: a model behind an API is a class whose
`grade` sends each pair and reads "yes" or "no".

    agreement    share of answers on which judge and rule say the same, with its interval
    kappa        the same less what chance gives: (agreement - chance) / (1 - chance)

Source of kappa: Cohen 1960, A coefficient of agreement for nominal scales.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from labkit.data import Example
from labkit.evaluate.forced import forced, forced_hits
from labkit.evaluate.resampling import Interval, interval
from labkit.project import LabkitError
from labkit.skills import ASK_RECORD, FIELDS, QUESTIONS

if TYPE_CHECKING:
    from labkit.models import Loaded


class JudgeError(LabkitError):
    """A judge that is not to be trusted; says by what number."""


class Judge(Protocol):
    """Grades answers to prompts."""

    def describe(self) -> str:
        """Who judges, in a few words."""
        ...

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """For each answer whether it is right."""
        ...


@dataclass(frozen=True)
class Rule:
    """Exact match with the right answers, which it must know."""

    truth: Sequence[Example]

    def describe(self) -> str:
        return "exact match"

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        """Raises KeyError for a prompt whose answer is not known."""
        known = {e.prompt: e.answer for e in self.truth}
        return [a.strip() == known[p] for p, a in zip(prompts, answers, strict=True)]


@dataclass(frozen=True)
class Questions:
    """Asks a model five questions about the letter; all its answers must stand in the record.

    No right answer is needed. Each value is forced: it counts if greedy decoding would write it.
    """

    by: "Loaded"

    def describe(self) -> str:
        return f"{self.by.tier}, asked {len(FIELDS)} questions a letter"

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        records = [_record(answer) for answer in answers]
        asked = [
            (i, Example(f"{_letter(prompt)}\n\n{QUESTIONS[field][0]}", str(record[field]), field))
            for i, (prompt, record) in enumerate(zip(prompts, records, strict=True))
            if record
            for field in FIELDS
        ]
        right = [record is not None for record in records]
        if asked:
            hits = forced_hits(self.by.model, self.by.tokenizer, [e for _, e in asked])
            for (i, _), hit in zip(asked, hits, strict=True):
                right[i] = right[i] and hit
        return right


@dataclass(frozen=True)
class YesNo:
    """Asks a model whether the record is right, and takes the likelier of "yes" and "no"."""

    by: "Loaded"

    def describe(self) -> str:
        return f"{self.by.tier}, asked for yes or no"

    def grade(self, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
        asked = [
            f"{_letter(p)}\n\nAnswer yes or no: is this the record? {a}"
            for p, a in zip(prompts, answers, strict=True)
        ]
        model, tokenizer = self.by.model, self.by.tokenizer
        yes, no = (
            forced(model, tokenizer, [Example(a, word, "judge") for a in asked])
            for word in ("yes", "no")
        )
        return [y.nats < n.nats for y, n in zip(yes, no, strict=True)]


def _letter(prompt: str) -> str:
    return prompt.removesuffix(ASK_RECORD).rstrip()


def _record(answer: str) -> dict[str, object] | None:
    """The answer as an object of exactly the five fields, in any order; None if it is none."""
    try:
        said = json.loads(answer)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(said, dict) or set(said) != set(FIELDS):
        return None
    return said


def kappa(judge: Sequence[bool], truth: Sequence[bool]) -> float:
    """Cohen's kappa of two lists of verdicts: 1 is full agreement, 0 what chance would give.

    (agreement - chance) / (1 - chance), where chance is how often two judges would agree who say
    "right" as often as these two, but of random answers. If chance is 1, both always say the same
    one thing, nothing was tested, and kappa is 0.

    Raises:
        ValueError: if the numbers of verdicts differ or are zero.
    """
    if len(judge) != len(truth) or not judge:
        raise ValueError(f"{len(judge)} and {len(truth)} verdicts: give one each")
    n = len(judge)
    agreed = sum(bool(j) == bool(t) for j, t in zip(judge, truth, strict=True)) / n
    yes_judge, yes_truth = sum(map(bool, judge)) / n, sum(map(bool, truth)) / n
    chance = yes_judge * yes_truth + (1 - yes_judge) * (1 - yes_truth)
    return 0.0 if chance == 1 else (agreed - chance) / (1 - chance)


@dataclass(frozen=True)
class Agreement:
    """A judge beside the rule: how often they agree, kappa, and the two kinds of mistake."""

    judge: str
    share: Interval
    kappa: float
    passed_wrong: int  # answers called right that are wrong
    failed_right: int  # answers called wrong that are right
    right: int  # by the rule, of share.n

    def __str__(self) -> str:
        return (
            f"{self.judge}: agrees with the rule on {self.share}, kappa {self.kappa:.2f}; "
            f"let {self.passed_wrong} of {self.share.n - self.right} wrong answers pass, "
            f"failed {self.failed_right} of {self.right} right ones"
        )

    __repr__ = __str__

    def trusted(self, bar: float = 0.9, least_kappa: float = 0.6) -> None:
        """Nothing, if the agreement's interval lies above `bar` and kappa reaches `least_kappa`.

        Raises:
            JudgeError: otherwise.
        """
        if self.share.low < bar or self.kappa < least_kappa:
            raise JudgeError(
                f"{self.judge} is not to be trusted: agreement {self.share} must lie above "
                f"{bar:.0%} and kappa {self.kappa:.2f} reach {least_kappa}; grade by the rule, "
                "or mend the judge"
            )


def agreement(judge: Judge, rule: Judge, prompts: Sequence[str], said: Sequence[str]) -> Agreement:
    """Both grade the same answers, right ones and wrong ones.

    Raises:
        JudgeError: if the rule finds only right or only wrong answers: any judge that always says
            the same would agree.
    """
    verdicts, truth = judge.grade(prompts, said), rule.grade(prompts, said)
    if len(set(truth)) < 2:
        which = "right" if truth[0] else "wrong"
        raise JudgeError(
            f"all {len(truth)} answers are {which} by {rule.describe()}: a judge "
            "is measured on answers of both kinds"
        )
    pairs = list(zip(verdicts, truth, strict=True))
    return Agreement(
        judge.describe(),
        interval([v == t for v, t in pairs]),
        kappa(verdicts, truth),
        passed_wrong=sum(v and not t for v, t in pairs),
        failed_right=sum(t and not v for v, t in pairs),
        right=sum(truth),
    )
