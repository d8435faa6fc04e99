"""The fine-tune at its real size: the rows on disk, and what of the command needs no GPU."""

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from labkit import measure, project, train

ROWS = {row["name"]: row for row in measure.rows_on_disk()}
FORTY = 2 * (2048 + 2048) + 2 * (2048 + 512) + 3 * (2048 + 8192)  # in + out, q o, k v, the MLP


# What was measured


def test_each_way_was_measured_once_and_none_failed():
    assert set(ROWS) >= {"trl", "plain", "hand", "hand-eager", "hand-no-checkpointing", "t4"}
    assert set(ROWS) <= set(measure.CONFIGURATIONS)
    assert len(ROWS) == len(measure.rows_on_disk())
    assert not [row for row in ROWS.values() if "error" in row]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_on_what_and_when_it_was_measured(name):
    row = ROWS[name]
    assert row["gpu"].startswith("NVIDIA ")
    assert re.fullmatch(r"\d+(\.\d+)+", row["driver"])
    assert re.fullmatch(r"3\.\d+\.\d+", row["python"])
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", row["date"])
    assert set(row["versions"]) == {"torch", "transformers", "peft", "bitsandbytes", "trl"}
    for number in row["versions"].values():
        assert re.match(r"\d+\.\d+", number)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_trains_the_count_that_the_config_foretells(name):
    config = LlamaConfig(**measure.LLAMA_1B)
    foretold = train.lora_parameters(config, measure.RANK)
    assert ROWS[name]["trainable"] == foretold == 16 * 16 * FORTY == 11_272_192


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_a_loss_for_each_step_near_that_of_a_guess(name):
    """Random weights of std 0.02 spread the logits by s = 0.02 * sqrt(2048) = 0.905, since the
    normed state has length sqrt(2048); that adds s**2 / 2 nats to those of an even guess."""
    losses = ROWS[name]["losses"]
    assert len(losses) == measure.WARM + measure.TIMED
    guess = math.log(measure.LLAMA_1B["vocab_size"]) + (0.02**2 * 2048) / 2
    assert losses == pytest.approx([guess] * len(losses), abs=0.05)


@pytest.mark.parametrize("name", ROWS)
def test_the_numbers_of_a_row_fit_each_other(name):
    row = ROWS[name]
    tokens = measure.BATCH * measure.LENGTH * measure.ACCUMULATE
    assert row["tokens_per_second"] == pytest.approx(tokens / row["seconds_per_step"], rel=1e-3)
    assert row["seconds_per_step"] <= row["slowest_step"] < 2 * row["seconds_per_step"]
    assert row["peak_allocated_bytes"] <= row["peak_reserved_bytes"]


def test_the_rows_were_measured_in_one_setting():
    for what in ("gpu", "driver", "python", "date"):
        assert len({row[what] for row in ROWS.values()}) == 1, what
    assert len({json.dumps(row["versions"]) for row in ROWS.values()}) == 1


def test_the_loop_by_hand_is_three_tenths_faster_than_trl_in_no_more_memory():
    hand, trl = ROWS["hand"], ROWS["trl"]
    assert hand["tokens_per_second"] >= 1.3 * trl["tokens_per_second"]
    assert hand["peak_allocated_bytes"] <= trl["peak_allocated_bytes"]


def test_the_loop_fits_a_t4():
    t4 = ROWS["t4"]
    assert t4["setting"]["dtype"] == "float16"
    assert t4["setting"]["gib"] == 15
    assert t4["peak_reserved_bytes"] <= 15 * 2**30


def test_checkpointing_and_the_chunked_loss_save_what_they_promise():
    kept, plain, eager = (ROWS[n] for n in ("hand-no-checkpointing", "plain", "hand-eager"))
    logits = measure.BATCH * measure.LENGTH * measure.LLAMA_1B["vocab_size"] * 4  # float32
    assert kept["peak_allocated_bytes"] > 3 * ROWS["hand"]["peak_allocated_bytes"]
    assert plain["peak_allocated_bytes"] - eager["peak_allocated_bytes"] > 2 * logits


def test_the_table_shows_each_row_with_its_numbers():
    table = measure.measured()
    assert [row[0] for row in table.rows] == [row["name"] for row in measure.rows_on_disk()]
    for name, speed, allocated, reserved in table.rows:
        row = ROWS[name]
        assert int(speed.replace(",", "")) == row["tokens_per_second"]
        assert float(allocated) * 2**30 == pytest.approx(row["peak_allocated_bytes"], rel=0.005)
        assert float(reserved) * 2**30 == pytest.approx(row["peak_reserved_bytes"], rel=0.005)
    for said in (
        ROWS["hand"]["gpu"],
        ROWS["hand"]["date"],
        "trl " + ROWS["hand"]["versions"]["trl"],
    ):
        assert said in table.caption


