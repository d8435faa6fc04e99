"""One weight, whatever stores it."""

import bitsandbytes as bnb
import pytest
import torch
from torch import nn

from labkit.linears import dense


def test_a_plain_map_gives_its_own_weight_and_no_copy():
    linear = nn.Linear(6, 4)
    assert dense(linear) is linear.weight


def test_a_4_bit_map_gives_the_weight_that_its_forward_applies():
    torch.manual_seed(0)
    linear = nn.Linear(128, 96, bias=False)
    packed = bnb.nn.Linear4bit(128, 96, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    packed.load_state_dict(linear.state_dict())
    packed.to("cpu").support_avx512bf16_for_cpu = False
    x = torch.randn(3, 128)
    assert dense(packed).shape == (96, 128)
    assert not torch.equal(dense(packed), linear.weight)
    torch.testing.assert_close(packed(x), x @ dense(packed).T)


def test_a_map_that_decodes_itself_is_asked():
    class Coded(nn.Module):
        def dense(self):
            return torch.full((2, 3), 7.0)

    assert torch.equal(dense(Coded()), torch.full((2, 3), 7.0))


@pytest.mark.parametrize("base", [nn.LayerNorm(5), nn.ReLU(), nn.Conv1d(2, 3, 1)])
def test_anything_else_is_refused_by_name(base):
    with pytest.raises(TypeError, match=f"{type(base).__name__} has no weight of shape"):
        dense(base)
