"""A variant beside PEFT's: one base twice, the same start, the same batch, the same steps.

    lora_pair(base, change, ...)            LoRA, each of our layers changed by `change`
    adalora_pair, vera_pair                 the kinds that have layers of their own
    pair.steps(batch)                       the losses of both, which must agree
    pair.apart()                            how far the updates and the bases lie apart

Where the start is drawn at random, ours takes PEFT's numbers; where it is worked out from the
weight, each works it out for itself, and `apart` compares them.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit import adalora, variants
from labkit.lora import LoRALinear, adapted, inject
from labkit.loss import causal_loss

RANK, ALPHA = 4, 12.0  # alpha is no rank and no twice the rank: a forgotten scale shows
RATE = 0.004
TARGETS = ("q_proj", "down_proj")  # a square map, and one whose sides differ
TOLERANCE = 2e-4  # of the losses, relative: two orders of summation, a few steps on

Batch = dict[str, Tensor]
Groups = Sequence[Mapping[str, Any]]


def losses(
    model: nn.Module, batch: Batch, steps: int = 3, groups: Groups | None = None
) -> list[float]:
    """The loss before each of a few steps of AdamW at RATE on one batch; trains `model`.

    Args:
        groups: parameter groups with rates of their own; None: all that trains, at RATE.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(groups or trained, lr=RATE, weight_decay=0.0)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = causal_loss(model, batch)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@dataclass(frozen=True)
class Pair:
    """One base under our layers, and under PEFT's."""

    ours: nn.Module
    theirs: nn.Module

    def layers(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """Our layers beside PEFT's, by name."""
        inside = self.theirs.base_model.model
        return {name: (m, inside.get_submodule(name)) for name, m in adapted(self.ours).items()}

    def apart(self) -> tuple[float, float]:
        """The largest difference of the updates, and of the frozen weights beside them."""
        update, rest = 0.0, 0.0
        for mine, its in self.layers().values():
            far = (mine.delta() - its.get_delta_weight("default")).abs().max().item()
            update = max(update, far)
            far = (mine.base.weight - its.base_layer.weight).abs().max().item()
            rest = max(rest, far)
        return update, rest

    def steps(
        self, batch: Batch, steps: int = 3, groups: tuple[Groups, Groups] | None = None
    ) -> tuple[str, str]:
        """The losses of our steps and of PEFT's, in words; trains both.

        Args:
            groups: the optimizer's parameter groups, ours and PEFT's.

        Raises:
            AssertionError: if they differ by more than TOLERANCE.
        """
        mine, its = groups or (None, None)
        found = losses(self.ours, batch, steps, mine), losses(self.theirs, batch, steps, its)
        torch.testing.assert_close(*found, rtol=TOLERANCE, atol=TOLERANCE)
        return tuple(" ".join(f"{loss:.4f}" for loss in run) for run in found)


def lora_pair(
    base: nn.Module,
    change: Callable[[LoRALinear], object] | None = None,
    targets: Sequence[str] = TARGETS,
    **more: Any,  # noqa: ANN401
) -> Pair:
    """LoRA on two copies of `base`, at RANK and ALPHA.

    Args:
        change: makes each of our layers a variant, in place.
        more: fields of PEFT's LoraConfig, which make its layers the same.
    """
    import peft

    ours = inject(copy.deepcopy(base), targets, RANK, ALPHA)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(targets), **more)
    pair = Pair(ours, peft.get_peft_model(copy.deepcopy(base), config))
    for mine, its in pair.layers().values():
        if not its.lora_B["default"].weight.any():  # a random start
            mine.A.data.copy_(its.lora_A["default"].weight)
        if change:
            change(mine)
    return pair


def adalora_pair(base: nn.Module, targets: Sequence[str] = TARGETS, **plan: Any) -> Pair:  # noqa: ANN401
    """AdaLoRA on two copies of `base`, from the same P and Q.

    Args:
        plan: fields of PEFT's AdaLoraConfig; `init_r` is the rank at the start.
    """
    import peft

    config = peft.AdaLoraConfig(lora_alpha=ALPHA, target_modules=list(targets), **plan)
    rank = config.init_r
    ours = adalora.inject_svd(copy.deepcopy(base), targets, rank, ALPHA)
    pair = Pair(ours, peft.get_peft_model(copy.deepcopy(base), config))
    for mine, its in pair.layers().values():
        mine.Q.data.copy_(its.lora_A["default"])
        mine.P.data.copy_(its.lora_B["default"])
    return pair


def vera_pair(base: nn.Module, rank: int, seed: int, targets: Sequence[str] = TARGETS) -> Pair:
    """VeRA on two copies of `base`; each draws its frozen pair from `seed`."""
    import peft

    config = peft.VeraConfig(r=rank, target_modules=list(targets), projection_prng_key=seed)
    ours = variants.share(copy.deepcopy(base), targets, rank, seed)
    return Pair(ours, peft.get_peft_model(copy.deepcopy(base), config))


def pruned(pair: Pair, pruner: adalora.Pruner, batch: Batch, rate: float = 0.02) -> list[int]:
    """Train an `adalora_pair` side by side over the pruner's schedule.

    Returns how many triplets are in use after each step, in ours and in PEFT's alike.

    Raises:
        AssertionError: if a loss differs by more than TOLERANCE, or other triplets are in use.
    """
    both = (pair.ours, pair.theirs)
    optimizers = [
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], rate) for m in both
    ]
    stay = []
    for step in range(1, pruner.schedule.steps + 1):
        found = []
        for model, optimizer in zip(both, optimizers, strict=True):
            optimizer.zero_grad()
            loss = causal_loss(model, batch)
            loss.backward()
            optimizer.step()
            found.append(loss.detach())
        torch.testing.assert_close(*found, rtol=TOLERANCE, atol=TOLERANCE)
        pruner.after_step(step)
        pair.theirs.base_model.update_and_allocate(step)
        for mine, its in pair.layers().values():
            assert torch.equal(mine.e != 0, its.lora_E["default"].flatten() != 0), step
        stay.append(sum(pruner.ranks()))
    return stay
