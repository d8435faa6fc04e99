"""Steps timed in turns, so that a busy moment or a warm chip meets all of them alike.

    alternating({"ours": step, "peft": other}, rounds=20)    A B, B A, A B, ...
    ratio(ours, peft)                                        the median of the rounds' ratios

A ratio is taken within each round; its interval holds the true median with at least 95%, whatever
the law of the noise. The step of a GPU is timed from an idle device to an idle device.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], object]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """A ratio of times: the median over the rounds, and the interval that holds it with 95%."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def idle() -> None:
    """Wait until the GPU, if there is one, has done all that it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(step: Step) -> float:
    """Wall time of one step, from an idle device to an idle device."""
    idle()
    begin = time.perf_counter()
    step()
    idle()
    return time.perf_counter() - begin


def alternating(
    steps: Mapping[str, Step], rounds: int, warm: int = 2
) -> dict[str, tuple[float, ...]]:
    """Seconds of each step in each round; every round begins with another of them.

    Raises:
        ValueError: if there are fewer than 6 rounds, too few for an interval.
    """
    if rounds < 6:
        raise ValueError(f"rounds={rounds} give no interval of {CONFIDENCE:.0%}: at least 6")
    names = list(steps)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warm):
        for name in names:
            seconds(steps[name])
    gc.collect()
    gc.disable()  # a collection would fall into whoever happens to run
    try:
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                found[name].append(seconds(steps[name]))
    finally:
        gc.enable()
    return {name: tuple(times) for name, times in found.items()}


def ratio(times: Sequence[float], to: Sequence[float]) -> Ratio:
    """How long `times` are beside `to`, round by round."""
    ratios = sorted(a / b for a, b in zip(times, to, strict=True))
    outside = _outside(len(ratios))
    return Ratio(statistics.median(ratios), ratios[outside], ratios[-1 - outside])


def _outside(n: int) -> int:
    """How many of n sorted values to leave out on each side of a 95% interval of the median.

    The true median lies below the k-th smallest value with the chance of fewer than k heads in n
    throws of a coin.
    """
    below, k = 0.5**n, 0  # the chance of no head
    while below + math.comb(n, k + 1) * 0.5**n <= (1 - CONFIDENCE) / 2:
        k += 1
        below += math.comb(n, k) * 0.5**n
    return k


def peak_bytes(step: Step) -> int | None:
    """Bytes that a step needs on the GPU beyond what is held before it; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    idle()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    idle()
    return torch.cuda.max_memory_allocated() - before
