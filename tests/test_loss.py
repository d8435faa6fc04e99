"""The loss without the table of logits: equal to the plain one, and smaller."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from labkit.data import IGNORE, Encoded, collate
from labkit.loss import causal_loss, linear_cross_entropy, next_token_loss

TOKENS, HIDDEN, VOCAB = 37, 24, 211


def inputs(dtype=torch.float32):
    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN).to(dtype).requires_grad_()
    weight = torch.randn(VOCAB, HIDDEN).to(dtype).requires_grad_()
    labels = torch.randint(VOCAB, (TOKENS,))
    labels[[0, 5, 6, 30, 36]] = IGNORE
    return hidden, weight, labels


def plain(hidden, weight, labels):
    return F.cross_entropy((hidden @ weight.T).float(), labels, ignore_index=IGNORE)


def both(dtype, chunk, upstream=3.0):
    """(loss, gradient of hidden, gradient of weight) of ours, and of the plain form in float64."""
    results = []
    hidden, weight, labels = inputs(dtype)
    exact = (hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_())
    for h, w, loss_of in (
        (hidden, weight, lambda h, w: linear_cross_entropy(h, w, labels, chunk)),
        (*exact, lambda h, w: F.cross_entropy(h @ w.T, labels, ignore_index=IGNORE)),
    ):
        loss = loss_of(h, w)
        (upstream * loss).backward()
        results.append((loss.detach().double(), h.grad.double(), w.grad.double()))
    return results


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 1000])
def test_value_and_both_gradients_equal_the_plain_form(chunk):
    for ours, exact in zip(*both(torch.float32, chunk), strict=True):
        # A float32 sum over the vocabulary: a few hundred roundings of 6e-8 each.
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_in_half_precision_the_error_is_that_of_rounding_the_logits(dtype, bits):
    ours, exact = both(dtype, chunk=5)
    hidden, weight, _ = inputs(dtype)
    # A logit of size s is rounded by s * 2**-bits at most; softmax passes that on by a factor of
    # two at most, and the gradient is rounded once more.
    bound = 3 * (hidden @ weight.T).abs().max().item() * 2**-bits
    assert abs(ours[0] - exact[0]) < bound
    for mine, right in zip(ours[1:], exact[1:], strict=True):
        assert (mine - right).norm() < bound * right.norm()


def test_float16_gradients_survive_a_long_batch():
    """A trained weight of 0.02 over 30,000 tokens is 7e-7, where float16 keeps 3 bits of 11:
    a loss scale can only help if the mean is taken after it, in backward."""
    torch.manual_seed(0)
    tokens = 30_000
    hidden = torch.randn(tokens, 8).half().requires_grad_()
    weight, labels = torch.randn(50, 8).mul(0.02).half(), torch.randint(50, (tokens,))
    (linear_cross_entropy(hidden, weight, labels, 4096) * tokens).backward()
    exact = hidden.detach().double().requires_grad_()
    F.cross_entropy(exact @ weight.double().T, labels, reduction="sum").backward()
    assert (hidden.grad.double() - exact.grad).norm() < 0.01 * exact.grad.norm()


def test_no_table_of_tokens_by_vocabulary_is_kept_for_backward():
    def kept(loss_of):
        sizes = []
        hidden, weight, labels = inputs()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            loss_of(hidden, weight, labels)
        return max(sizes)

    assert kept(plain) == TOKENS * VOCAB  # the hook does see such a table
    assert kept(linear_cross_entropy) <= VOCAB * HIDDEN


def test_a_frozen_weight_gets_no_gradient_and_keeps_none():
    hidden, weight, labels = inputs()
    weight.requires_grad_(False)
    linear_cross_entropy(hidden, weight, labels).backward()
    assert weight.grad is None
    torch.testing.assert_close(
        hidden.grad, torch.autograd.grad(plain(hidden, weight, labels), hidden)[0]
    )


def test_where_nothing_is_learnt_loss_and_gradient_are_zero():
    hidden, weight, labels = inputs()
    loss = linear_cross_entropy(hidden, weight, torch.full_like(labels, IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad.abs().max() == 0
    assert weight.grad.abs().max() == 0


def test_rows_without_labels_are_refused():
    hidden, weight, labels = inputs()
    with pytest.raises(ValueError, match=r"37 hidden states, labels \(36,\): one each"):
        linear_cross_entropy(hidden, weight, labels[1:])


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk=0 must be at least 1 row"):
        linear_cross_entropy(*inputs(), chunk=0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(shape)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    items = []
    for length, prompt in ((9, 4), (14, 6), (5, 2)):
        ids = torch.randint(6, 128, (length,)).tolist()
        items.append(Encoded(ids, [IGNORE] * prompt + ids[prompt:]))
    return collate(items, pad_id=5)


def with_lora(model):
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.02)  # away from the start, where A gets no gradient
    return adapted


def gradients(model, loss):
    wanted = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize("wrap", [lambda m: m, with_lora], ids=["plain", "PEFT"])
@pytest.mark.parametrize("select", [True, False])
def test_a_model_gets_the_loss_and_gradients_of_its_own_labels_argument(model, batch, wrap, select):
    model = wrap(model)
    theirs = model(**batch).loss
    ours = causal_loss(model, batch, select)
    torch.testing.assert_close(ours, theirs)
    for mine, right in zip(gradients(model, ours), gradients(model, theirs), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-7)


def test_right_padding_needs_no_mask(model, batch):
    """The same loss whatever stands in the padding: nothing real looks at it."""
    changed = dict(batch)
    changed["input_ids"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 77)
    assert not torch.equal(changed["input_ids"], batch["input_ids"])
    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    masked = next_token_loss(logits, batch["labels"])
    torch.testing.assert_close(causal_loss(model, batch), masked)
    torch.testing.assert_close(causal_loss(model, changed), masked)


def test_the_loss_of_a_wrapped_head_is_still_right(model, batch):
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj", "lm_head"]), autocast_adapter_dtype=False
    )
    torch.testing.assert_close(causal_loss(adapted, batch), adapted(**batch).loss)


def test_a_four_bit_model_gets_the_loss_of_its_own_labels_argument(model, batch, tmp_path):
    import bitsandbytes as bnb
    from transformers import BitsAndBytesConfig

    model.save_pretrained(tmp_path)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    packed = LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=nf4)
    for module in packed.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    adapted = with_lora(packed)
    ours, theirs = causal_loss(adapted, batch), adapted(**batch).loss
    torch.testing.assert_close(ours, theirs)
    for mine, right in zip(gradients(adapted, ours), gradients(adapted, theirs), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-6)
