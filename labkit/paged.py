"""Which optimizer states bitsandbytes puts into pages that can leave the GPU.

A paged optimizer allocates a state as CUDA managed memory only if its tensor has 100,000 elements
or more; a smaller one is an ordinary tensor, whatever the optimizer is called. We do not repeat
that rule: `pages` asks bitsandbytes' own `get_state_buffer`, with a shape and no data.

Source: bitsandbytes 0.50, optim/optimizer.py, Optimizer8bit.get_state_buffer.
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from labkit.lora import projections

LLAMA_2_7B = SimpleNamespace(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
)
HEAD = ("rank", "largest tensor, elements", "tensors that page, a layer", "of the states")


@dataclass(frozen=True)
class Paged:
    """A and B of the seven projections of one layer, and how many of them page."""

    rank: int
    largest: int  # elements
    paged: int  # tensors
    tensors: int
    share: float  # of all elements

    def row(self) -> tuple[str, ...]:
        """For a table under HEAD."""
        counted = f"{self.paged} of {self.tensors}"
        return (f"{self.rank}", f"{self.largest:,}", counted, f"{self.share:.0%}")


def pages(shape: tuple[int, ...]) -> bool:
    """Whether bitsandbytes allocates the states of a parameter of this shape on a GPU in pages."""
    import bitsandbytes as bnb

    optimizer = bnb.optim.PagedAdamW([torch.nn.Parameter(torch.zeros(1))])
    functions = "bitsandbytes.functional"
    with patch(f"{functions}.get_paged") as asked, patch(f"{functions}.fill"):
        optimizer.get_state_buffer(torch.empty(shape, device="meta"))  # a CPU tensor never pages
    return asked.called


def lora_states(config: Any, rank: int) -> Paged:  # noqa: ANN401
    """What pages of LoRA at `rank` on the seven projections of one layer of a Llama."""
    widths = projections(config).values()
    shapes = [shape for out, into in widths for shape in ((rank, into), (out, rank))]
    sizes, paged = [math.prod(s) for s in shapes], [math.prod(s) for s in shapes if pages(s)]
    return Paged(rank, max(sizes), len(paged), len(sizes), sum(paged) / sum(sizes))
