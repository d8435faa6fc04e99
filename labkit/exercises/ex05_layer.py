"""The judge of exercise 05.3: does the learner's check tell DoRA from its look-alikes?

The look-alikes are published mistakes. Most are no-ops at the start, as DoRA is, so a check
at B = 0 lets them pass; each needs something of the check's layer: a bias, rank and alpha apart, a
B that has moved.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.dora import DoRALinear
from labkit.lora import LoRALinear


class Layer(nn.Module):
    """DoRA, plainly; its parts are what the look-alikes replace."""

    def __init__(self, lora: LoRALinear) -> None:
        super().__init__()
        self.lora = lora
        self.magnitude = nn.Parameter(self.norms(lora.base.weight.detach()))

    def norms(self, weight: Tensor) -> Tensor:
        return weight.square().sum(1, keepdim=True).sqrt()

    def turned(self) -> Tensor:
        return self.lora.base.weight + self.lora.scale * self.lora.B @ self.lora.A

    def gain(self) -> Tensor:
        return self.magnitude / self.norms(self.turned()).detach()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.gain() * self.turned(), self.lora.base.bias)


class OtherOrder(Layer):
    """Right, and its sums are rounded in another order."""

    def forward(self, x: Tensor) -> Tensor:
        g, base = self.gain().squeeze(1), self.lora.base
        return g * (F.linear(x, base.weight) + self.lora.update(x)) + (
            0 if base.bias is None else base.bias
        )


class TenthTooLarge(Layer):
    def gain(self) -> Tensor:
        return 1.1 * super().gain()


class WrongWay(Layer):
    """Its rows have the right lengths and turn the wrong way."""

    def turned(self) -> Tensor:
        return self.lora.base.weight - self.lora.scale * self.lora.B @ self.lora.A


class WrongAxis(Layer):
    def norms(self, weight: Tensor) -> Tensor:
        return weight.square().sum(0, keepdim=True).sqrt()


class NormOfBase(Layer):
    def gain(self) -> Tensor:
        return self.magnitude / self.norms(self.lora.base.weight)


class NoScale(Layer):
    def gain(self) -> Tensor:
        return self.magnitude / self.norms(self.lora.base.weight + self.lora.B @ self.lora.A)


class NoScaleAtAll(Layer):
    def turned(self) -> Tensor:
        return self.lora.base.weight + self.lora.B @ self.lora.A


class ScaledByAlpha(Layer):
    def turned(self) -> Tensor:
        return self.lora.base.weight + self.lora.alpha * self.lora.B @ self.lora.A


class StretchedBias(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return self.gain().squeeze(1) * (self.lora.base(x) + self.lora.update(x))


class WholeMatrix(Layer):
    def norms(self, weight: Tensor) -> Tensor:
        return weight.norm().reshape(1, 1)


class MagnitudeOfOnes(Layer):
    def __init__(self, lora: LoRALinear) -> None:
        super().__init__(lora)
        nn.init.ones_(self.magnitude)


class FirstOutputOnly(Layer):
    """Rows beyond the first stay LoRA's."""

    def gain(self) -> Tensor:
        gain = super().gain()
        return torch.cat([gain[:1], torch.ones_like(gain[1:])])


RIGHT = {
    "the library's own": DoRALinear,
    "the dense formula": Layer,
    "the formula summed in another order": OtherOrder,
}
LOOK_ALIKES: dict[str, tuple[Callable[[LoRALinear], nn.Module], str]] = {
    "whose outputs are a tenth too large": (TenthTooLarge, "the tolerance is for rounding alone"),
    "whose norm runs over the wrong axis": (WrongAxis, "at B = 0 it equals its base: move B"),
    "that turns its rows the wrong way": (WrongWay, "compare outputs; lengths alone fit it, too"),
    "that divides by the norm of W alone": (NormOfBase, "it is LoRA: move B, compare with DoRA"),
    "whose magnitude begins at one": (MagnitudeOfOnes, "it is no no-op at the start either"),
    "without the scale inside the norm": (NoScale, "choose alpha other than rank"),
    "without any scale": (NoScaleAtAll, "choose alpha other than rank"),
    "scaled by alpha": (ScaledByAlpha, "choose rank at least 2"),
    "that stretches the bias, too": (StretchedBias, "give the base a bias"),
    "with one norm for the whole matrix": (WholeMatrix, "give the base several outputs"),
    "that stretches its first row alone": (FirstOutputOnly, "look at every output"),
}


def judge_is_dora(answer: Callable[[Callable[[LoRALinear], nn.Module]], Any]) -> str | None:
    """right layers pass, and no look-alike does"""
    for name, build in RIGHT.items():
        got = answer(build)
        if got is None:
            return "your code returned None: is a `return` missing?"
        if not isinstance(got, bool):
            return f"return True or False, not {type(got).__name__}"
        if not got:
            return (
                f"it refuses {name}: the same B on both sides, moved after the layer is built? m "
                "the row lengths of W? the bias added? a tolerance for rounding?"
            )
    for name, (build, why) in LOOK_ALIKES.items():
        if answer(build):
            return f"it lets a layer pass {name}: {why}"
    return None
