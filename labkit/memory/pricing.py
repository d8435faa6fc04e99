"""Hours and money of a run, from a measured speed or from a bound by arithmetic.

    seconds = tokens / speed            money = hours * price
    speed  <= share * flops / work      work: operations a token

    work    2 N forward, 2 N for the gradients of activations, 2 N for those of weights that train,
            2 N more for what checkpointing computes again; attention adds 2 S q a layer each time

`share` is how much of a card's peak the run reaches: 1 gives a bound that no run beats, a measured
run gives its own. N counts the linear maps and the head; S is the length of a row.

Source of the count: Kaplan et al. 2020, Scaling Laws, section 2.1, https://arxiv.org/abs/2001.08361.
"""

import math
from dataclasses import dataclass

from labkit.memory.gpus import Gpu
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape, SetupError


@dataclass(frozen=True)
class Cost:
    """What a run takes."""

    tokens: int
    tokens_per_second: float
    dollars_per_hour: float

    @property
    def hours(self) -> float:
        return self.tokens / self.tokens_per_second / 3600

    @property
    def dollars(self) -> float:
        return self.hours * self.dollars_per_hour


def cost(tokens: int, tokens_per_second: float, dollars_per_hour: float) -> Cost:
    """Hours and money to train on so many tokens, repetitions included.

    Raises:
        SetupError: names the field, the value and the range.
    """
    if type(tokens) is not int or tokens < 1:
        raise SetupError(f"tokens={tokens!r}: a whole number, at least 1")
    if not 0 < tokens_per_second < math.inf:
        raise SetupError(f"tokens_per_second={tokens_per_second!r}: a number above 0")
    if not 0 <= dollars_per_hour < math.inf:
        raise SetupError(f"dollars_per_hour={dollars_per_hour!r}: a number, at least 0")
    return Cost(tokens, tokens_per_second, dollars_per_hour)


def work(shape: ModelShape, setup: TrainingSetup) -> float:
    """Operations of one training step for each token."""
    maps = shape.linear + shape.vocab * shape.hidden
    attention = 2 * setup.seq_len * shape.q * shape.layers  # causal: half of the square
    forward = 2 * maps + attention
    passes = 2 + (not setup.adapted) + setup.checkpointing  # forward and backward through it
    return passes * forward


def roofline(shape: ModelShape, setup: TrainingSetup, gpu: Gpu, share: float = 1.0) -> float:
    """Tokens a second when arithmetic alone sets the pace.

    Args:
        share: of the card's peak that the run reaches, above 0 and at most 1.

    Raises:
        SetupError: if the share is out of its range.
    """
    if not 0 < share <= 1:
        raise SetupError(f"share={share!r}: above 0 and at most 1")
    return share * gpu.flops / work(shape, setup)