# The shape


def test_the_checkpoint_has_the_size_of_llama_1b_with_adapters():
    counted = train.count_for_config(LlamaConfig(**measure.LLAMA_1B), measure.RANK)
    assert (counted.trainable, counted.total) == (11_272_192, 1_247_086_592)


def test_a_checkpoint_is_written_in_bfloat16_with_its_tokenizer(tmp_path, monkeypatch):
    small = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    small |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    monkeypatch.setattr(measure, "LLAMA_1B", measure.LLAMA_1B | small | {"bos_token_id": 0})
    tiny = project.data("models", "tiny")
    measure.write_checkpoint(tmp_path, tiny)
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    assert {str(p.dtype) for p in model.parameters()} == {"torch.bfloat16"}
    assert model.config.rope_parameters["rope_type"] == "llama3"
    assert model.config.tie_word_embeddings
    texts = [AutoTokenizer.from_pretrained(f).encode("rope, 42") for f in (tmp_path, tiny)]
    assert texts[0] == texts[1]


# The command line


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command; gives the options that `row` would measure by."""
    seen = []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(measure, "row", lambda options: seen.append(options) or {})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["measure", *map(str, arguments)])
        measure.main()
        return seen[-1] if seen else None

    return run


@pytest.mark.parametrize("name", measure.CONFIGURATIONS)
def test_each_configuration_is_read_as_the_row_on_disk_says(command, name):
    options = command("row", name, "--folder", "there", *measure.CONFIGURATIONS[name])
    assert (options.name, options.folder) == (name, Path("there"))
    setting = {switch: getattr(options, switch) for switch in measure.SWITCHES}
    words = " ".join(measure.CONFIGURATIONS[name])
    switches = ("graph", "liger", "logits", "prepare", "checkpointing", "compile")
    for switch in switches:
        usual = switch in ("graph", "checkpointing") and f"--no-{switch}" not in words
        assert setting[switch] is (usual or f"--{switch}" in words)
    assert name not in ROWS or setting == ROWS[name]["setting"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["all", "--folder", "there"], "all needs --out"),
        (["checkpoint", "--folder", "there"], "checkpoint needs --tokenizer"),
        (["row", "hand"], "required: --folder"),
        (["dance", "--folder", "there"], "invalid choice: 'dance'"),
        (["all", "--folder", "there", "--only", "polka"], "invalid choice: 'polka'"),
    ],
)
def test_a_command_that_cannot_be_done_is_refused_at_once(command, capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        command(*arguments)
    assert said in capsys.readouterr().err


def test_each_way_runs_in_a_process_of_its_own_and_a_failure_becomes_a_row(
    monkeypatch, tmp_path, capsys
):
    asked = []

    def run(command, timeout, **_):
        asked.append(command)
        name = command[4]
        if name == "plain":
            return subprocess.CompletedProcess(command, 1, "", "x" * 2000 + "CUDA out of memory")
        if name == "hand":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0, f'a bar\n{{"name": "{name}"}}\n', "")

    monkeypatch.setattr(measure.subprocess, "run", run)
    out = tmp_path / "rows.jsonl"
    out.write_text('{"name": "before"}\n')
    names = ["trl", "plain", "hand", "t4"]
    options = argparse.Namespace(folder=Path("there"), only=names, out=out, seconds=90)
    measure.all_rows(options)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["before", *names]
    assert rows[2]["error"].endswith("CUDA out of memory")
    assert len(rows[2]["error"]) == 1500
    assert re.fullmatch(r"not done within (90|89) s", rows[3]["error"])
    begin = [sys.executable, "-m", "labkit.measure", "row"]
    assert asked[-1] == [*begin, "t4", "--folder", "there", *measure.CONFIGURATIONS["t4"]]
    assert capsys.readouterr().out == "".join(f"{json.dumps(row)}\n" for row in rows[1:])


def test_no_way_is_begun_that_the_time_left_does_not_hold(monkeypatch, tmp_path):
    monkeypatch.setattr(measure.subprocess, "run", lambda *_, **__: pytest.fail("begun"))
    options = argparse.Namespace(folder=tmp_path, only=None, out=tmp_path / "rows", seconds=19)
    measure.all_rows(options)
    assert not (tmp_path / "rows").exists()
