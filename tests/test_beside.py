"""A pair of models: that it agrees where both are the same variant, and says so where not."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import adalora, beside, lora, variants


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=40,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def batch():
    ids = torch.randint(0, 40, (2, 8), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def test_two_plain_ones_take_the_same_steps_and_leave_the_base_as_it_was(base, batch):
    before = copy.deepcopy(base.state_dict())
    pair = beside.lora_pair(base)
    assert pair.apart() == (0.0, 0.0)
    mine, its = pair.steps(batch)
    assert mine == its
    assert float(mine.split()[-1]) < float(mine.split()[0])
    assert max(pair.apart()) < 1e-4
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert {len(layer.A) for layer in lora.adapted(pair.ours).values()} == {beside.RANK}


def test_a_scale_that_is_forgotten_on_one_side_is_seen(base, batch):
    with pytest.raises(AssertionError):
        beside.lora_pair(base, variants.rslora).steps(batch)
    beside.lora_pair(base, variants.rslora, use_rslora=True).steps(batch)


def test_starts_from_the_weight_are_worked_out_on_both_sides(base):
    same = beside.lora_pair(base, variants.olora, init_lora_weights="olora").apart()
    other = beside.lora_pair(base, variants.pissa, init_lora_weights="olora").apart()
    assert max(same) < 1e-5 < min(other)


def test_rates_of_ones_own_are_used(base, batch):
    model = beside.lora_pair(base).ours
    groups = variants.lora_plus(model, 0.0, 2.0)
    found = beside.losses(model, batch, 3, groups)
    assert found[0] == found[-1]  # a rate of zero moves nothing


def test_both_prune_the_same_triplets_and_another_schedule_is_seen(base, batch):
    plan = {"init_r": 3, "target_r": 1, "total_step": 6, "tinit": 1, "tfinal": 1, "deltaT": 1}
    n = 4  # maps
    pair = beside.adalora_pair(base, **plan)
    schedule = adalora.Schedule(3 * n, n, steps=6, warmup=1, final=1)
    stay = beside.pruned(pair, adalora.Pruner(pair.ours, schedule), batch)
    assert (stay[0], stay[-1]) == (3 * n, n)
    pair = beside.adalora_pair(base, **plan)
    late = adalora.Schedule(3 * n, n, steps=6, warmup=3, final=1)
    with pytest.raises(AssertionError):
        beside.pruned(pair, adalora.Pruner(pair.ours, late), batch)


def test_vera_takes_the_same_steps_from_one_seed_alone(base, batch):
    pair = beside.vera_pair(base, rank=6, seed=5)
    pair.steps(batch)
    other = beside.vera_pair(base, rank=6, seed=6)
    beside.losses(other.theirs, batch)
    moved = max(layer.delta().abs().max().item() for layer, _ in pair.layers().values())
    assert pair.apart()[0] < 1e-3 * moved
    assert beside.Pair(pair.ours, other.theirs).apart()[0] > 0.5 * moved
