"""Each variant against PEFT's, and what each changes and leaves alone."""

import copy
import math

import peft
import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from peft.utils.loftq_utils import _low_rank_decomposition
from torch import nn
from torch.nn import functional as F

from labkit import variants
from labkit.linears import dense
from labkit.lora import adapted, inject

RANK, ALPHA = 3, 12.0


class Net(nn.Module):
    """Two maps of different shapes with something between them."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(10, 14), nn.Linear(14, 6, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def ours(change, seed=0):
    model = inject(net(seed), ["up", "down"], RANK, ALPHA)
    for layer in adapted(model).values():
        change(layer)
    return model


def theirs(seed=0, **config):
    return peft.get_peft_model(
        net(seed),
        peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["up", "down"], **config),
    )


def pairs(model, other):
    """Our layers beside PEFT's."""
    for name, layer in adapted(model).items():
        yield layer, other.base_model.model.get_submodule(name)


def as_peft(model, other):
    """Copy PEFT's A, B and base weight out into ours, so that both start alike."""
    with torch.no_grad():
        for mine, its in pairs(model, other):
            mine.A.copy_(its.lora_A["default"].weight)
            mine.B.copy_(its.lora_B["default"].weight)
            mine.base.weight.copy_(its.base_layer.weight)


def trained(model, steps=5, optimizer=None):
    """The losses of a few steps on a fixed batch."""
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 10, generator=draw), torch.randn(8, 6, generator=draw)
    optimizer = optimizer or torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], 0.05
    )
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_losses(model, other, **optimizers):
    mine = trained(model, optimizer=optimizers.get("mine"))
    assert mine[-1] < mine[0]
    assert mine == pytest.approx(trained(other, optimizer=optimizers.get("its")), rel=1e-4)


# rsLoRA


def test_rslora_divides_by_the_root_of_the_rank_and_trains_as_pefts():
    model, other = ours(variants.rslora), theirs(use_rslora=True)
    for mine, its in pairs(model, other):
        assert mine.scale == pytest.approx(ALPHA / math.sqrt(RANK))
        assert mine.scale == pytest.approx(its.scaling["default"])
    as_peft(model, other)
    same_losses(model, other)


def test_the_update_of_rslora_keeps_its_size_over_ranks_where_the_plain_one_shrinks():
    def size(change, rank):
        torch.manual_seed(0)
        layer = change(next(iter(adapted(inject(net(), ["up"], rank, ALPHA)).values())))
        nn.init.normal_(layer.B)
        return float(torch.linalg.matrix_norm(layer.delta().detach()))

    def many(change, rank):
        return sum(size(change, rank) for _ in range(3))

    assert many(variants.rslora, 64) / many(variants.rslora, 4) == pytest.approx(1, rel=0.3)
    assert many(lambda layer: layer, 64) / many(lambda layer: layer, 4) == pytest.approx(
        0.25, rel=0.3
    )


# LoRA+


def test_lora_plus_gives_the_higher_rate_to_b_as_peft_does():
    model, other = ours(lambda layer: layer), theirs()
    as_peft(model, other)
    mine = torch.optim.AdamW(variants.lora_plus(model, lr=0.01, ratio=8.0), weight_decay=0.0)
    assert [group["lr"] for group in mine.param_groups] == [0.01, 0.08]
    assert all(p.shape[0] == RANK for p in mine.param_groups[0]["params"])
    assert all(p.shape[1] == RANK for p in mine.param_groups[1]["params"])
    its = create_loraplus_optimizer(other, torch.optim.AdamW, lr=0.01, loraplus_lr_ratio=8.0)
    same_losses(model, other, mine=mine, its=its)


def test_a_higher_rate_for_a_is_refused_and_so_is_a_model_without_adapters():
    with pytest.raises(ValueError, match=r"ratio=0\.25 must be at least 1: .* rate is B's"):
        variants.lora_plus(ours(lambda layer: layer), 0.01, 0.25)
    with pytest.raises(ValueError, match="no adapter"):
        variants.lora_plus(net(), 0.01)


# Starts that change the base

