"""g * straight + low: the element-wise end of DoRA's forward pass, and what its slope needs.

    y = g * straight + low                      low has its g already, as a thin matrix is cheaper
    dL/dg_i = sum over tokens of u_i y_i / g_i  to stretch than the output; u = dL/dy

    symbol     shape           meaning
    straight   (tokens, out)   W x, from the frozen base
    low        (tokens, out)   g * (s B A x)
    g          (out,)          what each output is multiplied by, m / n
    u          (tokens, out)   slope of the loss in y

The slope of g needs a tensor of the output's size. What comes out is kept, not what goes in: where
the next layer keeps that tensor too (an activation its input, attention its values) it costs
nothing. Queries and keys are turned before anyone keeps them, and the output of attention is
added to the residual; there it can be made again in the backward pass, from x, which LoRA keeps.

`kernel(work)` is `work` through torch.compile: every tensor is read once and written once.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class Again(Protocol):
    """Makes y once more, from the tensors of the forward pass and g - 1."""

    def __call__(self, *made_from: Tensor) -> Tensor: ...


@functools.cache
def kernel(work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, its element-wise steps fused. It is compiled anew for each shape, up to eight."""
    return torch.compile(work, dynamic=False)


def summed(straight: Tensor, low: Tensor, more: Tensor) -> Tensor:
    """straight + (more * straight + low), in place of `low`; `more` is g - 1.

    What DoRA adds is summed by itself, as g - 1 and `low` are both small: in 16 bits a step of a
    thousandth in g would vanish if it met the whole output first.
    """
    return low.addcmul_(straight, more).add_(straight)


def slopes(u: Tensor, y: Tensor, g: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of `straight`, g * u; and that of g, where a row of zeros stays one."""
    along = (u * y).sum(dim=0, dtype=g.dtype)
    return torch.addcmul(u, u, more), torch.where(g == 0, 0, along / g)


class _Stretched(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        straight: Tensor,
        low: Tensor,
        g: Tensor,
        compiled: bool,
        again: Again | None,
        *made_from: Tensor,
    ) -> Tensor:
        more = (g - 1).to(straight.dtype)
        ctx.mark_dirty(low)
        y = (kernel(summed) if compiled else summed)(straight, low, more)
        ctx.save_for_backward(g, more, *(made_from if again else (y,)))
        ctx.compiled, ctx.again = compiled, again
        return y

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        g, more, *kept = ctx.saved_tensors
        y = ctx.again(*kept, more) if ctx.again else kept[0]
        of_straight, of_g = (kernel(slopes) if ctx.compiled else slopes)(u, y, g, more)
        unused = [None] * (2 + len(kept) * bool(ctx.again))
        return of_straight, u, of_g, *unused


def stretched(
    straight: Tensor,
    low: Tensor,
    g: Tensor,
    compiled: bool = False,
    again: tuple[Again, *tuple[Tensor, ...]] | None = None,
) -> Tensor:
    """g * straight + low in the dtype of `straight`; all of g's slope is here, none in `low`.

    Args:
        straight: (tokens, out), W x.
        low: (tokens, out), g * (s B A x), made with a constant g. Used up.
        g: (out,), in float32 or wider.
        compiled: through `kernel`.
        again: a function and tensors from which it makes the result once more; None: it is kept.
    """
    if torch.compiler.is_compiling():  # the compiler keeps what it needs: y, once
        held = g.detach()
        y = (straight * held + low).to(straight.dtype)
        return (y * (g / torch.where(g == 0, 1, held))).to(y.dtype)
    make, *made_from = again or (None,)
    return _Stretched.apply(straight, low, g, compiled, make, *made_from)
