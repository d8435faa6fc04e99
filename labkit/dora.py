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

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.directions import TINY, dense_forward, factored_norms, row_norms
from labkit.linears import dense
from labkit.lora import LoRALinear, Targets, inject, matches, parameter_count, projections
from labkit.stretched import kernel, stretched, summed

# Kept by nobody else and quick to make again: their inputs are narrow. (down_proj's is wide.)
MADE_AGAIN = ("q_proj", "k_proj", "o_proj")


class DoRALinear(nn.Module):
    """A LoRA layer whose rows have learned lengths. Wraps; over a 4-bit base it is QDoRA.

    Args:
        lora: the layer to wrap, over any base that `labkit.linears.dense` knows.
        exact: let gradients flow through the norms, too.

    Two switches choose between time and memory and change no value beyond rounding: `keeps`, the
    output is kept for the backward pass (else made again there); `compiled`, see `in_kernels`.
    """

    def __init__(self, lora: LoRALinear, exact: bool = False) -> None:
        super().__init__()
        self.lora, self.exact, self.keeps, self.compiled = lora, exact, True, False
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
        again = None if self.keeps else (self._stretch_again, seen, A.detach(), B.detach())
        y = stretched(straight, self._low(seen, A, B), g, self.compiled, again)
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
            norms_of = kernel(factored_norms) if self.compiled else factored_norms
            norms = norms_of(self.squares, products, lora.A, lora.B, lora.scale)
        return self.magnitude / norms

    def _low(self, seen: Tensor, A: Tensor, B: Tensor) -> Tensor:
        """s B A x, through the thin side."""
        return F.linear(self.lora.scale * F.linear(seen, A), B)

    def _stretch_again(self, seen: Tensor, A: Tensor, B: Tensor, more: Tensor) -> Tensor:
        work = kernel(summed) if self.compiled else summed
        return work(self._straight(seen), self._low(seen, A, B), more)

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


def in_kernels(model: nn.Module) -> nn.Module:
    """Let every DoRALinear of `model` run its element-wise work as fused kernels; returns `model`.

    Worth the seconds of compiling on a GPU, where it saves a tenth of a step and more, and with
    batches of one shape: torch.compile compiles for each new shape, and gives up after eight.
    """
    for module in model.modules():
        if isinstance(module, DoRALinear):
            module.compiled = True
    return model


def make_again(model: nn.Module, names: Sequence[str] = MADE_AGAIN) -> nn.Module:
    """Let the DoRALinears so named make their output again in the backward pass; returns `model`.

    It saves the memory of those outputs for a few percent more time. With gradient checkpointing
    there is nothing to save: all of it is made again.
    """
    for name, module in model.named_modules():
        if isinstance(module, DoRALinear):
            module.keeps = name.rpartition(".")[2] not in names
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
