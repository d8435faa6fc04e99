"""NF4: a weight in 4 bits a value, and a frozen linear map that stores it so.

    W is about  q[codes] * absmax

    symbol   shape             in code     meaning
    q        (16,)             levels()    quantiles of the normal distribution (labkit.codes)
    codes    (n / 2,)          packed      two indices of q in a byte
    absmax   (n / block,)      absmax      one for each `block` values, float32; with double
                                           quantisation 8-bit codes, uint8 (labkit.double)
    scales   (blocks / 256,)   scales      for the 8-bit codes, float32, else None
    offset   scalar            offset      for the 8-bit codes, float32, else None

Every bit is that of bitsandbytes 0.50: codes, constants, and the weight that comes back.

Source: Dettmers et al. 2023, QLoRA, section 3, https://arxiv.org/abs/2305.14314; bitsandbytes 0.50,
functional.py, quantize_4bit and quantize_blockwise.
Left out on purpose: other codes in packed form (`blocks.rounded` shows what they do to a weight),
storage in other dtypes than uint8, kernels that multiply without unpacking.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.blocks import block_absmax, check_finite, in_blocks, nearest, pack
from labkit.codes import levels
from labkit.double import in_8_bits, restored

BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # those of bitsandbytes
PIECE = 2**16  # values worked on at once on a CPU: they stay in its cache


@dataclass(frozen=True, eq=False)
class Quantized:
    """A weight in NF4: what is stored, and of what."""

    packed: Tensor  # (ceil(n / 2),) uint8, two codes each
    absmax: Tensor  # (blocks,) float32, or uint8 codes with double quantisation
    scales: Tensor | None  # (ceil(blocks / 256),) float32
    offset: Tensor | None  # scalar, float32
    shape: torch.Size  # of the weight
    dtype: torch.dtype  # of the weight
    block: int

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is stored."""
        parts = (self.packed, self.absmax, self.scales, self.offset)
        return sum(part.nbytes for part in parts if part is not None)

    def scale_of_blocks(self) -> Tensor:
        """The absmax of each block, float32, shape (blocks,), as it can be restored."""
        if self.scales is None:
            return self.absmax
        return restored(self.absmax, self.scales, self.offset)

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        constants = f"{self.absmax.numel():,} absmax in {8 if self.scales is not None else 32} bits"
        if self.scales is not None:
            constants += f", {self.scales.numel():,} scales and an offset in 32"
        return (
            f"NF4 of {size} {str(self.dtype).removeprefix('torch.')}, blocks of {self.block}: "
            f"{self.packed.numel():,} bytes of codes, {constants}; "
            f"{8 * self.nbytes / self.shape.numel():.3f} bits a weight"
        )

    __repr__ = __str__


def quantize(weight: Tensor, block: int = 64, double: bool = False) -> Quantized:
    """`weight` in NF4, one absmax for each `block` values, which may be quantised in their turn.

    Args:
        weight: any shape; float32, bfloat16 or float16.
        block: values that share an absmax, one of BLOCKS.
        double: store each absmax in 8 bits too, one float32 scale for 256 of them.

    Raises:
        TypeError: if the weight has another dtype.
        ValueError: if it is empty or not finite, or `block` is none of BLOCKS.
    """
    check(weight, block)
    values = weight.detach().flatten()
    code = _levels(weight.device)
    done = [_piece(part, block, code) for part in values.split(_piece_size(values))]
    packed, absmax = (torch.cat(parts) for parts in zip(*done, strict=True))
    check_finite(absmax)
    stored = in_8_bits(absmax) if double else (absmax, None, None)
    return Quantized(packed, *stored, weight.shape, weight.dtype, block)


def check(weight: Tensor, block: int) -> None:
    """Refuse what cannot be quantised; the message says what can."""
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(f"a weight of {weight.dtype}: only float32, bfloat16 and float16 have NF4")
    if not weight.numel():
        raise ValueError(f"a weight of shape {tuple(weight.shape)} holds no values to quantise")
    if block not in BLOCKS:
        raise ValueError(f"block={block} is none of {', '.join(map(str, BLOCKS))}")


def _piece_size(values: Tensor) -> int:
    return PIECE if values.device.type == "cpu" else max(PIECE, values.numel())


