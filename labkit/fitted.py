"""Fitted codes: the levels that make an error least, for normal weights in blocks, by iteration.

In a block of n normal weights with absmax a, x = w / a is not normal: one x in n is -1 or 1, and
the others are normal, cut off at a. Given the distribution of x, a code is improved in turns, as
Lloyd (1982) and Max (1960) do: each x goes to its nearest level, then each level goes to the middle
of its x: their median for the absolute error, their mean for the squared one.

    symbol   in code       meaning
    n        block         weights that share an absmax
    x        mass.edges    w / a, from -1 to 1
    P(x)     mass.below    share of the weights up to x, each counted a ** power times

    af4()               absolute error of x, with -1, 0 and 1 kept: the code that was published
    af4_corrected()     the same, with the slip in the published one mended
    lloyd_max(pinned)   squared error of w

Source: Yoshida 2023, https://arxiv.org/abs/2306.06965, section 4, and the author's generate_af4.py,
which ends the two cells beside zero at zero, where they end half-way to zero.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.codes import levels

POINTS = 2**12  # grid cells on each side of zero: levels are then good to about 1e-6
STILL = 1e-9  # a code whose levels move less than this in a round has arrived
KEPT = (-1.0, 0.0, 1.0)  # levels that a code for weights should have


@dataclass(frozen=True, eq=False)
class Mass:
    """How the weights lie on -1 .. 1, in float64; `ends` of them lie at -1, and as many at 1."""

    edges: Tensor  # (2 * POINTS + 1,), evenly spaced
    below: Tensor  # of the same shape: the share below each edge, -1 included
    ends: float

    def share(self, x: Tensor) -> Tensor:
        """The share below x."""
        return _along(self.below, x)

    def moment(self, x: Tensor) -> Tensor:
        """The sum of all values below x, each times its share."""
        centres = (self.edges[1:] + self.edges[:-1]) / 2
        inside = (self.below.diff() * centres).cumsum(0)
        return _along(torch.cat([torch.zeros(1, dtype=inside.dtype), inside]), x) - self.ends

    def quantile(self, share: Tensor) -> Tensor:
        """The x that has this share below it."""
        i = torch.searchsorted(self.below, share).clamp(1, len(self.below) - 1)
        part = (share - self.below[i - 1]) / (self.below[i] - self.below[i - 1])
        return (self.edges[i - 1] + part * (self.edges[i] - self.edges[i - 1])).clamp(-1, 1)


def _along(values: Tensor, x: Tensor) -> Tensor:
    """`values`, given on the edges, at x: linear between them."""
    place = (x + 1) * (len(values) - 1) / 2
    i = place.long().clamp(0, len(values) - 2)
    return values[i] + (place - i) * (values[i + 1] - values[i])


def largest_of(block: int) -> tuple[Tensor, Tensor]:
    """The absmax of `block` standard normal weights: 2000 places and the share of each, float64.

    All of them are below m with probability (2 Phi(m) - 1) ** block.
    """
    edges = torch.linspace(0, 9, 2001, dtype=torch.float64)
    return (edges[1:] + edges[:-1]) / 2, torch.special.erf(edges / 2**0.5).pow(block).diff()


@functools.cache
def scaled_normal(block: int = 64, power: int = 0) -> Mass:
    """Normal weights over their block's absmax a; each counts a ** power times.

    With power 0 an error of w / a counts as it is, with power 2 the squared error of w does.
    """
    absmax, chance = largest_of(block)
    chance = chance * absmax**power
    half = torch.linspace(0, 1, POINTS + 1, dtype=torch.float64)
    # Beside the largest, the weights of a block are normal within -a .. a.
    cut = torch.special.erf(half[:, None] * absmax / 2**0.5) / torch.special.erf(absmax / 2**0.5)
    inside = (cut @ chance) / chance.sum() * (1 - 1 / block) / 2
    below = 0.5 + torch.cat([-inside.flip(0)[:-1], inside])
    edges = torch.cat([-half.flip(0)[:-1], half])
    return Mass(edges, below, 0.5 / block)


def fit(
    mass: Mass, middle: str, pinned: tuple[float, ...] = KEPT, cells_end_at_zero: bool = False
) -> Tensor:
    """The 16 levels, float32 and ascending, that repeated improvement of NF4 arrives at.

    Args:
        middle: "median" for the least absolute error, "mean" for the least squared one.
        pinned: levels that stay.
        cells_end_at_zero: the slip of the published AF4.
    """
    code = levels().double()
    stays = torch.isin(code, torch.tensor(pinned, dtype=code.dtype))
    moved = 1.0
    while moved > STILL:
        cuts = (code[1:] + code[:-1]) / 2
        if cells_end_at_zero:
            cuts[6:8] = 0
        better = torch.where(stays, code, _middles(mass, cuts, middle))
        moved, code = (better - code).abs().max().item(), better
    return code.float()


def _middles(mass: Mass, cuts: Tensor, middle: str) -> Tensor:
    """Median or mean of the weights in each cell between the cuts."""
    none = torch.zeros(1, dtype=cuts.dtype)
    share = torch.cat([none, mass.share(cuts), none + 1])
    if middle == "median":
        return mass.quantile((share[1:] + share[:-1]) / 2)
    moment = torch.cat([none, mass.moment(cuts), none])  # all of them are symmetric: the sum is 0
    return moment.diff() / share.diff().clamp(min=1e-300)


@functools.cache
def _af4(slip: bool) -> Tensor:
    return fit(scaled_normal(64), "median", cells_end_at_zero=slip)


def af4() -> Tensor:
    """AF4 for blocks of 64 as it was published, (16,): its levels beside zero are too near zero."""
    return _af4(slip=True).clone()


def af4_corrected() -> Tensor:
    """The code of least absolute error of w / absmax in blocks of 64 with -1, 0 and 1, (16,)."""
    return _af4(slip=False).clone()


@functools.cache
def _lloyd_max(block: int, pinned: tuple[float, ...]) -> Tensor:
    return fit(scaled_normal(block, power=2), "mean", pinned)


def lloyd_max(block: int = 64, pinned: tuple[float, ...] = KEPT) -> Tensor:
    """The code of least squared error of normal weights, (16,); without pins it has no exact zero.

    Args:
        pinned: levels to keep, out of -1, 0 and 1.
    """
    return _lloyd_max(block, tuple(pinned)).clone()
