"""The pictures of notebook 08: each title is computed from the numbers it is given."""

import pytest

from labkit.evaluate import Agreement, Checkpoint, Gate, Gates, Interval, decide
from labkit.figures import evaluate as draw
from labkit.figures import picture
from labkit.intervals import Mean

GATES = Gates(
    (Gate("task", minimum=0.9), Gate("regression", may_fall=0.02), Gate("refused", may_fall=0.05)),
    "2026-11-25T09:30:00+00:00",
)
GOOD = {"task": [1] * 200, "regression": [1] * 200, "refused": [1] * 200}


def title(drawing):
    found = []
    picture("a", lambda ax: found.append(drawing(ax).get_title(loc="left")))
    return found[0]


def test_margins_name_the_gates_that_fail_first_then_the_undecided():
    bad = GOOD | {"refused": [0] * 200, "task": [1] * 184 + [0] * 16}
    assert title(lambda ax: draw.margins(ax, decide(GATES, GOOD, bad))) == (
        "1 of 3 gates fail:\nrefused"
    )
    weak = GOOD | {"task": [1] * 184 + [0] * 16}
    assert title(lambda ax: draw.margins(ax, decide(GATES, GOOD, weak))) == (
        "1 of 3 gates undecided:\ntask"
    )
    assert title(lambda ax: draw.margins(ax, decide(GATES, GOOD, GOOD))) == "all 3 gates pass"


def test_a_margin_is_counted_from_the_limit_of_its_own_kind():
    tuned = GOOD | {"task": [1] * 190 + [0] * 10, "regression": [1] * 190 + [0] * 10}
    task, kept, _ = decide(GATES, GOOD, tuned).lines
    assert draw.margin(task)[1] == pytest.approx(5)  # 95% against 90%
    assert draw.margin(kept)[1] == pytest.approx(-3)  # a fall of 5 against 2
    assert draw.margin(kept)[0] < -3 < draw.margin(kept)[2]


def mean(value):
    return Mean(value, value - 0.05, value + 0.05, 3)


def test_forgetting_is_told_at_the_last_step():
    means = {
        "rank 4": {10: mean(0.9), 400: mean(0.6)},
        "rank 16": {10: mean(0.9), 400: mean(0.7)},
        "full": {10: mean(0.9), 400: mean(0.3)},
    }
    assert title(lambda ax: draw.forgetting(ax, means, "old skills kept")) == (
        "old skills kept after 400 steps:\n30% (full) to 70% (rank 16)"
    )


CURVE = [  # step, train loss, validation loss, validation score, test score, regression, refused
    Checkpoint(2, 1.0, 1.1, 0.0, 0.0, 1.0, 1.0),
    Checkpoint(10, 0.1, 0.2, 0.8, 0.7, 0.9, 1.0),
    Checkpoint(60, 0.001, 0.5, 0.9, 0.8, 0.5, 0.4),
]


def test_the_two_pictures_of_one_run_disagree_where_loss_and_score_do():
    assert title(lambda ax: draw.losses(ax, CURVE, "16 letters")) == (
        "16 letters: unseen loss lowest at step 10,\n"
        "at step 60 500 times the loss of letters learnt"
    )
    assert title(lambda ax: draw.scores(ax, CURVE, "16 letters")) == (
        "16 letters: best score 90% at step 60,\n90% at step 60, old skills 50%"
    )


def test_refusals_are_told_for_the_fewest_examples():
    means = {1: {1: mean(1), 3: mean(0.2), 5: mean(0.0)}, 8: {1: mean(0.9), 3: mean(0.0)}}
    assert title(lambda ax: draw.refusals(ax, means)) == "1 example, 5 steps:\nunder 5% refused"
    assert title(lambda ax: draw.refusals(ax, {2: {1: mean(0.5)}})) == "never under 5%"


def test_judges_are_counted_by_the_low_end_of_their_interval():
    found = [
        Agreement("good", Interval(0.99, 0.96, 1.0, 80), 0.9, 1, 0, 40),
        Agreement("few answers", Interval(0.95, 0.8, 1.0, 20), 0.9, 1, 0, 10),
    ]
    assert title(lambda ax: draw.agreements(ax, found)) == "1 of 2 judges above 90%"
