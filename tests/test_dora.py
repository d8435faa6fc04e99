"""DoRA: against its dense formula, against PEFT, and what autograd keeps."""

import itertools
import shutil

import pytest
import torch
from torch import nn

from labkit import directions, dora, lora, stretched
from labkit.directions import dense_forward, factored_norms, row_norms
from labkit.dora import DoRALinear, inject_dora
from labkit.linears import dense
from labkit.lora import LoRALinear
from labkit.nf4 import NF4Linear

OUT, IN, RANK, ALPHA = 24, 40, 3, 6.0  # none equal, and alpha / rank is no whole rank
SCALE = ALPHA / RANK


def moved_layer(bias=True, dropout=0.0, dtype=torch.float32, exact=False, make=lambda base: base):
    """Length and direction both moved: at the start every DoRA equals its base."""
    torch.manual_seed(0)
    base = make(nn.Linear(IN, OUT, bias=bias).to(dtype))
    layer = DoRALinear(LoRALinear(base, RANK, ALPHA, dropout), exact)
    nn.init.normal_(layer.lora.B, std=0.3)
    with torch.no_grad():
        layer.magnitude *= torch.empty(OUT).uniform_(0.5, 2.0)
    return layer


def four_bit(linear):
    """The same map in bitsandbytes' NF4, computing in float32."""
    import bitsandbytes as bnb

    packed = bnb.nn.Linear4bit(
        linear.in_features, linear.out_features, bias=linear.bias is not None,
        compute_dtype=torch.float32, quant_type="nf4",
    )  # fmt: skip
    packed.load_state_dict(linear.state_dict())
    packed.support_avx512bf16_for_cpu = False
    return packed.to("cpu")


def applied(layer):
    """The weight that a layer applies, read off from the unit vectors."""
    return (layer(torch.eye(IN)) - layer(torch.zeros(1, IN))).T


def gradients(layer, x, upstream):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    (layer(x) * upstream).sum().backward()
    found = {"x": x.grad, "A": layer.lora.A.grad, "B": layer.lora.B.grad}
    return found | {"m": layer.magnitude.grad}


# The formula


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_layer_equals_its_base(dtype):
    base, x = nn.Linear(IN, OUT).to(dtype), torch.randn(7, IN, dtype=dtype)
    fresh = DoRALinear(LoRALinear(base, RANK, ALPHA))
    ulp = torch.finfo(dtype).eps * base(x).abs().max().item()  # the bias is taken off and put back
    torch.testing.assert_close(fresh(x), base(x), rtol=0, atol=ulp)
    torch.testing.assert_close(fresh.magnitude, base.weight.float().norm(dim=1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "make", [lambda base: base, four_bit, NF4Linear], ids=["float", "Linear4bit", "NF4Linear"]
)
def test_forward_agrees_with_the_dense_formula(bias, make):
    layer, x = moved_layer(bias, make=make), torch.randn(2, 7, IN)
    W, A, B = dense(layer.base), layer.lora.A, layer.lora.B
    turned = W + SCALE * torch.einsum("or,ri->oi", B, A)
    want = torch.einsum("oi,bti->bto", turned / turned.norm(dim=1, keepdim=True), x)
    want = want * layer.magnitude + (layer.base.bias if bias else 0)
    torch.testing.assert_close(layer(x), want, rtol=1e-4, atol=1e-5)
    plain = dense_forward(x, W, A, B, layer.magnitude, SCALE)
    torch.testing.assert_close(plain + (layer.base.bias if bias else 0), want)


def test_rows_have_the_learned_lengths_and_point_where_lora_points():
    layer = moved_layer()
    torch.testing.assert_close(row_norms(applied(layer)), layer.magnitude.detach())
    turned = dense(layer.base) + layer.lora.delta()
    torch.testing.assert_close(
        torch.cosine_similarity(applied(layer), turned, dim=1), torch.ones(OUT)
    )


def test_decompose_gives_rows_of_length_one_and_the_weight_back():
    weight = torch.randn(OUT, IN)
    magnitude, direction = directions.decompose(weight)
    torch.testing.assert_close((direction**2).sum(1), torch.ones(OUT))
    torch.testing.assert_close(torch.diag(magnitude) @ direction, weight)


WAYS = ("kept", "again", "compiling")  # how the slope of g gets its tensor


def take(way, layer, monkeypatch):
    layer.keeps = way != "again"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: way == "compiling")


