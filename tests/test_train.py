"""One loop: what trains, how a step goes, how a run ends early and goes on."""

import errno
import os
import random
import signal
import threading

import pytest
import torch
from safetensors import SafetensorError
from transformers import LlamaConfig, LlamaForCausalLM

from labkit import checkpoint, train
from labkit.data import IGNORE, Encoded, collate
from labkit.loss import causal_loss
from labkit.train import Settings, TrainingStopped, attach, fit

SHAPE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_1B = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "tie_word_embeddings": True,
}  # fmt: skip


def small(dropout=0.0, lora=True):
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    return attach(model, rank=4, alpha=8, dropout=dropout) if lora else model


@pytest.fixture
def items():
    draw = random.Random(0)
    rows = [[draw.randrange(6, 96) for _ in range(draw.randrange(6, 20))] for _ in range(24)]
    return [Encoded(row, [IGNORE] * 3 + row[3:]) for row in rows]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_llama_1b_trains_the_published_count():
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_1B))
    adapted = attach(model)
    counted = train.count(adapted)
    assert (counted.trainable, counted.total) == (11_272_192, 1_247_086_592)
    assert str(counted) == "11,272,192 of 1,247,086,592 train (0.90%)"
    assert train.lora_parameters(LlamaConfig(**LLAMA_1B), 16) == counted.trainable


def test_a_packed_weight_counts_by_its_values(tmp_path):
    from transformers import BitsAndBytesConfig

    plain = small(lora=False)
    plain.save_pretrained(tmp_path)
    packed = LlamaForCausalLM.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(load_in_4bit=True)
    )
    assert sum(p.numel() for p in packed.parameters()) < train.count(plain).total
    assert train.count(attach(packed)).total == train.count(attach(plain)).total


def test_attach_adapts_the_seven_projections_in_float32_and_no_head():
    model = small().to(torch.bfloat16)
    adapted = attach(small(lora=False).to(torch.bfloat16), rank=4)
    del model
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    owners = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained}
    assert owners == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {p.dtype for p in trained.values()} == {torch.float32}


def test_a_run_lowers_the_loss_and_moves_only_what_trains(items):
    model = small()
    before = weights(model)
    history = fit(model, items, Settings(steps=30, lr=1e-2))
    assert sum(history.losses[-3:]) < 0.97 * sum(history.losses[:3])
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad


def test_the_optimizer_holds_only_what_trains(items, monkeypatch):
    seen = []
    real = torch.optim.AdamW

    def spy(parameters, **options):
        seen.append((list(parameters), options))
        return real(*seen[-1][:1], **options)

    monkeypatch.setattr(torch.optim, "AdamW", spy)
    model = small()
    fit(model, items, Settings(steps=1))
    ((held, options),) = seen
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert options["weight_decay"] == 0


def test_the_first_step_is_adamws_own(items):
    """From a second route: one step of Adam moves each number by lr * g / (|g| + eps)."""
    model, twin = small(), small()
    lr = 1e-2
    fit(model, items[:8], Settings(steps=1, lr=lr, warmup=0, clip=1e9))
    causal_loss(twin, collate(items[:8], 0)).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        if q.requires_grad:
            moved = lr * q.grad / (q.grad.abs() + 1e-8)
            torch.testing.assert_close(p, q - moved, rtol=1e-4, atol=1e-5)


def test_accumulation_equals_one_big_batch(items):
    """Micro-batches differ in their learnt tokens, so a mean of means would be another loss."""
    lengths = {len(item.input_ids) for item in items}
    assert len(lengths) > 3
    runs = []
    for batch, accumulate in ((8, 1), (2, 4)):
        model = small()
        settings = Settings(steps=6, batch=batch, accumulate=accumulate, lr=1e-2)
        history = fit(model, items, settings)
        runs.append((history.losses, weights(model)))
    (big, big_weights), (small_steps, small_weights) = runs
    assert small_steps == pytest.approx(big, rel=1e-5)
    for name, value in big_weights.items():
        torch.testing.assert_close(small_weights[name], value, rtol=1e-3, atol=2e-4)


