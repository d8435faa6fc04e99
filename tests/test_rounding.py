"""A model whose weights are rounded, and what it says then."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from labkit import codes, data, models, rounding
from labkit.blocks import rounded


@pytest.fixture(scope="module")
def tiny():
    return models.load("tiny", quantize=None, dtype=torch.float32)


def test_every_linear_map_but_the_head_is_rounded(tiny):
    model = copy.deepcopy(tiny.model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert rounding.round_linears(model, codes.fp4(), 128) is model
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if name.endswith("proj.weight")}
    assert len(changed) == 7 * model.config.num_hidden_layers
    for name in changed:
        want = rounded(before[name], codes.fp4(), 128)
        assert torch.equal(model.get_parameter(name), want)


def test_after_a_while_in_a_code_the_weights_are_back_also_after_an_error(tiny):
    before = copy.deepcopy(tiny.model.state_dict())
    with rounding.in_code(tiny.model, codes.int4(), 64) as model:
        assert model is tiny.model
        layer = "model.layers.0.mlp.up_proj.weight"
        assert not torch.equal(model.state_dict()[layer], before[layer])
    with pytest.raises(KeyError), rounding.in_code(tiny.model, codes.int4(), 64):
        raise KeyError
    assert all(torch.equal(before[n], v) for n, v in tiny.model.state_dict().items())


def test_perplexity_is_that_of_all_tokens_one_chat_at_a_time(tiny):
    examples = data.examples("regression")[:5]
    total, tokens = 0.0, 0
    for example in examples:
        ids = torch.tensor([data.encode(tiny.tokenizer, example).input_ids])
        with torch.no_grad():
            said = tiny.model(ids).logits[0, :-1].log_softmax(-1)
        total -= said.gather(1, ids[0, 1:, None]).sum().item()
        tokens += ids.shape[1] - 1
    found = rounding.perplexity(tiny.model, tiny.tokenizer, examples, batch=3)
    assert found == pytest.approx(math.exp(total / tokens), rel=1e-5)


def test_coarse_blocks_and_coarse_codes_cost_perplexity(tiny):
    examples = data.examples("regression")[::15]

    def cost(code, block):
        with rounding.in_code(tiny.model, code, block) as model:
            return rounding.perplexity(model, tiny.tokenizer, examples)

    plain = rounding.perplexity(tiny.model, tiny.tokenizer, examples)
    whole = 2**30  # one absmax for a matrix
    assert plain * 0.999 < cost(codes.levels(), 64) < cost(codes.levels(), whole)
    assert cost(codes.levels(), whole) < cost(codes.fp4(), whole)


def test_what_cannot_be_rounded_is_refused(tiny):
    with pytest.raises(ValueError, match="ReLU has no linear map"):
        rounding.round_linears(nn.ReLU(), codes.levels())
    packed = models.load("tiny").model
    with pytest.raises(ValueError, match=r"torch.uint8 is rounded already: load it plain"):
        rounding.round_linears(packed, codes.levels())
    with pytest.raises(ValueError, match="no examples"):
        rounding.perplexity(tiny.model, tiny.tokenizer, [])


def test_a_rounded_map_computes_with_the_rounded_weight():
    linear = nn.Linear(64, 8)
    want = rounded(linear.weight, codes.levels(), 32)
    x = torch.randn(3, 64)
    rounding.round_linears(linear, codes.levels(), 32)
    assert torch.equal(linear(x), F.linear(x, want, linear.bias))
