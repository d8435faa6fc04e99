"""The bytes that training holds, against a model and an optimizer that really hold them."""

import torch
from torch import nn

from labkit.lora import inject
from labkit.sizes import held_bytes


def test_they_are_what_a_model_and_its_optimizer_hold():
    model = nn.Sequential(nn.Linear(24, 16), nn.Linear(16, 8)).bfloat16()
    frozen = sum(p.numel() for p in model.parameters())
    inject(model, "all-linear", rank=3, alpha=6)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained)
    model(torch.randn(5, 24).bfloat16()).float().sum().backward()
    optimizer.step()

    def size(tensors):
        return sum(t.numel() * t.element_size() for t in tensors)

    moments = [state[name] for state in optimizer.state.values()
               for name in ("exp_avg", "exp_avg_sq")]  # fmt: skip
    held = (size(model.parameters()), size(p.grad for p in trained), size(moments))
    assert held == held_bytes(frozen, sum(p.numel() for p in trained))


def test_full_fine_tuning_holds_sixteen_bytes_a_number():
    assert sum(held_bytes(0, 1000)) == 16_000