def test_the_gradient_is_clipped(items):
    norms = []

    def watched(model, batch):
        norms.append(0)
        return 1e4 * causal_loss(model, batch)

    model = small(lora=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = weights(model)
    train.training_step(model, optimizer, collate(items[:4], 0), watched, clip=0.5)
    moved = sum((p - before[n]).pow(2).sum() for n, p in model.named_parameters()).sqrt()
    assert moved.item() == pytest.approx(0.5, rel=1e-3)


def test_the_rate_rises_then_falls_to_its_last_share():
    settings = Settings(steps=20, lr=1.0, warmup=0.2)
    rates = [train.learning_rate(step, settings) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == pytest.approx([(20 - step) / 16 for step in range(4, 20)])
    assert rates[-1] > 0


def test_a_seed_repeats_a_run_and_another_does_not(items):
    def losses(seed):
        torch.rand(seed + 5)  # whatever was drawn before must not matter
        return fit(small(dropout=0.2), items, Settings(steps=4, seed=seed)).losses

    assert losses(0) == losses(0) != losses(1)


def test_the_mode_of_the_model_is_training_within_and_as_before_after(items):
    modes = []
    for training in (True, False):
        model = small()
        model.train(training)
        fit(model, items, Settings(steps=1), lambda _: modes.append(model.training))  # noqa: B023
        assert model.training is training
    assert modes == [True, True]


def test_full_training_moves_everything(items):
    model = small(lora=False)
    before = weights(model)
    fit(model, items, Settings(steps=3, lr=1e-3))
    assert not [n for n, p in model.named_parameters() if torch.equal(p, before[n])]


def test_a_model_without_anything_to_train_is_refused(items):
    with pytest.raises(ValueError, match="nothing trains: attach adapters first"):
        fit(small(lora=False).requires_grad_(False), items, Settings(steps=1))


BAD = {
    "steps=0": "steps=0 must be at least 1",
    "batch=-1": "batch=-1 must be at least 1",
    "accumulate=0": "accumulate=0 must be at least 1",
    "warmup=2": "warmup=2 is a share",
    "lr=0": "lr=0 and clip=1.0 must be above 0",
    "lr=float('nan')": "lr=nan",
}


@pytest.mark.parametrize(("given", "message"), BAD.items(), ids=BAD)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        eval(f"Settings({given})")


def test_examples_without_anything_to_learn_are_refused(items):
    masked = [Encoded(i.input_ids, [IGNORE] * len(i.labels)) for i in items]
    with pytest.raises(ValueError, match=r"no token is learnt.*cut off"):
        fit(small(), masked, Settings(steps=1))


def test_one_masked_micro_batch_among_others_changes_nothing(items):
    masked = Encoded(items[0].input_ids, [IGNORE] * len(items[0].labels))
    runs = []
    for extra in ([], [masked] * 4):
        model = small()
        given = items[:4] + extra
        total = len(given) // 4
        monkey = Settings(steps=1, batch=4, accumulate=total, lr=1e-2)
        fit(model, given, monkey)
        runs.append(weights(model))
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, rtol=1e-3, atol=1e-4)


def test_history_shows_itself_and_counts(items):
    history = fit(small(), items, Settings(steps=12))
    assert [step.number for step in history.steps] == list(range(1, 13))
    assert history.peak_bytes is None
    assert history.tokens_per_second == pytest.approx(
        sum(s.tokens for s in history.steps) / history.seconds
    )
    assert str(history).startswith("12 steps in ")
    assert "loss 4." in str(history)
    html = history._repr_html_()
    assert 'role="img" aria-label="training loss' in html
    assert html.count(",") > 12


# ---- runs that end early


class Disturbed:
    """causal_loss that does `what` in its call number `at` (from 1)."""

    def __init__(self, at, what):
        self.calls, self.at, self.what = 0, at, what

    def __call__(self, model, batch):
        self.calls += 1
        if self.calls == self.at:
            spoilt = self.what()
            if spoilt is not None:
                return causal_loss(model, batch) * spoilt
        return causal_loss(model, batch)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def raise_interrupt():
    raise KeyboardInterrupt


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def out_of_memory_on_a_cpu():
    torch.empty(2**60)


def another_error():
    raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("how", [interrupt, raise_interrupt])
@pytest.mark.parametrize(("accumulate", "at"), [(1, 4), (2, 8)])
def test_an_interrupted_run_goes_on_bit_for_bit(items, tmp_path, how, accumulate, at):
    settings = Settings(
        steps=9, batch=4, accumulate=accumulate, lr=1e-2, checkpoint=tmp_path / "run.safetensors"
    )
    whole = small(dropout=0.3)
    unbroken = fit(whole, items, settings)
    model = small(dropout=0.3)
    with pytest.raises(TrainingStopped, match=r"interrupted: step \d is kept in run.safetensors"):
        fit(model, items, settings, loss=Disturbed(at, how))
    fresh = small(dropout=0.3)
    rest = fit(fresh, items, settings, resume=True)
    assert rest.losses == unbroken.losses
    for name, value in weights(whole).items():
        assert torch.equal(weights(fresh)[name], value)


def test_a_run_goes_on_from_its_last_periodic_checkpoint(items, tmp_path):
    settings = Settings(
        steps=7, batch=4, checkpoint=tmp_path / "run.safetensors", checkpoint_every=3
    )
    unbroken = fit(small(dropout=0.3), items, settings)

    class Killed(Exception):
        """What a crash would be: nothing is saved on the way out."""

    def die(step):
        if step.number == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(small(dropout=0.3), items, settings, die)
    numbers = []
    rest = fit(small(dropout=0.3), items, settings, lambda s: numbers.append(s.number), resume=True)
    assert numbers == [4, 5, 6, 7]
    assert rest.losses == unbroken.losses


def test_a_finished_run_resumed_does_nothing(items, tmp_path):
    settings = Settings(steps=3, checkpoint=tmp_path / "run.safetensors", checkpoint_every=3)
    model = small()
    first = fit(model, items, settings)
    before = weights(model)
    assert fit(model, items, settings, resume=True).losses == first.losses
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_an_interrupt_without_a_checkpoint_does_not_promise_one(items):
    with pytest.raises(TrainingStopped) as stopped:
        fit(small(), items, Settings(steps=5), loss=Disturbed(2, interrupt))
    assert "Settings(checkpoint=" in str(stopped.value)
    assert "resume=True" not in str(stopped.value)


def test_the_interrupt_handler_is_put_back(items):
    before = signal.getsignal(signal.SIGINT)
    fit(small(), items, Settings(steps=1))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_in_a_thread_works(items):
    done = []
    thread = threading.Thread(target=lambda: done.append(fit(small(), items, Settings(steps=1))))
    thread.start()
    thread.join()
    assert len(done[0].steps) == 1


def nan():
    return float("nan")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_with_advice_and_the_last_good_state(items, tmp_path, value):
    path = tmp_path / "run.safetensors"
    settings = Settings(steps=9, lr=8e-3, checkpoint=path)
    model = small()
    with pytest.raises(TrainingStopped) as stopped:
        fit(model, items, settings, loss=Disturbed(4, lambda: value))
    said = str(stopped.value)
    assert f"the loss is {value} at step 4" in said
    assert "lr=0.002 (now 0.008)" in said
    assert "step 3 is kept in run.safetensors" in said
    assert all(torch.isfinite(p).all() for p in model.parameters())
    good = small()
    fit(good, items, settings, resume=True)


def test_a_gradient_that_is_no_number_does_not_reach_the_weights(items, tmp_path):
    """The loss can be finite where its gradient is not: sqrt at 0, an overflow in float16."""

    def poisoned(model, batch):
        loss = causal_loss(model, batch)
        poisoned.calls += 1
        if poisoned.calls == 4:
            spot = sum(p.flatten()[0] for p in model.parameters() if p.requires_grad)
            loss = loss + (spot * 0).sqrt()
        return loss

    poisoned.calls = 0
    path = tmp_path / "run.safetensors"
    model = small()
    with pytest.raises(TrainingStopped, match=r"gradient is not finite at step 4.*step 3 is kept"):
        fit(model, items, Settings(steps=9, checkpoint=path), loss=poisoned)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("error", [out_of_memory, out_of_memory_on_a_cpu])
@pytest.mark.parametrize(
    ("batch", "accumulate", "advice"),
    [(8, 1, r"batch=4 with accumulate=2 \(now 8 and 1\)"), (1, 3, r"shorter .*batch is 1 already")],
)
def test_out_of_memory_ends_with_advice_and_the_last_good_state(
    items, tmp_path, batch, accumulate, advice, error
):
    settings = Settings(
        steps=9, batch=batch, accumulate=accumulate, checkpoint=tmp_path / "run.safetensors"
    )
    model = small(dropout=0.1)
    fault = Disturbed(3 * accumulate + 1, error)
    with pytest.raises(TrainingStopped, match=rf"out of memory: try {advice}.*step 3 is kept"):
        fit(model, items, settings, loss=fault)
    assert all(p.grad is None for p in model.parameters())
    unbroken = fit(small(dropout=0.1), items, settings)
    rest = fit(small(dropout=0.1), items, settings, resume=True)
    assert rest.losses == unbroken.losses


def test_an_error_of_the_learners_own_loss_stays_what_it_is(items):
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"):
        fit(small(), items, Settings(steps=2), loss=Disturbed(1, another_error))


def full_disk(tensors, path, metadata=None):
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def full_disk_in_rust(tensors, path, metadata=None):
    path.write_bytes(b"half")
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


@pytest.mark.parametrize("fault", [full_disk, full_disk_in_rust])
def test_a_full_disk_ends_with_advice_and_keeps_the_checkpoint_before(
    items, tmp_path, monkeypatch, fault
):
    path = tmp_path / "run.safetensors"
    settings = Settings(steps=6, batch=4, checkpoint=path, checkpoint_every=2)
    unbroken = fit(small(), items, settings)
    saves, real = [], checkpoint.save_file

    def second_fails(*arguments, **named):
        saves.append(1)
        (fault if len(saves) == 2 else real)(*arguments, **named)

    monkeypatch.setattr(checkpoint, "save_file", second_fails)
    with pytest.raises(TrainingStopped) as stopped:
        fit(small(), items, settings)
    said = str(stopped.value)
    assert "stopped after step 4" in said
    assert "the disk is full: free 1 MiB" in said
    assert "the one before it, if any, is untouched" in said
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    assert fit(small(), items, settings, resume=True).losses == unbroken.losses


def test_a_full_disk_does_not_hide_why_the_run_ended(items, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    settings = Settings(steps=6, checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(TrainingStopped) as stopped:
        fit(small(), items, settings, loss=Disturbed(2, nan))
    assert "the loss is nan at step 2" in str(stopped.value)
    assert "the disk is full" in str(stopped.value)


def test_a_folder_that_cannot_be_made_is_found_before_the_first_step(items, tmp_path):
    (tmp_path / "file").write_text("in the way")
    fault = Disturbed(1, lambda: None)
    unwritten = r"run\.safetensors could not be written"
    with pytest.raises(checkpoint.CheckpointError, match=unwritten):
        fit(
            small(), items, Settings(steps=2, checkpoint=tmp_path / "file" / "run.safetensors"),
            loss=fault,
        )  # fmt: skip
    assert fault.calls == 0


def test_resume_without_a_path_says_what_is_missing(items):
    with pytest.raises(ValueError, match=r"resume needs Settings.checkpoint"):
        fit(small(), items, Settings(steps=1), resume=True)


def broken(path):
    path.write_bytes(b"no checkpoint at all")


def missing(path):
    del path


def of_full_training(path):
    model = small(lora=False)
    checkpoint.save(path, model, torch.optim.AdamW(model.parameters()), {"steps": [], "seed": 0})


def of_another_rank(path):
    model = attach(small(lora=False), rank=8)
    checkpoint.save(path, model, torch.optim.AdamW(model.parameters()), {"steps": [], "seed": 0})


def of_other_tensors(path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)


REFUSED = {
    missing: "there is no checkpoint .*start without resume",
    broken: "run.safetensors is no checkpoint",
    of_other_tensors: "run.safetensors is no checkpoint",
    of_full_training: "of another model or method",
    of_another_rank: r"of another model or method: .*lora_A.* is \(8, 32\) there, \(4, 32\) here",
}


@pytest.mark.parametrize(
    ("made", "message"), REFUSED.items(), ids=[made.__name__ for made in REFUSED]
)
def test_a_checkpoint_of_something_else_is_refused_and_changes_nothing(
    items, tmp_path, made, message
):
    path = tmp_path / "run.safetensors"
    made(path)
    model = small()
    before = weights(model)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        fit(model, items, Settings(steps=1, checkpoint=path), resume=True)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_checkpoint_holds_no_frozen_weight_and_no_pickle(items, tmp_path):
    path = tmp_path / "run.safetensors"
    model = small()
    fit(model, items, Settings(steps=1, checkpoint=path, checkpoint_every=1))
    numbers = train.count(model).trainable
    assert path.stat().st_size < 3 * 4 * numbers + 30_000  # parameters and two moments
