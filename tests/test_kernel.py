"""The stop button of a notebook, pressed for real while a kernel trains."""

import time

import pytest
from jupyter_client.manager import start_new_kernel

SETUP = """
import torch
from labkit import data, models, train
from labkit.train import Settings
items = [data.encode(models.load("tiny").tokenizer, e) for e in data.examples("train")[:64]]

def fresh():
    torch.manual_seed(0)
    return train.attach(models.load("tiny").model)
"""
TRAIN = """
def say(step):
    print("step", step.number, flush=True)

try:
    train.fit(fresh(), items, Settings(steps=20, checkpoint=path), say)
except train.TrainingStopped as stopped:
    print("stopped:", stopped)
"""
RESUME = """
settings = Settings(steps=20, checkpoint=path)
resumed = train.fit(fresh(), items, settings, resume=True).losses
print("same:", resumed == train.fit(fresh(), items, Settings(steps=20)).losses, len(resumed))
"""
PATIENCE = 240  # seconds for one cell


def said(client, code, when=None, then=None):
    """What a cell prints; `then` is called once when the text `when` has appeared."""
    number, text, deadline = client.execute(code), "", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") != number:
            continue
        if message["msg_type"] == "stream":
            text += message["content"]["text"]
        if message["msg_type"] == "error":
            raise AssertionError("\n".join(message["content"]["traceback"]))
        if when and when in text:
            when = then()
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return text
    raise AssertionError(f"not done within {PATIENCE} s: {text}")


@pytest.mark.slow
def test_the_stop_button_keeps_a_checkpoint_that_resumes_to_the_same_losses(tmp_path):
    manager, client = start_new_kernel()
    try:
        where = f"from pathlib import Path\npath = Path({str(tmp_path)!r}) / 'run.safetensors'\n"
        said(client, SETUP + where)
        text = said(client, TRAIN, "step 3", manager.interrupt_kernel)
        assert "stopped: interrupted: step" in text
        assert "is kept in run.safetensors; call fit again with resume=True" in text
        assert 3 <= text.count("step ") - 1 < 20
        assert said(client, RESUME) == "same: True 20\n"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
