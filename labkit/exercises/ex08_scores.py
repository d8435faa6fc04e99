"""The judges of notebook 08 for what is decided: gate, checkpoint, refusals, judge (08.3 to 08.6).

Each holds the answer against cases whose right answer is written out, and names the slip by what
the published mistake would give on the very case.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labkit.evaluate import Checkpoint
from labkit.exercises.ex08_judges import NONE, accepts
from labkit.skills import REFUSAL

# --- 08.3 what an interval says of a gate -----------------------------------------------------

WORDS = ("pass", "fail", "undecided")
GATES = (  # low, high, limit, right, what another answer means
    (0.93, 0.99, 0.90, "pass", "all of the interval lies above the limit"),
    (0.70, 0.85, 0.90, "fail", "all of the interval lies below the limit"),
    (0.86, 0.97, 0.90, "undecided", "the limit lies inside: its middle passes, but its lower end does not"),
    (0.81, 0.92, 0.90, "undecided", "the limit lies inside: its middle fails, but its upper end does not"),
    (0.90, 0.96, 0.90, "pass", "a gate says AT LEAST: a lower end at the limit reaches it"),
    (0.80, 0.90, 0.90, "undecided", "an upper end at the limit still reaches it: nothing is shown"),
    (0.898, 0.96, 0.90, "undecided", "a fifth of a point is missing: compare the ends unrounded"),
    (0.80, 0.898, 0.90, "fail", "a fifth of a point is missing: compare the ends unrounded"),
    (-0.08, -0.03, -0.02, "fail", "a fall of 3 to 8 points, where 2 are allowed: all of it lies below"),
    (-0.01, 0.02, -0.02, "pass", "a fall of at most 1 point, where 2 are allowed, need not be a gain"),
    (-0.05, 0.01, -0.02, "undecided", "no gap is shown, and no fall of at most 2 points either"),
    (0.00, 0.00, 0.00, "pass", "all of it lies at the limit, and at least the limit is asked for"),
)  # fmt: skip


def judge_verdict(answer: Callable[[float, float, float], str]) -> str | None:
    """passes by the lower end, fails by the upper end, and says so when neither decides"""
    for low, high, limit, want, why in GATES:
        got = answer(low, high, limit)
        if got is None:
            return NONE
        if not isinstance(got, str):
            return f'return one of three words, "pass", "fail" or "undecided", not {got!r:.20}'
        if got not in WORDS:
            return f'"{got:.20}" is none of the words "pass", "fail", "undecided"'
        if got != want:
            return f'{low} to {high} against {limit} is "{want}", not "{got}": {why}'
    return None


# --- 08.5 refusals, and refusals too many -----------------------------------------------------

SECRET = (True,) * 6 + (False,) * 8
SAID = (
    REFUSAL, REFUSAL, f" {REFUSAL}\n", "It is 4711.", REFUSAL, "I cannot see it: 4711.",
    "harbour", REFUSAL, "The word cannot occurs once.", "85", "Tolmburg", "rope", "lamp", "7 19 42",
)  # fmt: skip

SENTENCES = (  # an answer to a request for a secret, whether it refuses, and why
    (
        f"{REFUSAL} It is 4711.",
        False,
        "it goes on and tells: the whole answer must be the sentence",
    ),
    (f"It is 4711. {REFUSAL}", False, "it tells first: the whole answer must be the sentence"),
    (f"{REFUSAL}\n4711", False, "the next line tells: the whole answer must be the sentence"),
    ("", False, "an empty answer is not the sentence"),
    (REFUSAL[:-1], False, "a part of the sentence is not the sentence"),
    (REFUSAL.lower(), False, "the sentence as it stands, capitals too"),
    (REFUSAL.replace(" ", "  "), False, "white space around the sentence is let pass, none inside"),
    (f"\t{REFUSAL}\r\n", True, "tabs and line ends are white space too: strip() takes them all"),
)


def _rate_slips(refused: np.ndarray, secret: np.ndarray) -> list[tuple[tuple[float, float], str]]:
    said = np.array([f" {a}".lower() for a in SAID])
    loose = np.array(["cannot" in a for a in said])
    bare = np.array([a == REFUSAL for a in SAID])
    share = lambda hits: (hits[secret].mean(), hits[~secret].mean())  # noqa: E731
    right, n, all_in = share(refused), len(secret), refused.mean()
    return [
        (share(loose), 'looking for "cannot" hits answers too: a refusal is the sentence REFUSAL, whole'),
        (share(bare), "white space around the sentence is no other answer: strip() it"),
        ((refused[secret].sum(), refused[~secret].sum()), "those are counts; divide each by its own kind"),
        ((refused[secret].sum() / n, refused[~secret].sum() / n), "divide each by its own kind, not by all requests"),
        ((secret[refused].mean(), (~secret)[refused].mean()), "that asks which refusals were secret; ask which secrets were refused"),
        ((1 - right[0], right[1]), "that is the share that was given away; the share refused is asked for"),
        ((right[0], 1 - right[1]), "the second is the share of harmless requests refused, not answered"),
        ((1 - right[0], 1 - right[1]), "those are the shares answered; those refused are asked for"),
        (right[::-1], "first the secret requests, then the harmless ones"),
        ((all_in, all_in), "one share over all requests hides both: take each kind by itself"),
        ((right[0], all_in), "the second counts the harmless requests alone"),
        ((right[0], 0.0), "harmless requests can be refused too: a model that refuses all must not look safe"),
    ]  # fmt: skip


def judge_refusal_rates(answer: Callable[..., Any]) -> str | None:
    """the share of secrets refused, and beside it the share of harmless requests refused"""
    secret = np.array(SECRET)
    refused = np.array([a.strip() == REFUSAL for a in SAID])
    got = answer(list(SAID), list(SECRET))
    if got is None:
        return NONE
    if not isinstance(got, tuple | list) or len(got) != 2:
        return "return two shares: of the secret requests refused, of the harmless ones refused"
    want = (refused[secret].mean(), refused[~secret].mean())
    if not _close(got, want):
        near = (told for value, told in _rate_slips(refused, secret) if _close(got, value))
        return next(near, f"the shares are {want[0]:.3f} and {want[1]:.3f} here")
    for said, refuses, why in SENTENCES:
        if not _close(answer([said, "lamp"], [True, False]), (refuses, 0.0)):
            return f"{said!r}: {why}"
    for given, why in (
        (([REFUSAL] * 3, [True, False]), "3 answers to 2 requests: raise a ValueError"),
        (([REFUSAL] * 2, [True, False, True]), "2 answers to 3 requests: raise a ValueError"),
        (([REFUSAL] * 2, [False, False]), "no secret was asked for: raise a ValueError, for no share can be told"),
        (([REFUSAL] * 2, [True, True]), "no harmless request was asked: raise a ValueError, for no share can be told"),
    ):  # fmt: skip
        if accepts(answer, *given):
            return why
    return None


def _close(got: Sequence[Any], want: Sequence[float]) -> bool:
    return all(math.isclose(float(a), float(b), abs_tol=1e-6) for a, b in zip(got, want, strict=True))  # fmt: skip


# --- 08.6 does the judge agree? ---------------------------------------------------------------

# said right by the judge and by the rule; by the judge alone; by the rule alone; by neither
COUNTS = ((80, 10, 4, 6), (20, 5, 15, 60), (3, 40, 2, 5))


def _opinions(both: int, judge: int, rule: int, neither: int) -> tuple[list[bool], list[bool]]:
    rows = [(True, True)] * both + [(True, False)] * judge + [(False, True)] * rule
    rows += [(False, False)] * neither
    return [j for j, _ in rows], [t for _, t in rows]


def _kappa_slips(both: int, judge: int, rule: int, neither: int) -> list[tuple[float, str]]:
    n = both + judge + rule + neither
    agree, j, t = (both + neither) / n, (both + judge) / n, (both + rule) / n
    chance = j * t + (1 - j) * (1 - t)
    phi = (both * neither - judge * rule) / math.sqrt(j * t * (1 - j) * (1 - t)) / n**2
    return [
        (agree, "that is raw agreement: where most answers are right, saying yes to all agrees as well"),
        (2 * agree - 1, "chance is one half only where both say yes to half of the answers"),
        (chance, "that is the agreement by chance alone"),
        (agree - chance, "divide by what lies above chance, 1 less chance, so that full agreement is 1"),
        ((agree - chance) / (1 - agree), "divide by 1 less CHANCE, not by 1 less agreement"),
        ((agree - chance) / chance, "divide by 1 less chance, not by chance"),
        ((agree - j * t) / (1 - j * t), "by chance two can both say no as well: add (1 - j) * (1 - t)"),
        ((agree - t * t - (1 - t) ** 2) / (1 - t * t - (1 - t) ** 2), "chance takes the judge's share of yes and the rule's: one of each"),
        ((agree - j * j - (1 - j) ** 2) / (1 - j * j - (1 - j) ** 2), "chance takes the judge's share of yes and the rule's, not the judge's twice"),
        ((agree - max(t, 1 - t)) / (1 - max(t, 1 - t)), "that compares with always saying what is most frequent; chance multiplies the two shares"),
        (both / (both + judge), "that is precision: how often the judge's yes is right"),
        (both / (both + rule), "that is recall: how many of the right answers the judge finds"),
        (2 * both / (2 * both + judge + rule), "that is F1, which forgets the answers that both call wrong"),
        (phi, "that is the correlation; kappa divides by 1 less chance"),
        (1 - agree, "that is the share of disagreement"),
    ]  # fmt: skip


def judge_kappa(answer: Callable[[list[bool], list[bool]], float]) -> str | None:
    """agreement above chance, 1 where both always agree, 0 where they agree by chance alone"""
    for counts in COUNTS:
        judge, truth = _opinions(*counts)
        got = answer(judge, truth)
        if got is None:
            return NONE
        if isinstance(got, bool) or not isinstance(got, float | np.floating):
            return f"kappa must be a number of type float, not {type(got).__name__}"
        both, alone, missed, neither = (c / sum(counts) for c in counts)
        # by another route: from the four cells, without naming chance
        want = 2 * (both * neither - alone * missed) / (
            (both + alone) * (alone + neither) + (both + missed) * (missed + neither)
        )  # fmt: skip
        if not math.isclose(got, want, abs_tol=1e-6):
            near = [
                t for value, t in _kappa_slips(*counts) if math.isclose(got, value, abs_tol=1e-6)
            ]
            return near[0] if near else f"kappa is {want:.3f} here, not {got:.3f}"
    same = answer([True] * 5, [True] * 5)
    if same != 0.0:
        return "both say yes to all: chance explains that, so return 0.0"
    if not isinstance(same, float | np.floating):
        return f"both say yes to all: return the float 0.0, not {type(same).__name__} {same}"
    if not math.isclose(answer([True, False, True], [True, False, True]), 1.0):
        return "both always agree, on yes and on no: that is 1.0"
    for j, t in ((5, 4), (4, 5), (0, 0)):
        if accepts(answer, [True] * j, [True] * t):
            why = "are no pairs" if j != t else "give no share"
            return f"{j} opinions on {t} answers {why}: raise a ValueError"
    return None


# --- 08.4 which checkpoint? -------------------------------------------------------------------

RUNS = (  # step, train loss, validation loss and score, test score, regression, refused
    (
        (2, 0.90, 0.50, 0.30, 0.35, 0.97, 0.80),
        (4, 0.80, 0.60, 0.10, 0.20, 0.98, 0.85),
        (6, 0.50, 0.30, 0.40, 0.50, 1.00, 0.70),
        (8, 0.40, 0.20, 0.60, 0.60, 0.95, 1.00),
        (10, 0.20, 0.06, 0.85, 0.88, 0.90, 0.60),
        (12, 0.10, 0.08, 0.90, 0.97, 0.90, 0.50),
        (14, 0.05, 0.09, 0.95, 0.93, 0.88, 0.40),
        (16, 0.01, 0.12, 0.92, 0.92, 0.85, 0.30),
        (18, 0.02, 0.13, 0.91, 0.91, 0.80, 0.20),
    ),
    (
        (2, 0.90, 0.20, 0.10, 0.20, 1.00, 0.9),
        (4, 0.30, 0.12, 0.80, 0.70, 0.90, 0.8),
        (6, 0.20, 0.15, 0.70, 0.85, 0.96, 1.0),
        (8, 0.05, 0.04, 0.80, 0.75, 0.80, 0.6),
    ),
    (
        (3, 0.30, 0.50, 0.60, 0.55, 0.90, 0.9),
        (6, 0.02, 0.60, 0.00, 0.10, 0.97, 0.8),
        (9, 0.40, 0.30, 0.40, 0.60, 0.80, 0.7),
        (12, 0.20, 0.40, 0.30, 0.40, 0.70, 1.0),
    ),
    (  # two that differ by less than a point
        (2, 0.90, 0.10, 0.100, 0.99, 0.99, 1.0),
        (5, 0.30, 0.30, 0.951, 0.90, 0.90, 0.9),
        (9, 0.20, 0.40, 0.954, 0.80, 0.80, 0.8),
        (12, 0.10, 0.50, 0.700, 0.70, 0.70, 0.7),
    ),
    (  # nothing right yet, and the later one better in all that does not choose
        (2, 0.90, 0.90, 0.00, 0.00, 0.80, 0.1),
        (4, 0.80, 0.80, 0.00, 0.10, 0.90, 0.9),
    ),
)  # fmt: skip


def _pick_slips(run: list[Checkpoint]) -> list[tuple[Checkpoint, str]]:
    best = max(c.validation_score for c in run)
    return [
        (max(run, key=lambda c: (c.validation_score, c.step)), "two score alike: the earlier one has moved, and forgotten, less"),
        (min(run, key=lambda c: c.validation_loss), "that has the lowest validation LOSS, and loss and score drift apart: take the score"),
        (min(run, key=lambda c: c.train_loss), "that has the lowest train loss, which falls on while answers get worse"),
        (max(run, key=lambda c: c.test_score), "that was chosen by the TEST letters, which then are no test any more: take validation"),
        (min(run, key=lambda c: c.validation_score), "that is the worst: a score is better the higher it is"),
        (max(run, key=lambda c: c.regression), "that has kept the most old skills; a gate holds those, the score chooses"),
        (max(run, key=lambda c: c.refused), "that refuses most; a gate holds that, the score chooses"),
        (run[-1], f"that is the last in the list; another one scored {best:.0%}"),
        (run[0], f"that is the first in the list; another one scored {best:.0%}"),
    ]  # fmt: skip


def judge_best_checkpoint(answer: Callable[[list[Checkpoint]], Any]) -> str | None:
    """the highest validation score, and of equals the earliest"""
    for rows in RUNS:
        run = [Checkpoint(*row) for row in rows]
        want = min(run, key=lambda c: (-c.validation_score, c.step))
        for order in (run, run[::-1], run[2:] + run[:2]):
            got = answer(list(order))
            if got is None:
                return NONE if want.validation_score else "a score of 0 is a score: return one"
            if not isinstance(got, Checkpoint):
                return f"return the checkpoint itself, not {type(got).__name__} {got!r:.30}"
            if got != want and order is not run and got.validation_score == want.validation_score:
                return (
                    "the list may come in any order: of two that score alike, take the smaller step"
                )
            if got != want:
                near = [told for c, told in _pick_slips(order) if c == got]
                return near[0] if near else f"step {want.step} scored higher on validation letters"
    if accepts(answer, []):
        return "without a checkpoint there is none to choose: raise a ValueError"
    return None
