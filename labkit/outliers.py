"""What one outlier does to its block: the block's absmax grows, and with it every step of the code.

Source: Dettmers et al. 2023, QLoRA, section 2, https://arxiv.org/abs/2305.14314.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.blocks import rounded
from labkit.usage import draws

SEED = 3  # of the 64 normal weights that are always the same


@dataclass(frozen=True)
class Block:
    """A block whose first value is the outlier."""

    values: list[float]
    back: list[float]  # what comes back from the code
    usual: float  # root mean square error of the others where the first weight is a normal one


def with_outlier(size: float, code: Tensor, block: int = 64) -> Block:
    """`block` normal weights, the first replaced by `size` standard deviations, in `code`."""
    calm = draws("normal", block, SEED)
    values = torch.cat([torch.tensor([float(size)]), calm[1:]])
    usual = (rounded(calm, code, block) - calm)[1:].square().mean().sqrt().item()
    return Block(values.tolist(), rounded(values, code, block).tolist(), usual)
