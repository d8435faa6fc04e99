"""Double quantisation: the absmax of all blocks in 8 bits, as codes, scales and one offset.

    absmax is about  d[codes] * scales + offset

    symbol   shape            in code   meaning
    d        (256,)           code      the signed 8-bit dynamic map (labkit.codes)
    codes    (blocks,)        codes     indices of d, uint8
    scales   (blocks / 256,)  scales    one for 256 absmax, float32
    offset   scalar           offset    the mean of all absmax, float32

Source: Dettmers et al. 2023, QLoRA, section 3, https://arxiv.org/abs/2305.14314; bitsandbytes 0.50,
functional.py, quantize_4bit and quantize_blockwise.
"""

import functools

import torch
from torch import Tensor

from labkit.blocks import block_absmax, in_blocks, nearest
from labkit.codes import dynamic8

SUPERBLOCK = 256  # absmax that share one scale, in bitsandbytes and here


def quantize_absmax(absmax: Tensor, code: Tensor, block: int = 256) -> tuple[Tensor, ...]:
    """The absmax of all blocks in 8 bits: codes, scales and offset.

    All absmax are positive, so their mean comes off first: what remains has both signs and is
    smaller. That is quantised in blocks of its own.

    Args:
        absmax: (blocks,), float32.
        code: the 256 levels of the 8-bit code, ascending.

    Returns:
        codes (blocks,) uint8, scales (ceil(blocks / block),) float32, and the mean, a scalar.
    """
    offset = absmax.mean()
    rest = absmax - offset
    scales = block_absmax(rest, block)
    codes = nearest(in_blocks(rest, block), scales, code)
    return codes.flatten()[: absmax.numel()], scales, offset


def in_8_bits(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and offset of `absmax`, the same bits as bitsandbytes' on this device.

    Raises:
        ValueError: if the sum of all absmax exceeds float32, so that they have no mean.
    """
    code = _dynamic8(absmax.device)
    codes, scales, offset = quantize_absmax(absmax, code, SUPERBLOCK)
    if not offset.isfinite():
        raise ValueError(
            f"the mean of {absmax.numel()} absmax up to {absmax.max().item():.3g} exceeds float32: "
            "quantise with double=False, or scale the weight down"
        )
    if absmax.device.type == "cpu":
        codes = nearest_on_grid(absmax - offset, scales, code)
    return codes, scales, offset


def restored(codes: Tensor, scales: Tensor, offset: Tensor) -> Tensor:
    """The absmax that codes, scales and offset stand for, float32, shape (blocks,)."""
    each = scales.repeat_interleave(SUPERBLOCK)[: codes.numel()]
    return _dynamic8(codes.device)[codes.long()] * each + offset


def nearest_on_grid(rest: Tensor, scales: Tensor, code: Tensor) -> Tensor:
    """The 8-bit codes as bitsandbytes finds them on a CPU, uint8, shape of `rest`.

    It looks each value up in a table of 65,536 places over -1 .. 1: the nearest place, then the
    level nearest to that place. Within 1 / 65535 of a midpoint that can be the other neighbour.
    """
    values = in_blocks(rest, SUPERBLOCK)
    # As bitsandbytes does, a block without any remainder takes code 0: its scale is 0 as well.
    scaled = values * (1 / scales.clamp(min=1e-38))[:, None]
    place = torch.floor((scaled + 1) * 0.5 * 65535 + 0.5)
    codes = nearest(place / 32767.5 - 1, torch.ones_like(scales), code)
    return codes.where(scales[:, None] > 0, 0).flatten()[: rest.numel()]


@functools.cache
def _dynamic8(device: torch.device) -> Tensor:
    return dynamic8().to(device)
