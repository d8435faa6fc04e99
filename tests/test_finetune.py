"""The fine-tune without a browser: its last line, its files, its errors."""

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
import torch
from transformers import AutoConfig, PreTrainedModel

from labkit import adapters, data, evaluate, finetune, models, project, train
from labkit.evaluate import scores
from labkit.history import Settings

TINY = project.data("models", "tiny")
KEYS = (
    "model method trainable seconds task_before task_after regression_before regression_after "
    "adapter_path adapter_bytes peak_bytes"
).split()
SHORT = ["--model", "tiny", "--steps", "2", "--batch", "2", "--limit", "1"]


def in_a_process(folder, *arguments):
    """The result of the command in a process of its own, on the CPU."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("LABKIT_")}
    done = subprocess.run(
        [sys.executable, "-m", "labkit.finetune", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=kept | {"LABKIT_RUNS": str(folder), "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def usual(runs):
    return in_a_process(runs)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs the command here; gives exit code, last line of the output and the errors."""
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))

    def run(*arguments):
        try:
            code = finetune.main(arguments)
        except SystemExit as left:
            code = left.code
        except KeyboardInterrupt:
            pytest.fail("an interrupt came through")  # it would end pytest itself
        printed = capsys.readouterr()
        return code, printed.out.splitlines()[-1:], printed.err

    return run


def result(command, *arguments):
    code, (last,), error = command(*SHORT, *arguments)
    assert code == 0, error
    assert "labkit.finetune" not in error
    return json.loads(last)


def weights(said, name=adapters.WEIGHTS):
    with open(f"{said['adapter_path']}/{name}", "rb") as file:
        return file.read()


# The run as shipped


@pytest.mark.slow
def test_the_last_line_is_one_object_of_the_promised_keys(usual):
    assert list(usual) == KEYS
    assert (usual["model"], usual["method"]) == ("tiny", "qlora")


@pytest.mark.slow
def test_the_task_is_learnt_from_nothing_and_the_skills_stay(usual):
    assert usual["task_before"] < 0.05
    assert usual["regression_before"] >= 0.9
    assert usual["task_after"] >= 0.9
    assert usual["regression_after"] >= 0.8


@pytest.mark.slow
def test_the_training_takes_two_minutes_at_most(usual):
    assert 1 < usual["seconds"] <= 120


@pytest.mark.slow
def test_the_adapter_has_the_numbers_and_bytes_that_the_config_foretells(usual, runs):
    config = AutoConfig.from_pretrained(TINY)
    assert usual["trainable"] == train.lora_parameters(config, 16) == 448_512
    assert usual["adapter_path"] == str(runs / "qlora")
    written = (runs / "qlora" / adapters.WEIGHTS).stat().st_size
    assert usual["adapter_bytes"] == written == adapters.predicted_bytes(config, 16)


@pytest.mark.slow
def test_the_card_of_the_adapter_says_the_same_scores(usual, runs):
    card = adapters.read_card(runs / "qlora")
    assert card.scores["task"] == pytest.approx(usual["task_after"], abs=1e-4)
    assert card.scores["regression"] == pytest.approx(usual["regression_after"], abs=1e-4)
    assert card.base_sha256 == models.weights_sha256(TINY)
    assert card.settings["steps"] == Settings.steps


FORGETS = {
    "everything trains": ["--method", "full", "--lr", "5e-4"],
    "over-trained: six times the rate on half the letters": ["--lr", "3e-3", "--batch", "4"],
}


@pytest.fixture(scope="module")
def kept(usual, runs):
    """What the usual run still knows of every fifth question, those that --limit 60 asks."""
    base = models.load("tiny")
    model, questions = adapters.load(runs / "qlora", base), data.examples("regression")[::5]
    return evaluate.score_regression(model, base.tokenizer, questions)


@pytest.mark.slow
@pytest.mark.parametrize("how", FORGETS.values(), ids=FORGETS)
def test_full_and_over_training_forget_more(kept, runs, how):
    other = in_a_process(runs, *how, "--limit", "60", "--out", str(runs / "other"))
    assert other["task_after"] >= 0.9
    assert other["regression_after"] < kept.exact_match < other["regression_before"]


# Short runs


def test_a_seed_repeats_scores_and_adapter_and_another_seed_does_not(command, tmp_path):
    method = ["--method", "lora", "--seed"]
    first, again, other = (
        result(command, *method, seed, "--out", str(tmp_path / name))
        for name, seed in (("a", "3"), ("b", "3"), ("c", "4"))
    )
    scores = [key for key in KEYS if key.startswith(("task", "regression"))]
    assert [first[key] for key in scores] == [again[key] for key in scores]
    assert first["trainable"] == again["trainable"] == 448_512
    assert weights(first) == weights(again) != weights(other)
    assert first["method"] == "lora"


@contextmanager
def interrupted_at_the_second_step(steps):
    yield lambda step: step.number == 2 and os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_run_says_how_to_go_on_and_ends_as_if_unbroken(
    command, tmp_path, monkeypatch
):
    four = ["--steps", "4", "--out"]
    unbroken = result(command, *four, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "watch", interrupted_at_the_second_step)
        code, _, error = command(*SHORT, *four, str(tmp_path / "broken"))
    assert code == 1
    assert "interrupted: step 2 is kept in checkpoint.safetensors" in error
    assert error.endswith("here: the same command with --resume\n")
    resumed = result(command, *four, str(tmp_path / "broken"), "--resume")
    assert weights(resumed) == weights(unbroken)