@pytest.mark.parametrize("way", WAYS)
def test_a_row_of_zeros_stays_one_and_gives_no_nan(way, monkeypatch):
    base = nn.Linear(IN, OUT, bias=False)
    base.weight.data[3] = 0
    layer = DoRALinear(LoRALinear(base, RANK, ALPHA))
    take(way, layer, monkeypatch)
    found = gradients(layer, torch.randn(5, IN), torch.randn(5, OUT))
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found["m"].count_nonzero() == OUT - 1
    assert layer.weight().isfinite().all()


def test_one_vector_is_mapped_as_a_batch_of_one():
    layer, x = moved_layer(), torch.randn(IN)
    torch.testing.assert_close(layer(x), layer(x[None])[0])


def test_a_gain_finer_than_the_dtype_still_tells():
    """Times 1.001, a bfloat16 number is itself again. What DoRA adds must be summed first."""
    layer, x = moved_layer(bias=False, dtype=torch.bfloat16), torch.randn(4000, IN).bfloat16()
    with torch.no_grad():
        layer.lora.B *= 0.05  # as after a few steps
        layer.magnitude.copy_(row_norms(dense(layer.base) + layer.lora.delta()))
        before = layer(x).double()
        layer.magnitude *= 1.001
        moved = (layer(x).double() * before).sum() / before.square().sum()
    assert (before.bfloat16() * 1.001).bfloat16().equal(before.bfloat16())
    assert moved.item() == pytest.approx(1.001, abs=2e-4)


# The norm


