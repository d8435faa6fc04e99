"""LoRA on a fused projection: one matrix holds q, k and v, and only some of them are adapted.

    y = W x + b,   W = [Wq; Wk; Wv]        y_p += (alpha / rank) B_p A_p x   for each adapted part p

    symbol   shape               in code       meaning
    W        (out, in)           layer.base    frozen; the parts lie one below the other
    A        (n * rank, in)      layer.A       the n A's of the adapted parts, one below the other
    B_p      (rows of p, rank)   layer.B[p]    writes the output of part p

The parts may differ in size, as they do with grouped queries. Adapting W as one map would tie the
parts together: one A would have to serve them all.

Source: microsoft/LoRA, loralib/layers.py, MergedLinear, which wants parts of equal size, fills the
others with zeros and adds a full-width update.
"""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.lora import factors


class FusedLoRALinear(nn.Module):
    """Updates of some of the maps that one frozen matrix holds, such as q and v of a fused qkv.

    Args:
        base: maps (..., in) to (..., out), the parts one below the other in its weight.
        parts: name and number of output rows of each part, in their order.
        adapt: the parts that get an update; the outputs of the others stay the base's own.
        rank: of the update of each part; `alpha` and `dropout` are as in LoRALinear.

    Raises:
        ValueError: if the parts do not fill the rows of `base`, or `adapt` names none or another.
    """

    def __init__(
        self,
        base: nn.Module,
        parts: Mapping[str, int],
        adapt: Sequence[str],
        rank: int,
        alpha: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_parts(base, parts, adapt, rank)
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.scale = rank, alpha, alpha / rank
        self.in_features, self.out_features = base.in_features, base.out_features
        self.parts, self.adapt = dict(parts), [name for name in parts if name in adapt]
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        like = next(itertools.chain(base.parameters(), base.buffers()))
        made = [factors(parts[name], base.in_features, rank, like) for name in self.adapt]
        # The A's lie one below the other: one product reads the input for all of them.
        self.A = nn.Parameter(torch.cat([A.detach() for A, _ in made]))
        self.B = nn.ParameterDict({n: B for n, (_, B) in zip(self.adapt, made, strict=True)})

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), with the rows of each adapted part moved."""
        thin = self.scale * F.linear(self.dropout(x), self.A.to(x.dtype))
        thins = dict(zip(self.adapt, thin.split(self.rank, dim=-1), strict=True))
        outputs = self.base(x).split(list(self.parts.values()), dim=-1)
        moved = [
            y + F.linear(thins[name], self.B[name].to(x.dtype)) if name in thins else y
            for name, y in zip(self.parts, outputs, strict=True)
        ]
        return torch.cat(moved, dim=-1)

    def delta(self) -> Tensor:
        """What the updates add to the weight, (out, in); zero in the rows of the other parts."""
        As = dict(zip(self.adapt, self.A.split(self.rank), strict=True))
        rows = [
            self.scale * self.B[name] @ As[name]
            if name in As
            else self.A.new_zeros(size, self.in_features)
            for name, size in self.parts.items()
        ]
        return torch.cat(rows)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}, adapt={self.adapt} of {list(self.parts)}"


def _check_parts(
    base: nn.Module, parts: Mapping[str, int], adapt: Sequence[str], rank: int
) -> None:
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1")
    if sum(parts.values()) != base.out_features:
        raise ValueError(
            f"the parts {dict(parts)} have {sum(parts.values())} rows, the base puts out "
            f"{base.out_features}: give the rows of each part, so that they fill it"
        )
    if not adapt or not set(adapt) <= set(parts):
        raise ValueError(f"adapt={list(adapt)} must name one or more of {list(parts)}")
