"""GPUs and what fits them: data/gpus.json, with sources and dates.

    fits(estimate(shape, setup).smi)   ->   one Fit a GPU

What must fit is what nvidia-smi shows: tensors, the allocator's spare room and the CUDA context. A
card's own driver keeps a little of the total as well, RESERVED here.
"""

import functools
import json
from dataclasses import dataclass

from labkit import project
from labkit.memory.shapes import SetupError

RESERVED = 512 * 2**20  # bytes: a T4 shows 15,360 MiB in nvidia-smi and 14,930 to PyTorch
TIGHT = 0.06  # the closed form's largest error against the measured rows: a fit within it is tight


@dataclass(frozen=True)
class Gpu:
    """One card of the catalogue."""

    name: str
    bytes: int  # total, as nvidia-smi shows it
    bandwidth: float  # bytes a second
    flops: float  # dense 16-bit operations a second, sums in float32
    bf16: bool
    dollars: float | None  # an hour, on demand; None where no dated price is at hand
    priced: str  # date and source of the price

    @property
    def usable(self) -> int:
        """Bytes that a process can have."""
        return self.bytes - RESERVED


@dataclass(frozen=True)
class Fit:
    """Whether so many bytes fit a card."""

    gpu: Gpu
    free: int  # bytes left; negative where it is short

    @property
    def fits(self) -> bool:
        return self.free >= 0

    @property
    def verdict(self) -> str:
        """Fits, does not fit, or tight: within the error of the estimate."""
        if not self.fits:
            return "does not fit"
        return "tight" if self.free < TIGHT * self.gpu.usable else "fits"


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The catalogue, from the smallest memory to the largest."""
    rows = json.loads(project.data("gpus.json").read_text(encoding="utf-8"))["gpus"]
    cards = [
        Gpu(
            name=row["name"],
            bytes=row["mib"] * 2**20,
            bandwidth=row["gb_per_second"] * 1e9,
            flops=row["tflops"] * 1e12,
            bf16=row["bf16"],
            dollars=row["dollars"],
            priced=row.get("priced", ""),
        )
        for row in rows
    ]
    return tuple(sorted(cards, key=lambda card: card.bytes))


def gpu(name: str) -> Gpu:
    """The card of that name.

    Raises:
        SetupError: if the catalogue has no such card.
    """
    found = {card.name.lower(): card for card in gpus()}
    if name.lower() not in found:
        raise SetupError(f"gpu={name!r}: one of {', '.join(card.name for card in gpus())}")
    return found[name.lower()]


def fits(need: int) -> tuple[Fit, ...]:
    """Every card of the catalogue, and whether `need` bytes fit it.

    Args:
        need: what nvidia-smi will show, as `Breakdown.smi`.

    Raises:
        SetupError: if `need` is negative.
    """
    if need < 0:
        raise SetupError(f"need={need!r}: a number of bytes, at least 0")
    return tuple(Fit(card, card.usable - need) for card in gpus())
