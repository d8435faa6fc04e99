"""Reading JSONL, masking the prompt, batches."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from labkit import data, project
from labkit.data import DataError, Encoded, Example

GOOD = {"prompt": "Say rope twice.", "answer": "rope rope", "skill": "instruct"}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(project.data("models", "tiny"))


def written(folder, *lines: bytes):
    path = folder / "mine.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


ROW = json.dumps(GOOD).encode()
BROKEN = {
    "half a line": ((ROW, ROW[:20]), r"mine.jsonl, line 2: not JSON"),
    "a missing field": (
        (ROW, b'{"prompt": "a", "skill": "b"}'),
        "line 2: .*non-empty text in 'answer'",
    ),
    "a number for a text": ((b'{"prompt": 1, "answer": "a", "skill": "b"}',), "'prompt', found 1"),
    "a list": ((b"[1, 2]",), "expected an object with prompt, answer, skill"),
    "a blank line": ((ROW, b"", ROW), "line 2: not JSON"),
    "nothing": ((), "the file is empty"),
    "Latin-1": (('{"prompt": "Müller"}'.encode("latin-1"),), "expected UTF-8, found byte 0xfc"),
    "UTF-16": (("x".encode("utf-16"),), "expected UTF-8"),
}


@pytest.mark.parametrize("lines, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_by_name_and_line(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        data.read_jsonl(written(tmp_path, *lines))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.jsonl: cannot be read .*check the path"):
        data.read_jsonl(tmp_path / "nowhere.jsonl")


def test_every_row_arrives_with_or_without_a_last_newline(tmp_path):
    path = written(tmp_path, ROW, ROW, ROW)
    path.write_bytes(path.read_bytes()[:-1])
    assert data.examples(path) == [Example(**GOOD)] * 3


@pytest.mark.parametrize("name, n", [("train", 2400), ("validation", 200), ("test", 200)])
def test_the_task_files_have_their_rows(name, n):
    assert [e.skill for e in data.examples(name)] == ["record"] * n


def test_the_prompt_is_masked_and_the_answer_with_its_end_is_learnt(tokenizer):
    encoded = data.encode(tokenizer, Example(**GOOD))
    learnt = [label for label in encoded.labels if label != data.IGNORE]
    assert tokenizer.decode(learnt) == "rope rope<|eot_id|>"
    assert encoded.input_ids[-len(learnt) :] == learnt
    hidden = encoded.input_ids[: -len(learnt)]
    assert tokenizer.decode(hidden).endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_the_end_of_turn_is_learnt_though_padding_is_not(tokenizer):
    short, long = (data.encode(tokenizer, Example("a", "b" * n, "x")) for n in (1, 9))
    batch = data.collate([short, long], tokenizer.pad_token_id)
    stop = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert tokenizer.pad_token_id != stop
    assert (batch["labels"] == stop).sum() == 2
    assert (batch["labels"][batch["input_ids"] == tokenizer.pad_token_id] == data.IGNORE).all()


def test_padding_stands_on_the_right_up_to_a_multiple(tokenizer):
    batch = data.collate([Encoded([7] * 9, [7] * 9), Encoded([7] * 3, [7] * 3)], 5, multiple=8)
    assert batch["input_ids"].shape == (2, 16)
    assert batch["attention_mask"].sum(1).tolist() == [9, 3]
    assert batch["input_ids"][1].tolist() == [7] * 3 + [5] * 13
    assert batch["input_ids"].dtype == torch.int64


def test_a_chat_that_is_too_long_is_refused_and_not_cut(tokenizer):
    with pytest.raises(DataError, match="exceed max_length=5; raise it to"):
        data.encode(tokenizer, Example(**GOOD), max_length=5)


def test_an_epoch_sees_each_item_once_and_a_later_start_continues_it():
    items = [Encoded([i], [i]) for i in range(12)]
    run = [b["input_ids"][:, 0].tolist() for b in data.batches(items, 4, 6, 0, seed=1)]
    first, second = ([i for step in epoch for i in step] for epoch in (run[:3], run[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    late = [b["input_ids"][:, 0].tolist() for b in data.batches(items, 4, 6, 0, seed=1, start=2)]
    assert late == run[2:]
    with pytest.raises(ValueError, match="batch=13 must lie between 1 and the 12"):
        next(data.batches(items, 13, 1, 0, seed=1))
