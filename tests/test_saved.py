"""Bytes kept for the backward pass: counted by storage, as shapes foretell, no more than PEFT's."""

import contextlib
import weakref

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from labkit.lora import LoRALinear, inject
from labkit.saved import saved

IN, OUT, RANK, TOKENS = 64, 48, 4, 40
SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "tie_word_embeddings": True,
}  # fmt: skip


def kept(model, *inputs):
    with saved(model) as total:
        held = model(*inputs)
    del held
    return total()


def inputs(dtype=torch.float32):
    return torch.randn(TOKENS, IN, dtype=dtype, requires_grad=True)


def test_a_linear_map_that_trains_keeps_its_input_and_a_frozen_one_nothing():
    layer = nn.Linear(IN, OUT)
    assert kept(layer, inputs()).activations == 4 * TOKENS * IN
    assert kept(layer.requires_grad_(False), inputs()).activations == 0
    assert kept(layer, inputs()).parameters == 4 * IN * OUT  # W, to send the gradient on


def test_a_storage_that_two_maps_keep_counts_once():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(IN, OUT), nn.Linear(IN, OUT)

        def forward(self, x):
            return self.a(x) + self.b(x.view(TOKENS, IN))

    assert kept(Two(), inputs()).activations == 4 * TOKENS * IN


def test_a_freed_tensor_is_not_mistaken_for_the_next_one_at_its_address():
    with saved() as total:
        for _ in range(3):
            inputs().exp()  # keeps its result, which is gone with the graph
    assert total().activations == 3 * 4 * TOKENS * IN


def test_a_graph_that_was_watched_goes_when_its_output_goes():
    class Token:
        pass

    token = Token()
    gone = weakref.ref(token)
    with saved():
        y = inputs().exp()
        y.register_hook(lambda _, token=token: None)
    del token
    assert gone() is not None
    del y
    assert gone() is None


def test_a_watched_pass_gives_the_gradients_of_an_unwatched_one():
    x = inputs()
    layer = LoRALinear(nn.Linear(IN, OUT), RANK, 8.0)
    nn.init.normal_(layer.B)
    found = []
    for watched in (True, False):
        with saved() if watched else contextlib.nullcontext():
            y = layer(x).exp()
        found.append(torch.autograd.grad(y.sum(), [x, layer.A, layer.B]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_count_says_itself_in_mib():
    layer = nn.Linear(IN, OUT)
    wanted = f"{4 * TOKENS * IN / 2**20:.2f} MiB of activations kept for the backward pass"
    assert str(kept(layer, inputs())) == wanted


def test_packed_weights_and_their_constants_are_the_models_own():
    bnb = pytest.importorskip("bitsandbytes")
    base = bnb.nn.Linear4bit(IN, OUT, compress_statistics=True, quant_type="nf4").to("cpu")
    base.support_avx512bf16_for_cpu = False
    assert kept(base.requires_grad_(False), inputs()).activations == 0


@pytest.mark.parametrize(("dtype", "item"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_a_lora_layer_keeps_its_input_once_and_one_thin_product(dtype, item):
    layer = LoRALinear(nn.Linear(IN, OUT, dtype=dtype), RANK, 8.0)
    casts = 0 if dtype is torch.float32 else item * RANK * (IN + OUT)  # A and B in x's dtype
    wanted = item * TOKENS * (IN + RANK) + casts
    assert kept(layer, inputs(dtype)).activations == wanted


def with_peft(module, dropout, bfloat16_adapters=False):
    config = peft.LoraConfig(
        r=RANK, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return peft.get_peft_model(module, config, autocast_adapter_dtype=not bfloat16_adapters)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_model_keeps_no_more_than_with_peft(dtype, dropout, narrow):
    def llama():
        return LlamaForCausalLM(LlamaConfig(**SHAPE)).to(dtype)

    ids = torch.arange(4 * TOKENS).view(4, TOKENS) % 96
    ours = inject(llama(), rank=RANK, alpha=8, dropout=dropout)
    if narrow:
        ours.to(dtype)
    theirs = with_peft(llama(), dropout, narrow)
    got, wanted = kept(ours.train(), ids), kept(theirs.train(), ids)
    assert 0 < got.activations <= wanted.activations
