"""The judges of notebook 08 for what is drawn: an interval (08.1), and the interval of a gap (08.2).

Those that decide are in ex08_scores.

A learner may draw with any generator, so no two right answers are equal: each is compared with the
mean of many intervals that this module draws itself, within the spread that they have. The scores
are lopsided, nine letters in ten right, where a wrong recipe shows best.
"""

import functools
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

NONE = "your code returned None: is a `return` missing?"
Ends = tuple[float, float]
DRAWS = 2000
SLACK = 0.12  # of the half-width; the ends of 2,000 draws stray by 0.03 of it (one deviation)

# shares of right fields of 24 letters: most whole, some in part
SCORES = [1.0] * 19 + [0.9, 0.7, 0.3, 0.1, 0.0]
BASE = [1.0] * 14 + [0.2] * 10 + [0.0] * 10 + [0.6] * 3 + [1.0, 0.8, 0.4]
UNEVEN = [i * 0.618 % 1 for i in range(60)]  # no two draws have the same mean
PAIRS = (BASE, [min(1.0, b + g) for b, g in zip(BASE, [0.0, 0.1, 0.3, 0.0] * 10, strict=True)])


def _draws(values: Sequence[float], seed: int, size: int = 0) -> np.ndarray:
    """Means of DRAWS draws, each of `size` values, or as many as there are."""
    rng, array = np.random.default_rng(1000 + seed), np.asarray(values, dtype=float)
    return rng.choice(array, (DRAWS, size or len(array))).mean(axis=1)


def _points(means: np.ndarray, outside: float = 5.0) -> Ends:
    low, high = np.percentile(means, (outside / 2, 100 - outside / 2))
    return float(low), float(high)


@functools.cache
def _right(values: tuple[float, ...]) -> Ends:
    """The mean ends of eight intervals."""
    ends = np.array([_points(_draws(values, seed)) for seed in range(8)]).mean(0)
    return float(ends[0]), float(ends[1])


def accepts(answer: Callable[..., Any], *given: Any) -> bool:  # noqa: ANN401
    """Whether the answer lets pass what must raise a ValueError."""
    try:
        answer(*given)
    except ValueError:
        return False
    return True


def _near(got: Ends, want: Ends, slack: float = SLACK, least: float = 1e-6) -> bool:
    room = max(slack * (want[1] - want[0]) / 2, least)
    return all(abs(a - b) <= room for a, b in zip(got, want, strict=True))


def _form(got: Any) -> str | None:  # noqa: ANN401
    """Why this is no interval at all, or None."""
    if got is None:
        return NONE
    if isinstance(got, float | np.floating):
        return "return two numbers, the ends of the interval: (low, high)"
    if not isinstance(got, tuple | list) or len(got) != 2:
        kind = f"an array of shape {got.shape}" if isinstance(got, np.ndarray) else repr(got)[:40]
        return f"return two numbers, (low, high), not {kind}"
    if not all(isinstance(end, float | np.floating) for end in got):
        return f"both ends must be numbers of type float, not {type(got[0]).__name__}"
    if not all(math.isfinite(end) for end in got):
        return "an end is NaN or infinite"
    if got[0] > got[1]:
        return "the lower end comes first: (low, high)"
    return None


def _chance(answer: Callable[..., Any], given: tuple[Any, ...], what: str) -> str | None:
    """Whether the result hangs on `seed` alone, and on `draws` at all."""
    before = np.random.get_state()[1].copy(), random.getstate()
    first = answer(*given, DRAWS, 3)
    moved = (before[0] != np.random.get_state()[1]).any() or before[1] != random.getstate()
    if first != answer(*given, DRAWS, 3):
        return f"two calls with the same seed differ: {what} from a generator with `seed`"
    if moved:
        return "it draws from the generator of the whole notebook: make one of its own with `seed`"
    if len({tuple(answer(*given, DRAWS, seed)) for seed in range(4)}) == 1:
        return "every seed gives the same interval: is `seed` used?"
    low, high = answer(*given, 1, 3)
    if low != high:
        return "one draw has one mean, so both ends are equal: is `draws` used?"
    return None


