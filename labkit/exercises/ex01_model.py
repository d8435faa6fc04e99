"""The judges of notebook 01 for injection into a model and for merging.

The toy has what a language model has and injection must leave alone: an embedding, norms, a head,
and a map whose longer name ends in a target's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from labkit.exercises.compare import tensor_slip
from labkit.exercises.ex01_judges import NONE, named, same
from labkit.exercises.ex01_layer import ALPHA, IN, OUT, RANK, SCALE, Packed, base_of, moved
from labkit.lora import LoRALinear

# --- 01.8 into a model ------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.twin_q_proj = nn.Linear(8, 8)  # a longer name that ends in a target
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.q_proj(x) * self.v_proj(x) + self.twin_q_proj(x))


class Toy(nn.Module):
    """Two blocks between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.ModuleList([Block(), Block()])
        self.lm_head = nn.Linear(8, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(x)


IDS = torch.tensor([[1, 5, 2], [10, 0, 3]])
WISHES = {  # targets: names inside a block
    "q_proj": ("q_proj",),
    ("q_proj", "v_proj"): ("q_proj", "v_proj"),
    "all-linear": ("q_proj", "v_proj", "twin_q_proj"),
}


def judge_inject(answer: Callable[..., nn.Module]) -> str | None:
    """the named maps and no other get a pair; everything else is frozen"""
    for targets, names in WISHES.items():
        torch.manual_seed(0)
        model = Toy().eval()
        before = model(IDS)
        asked = list(targets) if isinstance(targets, tuple) else targets
        got = answer(model, asked, 3, 12, 0.25)
        want = {f"layers.{i}.{name}" for i in range(2) for name in names}
        slip = _model_slip(got, model) or _places_slip(got, want, asked) or _frozen_slip(got, want)
        slip = slip or _passed_slip(got, want)
        if slip is None and not torch.equal(got(IDS), before):
            slip = "the model must answer as before, bit for bit: B is zero"
        if slip:
            return f"targets {asked!r}: {slip}"
    return _no_match_slip(answer) or _no_rank_slip(answer)


def _pairs_in(model: nn.Module) -> dict[str, nn.Module]:
    every = model.named_modules(remove_duplicate=False)
    return {n: m for n, m in every if hasattr(m, "A") and hasattr(m, "base")}


def _model_slip(got: Any, model: nn.Module) -> str | None:  # noqa: ANN401
    if got is None:
        return NONE
    if not isinstance(got, nn.Module):
        return f"return the model, not {type(got).__name__}"
    return (
        "change the model itself: a copy would need its memory twice" if got is not model else None
    )


def _places_slip(model: nn.Module, want: set[str], asked: Any) -> str | None:  # noqa: ANN401
    found = set(_pairs_in(model))
    if nested := [name for name in found if name.endswith(".base")]:
        return f"{nested[0]} has an adapter inside an adapter: list the names before you change"
    if not found:
        return "no map got an adapter"
    extra, short = found - want, want - found
    if any("lm_head" in name for name in extra):
        return "the head got an adapter: it is a linear map, but never adapted"
    if loose := sorted(name for name in extra if "." not in name):
        return f"{loose[0]} lies at the top of the model: `set_submodule` takes the full name"
    if extra:
        return f"{sorted(extra)[0]} got an adapter and is not asked for: compare whole names"
    if short:
        return f"{sorted(short)[0]} got no adapter: every layer has maps of that name"
    if len(set(_pairs_in(model).values())) < len(found):
        return "maps share one layer: each needs a pair of its own, over its own base"
    return None


def _frozen_slip(model: nn.Module, want: set[str]) -> str | None:
    should = {f"{name}.{factor}" for name in want for factor in "AB"}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        return "nothing trains: the adapters are frozen too; freeze first, then inject"
    if still := sorted(should - trained):
        return f"{still[0]} does not train: both factors must"
    if trained != should:
        return f"{sorted(trained - should)[0]} trains: freeze the whole model, norms and head too"
    return None


def _passed_slip(model: nn.Module, want: set[str]) -> str | None:
    for name in sorted(want):
        layer = model.get_submodule(name)
        if len(layer.A) != 3:
            return f"A has {len(layer.A)} rows at rank 3: pass the rank on"
        if abs(layer.scale - 4.0) > 1e-6:
            return f"the scale is {layer.scale:g}, not 12 / 3: pass alpha on"
        if layer.training:
            return f"{name} is in training mode, and the model in evaluation: keep the mode"
        x = torch.randn(50, layer.in_features)
        with torch.no_grad():
            layer.B.normal_()
            noisy = not torch.equal(layer.train()(x), layer.eval()(x))
            layer.B.zero_()
        if not noisy:
            return "pass the dropout on"
    return None


def _no_match_slip(answer: Callable[..., nn.Module]) -> str | None:
    model = Toy()
    try:
        answer(model, ["q_proj", "query"], 3, 12, 0.0)
    except ValueError:
        whole = all(p.requires_grad for p in model.parameters()) and not _pairs_in(model)
        return None if whole else "after the error the model is changed: match before you freeze"
    except KeyError:
        return "an unknown target raises KeyError: `matches` raises a ValueError that helps"
    return "a target that matches nothing passes in silence: `matches` raises a ValueError"


def _no_rank_slip(answer: Callable[..., nn.Module]) -> str | None:
    """The layer itself may have frozen its own map before it raised; the rest must be as it was."""
    model = Toy()
    try:
        answer(model, "q_proj", 0, 12, 0.0)
    except ValueError:
        if model.embed.weight.requires_grad:
            return None
        return "at rank 0 LoRALinear raises and leaves a frozen model: make all layers first"
    return "rank 0 passes in silence: LoRALinear raises a ValueError"


# --- 01.9 merge -------------------------------------------------------------------------------


def judge_merged(answer: Callable[..., nn.Linear]) -> str | None:
    """W + scale * B A, summed in float32 and rounded once; the layer stays as it is"""
    torch.manual_seed(0)
    cases = [
        (base_of(), None), (base_of(bias=False), None), (base_of(torch.bfloat16), None),
        (base_of(torch.bfloat16), torch.float32), (base_of(torch.float64), None), (Packed(OUT, IN), None),
    ]  # fmt: skip
    for base, dtype in cases:
        layer = moved(LoRALinear(base, RANK, ALPHA))
        kept = {name: value.clone() for name, value in layer.state_dict().items()}
        before = base.dense() if hasattr(base, "dense") else base.weight.detach().clone()
        try:
            got = answer(layer, dtype)
        except AttributeError as error:
            if not isinstance(base, Packed):
                raise
            return f"a 4-bit base has no plain weight: read it with dense(layer.base) ({error})"
        slip = _linear_slip(got) or _changed_slip(got, layer, kept)
        slip = slip or _weight_slip(got, layer, before, dtype) or _bias_slip(got, layer)
        if slip:
            return slip
    return None


def _linear_slip(got: Any) -> str | None:  # noqa: ANN401
    if got is None:
        return NONE
    if isinstance(got, Tensor):
        return "return an nn.Linear with that weight, not the weight alone"
    if not isinstance(got, nn.Linear):
        return f"return a plain nn.Linear, not {type(got).__name__}"
    return None


def _changed_slip(got: nn.Linear, layer: LoRALinear, kept: dict[str, Tensor]) -> str | None:
    for name, value in layer.state_dict().items():
        if not torch.equal(value, kept[name]):
            return f"{name} of the layer has changed: a second call would add the update twice"
    if got is layer.base:
        return "that is the base itself: make a new layer"
    if any(p.requires_grad for p in got.parameters()):
        return "the merged map still trains: it is a plain frozen map"
    return None


def _weight_slips(layer: LoRALinear, W: Tensor) -> list[tuple[Tensor, str]]:
    BA = (layer.B @ layer.A).detach().double()
    scales = {
        1.0: "the update is not scaled: delta() holds alpha / rank",
        ALPHA: "the update is scaled by alpha; it is alpha / rank",
        SCALE**2: "the scale is there twice: delta() holds it already",
        -SCALE: "the update is added to W, not taken away",
        0.0: "that is the frozen weight: where is the update?",
        2 * SCALE: "the update is added twice",
    }
    return [
        *((W.double() + scale * BA, text) for scale, text in scales.items()),
        (SCALE * BA, "that is the update alone: add the frozen weight"),
    ]


def _weight_slip(
    got: nn.Linear, layer: LoRALinear, W: Tensor, dtype: torch.dtype | None
) -> str | None:
    delta = SCALE * torch.einsum("or,ri->oi", layer.B, layer.A).detach()
    want = (W.to(delta.dtype) + delta).to(dtype or W.dtype)
    if got.weight.dtype != want.dtype:
        asked = f"asked for {dtype}" if dtype else f"over a {W.dtype} base"
        return f"{asked} the weight is {got.weight.dtype}; it must be {want.dtype}"
    if got.weight.shape != want.shape:
        return f"the weight has shape {tuple(got.weight.shape)}; it must be {tuple(want.shape)}"
    mine = got.weight.detach()
    if (got.in_features, got.out_features) != (layer.in_features, layer.out_features):
        return "in_features and out_features of the new map are the other way round"
    exact = want.dtype != torch.bfloat16 or (mine != want).float().mean() < 0.05
    if same(mine, want) and exact:
        return None
    if slip := named(mine, _weight_slips(layer, W)):
        return slip
    if want.dtype == torch.bfloat16 or dtype:
        return "the sum is rounded on its way: add in float32, then round once"
    return tensor_slip(mine, want, "the weight", 1e-4)


def _bias_slip(got: nn.Linear, layer: LoRALinear) -> str | None:
    bias = layer.base.bias
    if bias is None:
        return None if got.bias is None else "the base has no bias, and the merged map has one"
    if got.bias is None:
        return "the base's bias is lost: the merged map must carry it"
    if not same(got.bias.detach(), bias.detach().to(got.bias.dtype)):
        return "the bias is changed: the update adds nothing to it"
    if got.bias.dtype != got.weight.dtype:
        return f"the bias is {got.bias.dtype} beside a weight of {got.weight.dtype}"
    if got.bias.data_ptr() == bias.data_ptr():
        return "the bias is the base's own tensor: copy it, or a change of one changes the other"
    return None
