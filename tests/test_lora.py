"""LoRA beside PEFT: one layer, a whole model, twenty steps; merging, targets, counts."""

import copy
import itertools
import random

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import lora, train
from labkit.data import IGNORE, Encoded
from labkit.fused import FusedLoRALinear
from labkit.linears import dense
from labkit.lora import LoRALinear, adapted, inject, matches, merge, merged, parameter_count
from labkit.train import Settings, fit

IN, OUT, RANK, ALPHA = 24, 18, 3, 7.0  # out != in, alpha != rank
SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "tie_word_embeddings": True,
}  # fmt: skip
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DTYPES = (torch.float32, torch.bfloat16)


def llama(**changes):
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**SHAPE | changes))


def linear(dtype=torch.float32, bias=True):
    torch.manual_seed(0)
    return nn.Linear(IN, OUT, bias=bias, dtype=dtype)


def moved(layer, seed=1):
    """`layer` away from its start, where B = 0 hides most mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (p for name, p in layer.named_parameters() if name.rpartition(".")[2] == "B"):
            p.copy_(torch.randn(p.shape, generator=generator))
    return layer


def with_peft(module, targets, dropout=0.0, rank=RANK, alpha=ALPHA):
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets)
    )
    return peft.get_peft_model(module, config)


def pair(dtype=torch.float32, bias=True, dropout=0.0):
    """Our layer and PEFT's with the same numbers in them, and an input (batch, length, in)."""
    ours = moved(LoRALinear(linear(dtype, bias), RANK, ALPHA, dropout))
    holder = nn.Sequential()
    holder.fc = linear(dtype, bias)
    theirs = with_peft(holder, ["fc"], dropout).base_model.model.fc
    with torch.no_grad():
        theirs.lora_A["default"].weight.copy_(ours.A)
        theirs.lora_B["default"].weight.copy_(ours.B)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, IN, generator=generator).to(dtype)
    return ours, theirs, x


def gradients(layer, x, factors):
    """What `layer` gives for x, and the gradients of x, A and B for one upstream gradient."""
    x = x.clone().requires_grad_(True)
    y = layer(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(4)).to(y.dtype)
    y.backward(upstream)
    return {"y": y.detach(), "x": x.grad} | {n: p.grad for n, p in factors.items()}, upstream


def magnitudes(ours, x, upstream):
    """For each result: the sum of |terms| of the update, and of the base. Rounding scales so."""
    X, Y = (t.detach().double().flatten(0, -2).abs() for t in (x, upstream))
    A, B, W = (t.detach().double().abs() for t in (ours.A, ours.B, dense(ours.base)))
    s, none = ours.scale, torch.zeros(1)
    b = 0 if ours.base.bias is None else ours.base.bias.detach().double().abs()
    return {
        "y": (s * X @ A.T @ B.T, X @ W.T + b),
        "x": (s * Y @ B @ A, Y @ W),
        "A": (s * (Y @ B).T @ X, none),
        "B": (s * Y.T @ (X @ A.T), none),
    }


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_gradients_are_pefts_to_rounding(dtype, bias):
    ours, theirs, x = pair(dtype, bias)
    got, upstream = gradients(ours, x, {"A": ours.A, "B": ours.B})
    factors = {"A": theirs.lora_A["default"].weight, "B": theirs.lora_B["default"].weight}
    wanted, _ = gradients(theirs, x, factors)
    # A sum of n rounded products is off by at most n u of the sum of its |terms|, u = eps / 2, in
    # either library. In bfloat16 the sums run in float32, so what counts is one rounding each of
    # A, B, the thin product, its scaled form and the result.
    u = torch.finfo(dtype).eps / 2
    steps = (IN + OUT + RANK + 10) if dtype is torch.float32 else 6
    for name, (update, base) in magnitudes(ours, x, upstream).items():
        limit = 2 * u * (steps * update + (steps if dtype is torch.float32 else 2) * base)
        error = (got[name].double() - wanted[name].double()).abs().reshape(limit.shape)
        assert got[name].dtype == wanted[name].dtype
        assert (error <= limit).all(), f"{name}: {error.max():.2e}, {limit.min():.2e}"


def test_the_tolerance_is_tight_enough_to_see_a_slip_of_a_tenth():
    ours, theirs, x = pair()
    right = theirs(x)
    ours.scale *= 1.1
    assert (ours(x) - right).abs().max() > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fresh_layer_equals_its_base_bit_for_bit(dtype):
    layer = LoRALinear(linear(dtype), RANK, ALPHA)
    x = torch.randn(2, 5, IN, dtype=dtype)
    assert torch.equal(layer(x), layer.base(x))


