"""A real pretrained model: it answers, and learns. `make test-real`; deselected by default."""

import math
import time

import pytest
import torch

from labkit import data, evaluate, models, train
from labkit.train import Settings

pytestmark = pytest.mark.real


@pytest.fixture
def smollm():
    """From a hub, or out of the package on PyPI; the first time it is converted."""
    begin = time.perf_counter()
    loaded = models.load("smollm2-135m", dtype=torch.float32)
    print(f"{loaded}\nloaded in {time.perf_counter() - begin:.1f} s")
    return loaded


def test_a_real_model_in_4_bits_knows_the_capital_of_france(smollm):
    question = "What is the capital of France?"
    said = evaluate.answers(smollm.model, smollm.tokenizer, [question], max_new_tokens=24)
    print(said)
    assert "Paris" in said[0]
    assert smollm.model.num_parameters() == 134_515_008
    assert smollm.tokenizer.pad_token_id != smollm.tokenizer.eos_token_id


def test_a_real_model_learns_the_task_by_qlora(smollm):
    examples = data.examples("train")[:8]
    items = [data.encode(smollm.tokenizer, example) for example in examples]
    torch.manual_seed(0)
    model = train.attach(smollm.model, rank=8, alpha=16)
    history = train.fit(model, items, Settings(steps=6, batch=4, lr=1e-3))
    print(history)
    assert all(math.isfinite(loss) for loss in history.losses)
    # Each epoch of 2 steps sees the same 8 letters, so its mean can be compared with the first's.
    first, last = (sum(part) / 2 for part in (history.losses[:2], history.losses[-2:]))
    assert last < 0.7 * first
