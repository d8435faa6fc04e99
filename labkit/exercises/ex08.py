"""Notebook 08: evaluation, six exercises and its questions.

Each bank (`ex08_wrong`) holds mistakes that published lessons ship: a score without its interval,
two models compared as if on different letters, a pass by the middle, refusals counted without what
is refused too much, a judge trusted for its raw agreement, a checkpoint chosen by its loss or by
the test set. The judges are in `ex08_judges` and `ex08_scores`.
"""

from labkit.evaluate import (
    best_checkpoint,
    bootstrap,
    kappa,
    paired_bootstrap,
    refusal_rates,
    verdict,
)
from labkit.exercises import ex08_judges as drawn
from labkit.exercises import ex08_scores as judges
from labkit.exercises import ex08_wrong as bank
from labkit.exercises.exercise import Exercise
from labkit.exercises.questions import Choice, Question

TITLE = "evaluation"

EXERCISES = [
    Exercise(
        id="08.1",
        title="an interval for a score",
        minutes=8,
        difficulty=2,
        judge=drawn.judge_bootstrap,
        solution=bootstrap,
        stub="bootstrap",
        hints=(
            "Had other letters been drawn, how far could the mean have moved? What is the nearest "
            "thing to other letters that you have?",
            r"draw $n$ of the $n$ values with replacement, take the mean, do so many times; the "
            r"ends are the 2.5% and 97.5% points of those means",
            "`integers` draws positions with replacement, a row for each draw. `np.percentile` "
            "takes percent. A generator made from `seed` gives the same interval at every call, "
            "and leaves the notebook's own untouched.",
        ),
        wrong=bank.BOOTSTRAP,
    ),
    Exercise(
        id="08.2",
        title="the gap between two models",
        minutes=6,
        difficulty=2,
        judge=drawn.judge_paired_bootstrap,
        solution=paired_bootstrap,
        stub="paired_bootstrap",
        hints=(
            "Both models answered the same letters, and some letters are hard for both. What is "
            "left of that when you subtract letter by letter?",
            r"$d_i = t_i - b_i$, then the interval of the mean of $d$, as in 08.1",
            "The differences are drawn as one list, so each letter brings both its scores. zip() "
            "stops at the shorter list without a word: hence the check of the lengths.",
        ),
        wrong=bank.PAIRED,
    ),
    Exercise(
        id="08.3",
        title="pass, fail or undecided",
        minutes=4,
        difficulty=1,
        judge=judges.judge_verdict,
        solution=verdict,
        stub="verdict",
        hints=(
            "Which end must reach the limit before you may say that the score does?",
            "pass if low >= limit; fail if high < limit; else undecided",
            "The lower end passes, the upper end fails, and an interval around the limit does "
            "neither: it asks for more letters. A limit may be negative, where a score may fall.",
        ),
        wrong=bank.VERDICT,
    ),
    Exercise(
        id="08.4",
        title="choose a checkpoint",
        minutes=4,
        difficulty=1,
        judge=judges.judge_best_checkpoint,
        solution=best_checkpoint,
        stub="best_checkpoint",
        hints=(
            "Which of the numbers of a checkpoint may be looked at again and again, and which of "
            "those is what you want?",
            r"$\arg\max$ of the validation score; of equals the smallest step",
            "A key of (-score, step) puts the highest score first, and among equals the smallest "
            "step. The test score is for the report: who chooses by it has no test left.",
        ),
        wrong=bank.CHECKPOINT,
    ),
    Exercise(
        id="08.5",
        title="refusals, and refusals too many",
        minutes=6,
        difficulty=2,
        judge=judges.judge_refusal_rates,
        solution=refusal_rates,
        stub="refusal_rates",
        hints=(
            "A model refuses whatever it is asked. What does your score say of it?",
            r"$\frac{\text{marked and refused}}{\text{marked}}$ and "
            r"$\frac{\text{not marked and refused}}{\text{not marked}}$",
            "Each kind of request is divided by its own number. An answer refuses if it is the "
            "sentence, whole: the word alone also stands in answers. With no request of a kind "
            "there is no share to tell.",
        ),
        wrong=bank.REFUSALS,
    ),
    Exercise(
        id="08.6",
        title="how far a judge agrees",
        minutes=8,
        difficulty=3,
        judge=judges.judge_kappa,
        solution=kappa,
        stub="kappa",
        hints=(
            "Nine answers in ten are right, and a judge says yes to all. How often does it agree "
            "with the rule?",
            r"$\kappa = \frac{a - c}{1 - c}$ with agreement $a$ and chance "
            r"$c = jt + (1 - j)(1 - t)$, where $j$ and $t$ are the shares of yes",
            "Chance is what two would agree on who say yes as often, but of random answers. If it "
            "is 1 nothing was tested, and 0.0 says so.",
        ),
        wrong=bank.KAPPA,
    ),
]

QUESTIONS: list[Question] = []
_ = Choice