def test_the_layer_agrees_with_the_dense_formula_in_float64():
    layer = moved(LoRALinear(linear(torch.float64), RANK, ALPHA))
    x = torch.randn(2, 5, IN, dtype=torch.float64)
    W = layer.base.weight + ALPHA / RANK * torch.einsum("or,ri->oi", layer.B, layer.A)
    torch.testing.assert_close(layer(x), F.linear(x, W, layer.base.bias))
    assert torch.linalg.matrix_rank(layer.delta()) == RANK


def test_only_a_and_b_of_a_layer_receive_gradients():
    layer = moved(LoRALinear(linear(), RANK, ALPHA))
    layer(torch.randn(5, IN)).sum().backward()
    assert {name for name, p in layer.named_parameters() if p.grad is not None} == {"A", "B"}
    assert not layer.base.weight.requires_grad


def test_a_starts_uniform_within_one_over_root_in_and_b_at_zero():
    torch.manual_seed(0)
    A, B = lora.factors(300, 400, 50, torch.empty(0))
    assert (A.shape, B.shape) == ((50, 400), (300, 50))
    assert 0.99 / 20 < A.abs().max() <= 1 / 20
    assert A.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)  # of a uniform law
    assert not B.any()


@pytest.mark.parametrize(
    ("base", "wanted"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
        (torch.uint8, torch.float32),
    ],
)
def test_factors_are_float32_unless_the_base_is_wider_and_lie_where_it_lies(base, wanted):
    for factor in lora.factors(4, 5, 2, torch.empty(3, dtype=base, device="meta")):
        assert (factor.dtype, factor.device.type) == (wanted, "meta")


def test_dropout_is_off_in_evaluation_and_never_touches_the_base_path():
    layer = moved(LoRALinear(linear(), RANK, ALPHA, dropout=0.5))
    x = torch.randn(400, IN)
    exact = layer.eval()(x)
    torch.testing.assert_close(exact, x @ (layer.base.weight + layer.delta()).T + layer.base.bias)
    layer.train()
    nn.init.zeros_(layer.B)
    assert torch.equal(layer(x), layer.base(x))


def test_dropout_draws_the_mask_that_pefts_draws():
    ours, theirs, x = pair(dropout=0.4)
    ours.train(), theirs.train()
    torch.manual_seed(5)
    got = ours(x)
    torch.manual_seed(5)
    wanted = theirs(x)
    assert (got - ours.eval()(x)).abs().max() > 0.1
    torch.testing.assert_close(got, wanted)


@pytest.fixture
def packed():
    """bitsandbytes' Linear4bit (out 64, in 128), on a CPU, in float32."""
    bnb = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    base = bnb.nn.Linear4bit(128, 64, compute_dtype=torch.float32, quant_type="nf4")
    base = base.to("cpu")
    base.support_avx512bf16_for_cpu = False
    return base


def test_over_a_4_bit_map_the_layer_and_its_merged_form_compute_the_decoded_weight(packed):
    layer = moved(LoRALinear(packed, RANK, ALPHA))
    x = torch.randn(5, 128, requires_grad=True)
    wanted = F.linear(x, dense(packed) + layer.delta(), packed.bias)
    torch.testing.assert_close(layer(x), wanted)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, (dense(packed) + layer.delta()).sum(0).expand(5, -1))
    plain = merged(layer)
    assert plain.weight.dtype == torch.float32
    torch.testing.assert_close(plain(x), wanted)


