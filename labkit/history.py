"""What a training run is told, and what it tells: Settings, Step, History, and advice.

Settings    how to train
Step        one optimizer step, as it ended
History     all steps of a run; shows itself as a curve
ran_out     whether an error says that there is no memory left
advice      what to change, and by how much, after a run that ended early
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from labkit import svg
from labkit.project import LabkitError


class TrainingStopped(LabkitError):
    """A run that ended early: what happened, what to change and by how much, what is kept."""


@dataclass(frozen=True)
class Settings:
    """How to train. `lr` is for LoRA; full fine-tuning wants about a tenth of it."""

    steps: int = 100
    batch: int = 8  # examples in a micro-batch
    lr: float = 5e-4
    warmup: float = 0.05  # share of the steps
    accumulate: int = 1  # micro-batches in a step
    clip: float = 1.0  # largest norm of the gradient
    weight_decay: float = 0.0
    seed: int = 0
    checkpoint: Path | None = None  # a file; without it nothing is kept
    checkpoint_every: int = 0  # steps; 0: only when the run is interrupted

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup={self.warmup} is a share of the steps, from 0 to 1")
        if not (0 < self.lr < math.inf and self.clip > 0):
            raise ValueError(f"lr={self.lr} and clip={self.clip} must be above 0")


@dataclass(frozen=True)
class Step:
    """One optimizer step, as it ended."""

    number: int  # from 1
    of: int
    loss: float  # nats a learnt token, before the step
    lr: float
    tokens: int  # in the batch, padding included
    seconds: float


@dataclass(frozen=True)
class History:
    """A run: one entry a step, and the most bytes that were allocated (on CUDA, else None)."""

    steps: tuple[Step, ...]
    peak_bytes: int | None

    @property
    def losses(self) -> tuple[float, ...]:
        return tuple(step.loss for step in self.steps)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def tokens_per_second(self) -> float:
        return sum(step.tokens for step in self.steps) / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        last = self.losses[-10:]
        peak = f", peak {self.peak_bytes / 2**30:.2f} GiB" if self.peak_bytes else ""
        return (
            f"{len(self.steps)} steps in {self.seconds:.0f} s, "
            f"{self.tokens_per_second:,.0f} tokens/s, loss {self.losses[0]:.3f} at first, "
            f"{sum(last) / len(last):.4f} over the last {len(last)} steps{peak}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        numbers = [step.number for step in self.steps]
        title = "training loss, nats a learnt token"
        return f"{svg.curve(numbers, self.losses, title, 'steps')}<p>{self}</p>"


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out; torch has an error of its own for a GPU, and none for a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def advice(error: BaseException, settings: Settings, number: int, kept: str) -> str:
    """What to change after step `number` broke off, and what is kept of the run."""
    if isinstance(error, KeyboardInterrupt):
        again = "; call fit again with resume=True to go on" if settings.checkpoint else ""
        return f"interrupted: {kept}{again}"
    if ran_out(error):
        return f"the device is out of memory: try {_smaller(settings)}; {kept}"
    return (
        f"{error} at step {number}: try lr={settings.lr / 4:g} (now {settings.lr:g}) or "
        f"warmup={min(1, max(0.1, 2 * settings.warmup)):g} (now {settings.warmup:g}); {kept}"
    )


def _smaller(settings: Settings) -> str:
    """A setting that holds less at one time and learns from as many examples a step."""
    if settings.batch == 1:
        return "shorter examples, gradient checkpointing, or a 4-bit base: batch is 1 already"
    half = settings.batch // 2
    more = -(-settings.batch * settings.accumulate // half)
    now = f"(now {settings.batch} and {settings.accumulate})"
    return f"batch={half} with accumulate={more} {now}"
