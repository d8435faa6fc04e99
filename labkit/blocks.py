"""Blocks: a weight as codes of 4 bits and one scale for every `block` values in a row.

    symbol   shape             in code      meaning
    w        (blocks, block)   values       the weight in reading order, zeros behind its end
    a        (blocks,)         absmax       max |w| of each block, float32
    q        (n,)              code         levels, ascending, at most 256
    c        (blocks, block)   codes        index of the level nearest to w / a, uint8

    w is about a * q[c], and two codes share a byte.

Source: Dettmers et al. 2023, QLoRA, section 2, https://arxiv.org/abs/2305.14314; the byte order and
the rounding are those of bitsandbytes 0.50, backends/default/ops.py.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def block_absmax(weight: Tensor, block: int) -> Tensor:
    """The largest magnitude in each run of `block` values of `weight`, float32, shape (blocks,).

    The weight may have any shape and floating dtype; its values count row by row. A last block
    that is not full counts as well: zeros fill it up, and change no maximum.
    """
    values = weight.detach().flatten().float()
    values = F.pad(values, (0, -values.numel() % block))
    return values.view(-1, block).abs().amax(dim=1)


def in_blocks(weight: Tensor, block: int) -> Tensor:
    """`weight` row by row in blocks, float32, shape (blocks, block); zeros fill up the last."""
    values = weight.detach().flatten().float()
    return F.pad(values, (0, -values.numel() % block)).view(-1, block)


def nearest(values: Tensor, absmax: Tensor, code: Tensor) -> Tensor:
    """Index of the level of `code` nearest to values / absmax, uint8, shape (blocks, block).

    A value half-way between two levels takes the lower one. A block of zeros has absmax 0, and
    takes the level zero.

    Args:
        values: (blocks, block), float32.
        absmax: (blocks,), the largest magnitude of each block, float32.
        code: levels in ascending order, at most 256.
    """
    scaled = values * (1 / absmax.clamp(min=1e-38))[:, None]
    midpoints = (code[1:] + code[:-1]) / 2
    return torch.bucketize(scaled, midpoints, out_int32=True).to(torch.uint8)


def pack(codes: Tensor) -> Tensor:
    """Two codes of 4 bits in each byte, the first in the high half; uint8, shape (ceil(n / 2),).

    An odd number of codes is filled up with 7, the zero of NF4.
    """
    pairs = F.pad(codes.flatten(), (0, codes.numel() % 2), value=7).view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1]


def unpack(packed: Tensor, n: int) -> Tensor:
    """The first `n` codes that `pack` put into bytes, uint8, shape (n,)."""
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:n]


def rounded(weight: Tensor, code: Tensor, block: int = 64) -> Tensor:
    """What `weight` becomes in 4 bits with any code, in its own shape and dtype.

    A `block` as large as the weight, or larger, is one absmax for all of it.

    Raises:
        ValueError: if `weight` is empty or not finite, or `block` is below 1.
    """
    if block < 1 or not weight.numel():
        raise ValueError(f"{weight.numel()} values in blocks of {block}: give at least one of each")
    code, block = code.to(weight.device), min(block, weight.numel())
    values, absmax = in_blocks(weight, block), block_absmax(weight, block)
    check_finite(absmax)
    back = code[nearest(values, absmax, code).long()] * absmax[:, None]
    return back.flatten()[: weight.numel()].view(weight.shape).to(weight.dtype)


def check_finite(absmax: Tensor) -> None:
    """Refuse blocks with NaN or infinity: a scale that is one spoils all its block.

    Raises:
        ValueError: with the number of such blocks and the first of them.
    """
    bad = (~absmax.isfinite()).nonzero().flatten()
    if bad.numel():
        raise ValueError(
            f"{bad.numel()} of {absmax.numel()} blocks hold NaN or infinity, the first is block "
            f"{bad[0].item()}: mend the weight before it is quantised"
        )