def raises(error, at):
    """A scorer whose call number `at` raises."""
    calls = []

    def answers(model, tokenizer, prompts):
        calls.append(prompts)
        if len(calls) == at:
            error()
        return ["?"] * len(prompts)

    return answers


def ctrl_c():
    raise KeyboardInterrupt


def full_memory():
    torch.empty(2**60)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


ENDS = {
    "interrupted": (ctrl_c, "interrupted outside of the training"),
    "no memory": (full_memory, "out of memory outside of the training: end other programs"),
}


@pytest.mark.parametrize(("error", "said"), ENDS.values(), ids=ENDS)
def test_a_run_that_ends_in_scoring_keeps_what_was_trained(
    command, tmp_path, monkeypatch, error, said
):
    unbroken = result(command, "--out", str(tmp_path / "whole"))
    there = ["--out", str(tmp_path / "broken")]
    with monkeypatch.context() as patch:
        patch.setattr(scores, "answers", raises(error, at=3))  # the first one after it
        code, _, told = command(*SHORT, *there)
    assert code == 1
    assert said in told
    assert told.endswith("here: the same command with --resume\n")
    assert weights(result(command, *there, "--resume")) == weights(unbroken)
    assert not (tmp_path / "broken" / finetune.CHECKPOINT).exists()


def test_a_run_that_ends_before_the_training_promises_nothing(command, monkeypatch):
    monkeypatch.setattr(scores, "answers", raises(ctrl_c, at=1))
    code, _, told = command(*SHORT)
    assert (code, told) == (1, "labkit.finetune: interrupted outside of the training\n")


def test_a_full_disk_at_the_end_of_full_training_says_how_much_to_free(command, monkeypatch):
    monkeypatch.setattr(scores, "answers", raises(ctrl_c, at=0))
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full_disk)
    code, _, told = command(*SHORT, "--method", "full")
    assert code == 1
    assert "No space left on device): free 9 MiB or choose another folder with --out\n" in told
    assert "Traceback" not in told


def test_full_training_writes_a_model_that_loads_and_differs(command, tmp_path):
    said = result(command, "--method", "full", "--lr", "1e-3")
    assert said["trainable"] == 4_689_152
    assert said["adapter_path"] == str(tmp_path / "full")
    assert said["adapter_bytes"] == len(weights(said, "model.safetensors"))
    base = models.load(tmp_path / "full", quantize=None)
    assert train.count(base.model).total == 4_689_152
    assert base.weights_sha256 != models.weights_sha256(TINY)
    assert base.tokenizer.chat_template


def test_full_training_takes_a_tenth_of_the_rate_unless_told():
    def rate(*arguments):
        return finetune.settings_of(finetune.options(arguments)).lr

    assert rate() == Settings.lr
    assert rate("--method", "full") == pytest.approx(Settings.lr / 10)
    assert rate("--method", "full", "--lr", "0.25") == 0.25


def test_an_adapter_goes_into_a_folder_named_for_its_method(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    assert finetune.folder(finetune.options(["--method", "lora"])) == tmp_path / "lora"


# Memory


@pytest.mark.slow
def test_without_a_gpu_the_peak_is_the_memory_of_the_process(usual):
    assert 2e8 < usual["peak_bytes"] < psutil.virtual_memory().total  # torch alone takes 200 MB


def test_the_peak_counts_bytes_that_were_held_and_given_back():
    peak, held = finetune.peak_resident(), psutil.Process().memory_info().rss
    big = b"x" * (peak - held + 300_000_000)
    del big
    assert finetune.peak_resident() - peak == pytest.approx(300_000_000, rel=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands the number on")
def test_the_peak_is_not_that_of_the_process_that_started_this_one():
    big = b"x" * 300_000_000
    code = "import re, sys\nfrom pathlib import Path\n" + inspect.getsource(finetune.peak_resident)
    code += "print(peak_resident())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200_000_000 < len(big)


# Errors

REFUSED = {
    "an unknown model": (["--model", "gpt-9"], 1, "'gpt-9' is neither a folder nor one of tiny"),
    "a folder without a model": (["--model", "{tmp}"], 1, "config.json"),
    "a rate of zero": (["--lr", "0"], 1, "lr=0.0 and clip=1.0 must be above 0"),
    "a rate that is no number": (["--lr", "nan"], 1, "lr=nan"),
    "an unknown method": (["--method", "dance"], 2, "invalid choice: 'dance'"),
    "no steps": (["--steps", "0"], 2, "--steps: 0 is no whole number from 1 on"),
    "a negative limit": (["--limit", "-1"], 2, "--limit: -1 is no whole number from 1 on"),
    "half a rank": (["--rank", "1.5"], 2, "--rank: 1.5 is no whole number from 1 on"),
    "an unknown option": (["--stepz", "3"], 2, "unrecognized arguments: --stepz 3"),
    "no checkpoint": ([*SHORT, "--resume"], 1, "checkpoint.safetensors; start without resume"),
    "a batch beyond the data": ([*SHORT, "--batch", "9999"], 1, "1 and the 2400"),
    "a file for a folder": ([*SHORT, "--out", "{tmp}/file"], 1, "choose another folder"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_one_clear_line(
    command, tmp_path, monkeypatch, arguments, code, said
):
    monkeypatch.setattr(scores, "answers", lambda *given: ["?"] * len(given[2]))
    (tmp_path / "file").write_text("in the way")
    found, _, error = command(*(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert found == code
    last = error.splitlines()[-1]
    assert said in last
    assert last.startswith(("labkit.finetune: ", "python -m labkit.finetune: error: "))
    assert code == 2 or error.count("\n") == 1
    assert "Traceback" not in error
