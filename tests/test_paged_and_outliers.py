"""Which states page, by bitsandbytes' own word; and what one outlier does to its block."""

import pytest
import torch

from labkit import codes, lora, outliers, paged
from labkit.blocks import block_absmax


@pytest.mark.parametrize(
    ("shape", "in_pages"),
    [((99_999,), False), ((100_000,), True), ((8, 11_008), False), ((16, 11_008), True)],
)
def test_a_state_pages_from_100_000_elements_on(shape, in_pages):
    assert paged.pages(shape) is in_pages


def test_an_optimizer_that_is_not_paged_pages_nothing(monkeypatch):
    import bitsandbytes as bnb

    monkeypatch.setattr(bnb.optim, "PagedAdamW", bnb.optim.AdamW)
    assert not paged.pages((1_000_000,))


@pytest.mark.parametrize(
    ("rank", "largest", "tensors", "share"),
    [(8, 88_064, 0, 0.0), (16, 176_128, 3, 0.42), (64, 704_512, 14, 1.0)],
)
def test_the_states_of_lora_on_llama_2_7b(rank, largest, tensors, share):
    found = paged.lora_states(paged.LLAMA_2_7B, rank)
    assert (found.largest, found.paged, found.tensors) == (largest, tensors, 14)
    assert found.share == pytest.approx(share, abs=0.005)


def test_a_layer_holds_what_lora_counts():
    found = paged.lora_states(paged.LLAMA_2_7B, 64)
    shapes = lora.projections(paged.LLAMA_2_7B).values()
    assert found.largest == 64 * max(max(shape) for shape in shapes)
    assert lora.parameter_count(paged.LLAMA_2_7B, "all-linear", 16) == 39_976_960


def test_an_outlier_comes_back_and_its_neighbours_pay():
    calm, wild = (outliers.with_outlier(size, codes.levels()) for size in (1.0, 10.0))
    assert wild.back[0] == wild.values[0] == 10.0
    assert wild.values[1:] == calm.values[1:] and wild.usual == calm.usual

    def off(found):
        pairs = zip(found.values[1:], found.back[1:], strict=True)
        return (sum((v - b) ** 2 for v, b in pairs) / 63) ** 0.5

    assert off(calm) == pytest.approx(calm.usual)
    assert off(wild) > 3 * wild.usual
    middle = 10 * codes.levels()[6:9]
    assert sum(any(abs(b - m) < 1e-6 for m in middle.tolist()) for b in wild.back[1:]) > 63 / 2


def test_without_an_outlier_the_others_set_the_scale():
    found = outliers.with_outlier(0.0, codes.levels())
    top = block_absmax(torch.tensor(found.values), 64).item()
    assert top == max(map(abs, found.values[1:]))
    assert found.back[0] == 0.0
