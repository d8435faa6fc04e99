"""Codes: which few numbers a weight may become, on the scale of its block.

A code is a sorted tensor of at most 16 levels (256 for constants) whose largest magnitude is 1. A
weight w of a block with absmax a becomes a * (the level nearest to w / a).

    levels()       NF4: quantiles of the normal distribution, seven below zero and eight above
    int4()         -7 .. 7, evenly spaced; int4_wide() has -8 as well
    e2m1()         4-bit floating point: 1 sign, 2 exponent and 1 mantissa bit, as OCP defines it
    fp4()          bitsandbytes' FP4: the same but for its smallest level
    dynamic8()     bitsandbytes' signed 8-bit dynamic map, for constants that are quantised too

Nothing is pasted: each table is derived, and a test compares it with its published form.

Source: Dettmers et al. 2023, QLoRA, section 3, https://arxiv.org/abs/2305.14314; Dettmers et al.
2022, 8-bit optimizers, section 1.3, https://arxiv.org/abs/2110.02861; OCP Microscaling Formats 1.0,
section 5.3.3. Codes that are fitted to a distribution stand in `labkit.fitted`.
"""

from statistics import NormalDist

import torch
from torch import Tensor


def half(n: int, outermost: float) -> list[float]:
    """`n` quantiles of the standard normal distribution above zero, the largest first.

    Their probabilities are evenly spaced from `outermost` down to 1/2, where the quantile is zero;
    1/2 itself is left out, so that two halves can share one zero.

    Args:
        outermost: the largest probability, between 1/2 and 1; at 1 the quantile is infinite.
    """
    probabilities = torch.linspace(outermost, 0.5, n + 1)[:-1].tolist()
    return [NormalDist().inv_cdf(p) for p in probabilities]


def levels() -> Tensor:
    """The 16 levels of NF4, shape (16,), ascending from -1 to 1: 7 below zero, zero, 8 above.

    The outermost probability is the mean of 29/30 and 31/32, to seven digits: with 15 and with 16
    equal shares of the distribution, half a share lies outside the outermost level.
    """
    outermost = round((29 / 30 + 31 / 32) / 2, 7)
    below = [-quantile for quantile in half(7, outermost)]
    marks = torch.tensor(sorted([*below, 0.0, *half(8, outermost)]))
    return marks / marks.max()


def int4() -> Tensor:
    """15 evenly spaced levels, -7/7 to 7/7: symmetric, so one of the 16 codes is not used."""
    return torch.arange(-7, 8) / 7


def int4_wide() -> Tensor:
    """16 evenly spaced levels, -8/8 to 7/8: no level at +1, where half of all absmax lie."""
    return torch.arange(-8, 8) / 8


def e2m1() -> Tensor:
    """The 15 values of E2M1, divided by the largest, 6: +0 and -0 are one level.

    Exponent 0 is subnormal (m / 2); exponents 1 to 3 give (1 + m / 2) * 2**(e - 1).
    """
    positive = [0.5, *((1 + m / 2) * 2**e for e in range(3) for m in range(2))]
    return _both_signs(positive)


def fp4() -> Tensor:
    """bitsandbytes' FP4: E2M1 whose smallest level is 1/192 of the largest instead of 1/12."""
    positive = [1 / 32, *((1 + m / 2) * 2**e for e in range(3) for m in range(2))]
    return _both_signs(positive)


def _both_signs(positive: list[float]) -> Tensor:
    ascending = torch.tensor(sorted(positive))
    return torch.cat([-ascending.flip(0), torch.zeros(1), ascending]) / ascending[-1]


def dynamic8() -> Tensor:
    """The signed 8-bit dynamic map, shape (256,), ascending from -0.993 to 1.

    Seven decades, from 1e-7 .. 1e-6 up to 0.1 .. 1, hold 1, 2, 4 .. 64 values: the middles of as
    many equal shares of the decade. All 127 stand there with either sign; 0 and 1 complete them.
    """
    decades = []
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        decades.append(10 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2))
    positive = torch.cat(decades)
    return torch.cat([-positive, torch.tensor([0.0, 1.0]), positive]).sort().values