def _piece(values: Tensor, block: int, code: Tensor) -> tuple[Tensor, Tensor]:
    blocks, absmax = in_blocks(values, block), block_absmax(values, block)
    search = count_below if values.device.type == "cpu" else nearest
    return pack(search(blocks, absmax, code).flatten()[: values.numel()]), absmax


def count_below(values: Tensor, absmax: Tensor, code: Tensor) -> Tensor:
    """What `nearest` finds, by counting the midpoints below each value.

    Fifteen comparisons of whole vectors take a CPU about half the time of its search.
    """
    scaled = values * (1 / absmax.clamp(min=1e-38))[:, None]
    codes = torch.zeros_like(scaled, dtype=torch.uint8)
    for midpoint in ((code[1:] + code[:-1]) / 2).tolist():
        codes += scaled > midpoint
    return codes


def dequantize(q: Quantized, dtype: torch.dtype | None = None) -> Tensor:
    """The weight that `q` stands for, in its shape; in its own dtype where none is given.

    Each byte finds both of its levels at once, in a table of 256 pairs.
    """
    absmax = q.scale_of_blocks()
    packed = F.pad(q.packed, (0, absmax.numel() * q.block // 2 - q.packed.numel()))
    values = torch.empty((absmax.numel(), q.block), dtype=dtype or q.dtype, device=packed.device)
    pairs, rows = _pairs(packed.device), _piece_size(values) // q.block
    parts = packed.split(rows * q.block // 2), absmax.split(rows), values.split(rows)
    for codes, scale, out in zip(*parts, strict=True):
        two = pairs.index_select(0, codes.int()).view(torch.float32)
        torch.mul(two.view(-1, q.block), scale[:, None], out=out)
    return values.flatten()[: q.shape.numel()].view(q.shape)


@functools.cache
def _levels(device: torch.device) -> Tensor:
    return levels().to(device)


@functools.cache
def _pairs(device: torch.device) -> Tensor:
    """For each byte its two levels, (256,): two float32 that travel as one number of 64 bits."""
    high, low = levels().repeat_interleave(16), levels().repeat(16)
    return torch.stack([high, low], dim=1).view(torch.float64).flatten().to(device)


def bits_per_weight(block: int = 64, superblock: int | None = None) -> float:
    """Bits that a weight costs: 4, and its share of the constants of its block.

    Args:
        block: weights that share an absmax.
        superblock: absmax that share a float32 scale, and take 8 bits each; None: each absmax is
            a float32. The one offset of a matrix is not counted.
    """
    absmax = 32 if superblock is None else 8 + 32 / superblock
    return 4 + absmax / block


class NF4Product(torch.autograd.Function):
    """x W^T + b with W stored in NF4: backward decodes the codes again, and keeps no matrix.

    forward: x (..., in), q of shape (out, in), bias (out,) or None; returns (..., out).
    backward: the gradient of x, grad W, shape (..., in). W and b are frozen and get none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Quantized, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.q = q
        return F.linear(x, dequantize(q, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return grad @ dequantize(ctx.q, grad.dtype), None, None


class NF4Linear(nn.Module):
    """A frozen linear map whose weight is stored in NF4; `LoRALinear(NF4Linear(fc))` is QLoRA.

    Args:
        linear: gives weight (out, in) and bias (out,); it is not changed.
        double: quantise the constants too.
    """

    def __init__(self, linear: nn.Linear, double: bool = True, block: int = 64) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        q = quantize(linear.weight, block, double)
        for name in ("packed", "absmax", "scales", "offset"):
            self.register_buffer(name, getattr(q, name))
        self._form = replace(q, packed=None, absmax=None, scales=None, offset=None)
        bias = linear.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), False)

    @property
    def quantized(self) -> Quantized:
        """What is stored, where it now is."""
        parts = {name: getattr(self, name) for name in ("packed", "absmax", "scales", "offset")}
        return replace(self._form, **parts)

    def dense(self) -> Tensor:
        """The weight, decoded: (out, in), in the dtype it had."""
        return dequantize(self.quantized)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), computed in the dtype of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return NF4Product.apply(x, self.quantized, bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "NF4Linear":
        """Move with the model; but constants stay float32 when the model is cast to 16 bits."""
        kept = {name: getattr(self, name) for name in ("absmax", "scales", "offset")}
        super()._apply(fn, recurse)
        for name, constant in kept.items():
            if constant is not None:
                setattr(self, name, constant.to(self.packed.device))
        return self

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.quantized}"
