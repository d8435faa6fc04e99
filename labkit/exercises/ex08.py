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

QUESTIONS = [
    Question(
        "08.q1",
        "Which of these is a case for a fine-tune?",
        [
            Choice("Answers must quote prices that change each week", "Weights would be stale in a week: look facts up and put them into the prompt."),
            Choice("The base model swears at customers", "A system prompt or a filter is tried first, in an hour, and can be taken back."),
            Choice(
                "One call must do what five calls do well today",
                "Quality is there already; calls are what a fine-tune saves, and the five calls "
                "are the bar that it must reach.",
                right=True,
            ),
        ],
    ),
    Question(
        "08.q2",
        "Where does a gate's limit come from?",
        [
            Choice("From what the best model reached", "Then the best model passes, good or not: nothing was decided."),
            Choice(
                "From what the product needs, before training",
                "Only then can the answer be no. The fingerprint shows whether the limit moved.",
                right=True,
            ),
            Choice("From published thresholds, such as 4.0 of 5", "A threshold on a scale that nobody has calibrated for your task has no meaning."),
        ],
    ),
    Question(
        "08.q3",
        "Model one has 18 of 20 letters right, model two 19 of 20. Which one is better?",
        [
            Choice("Model two", "One letter more of twenty: drawn again, it could be three fewer."),
            Choice("They are equal", "That was not shown either: the interval of the gap is wide, and holds zero."),
            Choice(
                "Twenty letters cannot tell",
                "In pairs at most a few letters differ. Take more letters, and the same for both.",
                right=True,
            ),
        ],
    ),
    Question(
        "08.q4",
        "A gate comes out as undecided. What do you do?",
        [
            Choice("Lower the limit a little", "That is to choose the gate by the result."),
            Choice("Measure the same letters again", "Greedy answers are the same each time: nothing is learnt."),
            Choice("Score more letters, fresh ones", "The interval narrows with the root of their number.", right=True),
        ],
    ),
    Question(
        "08.q5",
        "Train loss 0.1, validation loss 2.3. What comes first?",
        [
            Choice("Raise the dropout", "It may help a little later; it mends neither two letters nor a broken split."),
            Choice(
                "Look at the data: how many examples, how many epochs, is the split clean?",
                "A gap so wide comes from few examples seen too often, or from a validation set of "
                "another kind. Then take the checkpoint with the best validation score.",
                right=True,
            ),
            Choice("Train on, the loss still falls", "The train loss: it falls while answers get worse, as in the run on two letters."),
        ],
    ),
    Question(
        "08.q6",
        "A fine-tuned model refuses all 100 red-team prompts. Is it safe to ship?",
        [
            Choice("Yes, none slipped through", "A model that refuses everything has this score, too; and 100 of 100 still allows 3.6% that slip through."),
            Choice(
                "Not shown: ask harmless look-alikes as well",
                "The two rates belong together, and both before and after, in pairs.",
                right=True,
            ),
            Choice("Yes, if the task score holds", "The task says nothing of other requests: here it stayed high while every refusal went."),
        ],
    ),
    Question(
        "08.q7",
        "The base passed its safety tests, and your letters are harmless. Do you probe again?",
        [
            Choice("No, harmless data cannot harm", "The run above learnt nothing but letters, and refused nothing any more."),
            Choice("No, the base is frozen", "The frozen weights are still there; the sum of them and the adapter is what answers."),
            Choice("Yes, after every fine-tune", "A habit that is not practised is overwritten, whoever wrote the data.", right=True),
        ],
    ),
    Question(
        "08.q8",
        "Of the answers 92% are right, and the judge agrees with the rule on 92%. Is it a good judge?",
        [
            Choice("Yes, 92% is high", "Saying yes to everything agrees on 92%, too: its kappa is 0."),
            Choice(
                "Not shown: look at kappa, and at the wrong answers that it lets pass",
                "Kappa takes chance off, and a judge is hired for the wrong answers it finds.",
                right=True,
            ),
            Choice("No, a judge must agree on everything", "People do not agree on everything either; measured errors can be lived with."),
        ],
    ),
    Question(
        "08.q9",
        "A new version of the base is out, 1% better. What becomes of your adapters?",
        [
            Choice("They get 1% better, too", "They are differences to the old weights; nothing foretells their sum with others."),
            Choice("They crash", "Shapes fit, so no error is raised; that is why a hash is compared."),
            Choice(
                "They stay on the old base until they are trained or scored anew",
                "The hash in the card refuses them; an override is followed by the gates.",
                right=True,
            ),
        ],
    ),
]  # fmt: skip
