"""LoRA: a trained update of low rank beside a frozen linear map.

    y = W x + b + (alpha / rank) B A x

    symbol   shape         in code       meaning
    W, b     (out, in)     layer.base    frozen; stored as the base stores it, 4 bits included
    A        (rank, in)    layer.A       reads the input; random at the start
    B        (out, rank)   layer.B       writes the output; zero at the start
    s        scalar        layer.scale   alpha / rank

    inject(model, targets)               every linear map of that name gets an update
    merged(layer), merge(model)          W + s B A as plain linear maps
    parameter_count(config, targets, r)  how many numbers that trains, without a model

The two factors cost rank * (in + out) products a token; B A itself is never formed in training.

Source: Hu et al. 2021, sections 4.1 and 4.2, https://arxiv.org/abs/2106.09685; the start of A is
that of microsoft/LoRA, loralib/layers.py, Linear.reset_parameters.
Left out on purpose: embeddings, convolutions, trained biases, several adapters on one layer.
"""

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.linears import dense

Targets = str | Sequence[str]  # "all-linear", or names of modules


def factors(
    out_features: int, in_features: int, rank: int, like: Tensor
) -> tuple[nn.Parameter, nn.Parameter]:
    """A, uniform within 1 / sqrt(in) of zero, and B, all zero: their product is no update yet.

    Args:
        like: a tensor of the base. A (rank, in) and B (out, rank) are made on its device, in
            float32, or in its own dtype where that is wider.
    """
    kind = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
    A = nn.Parameter(torch.empty(rank, in_features, **kind))
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))  # the bound is then 1 / sqrt(in)
    return A, nn.Parameter(torch.zeros(out_features, rank, **kind))


