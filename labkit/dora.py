"""DoRA: each output row of the weight learns its length and its direction apart.

    y = g * (W + s B A) x + b          g_i = m_i / n_i,   n_i = |W_i + s B_i A|

    symbol   shape         in code           meaning
    W, b     (out, in)     layer.lora.base   frozen; stored as the base stores it, 4 bits included
    s B A    (out, in)     layer.lora        LoRA's update: it turns the rows
    m        (out,)        layer.magnitude   row lengths; |W_i| at the start, then trained
    n        (out,)        in gains()        row lengths of what the update has turned
    g        (out,)        layer.gains()     what each output is multiplied by; 1 at the start

One number belongs to each output: the length of a row of an (out, in) weight. The paper says
"column" and means the same, since it writes its weights (in, out).

Neither W + s B A nor a dense W is formed in training. A row's squared length is

    n_i^2 = |W_i|^2 + 2 s B_i (W A^T)_i + s^2 B_i (A A^T) B_i^T

where the first term never changes, W A^T is the base map applied to the rows of A, and A A^T is
(rank, rank). By default n is held constant in the backward pass, as the paper proposes (4.3).

Source: Liu et al. 2024, sections 3.2, 4.1 and 4.3, https://arxiv.org/abs/2402.09353
Left out on purpose: embeddings, convolutions, several adapters on one layer. Where the update
cancels a row of W nearly whole, n is a small difference of large terms and loses digits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.directions import TINY, dense_forward, factored_norms, row_norms
from labkit.linears import dense
from labkit.lora import LoRALinear, Targets, inject, matches, parameter_count, projections


class _Stretched(torch.autograd.Function):
    """g * straight + low, where `low` has its g already; rounded once.

    For the backward pass it keeps what comes out, not what goes in: the next layer keeps that
    tensor as well (an activation its input, attention its values), so it costs nothing there.
    """

    @staticmethod
    def forward(ctx: Any, straight: Tensor, low: Tensor, g: Tensor) -> Tensor:  # noqa: ANN401
        # What DoRA adds is summed by itself, as g - 1 and `low` are both small: in 16 bits a step
        # of a thousandth in g would vanish if it met the whole output first.
        more = (g - 1).to(straight.dtype)
        ctx.mark_dirty(low)
        y = low.addcmul_(straight, more).add_(straight)
        ctx.save_for_backward(y, g, more)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        y, g, more = ctx.saved_tensors
        along = (upstream * y).sum(dim=0, dtype=g.dtype)  # g times the slope of g
        slope = torch.where(g == 0, 0, along / g)  # a row of zeros stays one
        return torch.addcmul(upstream, upstream, more), upstream, slope


def stretched(straight: Tensor, low: Tensor, g: Tensor) -> Tensor:
    """g * straight + low in the dtype of `straight`; all of g's slope is here, none in `low`.

    Args:
        straight: (tokens, out), W x.
        low: (tokens, out), g * (s B A x), made with a constant g. Used up.
        g: (out,), in float32 or wider.
    """
    if torch.compiler.is_compiling():  # the compiler decides by itself what to keep
        one = g / torch.where(g == 0, 1, g).detach()  # its slope is that of g in `low`
        return (straight * g + low * one).to(straight.dtype)
    return _Stretched.apply(straight, low, g)


class DoRALinear(nn.Module):
    """A LoRA layer whose rows have learned lengths. Wraps; over a 4-bit base it is QDoRA.

    Args:
        lora: the layer to wrap, over any base that `labkit.linears.dense` knows.
        exact: let gradients flow through the norms, too.
    """

    def __init__(self, lora: LoRALinear, exact: bool = False) -> None:
        super().__init__()
        self.lora, self.exact = lora, exact
        self.in_features, self.out_features = lora.in_features, lora.out_features
        weight = dense(lora.base).detach()
        self.register_buffer("squares", row_norms(weight).square(), persistent=False)
        self.magnitude = nn.Parameter(row_norms(weight + lora.delta().detach()))

    def _apply(self, *args: Any, **kwargs: Any) -> "DoRALinear":  # noqa: ANN401
        """Move or cast as asked; squared lengths that a cast has rounded are made anew."""
        dtype = self.squares.dtype
        super()._apply(*args, **kwargs)
        if self.squares.dtype != dtype:
            self.squares = row_norms(dense(self.base)).square()
        return self

    @property
    def base(self) -> nn.Module:
        """The frozen map."""
        return self.lora.base

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        lora, bias = self.lora, self.base.bias
        shape, x = (*x.shape[:-1], self.out_features), x.reshape(-1, self.in_features)
        A, seen = lora.A.to(x.dtype), lora.dropout(x)
        g, straight = self.gains(A), self._straight(seen)
        B = (g.detach()[:, None] * lora.B).to(x.dtype)  # thin: cheaper to stretch than the output
        y = stretched(straight, F.linear(lora.scale * F.linear(seen, A), B), g)
        if self.training and isinstance(lora.dropout, nn.Dropout):
            y = y + (lora.base(x) - straight)  # the frozen map itself sees all of x
        elif bias is not None:
            y = y + bias
        return y.view(shape)

    def gains(self, A: Tensor) -> Tensor:
        """m / n, shape (out,); `A` is that of the update in the dtype of the base's inputs."""
        lora = self.lora
        with torch.set_grad_enabled(self.exact and torch.is_grad_enabled()):
            products = self._straight(A).T
            norms = factored_norms(self.squares, products, lora.A, lora.B, lora.scale)
        return self.magnitude / norms

    def _straight(self, x: Tensor) -> Tensor:
        """W x, without the bias."""
        base = self.base
        return base(x) if base.bias is None else base(x) - base.bias

    def weight(self) -> Tensor:
        """The dense weight that the layer applies, shape (out, in), in float32 or wider."""
        turned = dense(self.base) + self.lora.delta()
        norms = row_norms(turned).clamp(min=TINY)
        return (self.magnitude / (norms if self.exact else norms.detach()))[:, None] * turned

    def delta(self) -> Tensor:
        """What DoRA adds to the weight, shape (out, in)."""
        return self.weight() - dense(self.base)

    def extra_repr(self) -> str:
        return "exact gradient" if self.exact else "norms constant in the backward pass"