@pytest.mark.parametrize("ratio", [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_factored_norm_is_the_dense_norm(ratio, dtype):
    torch.manual_seed(1)
    base = nn.Linear(512, 256, bias=False).to(dtype)
    layer = DoRALinear(LoRALinear(base, 8, 16.0))
    nn.init.normal_(layer.lora.B)
    with torch.no_grad():
        layer.lora.B *= ratio * dense(base).float().norm() / layer.lora.delta().norm()
    exact = (dense(base).double() + 2.0 * layer.lora.B.double() @ layer.lora.A.double()).norm(dim=1)
    off = (
        ((layer.magnitude / layer.gains(layer.lora.A.to(dtype)) - exact) / exact).abs().max().item()
    )
    # In bfloat16 (W A^T) is rounded to 8 bits before it is multiplied by B: half an ulp of it is
    # 2^-9, and its share of n^2 is at most 2 ratio / (1 + ratio^2) <= 1, halved by the root.
    assert off < (2e-6 if dtype is torch.float32 else 2**-9 * min(ratio, 1 / ratio) + 2e-6)
    rounded = (dense(base) + layer.lora.delta().to(dtype)).norm(dim=1)  # as PEFT computes it
    assert off <= ((rounded - exact) / exact).abs().max().item() + 2e-6


def test_the_factored_norm_alone_takes_its_parts():
    W, A, B = torch.randn(OUT, IN), torch.randn(RANK, IN), torch.randn(OUT, RANK)
    found = factored_norms(W.square().sum(1), W @ A.T, A, B, 0.7)
    torch.testing.assert_close(found, torch.linalg.matrix_norm((W + 0.7 * B @ A)[:, None]))


def test_a_row_that_the_update_cancels_gives_no_nan():
    W, A = torch.randn(RANK, IN), torch.randn(RANK, IN)
    W = A * 3.0
    norms = factored_norms(W.square().sum(1), W @ A.T, A, -3.0 * torch.eye(RANK), 1.0)
    assert norms.isfinite().all()
    assert norms.max() < 1e-2 * W.norm(dim=1).min()


# The gradients


def dense_weight(layer, exact):
    """The formula again, with autograd through all of it, or with the norm held constant."""
    turned = dense(layer.base) + SCALE * layer.lora.B @ layer.lora.A
    norms = turned.norm(dim=1, keepdim=True)
    return layer.magnitude[:, None] * turned / (norms if exact else norms.detach())


@pytest.mark.parametrize(
    ("exact", "bias", "way"), list(itertools.product([True, False], [True, False], WAYS))
)
def test_gradients_agree_with_the_dense_formula(exact, bias, way, monkeypatch):
    layer, x, up = moved_layer(bias, exact=exact), torch.randn(2, 5, IN), torch.randn(2, 5, OUT)
    take(way, layer, monkeypatch)
    found = gradients(layer, x, up)
    layer.zero_grad()
    x.requires_grad_()
    ((x @ dense_weight(layer, exact).T) * up).sum().backward()
    want = {"x": x.grad, "A": layer.lora.A.grad, "B": layer.lora.B.grad, "m": layer.magnitude.grad}
    for name, gradient in want.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4, msg=name)


def test_the_two_gradients_differ_and_the_exact_one_is_the_derivative():
    layer = moved_layer(dtype=torch.float64, exact=True)
    x = torch.randn(3, IN, dtype=torch.float64)
    torch.autograd.gradcheck(lambda *_: layer(x), (layer.lora.A, layer.lora.B, layer.magnitude))
    exact = gradients(layer, x, torch.ones(3, OUT))["B"]
    layer.exact = False
    assert not torch.allclose(gradients(layer, x, torch.ones(3, OUT))["B"], exact, rtol=1e-2)


def test_nothing_else_trains():
    layer = moved_layer()
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == {
        "lora.A", "lora.B", "magnitude",
    }  # fmt: skip
    assert set(layer.state_dict()) == {
        "magnitude", "lora.A", "lora.B", "lora.base.weight", "lora.base.bias",
    }  # fmt: skip


# PEFT


def peft_layer(ours, dtype):
    """PEFT's DoRA with the numbers of `ours`."""
    from peft import LoraConfig, get_peft_model

    model = nn.Sequential(nn.Linear(IN, OUT, bias=ours.base.bias is not None).to(dtype))
    model[0].load_state_dict(ours.base.state_dict())
    dropout = getattr(ours.lora.dropout, "p", 0.0)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=["0"], use_dora=True
    )
    layer = get_peft_model(model, config).base_model.model[0]
    for theirs, mine in zip(peft_parameters(layer), parameters(ours), strict=True):
        theirs.data.copy_(mine)
    return layer


def peft_parameters(layer):
    factors = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return *factors, layer.lora_magnitude_vector["default"].weight


def parameters(layer):
    return layer.lora.A, layer.lora.B, layer.magnitude


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_gradients_are_pefts(dtype, bias, training, dropout):
    ours = moved_layer(bias, dropout, dtype).train(training)
    theirs = peft_layer(ours, dtype).train(training)
    x, up = torch.randn(2, 6, IN, dtype=dtype), torch.randn(2, 6, OUT, dtype=dtype)
    outputs, slopes = [], []
    for layer, own in ((ours, parameters(ours)), (theirs, peft_parameters(theirs))):
        torch.manual_seed(5)  # the same numbers are dropped
        given = x.clone().requires_grad_()
        outputs.append(layer(given))
        (outputs[-1] * up).sum().backward()
        slopes.append([given.grad, *(p.grad for p in own)])
    # PEFT works in float32 over a bfloat16 base, so it differs by our roundings to 8 bits.
    tolerance = 1e-5 if dtype is torch.float32 else 2**-6
    for a, b in zip([outputs[0], *slopes[0]], [outputs[1], *slopes[1]], strict=True):
        assert a.dtype == b.dtype
        assert (a - b).norm() <= tolerance * b.norm()
        assert b.norm() > 0


