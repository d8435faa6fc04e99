"""What a code does to weights: which levels are used, and how large the error is.

    usage(w, q, n), entropy(shares)     share of each level, and the bits those shares carry
    expected_absmax(n)                  E[max |w|] of n normal weights, in standard deviations
    error(w, q, n)                      squared and absolute error against the weights' own spread
    excess_kurtosis, block_kurtosis     0 for a normal distribution, of the whole and of blocks
    draws(name, count, seed)            weights of a known distribution, mean 0 and variance 1

    w: weights of any shape; q: a code (labkit.codes, labkit.fitted); n: values in a block.

Equal shares of 16 levels carry 4 bits. That is the sense in which NF4 was called optimal, and it
holds for a normal x; but what is rounded is w / absmax, and no normal distribution.

Source: Dettmers et al. 2023, QLoRA, section 3, https://arxiv.org/abs/2305.14314; Yoshida 2023,
https://arxiv.org/abs/2306.06965; Joanes and Gill 1998 for the kurtosis of small samples.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labkit.blocks import block_absmax, in_blocks, nearest, rounded
from labkit.fitted import largest_of

DRAWS = ("normal", "laplace", "uniform", "t3", "t5", "t10")


@dataclass(frozen=True)
class Error:
    """Error of rounded weights: `mse` by their variance, `l1` by their standard deviation."""

    mse: float
    l1: float

    def __str__(self) -> str:
        return f"mse {self.mse:.5f} of the variance, l1 {self.l1:.4f} of the standard deviation"

    @property
    def decibels(self) -> float:
        """Signal to noise, 10 log10(variance / squared error)."""
        return -10 * math.log10(self.mse)

    def bits_behind(self, other: "Error") -> float:
        """Bits a weight that `other` saves at equal squared error; 6.02 dB are one bit."""
        return 0.5 * math.log2(self.mse / other.mse)


def error(weight: Tensor, code: Tensor, block: int = 64) -> Error:
    """How far `weight` moves when it is rounded to `code`.

    Raises:
        ValueError: if all weights are equal, so that there is no spread to compare with.
    """
    weight = weight.detach().float()
    spread = weight.std(correction=0).item()
    if not spread > 0:
        raise ValueError("all weights are equal, or not finite: their error has no measure")
    off = rounded(weight, code, block) - weight
    return Error(off.square().mean().item() / spread**2, off.abs().mean().item() / spread)


def usage(weight: Tensor, code: Tensor, block: int = 64) -> Tensor:
    """Share of the weights that take each level, shape of `code`, sum 1."""
    code = code.to(weight.device)
    codes = nearest(in_blocks(weight, block), block_absmax(weight, block), code)
    counts = torch.bincount(codes.flatten()[: weight.numel()].long(), minlength=code.numel())
    return counts / weight.numel()


def entropy(shares: Tensor) -> float:
    """Bits that a level tells, -sum p log2 p; at most log2 of the number of levels."""
    return -torch.special.xlogy(shares, shares).sum().item() / math.log(2)


def expected_absmax(block: int) -> float:
    """E[max |w|] of `block` independent normal weights, in standard deviations."""
    absmax, chance = largest_of(block)
    return (absmax * chance).sum().item()


def excess_kurtosis(weight: Tensor) -> float:
    """Fourth central moment over the squared variance, less 3, of all weights together."""
    return _kurtosis(weight.detach().double().flatten()[None]).item()


def block_kurtosis(weight: Tensor, block: int = 64) -> Tensor:
    """The same within each full block, float64, shape (blocks,), free of the small sample's bias.

    A block of 64 normal weights shows -0.09 on average without that care.
    """
    full = weight.detach().flatten()[: weight.numel() // block * block].double().view(-1, block)
    n = block
    return (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * _kurtosis(full) + 6)


def _kurtosis(rows: Tensor) -> Tensor:
    off = rows - rows.mean(dim=1, keepdim=True)
    return off.pow(4).mean(dim=1) / off.square().mean(dim=1).square() - 3


def draws(name: str, count: int, seed: int = 0) -> Tensor:
    """`count` weights of mean 0 and variance 1: "normal", "laplace", "uniform", "t3", "t5", "t10".

    Student's t with few degrees of freedom has heavy tails. Its variance, df / (df - 2), is
    divided out.

    Raises:
        ValueError: if there is no distribution of that name.
    """
    if name not in DRAWS:
        raise ValueError(f"no distribution {name!r}: there are {', '.join(DRAWS)}")
    seeded = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=seeded)

    if name == "normal":
        return normal(count)
    uniform = torch.rand(count, generator=seeded) - 0.5
    if name == "uniform":
        return uniform * math.sqrt(12)
    if name == "laplace":
        return -uniform.sign() * torch.log1p(-2 * uniform.abs()) / math.sqrt(2)
    df = int(name[1:])
    chi_squared = sum(normal(count).square() for _ in range(df))
    return normal(count) / (chi_squared / df).sqrt() * math.sqrt((df - 2) / df)
