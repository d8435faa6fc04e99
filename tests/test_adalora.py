"""Pruning while it trains, beside PEFT's."""

from types import SimpleNamespace

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from labkit.adalora import Pruner, Schedule, SVDLinear, inject_svd, orthogonality, triplets, weakest

RANK, ALPHA, STEPS = 6, 15.0, 20
PLAN = {"warmup": 3, "final": 4, "every": 2}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(10, 14), nn.Linear(14, 6)

    def forward(self, x, y):
        out = self.down(torch.tanh(self.up(x)))
        return SimpleNamespace(loss=F.mse_loss(out, y), out=out)


def net():
    torch.manual_seed(0)
    return Net()


def both(penalty=0.0):
    config = peft.AdaLoraConfig(
        init_r=RANK, target_r=2, lora_alpha=ALPHA, target_modules=["up", "down"], total_step=STEPS,
        tinit=PLAN["warmup"], tfinal=PLAN["final"], deltaT=PLAN["every"], orth_reg_weight=penalty,
    )  # fmt: skip
    other = peft.get_peft_model(net(), config)
    model = inject_svd(net(), ["up", "down"], RANK, ALPHA)
    with torch.no_grad():
        for name, layer in triplets(model).items():
            its = other.base_model.model.get_submodule(name)
            layer.Q.copy_(its.lora_A["default"])
            layer.P.copy_(its.lora_B["default"])
    return model, other


def batch(step):
    draw = torch.Generator().manual_seed(step)
    return torch.randn(16, 10, generator=draw), torch.randn(16, 6, generator=draw)


def test_a_fresh_layer_equals_its_base_and_a_moved_one_the_dense_formula():
    torch.manual_seed(0)
    base, x = nn.Linear(5, 3), torch.randn(7, 5)
    layer = SVDLinear(base, rank=2, alpha=6.0)
    assert torch.equal(layer(x), base(x))
    nn.init.normal_(layer.e)
    want = base.weight + 3.0 * layer.P @ torch.diag(layer.e) @ layer.Q
    torch.testing.assert_close(layer(x), x @ want.T + base.bias)
    torch.testing.assert_close(base.weight + layer.delta(), want)
    trains = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trains == {"P", "e", "Q"}


def test_it_trains_and_prunes_step_by_step_as_peft_does():
    model, other = both()
    optimizers = [
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], 0.03)
        for m in (model, other)
    ]
    pruner = Pruner(model, Schedule(start=2 * RANK, target=4, steps=STEPS, **PLAN))
    ranks = []
    for step in range(1, STEPS + 1):
        losses = []
        for m, optimizer in zip((model, other), optimizers, strict=True):
            optimizer.zero_grad()
            loss = m(*batch(step)).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        pruner.after_step(step)
        other.base_model.update_and_allocate(step)
        for name, layer in triplets(model).items():
            its = other.base_model.model.get_submodule(name).lora_E["default"].flatten()
            assert torch.equal(layer.e == 0, its == 0), step
        ranks.append(sum(pruner.ranks()))
    assert ranks[0] == 2 * RANK and ranks[-1] == 4
    assert sorted(set(ranks), reverse=True) != [12, 4]  # it falls in between, not at once


def test_a_triplet_that_was_switched_off_last_stays_off():
    model, _ = both()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.03)
    pruner = Pruner(model, Schedule(start=2 * RANK, target=4, steps=STEPS, **PLAN))
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        model(*batch(step)).loss.backward()
        optimizer.step()
        pruner.after_step(step)
        if step == STEPS - PLAN["final"]:
            off = [layer.e == 0 for layer in triplets(model).values()]
    assert all(
        torch.equal(layer.e == 0, o) for layer, o in zip(triplets(model).values(), off, strict=True)
    )


def test_the_penalty_is_pefts_and_zero_for_orthonormal_factors():
    penalty = 0.5
    model, other = both(penalty)
    x, y = batch(0)
    layers = list(triplets(model).values())
    want = model(x, y).loss + penalty * orthogonality(layers)
    torch.testing.assert_close(want, other.base_model(x, y).loss)
    for layer in layers:
        nn.init.orthogonal_(layer.P)
        nn.init.orthogonal_(layer.Q)
    assert orthogonality(layers).item() == pytest.approx(0, abs=1e-5)


def test_the_budget_falls_as_a_cube_between_the_phases():
    plan = Schedule(start=100, target=20, steps=50, warmup=10, final=20)
    assert [plan.budget(step) for step in (1, 10, 20, 30, 50)] == [100, 100, 20 + 80 // 8, 20, 20]
    assert [plan.prunes(step) for step in (10, 11, 29, 30, 31)] == [False, True, True, True, False]


def test_a_plan_without_a_step_to_prune_in_is_refused_as_peft_refuses_it():
    with pytest.raises(ValueError, match="leave none of 10 steps to prune in"):
        Schedule(start=8, target=4, steps=10, warmup=2, final=8)
    with pytest.raises(ValueError, match="budgeting phase"):
        peft.AdaLoraConfig(total_step=1000, tinit=200, tfinal=1000)
    with pytest.raises(ValueError, match="total_step"):
        peft.AdaLoraConfig()


@pytest.mark.parametrize("target", [0, 8, 9])
def test_a_target_that_prunes_nothing_or_all_is_refused(target):
    with pytest.raises(ValueError, match=f"target={target} must lie between 0 and start=8"):
        Schedule(start=8, target=target, steps=10, warmup=2, final=2)


def test_the_score_of_a_triplet_counts_its_e_its_column_and_its_row():
    model, _ = both()
    layer = model.down
    pruner = Pruner(model, Schedule(start=2 * RANK, target=4, steps=STEPS, **PLAN), smooth=0.75)
    for p in pruner.mean:
        p.grad = torch.zeros_like(p)
    with torch.no_grad():
        for p in (layer.e, layer.P, layer.Q):
            p.fill_(2.0)
    layer.e.grad[0] = 3.0
    layer.P.grad[4, 1] = 5.0
    layer.Q.grad[2, 7] = 7.0
    pruner.watch()

    def once(now):  # the first smoothed sensitivity times how far the value lies from it, smoothed
        return 0.25 * now * (0.25 * (now - 0.25 * now))

    want = torch.zeros(RANK)
    want[0] = once(6.0)
    want[1] = once(10.0) / 6
    want[2] = once(14.0) / 14
    torch.testing.assert_close(pruner.scores(layer), want)


def test_the_weakest_are_chosen_over_all_layers_together():
    scores = [torch.tensor([9.0, 1.0, 8.0]), torch.tensor([2.0, 3.0])]
    off = weakest(scores, budget=2)
    assert [mask.tolist() for mask in off] == [[False, True, False], [True, True]]
    assert not any(mask.any() for mask in weakest(scores, budget=5))
