"""Means with their intervals, and which rows of a sweep they are taken of."""

import math
import statistics

import pytest

from labkit.intervals import STUDENT, Mean, by_rank, chosen, mean_of


def row(rank, seed, task, **more):
    return {"rank": rank, "seed": seed, "task": task, "method": "lora", "split": "test"} | more


@pytest.mark.parametrize("freedom", range(1, len(STUDENT) + 1))
def test_the_quantiles_are_those_of_students_distribution(freedom):
    """By Simpson's rule over its density: 47.5% lie between 0 and the quantile."""
    gammas = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    front = math.exp(gammas) / math.sqrt(freedom * math.pi)
    n, end = 2000, STUDENT[freedom - 1]
    xs = [end * i / n for i in range(n + 1)]
    ys = [front * (1 + x * x / freedom) ** (-(freedom + 1) / 2) for x in xs]
    area = end / n / 3 * (ys[0] + ys[-1] + 4 * sum(ys[1:-1:2]) + 2 * sum(ys[2:-1:2]))
    assert area == pytest.approx(0.475, abs=5e-5)


def test_an_interval_is_as_wide_as_its_formula_says():
    values = [0.2, 0.4, 0.9]
    found = mean_of(values)
    half = 4.303 * statistics.stdev(values) / math.sqrt(3)
    assert (found.middle, found.n) == (pytest.approx(0.5), 3)
    assert found.high - found.middle == pytest.approx(half)
    assert found.middle - found.low == pytest.approx(half)


def test_a_mean_holds_what_lies_in_its_interval():
    mean = Mean(0.5, 0.4, 0.6, 3)
    assert mean.holds(0.4) and mean.holds(0.6)
    assert not mean.holds(0.39) and not mean.holds(0.61)
    assert mean.holds(0.61, wider=0.02)


def test_one_value_gives_no_interval():
    with pytest.raises(ValueError, match="1 values give no interval: at least 2 seeds"):
        mean_of([1.0])


def test_only_rows_of_the_test_set_with_the_wanted_values_count():
    rows = [row(4, 0, 0.5), row(4, 1, 0.7), row(1, 0, 0.1), row(1, 1, 0.1),
            row(4, 2, 0.0, split="validation"), row(4, 2, 0.0, method="full")]  # fmt: skip
    found = by_rank(rows, "task", method="lora")
    assert list(found) == [1, 4]
    assert found[4].middle == pytest.approx(0.6)
    assert (found[1].low, found[1].high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_rows_that_do_not_exist_are_an_error():
    with pytest.raises(ValueError, match=r"no row has .*'steps': 7"):
        chosen([row(4, 0, 0.5, steps=20)], steps=7)
