"""LoRA on parts of a fused matrix: equal to one layer for each part, and to the dense formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from labkit.fused import FusedLoRALinear
from labkit.lora import LoRALinear, merge, merged

PARTS = {"q": 12, "k": 4, "v": 4}  # grouped queries: unequal parts
IN, RANK, ALPHA = 10, 3, 7.0


def fused(dtype=torch.float32, bias=True, dropout=0.0, adapt=("q", "v")):
    torch.manual_seed(0)
    base = nn.Linear(IN, sum(PARTS.values()), bias=bias, dtype=dtype)
    layer = FusedLoRALinear(base, PARTS, adapt, RANK, ALPHA, dropout)
    for B in layer.B.values():
        nn.init.normal_(B)
    return layer


def rows(name):
    start = list(PARTS).index(name)
    begin = sum(list(PARTS.values())[:start])
    return slice(begin, begin + PARTS[name])


def alone(layer, name):
    """A LoRALinear on the rows of one part, with that part's factors."""
    base = nn.Linear(IN, PARTS[name], dtype=layer.base.weight.dtype)
    with torch.no_grad():
        base.weight.copy_(layer.base.weight[rows(name)])
        base.bias.copy_(layer.base.bias[rows(name)])
        single = LoRALinear(base, RANK, ALPHA)
        place = layer.adapt.index(name) * RANK
        single.A.copy_(layer.A[place : place + RANK])
        single.B.copy_(layer.B[name])
    return single


@pytest.mark.parametrize("adapt", [("q", "v"), ("k",), ("v", "q")])
def test_each_adapted_part_is_a_lora_layer_of_its_own(adapt):
    layer = fused(adapt=adapt)
    x = torch.randn(2, 5, IN)
    for name in adapt:
        torch.testing.assert_close(layer(x)[..., rows(name)], alone(layer, name)(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_other_part_keeps_the_base_bit_for_bit(dtype):
    layer, x = fused(dtype), torch.randn(2, 5, IN, dtype=dtype)
    assert torch.equal(layer(x)[..., rows("k")], layer.base(x)[..., rows("k")])
    assert not torch.equal(layer(x), layer.base(x))
    assert not layer.delta()[rows("k")].any()


@pytest.mark.parametrize("bias", [True, False])
def test_the_dense_formula_and_the_merged_map_agree(bias):
    layer, x = fused(bias=bias), torch.randn(2, 5, IN)
    wanted = F.linear(x, layer.base.weight + layer.delta(), layer.base.bias)
    torch.testing.assert_close(layer(x), wanted)
    torch.testing.assert_close(merged(layer)(x), wanted)
    torch.testing.assert_close(merge(nn.Sequential(layer))(x), wanted)


def test_it_starts_as_its_base_and_only_the_factors_train():
    base = nn.Linear(IN, sum(PARTS.values()))
    layer = FusedLoRALinear(base, PARTS, ["q", "v"], RANK, ALPHA)
    x = torch.randn(7, IN)
    assert torch.equal(layer(x), base(x))
    layer(x).sum().backward()
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trained == {"A", "B.q", "B.v"}
    assert layer.A.shape == (2 * RANK, IN)
    assert not layer.A.grad.any()  # B = 0 lets nothing through at the first step
    assert all(B.grad.any() for B in layer.B.values())


def test_dropout_is_for_the_update_in_training_alone():
    layer, x = fused(dropout=0.5), torch.randn(50, IN)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer(x)[..., rows("k")], layer.base(x)[..., rows("k")])
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize(
    ("parts", "adapt", "rank", "message"),
    [
        ({"q": 12, "k": 4}, ["q"], 2, r"the parts .* have 16 rows, the base puts out 20"),
        (PARTS, ["q", "o"], 2, r"adapt=\['q', 'o'\] must name one or more of \['q', 'k', 'v'\]"),
        (PARTS, [], 2, r"adapt=\[\] must name one or more"),
        (PARTS, ["q"], 0, "rank=0 must be at least 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, adapt, rank, message):
    with pytest.raises(ValueError, match=message):
        FusedLoRALinear(nn.Linear(IN, 20), parts, adapt, rank, ALPHA)
