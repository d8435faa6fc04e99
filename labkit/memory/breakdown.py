"""Bytes by kind at the fullest moment of a step: what all three engines return.

allocated    tensors, as torch.cuda.max_memory_allocated counts them
reserved     what PyTorch has taken from the driver: allocated and what is cached or broken up
nvidia-smi   reserved, and the CUDA context that no allocator sees
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.table import Table

GIB = 2**30
KINDS = {
    "weights": "frozen or trained weights of the projections and norms",
    "constants": "absmax and codes of the 4-bit weights",
    "embeddings": "embedding, and the head where it is not tied",
    "adapters": "A, B and magnitudes",
    "gradients": "gradients of what trains",
    "optimizer": "moments of Adam",
    "activations": "kept for the backward pass, and gradients of activations",
    "logits": "logits, loss and their gradients",
    "dequantisation": "weights unpacked or cast for one product",
    "workspace": "cuBLAS workspaces, the batch, small buffers",
}


@dataclass(frozen=True)
class Breakdown:
    """Bytes by kind at the peak of one training step; shows itself as a table."""

    kinds: Mapping[str, int]  # a key of KINDS -> bytes alive at the peak
    phase: str  # of the step, in which the peak falls
    reserved: int
    smi: int  # what nvidia-smi shows for the process
    engine: str  # "closed form", "dry run" or "measured"
    phases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    rules: Callable[[], Mapping[str, str]] = dict  # a kind -> its formula as text

    @property
    def peak(self) -> int:
        """Bytes allocated at the fullest moment: the sum of the kinds."""
        return sum(self.kinds.values())

    def formulas(self) -> Table:
        """Each kind at the peak with its formula as text; empty for what was not computed."""
        rules = self.rules()
        rows = [(kind, _gib(n), rules.get(kind, "")) for kind, n in self.kinds.items() if n]
        return Table(("kind", "GiB", "how"), rows, f"the peak falls into {self.phase}")

    @property
    def table(self) -> Table:
        rows = [(kind, _gib(n), KINDS[kind]) for kind, n in self.kinds.items() if n]
        rows += [
            ("allocated", _gib(self.peak), "torch.cuda.max_memory_allocated"),
            ("reserved", _gib(self.reserved), "torch.cuda.max_memory_reserved"),
            ("nvidia-smi", _gib(self.smi), "with the CUDA context"),
        ]
        return Table(("", "GiB", "what it is"), rows, f"{self.engine}, peak in {self.phase}")

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def _gib(n: int) -> str:
    return f"{n / GIB:,.3f}"