class LoRALinear(nn.Module):
    """A frozen linear map and an update of it that trains, of rank at most `rank`.

    Args:
        base: any module that maps (..., in) to (..., out) and has in_features and out_features;
            over a 4-bit map this same class is QLoRA.
        alpha: the update is scaled by alpha / rank.
        dropout: share of the input that the update, and it alone, does not see in training.

    Raises:
        ValueError: if `rank` is below 1, or `dropout` is no share.
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} must be at least 1")
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.scale = rank, alpha, alpha / rank
        self.in_features, self.out_features = base.in_features, base.out_features
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        like = next(itertools.chain(base.parameters(), base.buffers()))
        self.A, self.B = factors(base.out_features, base.in_features, rank, like)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return self.base(x) + self.update(x)

    def update(self, x: Tensor) -> Tensor:
        """scale * dropout(x) A^T B^T, (..., in) to (..., out), in the dtype of x."""
        # The factors are cast, not x: they are thin. The scale meets the thin product, too.
        thin = F.linear(self.dropout(x), self.A.to(x.dtype))
        return F.linear(self.scale * thin, self.B.to(x.dtype))

    def delta(self) -> Tensor:
        """What the update adds to the weight: scale * B A, shape (out, in)."""
        return self.scale * self.B @ self.A

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"


def linear_maps(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear map in `model` by its full name, but its head; an adapted one as it now is."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found: dict[str, nn.Module] = {}
    last = None
    for name, module in model.named_modules():
        inside = last is not None and name.startswith(f"{last}.")  # the base of an adapted map
        is_head = module is head or name.rpartition(".")[2] == "lm_head"
        if hasattr(module, "in_features") and name and not inside and not is_head:
            found[name], last = module, name
    return found


def matches(model: nn.Module, targets: Targets = "all-linear") -> list[str]:
    """Full names of the linear maps that `targets` name; never the head or an embedding.

    Args:
        targets: "all-linear"; or names, each whole ("q_proj", or with what stands before it,
            "layers.0.self_attn.q_proj"): "proj" does not match "q_proj".

    Raises:
        ValueError: if a target matches no linear map, or a map has an adapter already.
    """
    maps = linear_maps(model)
    wanted = [targets] if isinstance(targets, str) else list(targets)
    if targets == "all-linear":
        found = set(maps)
    else:
        hits = {t: {n for n in maps if n == t or n.endswith(f".{t}")} for t in wanted}
        for target in wanted:
            if not hits[target]:
                raise ValueError(_no_match(target, maps))
        found = set().union(*hits.values())
    if not found:
        raise ValueError(f"targets={targets!r} match nothing: there is no linear map to adapt")
    if done := sorted(name for name in found if hasattr(maps[name], "delta")):
        raise ValueError(f"{done[0]} has an adapter already: merge it, or load the model anew")
    return [name for name in maps if name in found]


def _no_match(target: str, maps: Mapping[str, nn.Module]) -> str:
    last = sorted({name.rpartition(".")[2] for name in maps})
    full = "." in target
    near = difflib.get_close_matches(target, maps if full else last, n=3, cutoff=0.5)
    there = f"near it: {', '.join(near)}" if near else f"there are: {', '.join(last)}"
    return (
        f"target {target!r} matches no linear map that can be adapted; {there}; the head and "
        "embeddings are never adapted"
    )


def inject(
    model: nn.Module,
    targets: Targets = "all-linear",
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
) -> nn.Module:
    """Freeze `model` and put a LoRALinear over each map that `targets` name; returns `model`.

    Raises:
        ValueError: as `matches` and LoRALinear do; the model is then as it was.
    """
    layers = {
        name: LoRALinear(model.get_submodule(name), rank, alpha, dropout)
        for name in matches(model, targets)
    }
    model.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, layer.train(model.training))
    return model


def merged(layer: nn.Module, dtype: torch.dtype | None = None) -> nn.Linear:
    """A plain frozen linear map that computes what `layer` does; `layer` stays as it is.

    Args:
        layer: a LoRALinear, or any layer with `base` and `delta()`.
        dtype: of the new weight; None: that of the base. The sum is taken in float32 and rounded
            once; bfloat16 keeps 8 bits, so an update far smaller than W is lost in it.
    """
    W, delta = dense(layer.base).detach(), layer.delta().detach()
    weight = (W.to(delta.dtype) + delta).to(dtype or W.dtype)
    bias = getattr(layer.base, "bias", None)
    plain = nn.utils.skip_init(nn.Linear, *weight.T.shape, bias=bias is not None, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        plain.bias = nn.Parameter(bias.detach().clone().to(weight.dtype), requires_grad=False)
    return plain.train(layer.training)


def adapted(model: nn.Module) -> dict[str, nn.Module]:
    """The adapted maps in `model` by their full names."""
    return {name: m for name, m in linear_maps(model).items() if hasattr(m, "delta")}


def merge(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Replace each adapted map of `model` by a plain one that computes the same; returns `model`.

    Raises:
        ValueError: if there is none, as after a first merge.
    """
    layers = adapted(model)
    if not layers:
        raise ValueError("nothing to merge: the model has no adapter, or it is merged already")
    for name, layer in layers.items():
        model.set_submodule(name, merged(layer, dtype))
    return model


def projections(config: Any) -> dict[str, tuple[int, int]]:  # noqa: ANN401
    """The seven linear maps of one Llama layer, each (out, in), from the model's config."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    queries, keys = heads * width, (config.num_key_value_heads or heads) * width
    return {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }


def parameter_count(config: Any, targets: Targets, rank: int) -> int:  # noqa: ANN401
    """How many numbers LoRA trains in a Llama: layers * rank * the sum of (out + in).

    Args:
        config: of any Llama, Mistral or Qwen2; no weights are needed.
        targets: "all-linear", or names of projections.

    Raises:
        ValueError: if a target is none of the seven projections.
    """
    shapes = projections(config)
    names = [targets] if isinstance(targets, str) else list(targets)
    chosen = set(shapes) if targets == "all-linear" else set(names)
    if not chosen <= set(shapes):
        raise ValueError(f"{sorted(chosen - set(shapes))[0]!r} is none of {', '.join(shapes)}")
    return config.num_hidden_layers * rank * sum(sum(shapes[name]) for name in chosen)