def test_over_a_4_bit_map_forward_and_gradients_are_pefts(packed):
    holder = nn.Sequential()
    holder.fc = packed
    theirs = with_peft(holder, ["fc"]).base_model.model.fc
    ours = moved(LoRALinear(packed, RANK, ALPHA))
    factors = {"A": theirs.lora_A["default"].weight, "B": theirs.lora_B["default"].weight}
    with torch.no_grad():
        factors["A"].copy_(ours.A)
        factors["B"].copy_(ours.B)
    x = torch.randn(2, 5, 128)
    got, _ = gradients(ours, x, {"A": ours.A, "B": ours.B})
    wanted, _ = gradients(theirs, x, factors)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_merging_gives_a_plain_frozen_map_and_leaves_the_layer(bias):
    layer = moved(LoRALinear(linear(bias=bias), RANK, ALPHA))
    x, before = torch.randn(2, 5, IN), copy.deepcopy(layer.state_dict())
    plain = merged(layer)
    assert type(plain) is nn.Linear
    assert (plain.in_features, plain.out_features) == (IN, OUT)
    assert not any(p.requires_grad for p in plain.parameters())
    torch.testing.assert_close(plain(x), layer(x))
    nn.init.zeros_(plain.weight)
    if bias:
        nn.init.zeros_(plain.bias)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_merging_rounds_once_and_a_wider_dtype_keeps_what_bfloat16_loses():
    layer = moved(LoRALinear(linear(torch.bfloat16), RANK, 1e-3))
    exact = layer.base.weight.float() + layer.delta()
    assert torch.equal(merged(layer).weight, exact.bfloat16())
    assert torch.equal(merged(layer, torch.float32).weight, exact)
    kept = merged(layer).weight.float() - layer.base.weight.float()
    assert (kept - layer.delta()).norm() > 0.3 * layer.delta().norm()


def test_a_rank_below_one_and_a_dropout_that_is_no_share_are_refused():
    with pytest.raises(ValueError, match="rank=0 must be at least 1"):
        LoRALinear(linear(), 0, ALPHA)
    with pytest.raises(ValueError, match="between 0 and 1"):
        LoRALinear(linear(), 1, ALPHA, dropout=1.5)


def test_injection_changes_no_output_and_adapts_the_seven_projections():
    model = llama()
    ids = torch.arange(12)[None]
    before = model(ids).logits
    assert inject(model, rank=RANK, alpha=ALPHA) is model
    assert torch.equal(model(ids).logits, before)
    assert {name.rpartition(".")[2] for name in adapted(model)} == set(SEVEN)
    assert len(adapted(model)) == 2 * len(SEVEN)
    assert all(layer.scale == ALPHA / RANK for layer in adapted(model).values())
    assert type(model.lm_head) is nn.Linear
    assert type(model.model.embed_tokens) is nn.Embedding


def test_a_model_in_evaluation_stays_there_when_it_is_adapted_and_merged():
    model = inject(llama().eval(), dropout=0.5)
    assert not any(module.training for module in model.modules())
    assert not any(module.training for module in merge(model).modules())


def test_an_untied_head_is_left_alone_too():
    model = inject(llama(tie_word_embeddings=False))
    assert type(model.lm_head) is nn.Linear
    assert not model.lm_head.weight.requires_grad


def test_a_head_of_another_name_is_known_by_what_the_model_says():
    model = llama()
    model.score, model.lm_head = model.lm_head, nn.Identity()
    model.get_output_embeddings = lambda: model.score
    assert "score" not in matches(model)


def test_a_target_matches_whole_names_only():
    model = llama()
    model.model.layers[0].self_attn.my_q_proj = nn.Linear(32, 32)
    assert matches(model, ["q_proj"]) == [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]
    assert matches(model, "q_proj") == matches(model, ["q_proj"])
    assert matches(model, ["layers.1.mlp.up_proj"]) == ["model.layers.1.mlp.up_proj"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "qproj"], r"target 'qproj' matches no linear map .*near it: q_proj"),
        ("proj", "target 'proj' matches no linear map"),
        (["self_attn.qproj"], r"near it: .*self_attn.q_proj"),
        ("wte", r"there are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj; the"),
        ("lm_head", r"'lm_head' matches no .* the head and embeddings are never adapted"),
        ("embed_tokens", r"'embed_tokens' matches no .* the head and embeddings are never adapted"),
        ([], r"targets=\[\] match nothing"),
    ],
)
def test_a_target_that_matches_nothing_is_an_error_and_the_model_stays(targets, message):
    model = llama()
    with pytest.raises(ValueError, match=message):
        inject(model, targets)
    assert not adapted(model)
    assert all(p.requires_grad for p in model.parameters())


def test_a_second_adapter_on_the_same_map_is_refused():
    model = inject(llama(), ["v_proj"])
    with pytest.raises(ValueError, match=r"layers.0.self_attn.v_proj has an adapter already"):
        inject(model, ["v_proj"])
    fused = nn.Sequential(FusedLoRALinear(nn.Linear(4, 4), {"a": 4}, ["a"], 1, 1.0))
    with pytest.raises(ValueError, match="0 has an adapter already"):
        inject(fused)


