"""Intervals for a share or a mean, by drawing the scored examples again and again.

    interval(hits)                 the share of one model, from 0 to 1
    paired(base_hits, tuned_hits)  how much the second lies above the first, example by example

    symbol   in code      meaning
    n        len(values)  scored examples; one value each, most often 0 or 1
    R        draws        drawn sets of n examples, with replacement
    95%      LEVEL        the share of such intervals that hold the true value

The interval runs from the 2.5% to the 97.5% point of the R means (the percentile bootstrap). The
examples are drawn, so it says how another draw of letters would move the score. It says nothing
about another seed of the training, another task or another kind of letter.

Of n equal values a percentile interval has no width, and 10 draws with a share of 90% are equal in
a third of all cases. A kind of example that makes up to q = 1 - 0.025 ** (1 / n) of all can stay
unseen among n, with a chance of 2.5% or more. So `interval` and `paired` reach at least as far as
a share q of the worst kind, and of the best, would move the mean. For n hits of n that is the
interval of Clopper and Pearson (1934). `coverage` measures what is held then.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
Left out on purpose: BCa intervals, clustered examples, and a correction for many gates at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean over `n` examples and the ends of its 95% interval."""

    middle: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.middle:.1%} ({self.low:.1%} to {self.high:.1%}, n = {self.n})"

    __repr__ = __str__


def bootstrap(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The ends of the 95% interval of the mean: the 2.5% and 97.5% points of resampled means.

    Each of `draws` draws takes len(values) values, with replacement. The draws come from a
    generator of their own, `np.random.default_rng(seed)`, and no loop runs over them.
    """
    values = np.asarray(values, dtype=float)
    picked = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[picked].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def paired_bootstrap(
    base: Sequence[float], tuned: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The ends of the 95% interval of the mean of tuned less base; value i of both is one example.

    An example is drawn with both its values, so what is hard for both models cancels.

    Raises:
        ValueError: if the numbers of values differ.
    """
    if len(base) != len(tuned):
        raise ValueError(f"{len(base)} and {len(tuned)} values: a pair needs one of each")
    return bootstrap([t - b for b, t in zip(base, tuned, strict=True)], draws, seed)


def interval(values: Sequence[float], draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of values between 0 and 1 with its 95% interval.

    Raises:
        ValueError: no value, or one outside 0 to 1.
    """
    return _interval(_checked(values), 0.0, draws, seed)


def paired(
    base: Sequence[float], tuned: Sequence[float], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """The mean of tuned less base with its 95% interval; see `paired_bootstrap`.

    Raises:
        ValueError: unequal numbers, no value, or one outside 0 to 1.
    """
    if len(base) != len(tuned):
        raise ValueError(f"{len(base)} and {len(tuned)} values: a pair needs one of each")
    return _interval(_checked(tuned) - _checked(base), -1.0, draws, seed)


def _interval(values: np.ndarray, lowest: float, draws: int, seed: int) -> Interval:
    middle, (low, high) = float(values.mean()), bootstrap(values, draws, seed)
    unseen = _unseen(len(values))
    low = min(low, middle - unseen * (middle - lowest))
    high = max(high, middle + unseen * (1 - middle))
    return Interval(middle, low, high, len(values))


def coverage(share: float, n: int, trials: int = 2000, seed: int = 0, mended: bool = True) -> float:
    """How many of `trials` intervals hold the true share, each from n examples: 0.95 is promised.

    Measured on hits that are drawn with that share. The mean of a draw from h hits among n is
    binomial, so no example need be drawn. `mended=False` takes the percentiles alone.
    """
    rng = np.random.default_rng(seed)
    hits = rng.binomial(n, share, size=trials)
    means = rng.binomial(n, hits / n, size=(DRAWS // 10, trials)) / n
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    if mended:
        low = np.minimum(low, hits / n * (1 - _unseen(n)))
        high = np.maximum(high, 1 - (1 - hits / n) * (1 - _unseen(n)))
    return float(((low <= share) & (share <= high)).mean())


def needed(minimum: float) -> int:
    """The fewest examples, all right, whose interval lies above `minimum`: 0.95 needs 72.

    Raises:
        ValueError: if `minimum` is not below 1.
    """
    if not 0 < minimum < 1:
        raise ValueError(f"minimum={minimum} must lie between 0 and 1: no test shows perfection")
    return int(np.ceil(np.log((1 - LEVEL) / 2) / np.log(minimum)))


def _unseen(n: int) -> float:
    """The largest share that n examples miss with a chance of at least 2.5%."""
    return 1 - ((1 - LEVEL) / 2) ** (1 / n)


def _checked(values: Sequence[float]) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"values of shape {found.shape}: give one number for each example")
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError("a value lies outside 0 to 1: hits are 0 or 1, grades between")
    return found