# What autograd keeps


def kept_bytes(run):
    """Bytes that autograd keeps for the backward pass of `run`, each storage once."""
    seen = {}

    def pack(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return sum(seen.values()), result


@pytest.mark.parametrize("exact", [False, True])
def test_no_tensor_of_the_weights_size_is_kept(exact):
    base, x = nn.Linear(512, 512, bias=False), torch.randn(64, 512, requires_grad=True)
    plain = LoRALinear(base, 4, 8.0)
    layer = DoRALinear(LoRALinear(base, 4, 8.0), exact)
    lora_bytes, _ = kept_bytes(lambda: plain(x))
    dora_bytes, y = kept_bytes(lambda: layer(x))
    more = dora_bytes - lora_bytes - y.untyped_storage().nbytes()  # the output, which is kept
    assert more < 16 * 512 * 4 * 4  # thin: a few (out, rank) and (out,) in float32


def test_it_keeps_its_output_and_not_what_it_was_made_of():
    layer, x = moved_layer(bias=False), torch.randn(64, IN, requires_grad=True)
    kept, y = kept_bytes(lambda: torch.nn.functional.silu(layer(x)))
    plain, _ = kept_bytes(lambda: torch.nn.functional.silu(layer.lora(x)))
    assert kept - plain < y.numel() * 4  # silu keeps its input; there is no second tensor like it


def test_an_output_that_is_made_again_is_not_kept():
    layer, x = moved_layer(bias=False, dropout=0.3), torch.randn(64, IN, requires_grad=True)
    torch.manual_seed(0)
    kept, y = kept_bytes(lambda: layer(x))
    layer.keeps = False
    torch.manual_seed(0)
    less, again = kept_bytes(lambda: layer(x))
    assert kept - less == y.untyped_storage().nbytes()
    torch.testing.assert_close(again, y, rtol=0, atol=0)
    slopes = [torch.autograd.grad(out.square().sum(), [x, layer.magnitude]) for out in (y, again)]
    torch.testing.assert_close(*slopes, rtol=0, atol=0)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile wants a C++ compiler here")
def test_a_compiled_layer_is_the_layer():
    layer, x, up = moved_layer(bias=False), torch.randn(6, IN), torch.randn(6, OUT)
    want = gradients(layer, x, up)
    plain_bytes, plain = kept_bytes(lambda: layer(x))
    compiled = torch.compile(layer, fullgraph=True)
    found_bytes, found = kept_bytes(lambda: compiled(x))
    torch.testing.assert_close(found, plain)
    assert found_bytes <= plain_bytes + 4 * IN * RANK
    layer.zero_grad()
    (found * up).sum().backward()
    for name, p in (("A", layer.lora.A), ("B", layer.lora.B), ("m", layer.magnitude)):
        torch.testing.assert_close(p.grad, want[name], msg=name)


@pytest.mark.parametrize("keeps", [True, False])
def test_all_element_wise_work_goes_through_kernels(keeps, monkeypatch):
    layer, x, up = moved_layer(dropout=0.2), torch.randn(6, IN), torch.randn(6, OUT)
    torch.manual_seed(0)
    want, compiled = gradients(layer, x, up), []

    def kernel(work):
        compiled.append(work.__name__)
        return torch.compile(work, backend="eager", dynamic=False)

    for module in (dora, stretched):
        monkeypatch.setattr(module, "kernel", kernel)
    dora.in_kernels(layer).keeps = keeps
    torch.manual_seed(0)
    found = gradients(layer, x, up)
    assert set(compiled) == {"factored_norms", "summed", "slopes"}
    assert len(compiled) == (3 if keeps else 4)
    for name, gradient in want.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


# Models


def small_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        )
    )  # fmt: skip


def moved_llama(**options):
    model = inject_dora(small_llama(), rank=RANK, alpha=ALPHA, **options)
    for name, p in model.named_parameters():
        if name.endswith("lora.B"):
            nn.init.normal_(p, std=0.1)
        if name.endswith("magnitude"):
            p.data *= torch.empty_like(p).uniform_(0.8, 1.25)
    return model