def test_nothing_but_a_and_b_trains_or_moves():
    model = inject(llama(), rank=RANK, alpha=ALPHA)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, items(), Settings(steps=3, batch=4, lr=1e-2))
    for name, p in model.named_parameters():
        factor = name.rpartition(".")[2] in ("A", "B")
        assert p.requires_grad == factor
        assert torch.equal(p, before[name]) != factor, name


def items():
    draw = random.Random(0)
    rows = [[draw.randrange(6, 96) for _ in range(draw.randrange(6, 20))] for _ in range(24)]
    return [Encoded(row, [IGNORE] * 3 + row[3:]) for row in rows]


def copied(ours, theirs):
    """Put the factors of an injected model into a PEFT model of the same base."""
    with torch.no_grad():
        for name, layer in adapted(ours).items():
            there = theirs.base_model.model.get_submodule(name)
            there.lora_A["default"].weight.copy_(layer.A)
            there.lora_B["default"].weight.copy_(layer.B)
    return theirs


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_twenty_steps_beside_peft_give_the_same_losses(dropout):
    ours = inject(llama(), rank=RANK, alpha=ALPHA, dropout=dropout)
    theirs = copied(ours, with_peft(llama(), SEVEN, dropout))
    settings, few = Settings(steps=20, batch=4, lr=3e-2), items()[:4]
    got, wanted = fit(ours, few, settings).losses, fit(theirs, few, settings).losses
    assert got[-1] < 0.95 * got[0]
    # Adam divides by the size of the gradient, so a rounding in a small one moves a factor by a
    # share of a step; twenty steps of that stay far below what a wrong scale or mask would do.
    assert got == pytest.approx(wanted, rel=1e-5)


def test_merging_a_model_keeps_its_outputs_and_happens_once():
    model = moved(inject(llama(), rank=RANK, alpha=ALPHA))
    ids = torch.arange(12)[None]
    before = model(ids).logits
    assert merge(model) is model
    assert not adapted(model)
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-5)
    assert (llama()(ids).logits - before).abs().max() > 0.1
    with pytest.raises(ValueError, match=r"nothing to merge: .* merged already"):
        merge(model)


CONFIGS = {
    "the test's": SHAPE,
    "wide heads": SHAPE | {"head_dim": 16},
    "untied, all heads": SHAPE | {"num_key_value_heads": 4, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("shape", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("targets", ["all-linear", "down_proj", ("q_proj", "v_proj")])
def test_the_count_from_a_config_is_what_an_injected_model_trains(shape, targets):
    config = LlamaConfig(**shape)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    counted = parameter_count(config, targets, 5)
    assert counted == train.count(inject(model, targets, rank=5)).trainable
    if targets == "all-linear":
        assert counted == train.lora_parameters(config, 5)


@pytest.mark.parametrize(
    ("sizes", "seven", "two"),
    [
        ((2048, 8192, 16, 32, 8), 11_272_192, 1_703_936),  # Llama-3.2-1B
        ((4096, 11008, 32, 32, 32), 39_976_960, 8_388_608),  # Llama-2-7B
        ((4096, 14336, 32, 32, 8), 41_943_040, 6_815_744),  # Llama-3-8B
        ((8192, 28672, 80, 64, 8), 207_093_760, 32_768_000),  # Llama-3-70B
    ],
)
def test_real_models_train_the_numbers_that_peft_reports(sizes, seven, two):
    names = "hidden_size intermediate_size num_hidden_layers num_attention_heads"
    names = [*names.split(), "num_key_value_heads"]
    config = LlamaConfig(**dict(zip(names, sizes, strict=True)))
    assert parameter_count(config, "all-linear", 16) == seven
    assert parameter_count(config, ["q_proj", "v_proj"], 16) == two


def test_a_config_without_head_dim_or_kv_heads_is_counted_as_heads_say():
    class Config:
        hidden_size, intermediate_size, num_hidden_layers = 32, 48, 2
        num_attention_heads, num_key_value_heads = 4, None

    same = LlamaConfig(**SHAPE | {"num_key_value_heads": 4})
    assert parameter_count(Config, "all-linear", 2) == parameter_count(same, "all-linear", 2)
    with pytest.raises(ValueError, match="'qproj' is none of q_proj, k_proj"):
        parameter_count(Config, ["qproj"], 2)


def test_pefts_own_count_of_every_subset_of_targets_is_ours():
    config = LlamaConfig(**SHAPE)
    for chosen in itertools.combinations(SEVEN, 2):
        theirs = train.count_for_config(config, 4, chosen).trainable
        assert parameter_count(config, chosen, 4) == theirs