def inject_dora(
    model: nn.Module,
    targets: Targets = "all-linear",
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
) -> nn.Module:
    """Freeze `model` and put a DoRALinear over each map that `targets` name; returns `model`.

    Raises:
        ValueError: as `labkit.lora.inject`.
    """
    names = matches(model, targets)
    inject(model, names, rank, alpha, dropout)
    for name in names:
        model.set_submodule(name, DoRALinear(model.get_submodule(name)).train(model.training))
    return model


def is_dora(build: Callable[[LoRALinear], nn.Module]) -> bool:
    """Whether `build` puts DoRA round a LoRALinear, lengths as they begin and B moved.

    It lets no other layer pass: at B = 0 nearly all of them equal their base.
    """
    torch.manual_seed(0)
    lora, x = LoRALinear(nn.Linear(5, 3), rank=2, alpha=3.0), torch.randn(7, 5)
    layer, base = build(lora), lora.base
    nn.init.normal_(lora.B)
    lengths = torch.linalg.vector_norm(base.weight, dim=1)
    want = dense_forward(x, base.weight, lora.A, lora.B, lengths, lora.scale) + base.bias
    return torch.allclose(layer(x), want, atol=1e-5)


def dora_parameters(config: Any, targets: Targets, rank: int) -> int:  # noqa: ANN401
    """How many numbers DoRA trains in a Llama: LoRA's, and one for each output of each map.

    Args:
        config: of any Llama, Mistral or Qwen2; no weights are needed.
        targets: "all-linear", or names of projections.
    """
    shapes = projections(config)
    chosen = (
        shapes if targets == "all-linear" else [targets] if isinstance(targets, str) else targets
    )
    outputs = sum(shapes[name][0] for name in chosen)
    return parameter_count(config, targets, rank) + config.num_hidden_layers * outputs
