"""The variants of LoRA on the workbook's task, each at its best rate, in the same few steps.

    method       what is other than in plain LoRA                       base
    lora         -                                                      float32
    dora         row lengths train apart                                float32
    rslora       the scale is alpha / sqrt(rank)                        float32
    lora_plus    B learns at RATIO times the rate of A                  float32
    pissa        A, B start at the strongest directions of W            the rest of W
    olora        A, B start at a QR decomposition of W                  the rest of W
    adalora      starts at WIDER times the rank, prunes to the rank     float32
    vera         vectors train, around one frozen random pair           float32
    qlora        -                                                      rounded to NF4
    loftq        A, B start at what rounding loses                      rounded to NF4
    full         the linear maps themselves train                       float32

All get the same steps, batch, letters and clipping; all but vera and full end with about the same
number of values that train: rank * (in + out) for each map. alpha is twice the rank, for rslora
too. AdaLoRA's loss in a row is that of the task; the penalty on P and Q pulls beside it.

A run's row with seed 0 also says where the update went: `moved`, by projection and layer, the norm
of the change of the applied weight over that of W; and for adalora `ranks`, triplets that stayed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from labkit import adalora, dora, lora, nf4, variants
from labkit.history import Step
from labkit.linears import dense
from labkit.loss import causal_loss
from labkit.sweep.dora import applied
from labkit.sweep.frame import Row, Spec, linear_maps_train, loaded

SCALE = 2.0  # alpha / rank, of all but rslora
CASES = ((16, 8), (2, 8), (16, 20))  # rank and steps: all are too few to be sure of the task
ON_FLOAT = ("lora", "dora", "rslora", "lora_plus", "pissa", "olora", "adalora", "vera")
ON_NF4 = ("qlora", "loftq")
METHODS = (*ON_FLOAT, *ON_NF4, "full")
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
FEW = 20  # below so many steps the best rate is twice as high
SHIFT = {  # of RATES, by method: where the best one lies for a map of this size
    "full": 0.1,
    "lora_plus": 0.25,
    "pissa": 0.5,
    "olora": 0.5,
    "adalora": 4,
    "vera": 16,
}
RATIO = 16.0  # of LoRA+
WIDER = 1.5  # AdaLoRA's ranks at the start, over those at the end
PENALTY = 0.5  # on P and Q of AdaLoRA, as in PEFT
EDGES = 0.2  # shares of AdaLoRA's steps before the first and after the last pruning
VERA_RANK = 256
ALTERNATIONS = 5  # of LoftQ


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, nargs="*", help="only cases with these steps")
    parser.add_argument("--rank", type=int, nargs="*", help="only cases with these ranks")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))


def groups(options: argparse.Namespace) -> list[Spec]:
    """Every method in every case; those without a rank once for each number of steps."""
    found = []
    for rank, steps in CASES:
        if (options.steps and steps not in options.steps) or (
            options.rank and rank not in options.rank
        ):
            continue
        found += [group(method, rank, steps) for method in options.methods]
    return list(dict.fromkeys(found))


def group(method: str, rank: int, steps: int) -> Spec:
    """The group of a method in a case; its base is named by the values it holds.

    Raises:
        ValueError: if there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is none of {', '.join(METHODS)}")
    plain = Spec("variants", method, steps)
    if method == "full":
        return plain
    if method == "vera":
        return replace(plain, rank=VERA_RANK)
    alpha = SCALE * rank
    scale = alpha / rank**0.5 if method == "rslora" else SCALE
    base = "nf4 values" if method in ON_NF4 else "float32"
    return replace(plain, rank=rank, alpha=alpha, scale=scale, base=base)


def rates(spec: Spec) -> Sequence[float]:
    """Six rates, a factor of two apart, around where the method's best one was found."""
    factor = SHIFT.get(spec.method, 1) * (2 if spec.steps < FEW else 1)
    if spec.method == "rslora":
        factor *= SCALE / spec.scale  # a larger scale wants a smaller rate
    return [float(f"{factor * rate:.6g}") for rate in RATES]