# --- 08.1 the bootstrap -----------------------------------------------------------------------


def _end_slips(values: Sequence[float]) -> list[tuple[Ends, str]]:
    """What published recipes give on these very scores."""
    array = np.asarray(values, dtype=float)
    n, mean, spread = len(array), array.mean(), array.std(ddof=1)
    means = _draws(values, 99)
    medians = np.median(np.random.default_rng(0).choice(array, (DRAWS, n)), axis=1)
    error = spread / math.sqrt(n)
    whole = "that is the spread of single letters; the spread of their MEAN is asked for"
    return [
        (_points(means, 10), "those are the 5% and 95% points, which leave 10% outside: take 2.5% and 97.5%"),
        (_points(means, 1), "those are the 0.5% and 99.5% points, which leave 1% outside: take 2.5% and 97.5%"),
        (_points(means, 50), "those are the quartiles: half of the draws lie outside; take 2.5% and 97.5%"),
        ((means.min(), means.max()), "those are the smallest and the largest mean: take the 2.5% and 97.5% points"),
        ((mean - means.std(), mean + means.std()), "one standard deviation to each side holds 68%: take the 2.5% and 97.5% points"),
        ((mean - 1.96 * error, mean + 1.96 * error), "that is the interval of a normal curve, the same to both sides; take the 2.5% and 97.5% points of the drawn means"),
        ((mean - 1.96 * spread, mean + 1.96 * spread), whole),
        ((mean - spread, mean + spread), whole),
        (_points(array), whole),
        ((2 * mean - _points(means)[1], 2 * mean - _points(means)[0]), "that is mirrored at the mean; the plain percentile interval is asked for"),
        (_points(medians), "those are medians of the draws; the score is a mean"),
        ((_points(means)[0] - mean, _points(means)[1] - mean), "that is the way from the mean to the ends; return the ends"),
        (_points(100 * means), "those are percent; a share lies between 0 and 1"),
        (_points(means * n), "those are sums; divide each draw by its number of letters"),
        (_points(_draws(values, 7, n // 2)), "each draw takes half of the letters: take as many as there are"),
        (_points(_draws(values, 7, 10)), "each draw takes 10 letters: take as many as there are"),
        (_points(_draws(values, 7, DRAWS)), "each draw takes `draws` letters: take as many as there are, `draws` times"),
    ]  # fmt: skip


def _nearest(got: Ends, slips: list[tuple[Ends, str]]) -> str | None:
    """The slip whose ends are the nearest, if they are near."""
    near = [
        (abs(e[0] - got[0]) + abs(e[1] - got[1]), told)
        for e, told in slips
        if _near(got, e, 0.2, 0.012)
    ]
    return min(near)[1] if near else None


def _end_slip(got: Ends, values: Sequence[float]) -> str | None:
    if _near(got, _right(tuple(values))):
        return None
    mean = float(np.mean(values))
    if got[1] - got[0] < 1e-9 and math.isclose(got[0], mean):
        return "no width: without replacement each draw is all the letters again; put each back"
    want = _right(tuple(values))
    return _nearest(got, _end_slips(values)) or (
        f"the ends are {got[0]:.3f} and {got[1]:.3f}; 95% of the drawn means lie between "
        f"{want[0]:.3f} and {want[1]:.3f}"
    )


def judge_bootstrap(answer: Callable[..., Any]) -> str | None:
    """the 2.5% and 97.5% points of the means of letters drawn with replacement"""
    many = SCORES + [1.0] * 40 + [0.2] * 5 + [0.6] * 6
    for values in (many, SCORES):
        got = answer(values, DRAWS, 0)
        if slip := _form(got):
            return slip
        if slip := _end_slip((float(got[0]), float(got[1])), values):
            return slip
    low, high = answer([0.0, 1.0, 1.0, 1.0], DRAWS, 0)
    # of four draws one in 256 holds four zeros, one in 20 holds three of them or more
    if math.isclose(low + high, 2 * 0.75, abs_tol=1e-9) and low != high:
        return "both ends lie equally far from the mean; take points of the drawn means, no formula"
    if (low, high) != (0.25, 1.0):
        return "each draw takes one letter too few, or too many: take as many as there are"
    return _chance(answer, (UNEVEN,), "draw") or _loops(answer)


def _loops(answer: Callable[..., Any]) -> str | None:
    """Whether a loop runs over the draws: many small ones cost a loop a hundred times as much.

    Processor time, so that a busy machine makes no loop of a right answer.
    """
    start, many = time.process_time(), 50_000
    np.random.default_rng(0).choice([0.0, 1.0, 1.0, 1.0], (many, 4)).mean(axis=1)
    ours, start = time.process_time() - start, time.process_time()
    answer([0.0, 1.0, 1.0, 1.0], many, 0)
    if time.process_time() - start > max(0.2, 20 * ours):
        return "a loop runs over the draws: draw one table, a row for each draw, and take row means"
    return None


# --- 08.2 the gap, in pairs -------------------------------------------------------------------


def _gap_slips(base: Sequence[float], tuned: Sequence[float]) -> list[tuple[Ends, str]]:
    b, t = _right(tuple(base)), _right(tuple(tuned))
    gaps = np.subtract(tuned, base)
    right = _right(tuple(gaps))
    apart = _points(_draws(tuned, 5) - _draws(base, 6))
    better = tuple(float(g > 0) for g in gaps)
    return [
        ((-right[1], -right[0]), "that is base less tuned: a gain is tuned less base"),
        (tuple(sorted((t[0] - b[0], t[1] - b[1]))), "those are differences of the ends; draw the differences, then take their ends"),
        ((t[0] - b[1], t[1] - b[0]), "the widest gap of two intervals: it forgets that both answered the same letters"),
        (apart, "the two are drawn apart: draw a letter with both its scores, so that what is hard for both cancels"),
        (t, "that is the interval of the tuned model alone: subtract the base, letter by letter"),
        (b, "that is the interval of the base alone"),
        (_right(better), "that is the share of letters that got better; by how much they did is asked for"),
        (_right(tuple(float(g) for g in gaps if g)), "letters on which both score alike count too: they are gaps of 0"),
        (_right(tuple(float(g) for g in np.subtract(sorted(tuned), base))), "the tuned scores were sorted: letter i of one is letter i of the other"),
        (_right((*base, *tuned)), "that puts both models' scores into one heap: subtract first"),
        (_points(_draws(gaps, 5), 10), "those are the 5% and 95% points: take 2.5% and 97.5%, as in 08.1"),
    ]  # fmt: skip


def judge_paired_bootstrap(answer: Callable[..., Any]) -> str | None:
    """the interval of tuned less base, both scores of a letter drawn together"""
    base, tuned = PAIRS
    got = answer(base, tuned, DRAWS, 0)
    if slip := _form(got):
        return slip
    gaps = tuple(float(g) for g in np.subtract(tuned, base))
    got = float(got[0]), float(got[1])
    if not _near(got, _right(gaps)):
        want = _right(gaps)
        missed = f"the ends are off; they lie near {want[0]:.3f}, {want[1]:.3f}"
        return _nearest(got, _gap_slips(base, tuned)) or missed
    down = answer(tuned, base, DRAWS, 0)
    if not _near((float(down[0]), float(down[1])), _right(tuple(-g for g in gaps))):
        return "a loss is a gap too: where tuned is worse, both ends lie below 0"
    for few, more, why in (
        (base, tuned[:-1], "zip() drops the last in silence"),
        (base[:-1], tuned, "zip() drops the last in silence"),
        (base, tuned[:1], "NumPy takes the one for all of them"),
    ):
        if accepts(answer, few, more, DRAWS, 0):
            return f"{len(few)} and {len(more)} scores are no pairs: raise a ValueError, for {why}"
    return _chance(answer, (UNEVEN, UNEVEN[::-1]), "draw")