STARTS = {
    "pissa": (variants.pissa, {"init_lora_weights": "pissa"}),
    "olora": (variants.olora, {"init_lora_weights": "olora"}),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_from_the_weight_equals_pefts_and_trains_like_it(name):
    change, config = STARTS[name]
    model, other = ours(change), theirs(**config)
    for mine, its in pairs(model, other):
        torch.testing.assert_close(
            mine.delta(), its.get_delta_weight("default"), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(mine.base.weight, its.base_layer.weight, rtol=1e-4, atol=1e-5)
        for one, two in (
            (mine.A, its.lora_A),
            (mine.B, its.lora_B),
        ):  # up to the sign of a direction
            torch.testing.assert_close(one.abs(), two["default"].weight.abs(), rtol=1e-3, atol=1e-4)
    same_losses(model, other)


@pytest.mark.parametrize("name", STARTS)
def test_a_start_from_the_weight_leaves_what_the_layer_computes(name):
    x = torch.randn(5, 10)
    torch.testing.assert_close(ours(STARTS[name][0])(x), net()(x))


def test_pissa_takes_the_strongest_directions_out_of_the_base():
    layer = adapted(ours(variants.pissa))["up"]
    values = torch.linalg.svdvals(net().up.weight)
    torch.testing.assert_close(torch.linalg.svdvals(layer.delta())[:RANK], values[:RANK])
    torch.testing.assert_close(torch.linalg.svdvals(layer.base.weight)[: 10 - RANK], values[RANK:])


def test_olora_starts_b_with_orthonormal_columns():
    layer = adapted(ours(variants.olora))["down"]
    torch.testing.assert_close(layer.B.T @ layer.B, torch.eye(RANK))


# LoftQ


def tenths(weight):
    """A coarse rounding that any test can follow."""
    return (weight * 10).round() / 10


@pytest.mark.parametrize("steps", [1, 4])
def test_loftq_is_pefts_alternation(steps):
    """PEFT's own function runs on a GPU alone; its decomposition does the work here."""
    layer = adapted(ours(lambda layer: variants.loftq(layer, tenths, steps)))["up"]
    W = net().up.weight.detach()
    low = torch.zeros_like(W)
    for _ in range(steps):
        Q = tenths(W - low)
        found = _low_rank_decomposition(W - Q, reduced_rank=RANK)
        low = found["L"] @ found["R"]
    torch.testing.assert_close(layer.base.weight, Q)
    torch.testing.assert_close(layer.delta(), low, rtol=1e-4, atol=1e-5)


def test_loftq_starts_nearer_to_the_weight_than_rounding_alone():
    W = net().up.weight.detach()
    far = [torch.linalg.matrix_norm(W - tenths(W))]
    for steps in (1, 8):
        layer = adapted(ours(lambda layer, n=steps: variants.loftq(layer, tenths, n)))["up"]
        far.append(torch.linalg.matrix_norm(W - layer.base.weight - layer.delta()))
    assert far[1] < far[0] and far[2] < far[0]


def test_the_base_of_loftq_is_what_its_rounding_gives_and_rounding_it_again_changes_nothing():
    layer = adapted(ours(lambda layer: variants.loftq(layer, tenths)))["down"]
    torch.testing.assert_close(tenths(layer.base.weight), layer.base.weight.detach())


def test_no_alternation_is_refused():
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        ours(lambda layer: variants.loftq(layer, tenths, 0))


@pytest.mark.parametrize(
    "change", [variants.pissa, variants.olora, lambda layer: variants.loftq(layer, tenths)]
)
def test_a_base_that_is_coded_already_is_refused(change):
    class Coded(nn.Module):
        in_features, out_features = 10, 14

        def __init__(self):
            super().__init__()
            self.codes = nn.Buffer(torch.zeros(3, dtype=torch.uint8))

        def dense(self):
            return torch.ones(14, 10)

    from labkit.lora import LoRALinear

    with pytest.raises(TypeError, match="the base is a Coded: start on the plain weight"):
        change(LoRALinear(Coded(), RANK, ALPHA))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_base_keeps_its_dtype(dtype):
    model = inject(net().to(dtype), ["up"], RANK, ALPHA)
    layer = variants.pissa(adapted(model)["up"])
    assert layer.base.weight.dtype is dtype
    before = net().up.weight
    far = torch.linalg.matrix_norm(dense(layer.base).float() + layer.delta().float() - before)
    assert far < 0.01 * torch.linalg.matrix_norm(before)


# VeRA


def vera(rank=5):
    return variants.share(net(), ["up", "down"], rank, seed=7)


def their_vera(rank=5):
    config = peft.VeraConfig(r=rank, target_modules=["up", "down"], projection_prng_key=7)
    return peft.get_peft_model(net(), config)


def test_vera_draws_pefts_pair_starts_as_the_base_and_trains_like_pefts():
    model, other = vera(), their_vera()
    x = torch.randn(4, 10)
    torch.testing.assert_close(model(x), net()(x))
    torch.testing.assert_close(model.up.A, other.base_model.vera_A["default"])
    torch.testing.assert_close(model.up.B, other.base_model.vera_B["default"])
    same_losses(model, other)
    torch.testing.assert_close(
        model.up.delta(),
        other.base_model.model.up.get_delta_weight("default"),
        rtol=1e-4,
        atol=1e-6,
    )


def test_vera_trains_two_vectors_a_layer_and_holds_one_pair():
    model = vera()
    trains = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    assert trains == {"up.d": 5, "up.b": 14, "down.d": 5, "down.b": 6}
    assert model.up.A is model.down.A and model.up.B is model.down.B
    assert "up.A" not in model.state_dict()


def test_the_delta_of_vera_is_what_its_forward_adds():
    model = vera()
    nn.init.normal_(model.down.b)
    x = torch.randn(3, 14)
    torch.testing.assert_close(model.down(x) - model.down.base(x), x @ model.down.delta().T)


def test_vera_of_no_rank_is_refused():
    with pytest.raises(ValueError, match="rank=0 must be at least 1"):
        vera(0)


def test_a_variant_changes_nothing_but_its_own_layers():
    before = copy.deepcopy(net().state_dict())
    model = ours(variants.rslora)
    for name in ("up", "down"):
        assert torch.equal(model.get_submodule(name).base.weight, before[f"{name}.weight"])


def test_an_update_of_two_factors_from_the_weight_is_the_nearest_and_gives_it_back():
    from labkit.lowrank import nearest

    W = net().up.weight.detach()
    A, B, rest = variants.principal(W, RANK, 4.0)
    torch.testing.assert_close(4.0 * B @ A, nearest(W, RANK))
    torch.testing.assert_close(4.0 * B @ A + rest, W)
    torch.testing.assert_close(A.norm(dim=1), B.norm(dim=0))