def rounded(W: Tensor) -> Tensor:
    """W as NF4 with double quantisation stores it, in float32."""
    return nf4.dequantize(nf4.quantize(W.float(), double=True), torch.float32)


def adapt(model: nn.Module, spec: Spec) -> nn.Module:
    """The model with what trains. One whose base is rounded holds the values, not the codes."""
    rank, alpha = spec.rank, spec.alpha
    if spec.method == "full":
        return linear_maps_train(model)
    if spec.method == "vera":
        return variants.share(model, rank=rank, seed=spec.seed)
    if spec.method == "adalora":
        wide = round(WIDER * rank)
        return adalora.inject_svd(model, rank=wide, alpha=spec.scale * wide)
    if spec.method == "dora":
        return dora.inject_dora(model, "all-linear", rank, alpha)
    lora.inject(model, "all-linear", rank, alpha)
    for layer in lora.adapted(model).values():
        START[spec.method](layer)
    return model


def _only_rounded(layer: lora.LoRALinear) -> None:
    with torch.no_grad():
        layer.base.weight.copy_(rounded(layer.base.weight))


START = {
    "lora": lambda layer: layer,
    "lora_plus": lambda layer: layer,
    "rslora": variants.rslora,
    "pissa": variants.pissa,
    "olora": variants.olora,
    "qlora": _only_rounded,
    "loftq": lambda layer: variants.loftq(layer, rounded, ALTERNATIONS),
}


def fitting(model: nn.Module, spec: Spec) -> dict[str, Any]:
    """What `train.fit` is told besides the settings: LoRA+'s groups, AdaLoRA's penalty."""
    if spec.method == "lora_plus":
        return {"groups": variants.lora_plus(model, spec.lr, RATIO)}
    if spec.method != "adalora":
        return {}
    layers = list(adalora.triplets(model).values())

    def penalised(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        far = PENALTY * adalora.orthogonality(layers)
        return causal_loss(model, batch) + far - far.detach()  # it pulls, and is not counted

    return {"loss": penalised}


def schedule(layers: int, spec: Spec) -> adalora.Schedule:
    """From WIDER times the rank down to the rank, on the mean over the layers."""
    edge = max(1, round(EDGES * spec.steps))
    start, target = layers * round(WIDER * spec.rank), layers * spec.rank
    return adalora.Schedule(start, target, spec.steps, warmup=edge, final=edge)


class Observer:
    """Prunes where the method does, and says in the end where the update went."""

    def __init__(self, model: nn.Module, spec: Spec) -> None:
        self.spec, self.maps, self.pruner = spec, lora.linear_maps(model), None
        if spec.method == "adalora":
            self.pruner = adalora.Pruner(model, schedule(len(self.maps), spec))

    def __call__(self, step: Step) -> None:
        if self.pruner:
            self.pruner.after_step(step.number)

    def result(self) -> Row:
        if self.spec.seed != 0:
            return {}
        row: Row = {"moved": by_projection(self.maps, self._moved())}
        if self.pruner:
            row["ranks"] = by_projection(self.maps, self.pruner.ranks())
        return row

    @torch.no_grad()
    def _moved(self) -> list[float]:
        """|W' - W| / |W| for each map, against the model as it was before it was adapted."""
        before = plain_weights()
        far = [(applied(m) - before[n]).norm() / before[n].norm() for n, m in self.maps.items()]
        return [float(f"{share:.3g}") for share in far]


def plain_weights() -> dict[str, Tensor]:
    """The weights of tiny, before any method changes them."""
    return weights_of(loaded("float32").model)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: dense(m).detach() for name, m in lora.linear_maps(model).items()}


def by_projection(names: Sequence[str], values: Sequence[Any]) -> dict[str, list[Any]]:
    """The values of all maps by projection, layer after layer."""
    found: dict[str, list[Any]] = {}
    for name, value in zip(names, values, strict=True):
        found.setdefault(name.rpartition(".")[2], []).append(value)
    return found


def observer(model: nn.Module, spec: Spec) -> Observer:
    return Observer(model, spec)