def test_inject_adds_a_magnitude_for_each_output_to_what_lora_trains():
    plain, model = lora.inject(small_llama(), rank=RANK), inject_dora(small_llama(), rank=RANK)
    count = sum(p.numel() for p in plain.parameters() if p.requires_grad)
    outputs = 2 * (64 + 32 + 32 + 32 + 48 + 48 + 32)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == count + outputs
    assert dora.dora_parameters(model.config, "all-linear", RANK) == trained
    assert len(lora.adapted(model)) == 14
    assert all(m.training for m in model.modules())
    assert not any(m.training for m in inject_dora(small_llama().eval()).modules())


def test_a_model_is_not_adapted_twice():
    model = inject_dora(small_llama(), "q_proj")
    with pytest.raises(ValueError, match="has an adapter already"):
        inject_dora(model, "q_proj")


def test_merging_keeps_the_function_and_the_layer():
    model, tokens = moved_llama(), torch.arange(12).reshape(2, 6)
    before = model(tokens).logits
    layer = model.model.layers[0].mlp.up_proj
    plain = lora.merged(layer)
    torch.testing.assert_close(plain(torch.eye(32)), layer(torch.eye(32)))
    merged = lora.merge(model)
    torch.testing.assert_close(merged(tokens).logits, before, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, DoRALinear) for m in merged.modules())


def test_checkpointing_changes_no_gradient():
    model, tokens = moved_llama(dropout=0.1).train(), torch.arange(12).reshape(2, 6)

    def slopes():
        model.zero_grad()
        torch.manual_seed(0)
        model(tokens, labels=tokens).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    plain = slopes()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for a, b in zip(plain, slopes(), strict=True):
        torch.testing.assert_close(a, b)


def test_only_outputs_that_nobody_else_keeps_are_made_again():
    model, tokens = moved_llama().train(), torch.arange(12).reshape(2, 6)
    kept, plain = kept_bytes(lambda: model(tokens, labels=tokens).loss)
    dora.make_again(model)
    names = {
        n.rpartition(".")[2] for n, m in model.named_modules() if getattr(m, "keeps", 1) is False
    }
    assert names == {"q_proj", "k_proj", "o_proj"}
    less, again = kept_bytes(lambda: model(tokens, labels=tokens).loss)
    outputs = 2 * 12 * (64 + 32 + 32)  # layers, tokens
    parameters = 2 * RANK * 32  # A of the first queries and keys, which is there anyway
    assert kept - less == 4 * (outputs - parameters)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    assert all(m.keeps for m in dora.make_again(model, ()).modules() if isinstance(m, DoRALinear))


def test_a_cast_of_the_model_leaves_the_norms_in_float32():
    layer = moved_layer().to(torch.bfloat16)
    assert layer.squares.dtype is torch.float32
    want = dense(layer.base).float().square().sum(1)
    torch.testing.assert_close(layer.squares, want, rtol=1e-5, atol=0)


# The movement of weights


def test_movement_measures_lengths_and_directions_apart():
    torch.manual_seed(0)
    weight = torch.randn(OUT, IN)
    factors = torch.tensor([1.5, 0.5]).repeat(OUT // 2)[:, None]  # longer and shorter alike count
    changed, none = directions.movement(weight, factors * weight)
    assert changed == pytest.approx(0.5 * weight.norm(dim=1).mean().item(), rel=1e-5)
    assert none == pytest.approx(0, abs=1e-6)
    rotation = torch.linalg.qr(torch.randn(IN, IN))[0]
    same, turned = directions.movement(weight, weight @ rotation)
    cosines = torch.cosine_similarity(weight, weight @ rotation, dim=1)
    assert same == pytest.approx(0, abs=1e-5)
    assert turned == pytest.approx((1 - cosines).mean().item(), rel=1e-5)
