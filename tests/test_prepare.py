"""What prepare_model_for_kbit_training does, and that a run without it is no NaN."""

import copy
import math

import pytest
import torch
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from labkit import data, models, train
from labkit.prepare import prepare, state
from labkit.train import Settings, attach, fit


@pytest.fixture
def packed(tmp_path):
    import bitsandbytes as bnb

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(shape).to(torch.bfloat16).save_pretrained(tmp_path)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    model = LlamaForCausalLM.from_pretrained(
        tmp_path, quantization_config=nf4, dtype=torch.bfloat16
    )
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def test_it_casts_what_is_not_quantised_and_switches_checkpointing_on(packed):
    others = 128 * 64 + 5 * 64  # tied embedding, two norms a layer and the last
    codes = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128) // 2  # two codes a byte
    said = prepare(packed)
    assert said.before.bytes_by_dtype == {"4-bit": codes, "bfloat16": 2 * others}
    assert said.after.bytes_by_dtype == {"4-bit": codes, "float32": 4 * others}
    assert (said.before.checkpointing, said.after.checkpointing) == (False, True)
    assert said.before.trainable == others
    assert said.after.trainable == 0
    assert said.after == state(packed)


def test_checkpointing_can_stay_off(packed):
    assert prepare(packed, checkpointing=False).after.checkpointing is False


def test_no_dropout_is_touched(packed):
    packed.model.layers[0].self_attn.attention_dropout = 0.25
    prepare(packed)
    assert packed.model.layers[0].self_attn.attention_dropout == 0.25


def test_the_table_names_each_row_once_and_shows_both_sides(packed):
    said = prepare(packed)
    lines = str(said).splitlines()
    assert lines[0].split() == ["before", "after"]
    assert [line.split()[-2:] for line in lines if "checkpointing" in line] == [["off", "on"]]
    half = [line.split()[-2:] for line in lines if line.startswith("bfloat16")]
    assert half == [["0.02", "0.00"]]
    assert said._repr_html_().count("<tr>") == len(lines)


def test_skipping_it_gives_no_nan_and_nearly_the_same_losses():
    """On the real tiny model in bfloat16, where the folklore says the loss turns into NaN."""
    loaded = models.load("tiny", dtype=torch.bfloat16)
    for module in loaded.model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32  # a CPU without bfloat16 units takes minutes
    items = [data.encode(loaded.tokenizer, e) for e in data.examples("train")[:40]]
    curves = []
    for skip in (True, False):
        model = copy.deepcopy(loaded.model)
        if not skip:
            prepare(model, checkpointing=False)
        torch.manual_seed(0)
        adapted = attach(model, rank=4)
        curves.append(fit(adapted, items, Settings(steps=10, batch=2)).losses)
        assert train.count(adapted).trainable == 112_128
    skipped, prepared = curves
    assert all(math.isfinite(loss) for loss in skipped)
    assert prepared[-1] < 0.8 * prepared[0]
    # bfloat16 keeps 8 bits: each of some twenty roundings on the way may move a loss by 0.4%.
    assert skipped == pytest.approx(prepared, rel=0.08, abs=0.02)
