"""JSONL files in, masked token batches out.

A row of a file is one `Example`. Its prompt is shown to the model and not learnt: the labels of
the prompt's tokens are IGNORE. The answer and the end-of-turn token behind it are learnt; without
the latter the model never stops.

    text      <|begin_of_text|> user ... {prompt} <|eot_id|> assistant ... {answer} <|eot_id|>
    input_ids every token of it
    labels    IGNORE .. IGNORE                                             {answer} <|eot_id|>

Labels stand under their own tokens; the shift by one is the model's (or the loss function's).
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import project
from labkit.skills import Example

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORE = -100  # the label that torch's cross entropy leaves out
FILES = {
    "train": "task/train.jsonl",
    "validation": "task/validation.jsonl",
    "test": "task/test.jsonl",
    "regression": "regression.jsonl",
}


class DataError(project.LabkitError, ValueError):
    """A data file that cannot be used; says which, where, and what was expected."""


def _row(path: Path, number: int, line: str, fields: Sequence[str]) -> dict[str, Any]:
    where = f"{path.name}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: expected an object with {', '.join(fields)}, found {line[:40]!r}"
        )
    for field in fields:
        if not isinstance(row.get(field), str) or not row[field]:
            raise DataError(
                f"{where}: expected a non-empty text in {field!r}, found {row.get(field)!r}"
            )
    return row


def read_jsonl(
    path: str | Path, fields: Sequence[str] = ("prompt", "answer", "skill")
) -> list[dict[str, Any]]:
    """Every row of a JSONL file; nothing is dropped. `fields` must be non-empty texts.

    Raises:
        DataError: a broken line, a missing field, an empty file or line, or an encoding other
            than UTF-8, each with file, line number and what was expected; no such file.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if lines[-1] == b"":
        lines.pop()  # the newline that ends the last row
    if not lines:
        raise DataError(f"{path.name}: the file is empty; expected one JSON object a line")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(
                _row(path, number, line.decode("utf-8-sig" if number == 1 else "utf-8"), fields)
            )
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path.name}, line {number}: expected UTF-8, found byte "
                f"0x{line[error.start]:02x} at column {error.start + 1}; save the file as UTF-8"
            ) from error
    return rows


def examples(name_or_path: str | Path) -> list[Example]:
    """The examples of "train", "validation", "test" (the task), "regression", or of a JSONL file.

    Raises:
        DataError: as `read_jsonl`.
    """
    path = project.data(FILES[name_or_path]) if name_or_path in FILES else Path(name_or_path)
    return [Example(row["prompt"], row["answer"], row["skill"]) for row in read_jsonl(path)]


def chat(tokenizer: "PreTrainedTokenizerBase", prompt: str, answer: str | None = None) -> str:
    """The chat text up to the answer, or with it and the end-of-turn token behind it."""
    turns = [{"role": "user", "content": prompt}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    return tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=answer is None
    )


@dataclass(frozen=True)
class Encoded:
    """One example in tokens; `labels` is as long as `input_ids`."""

    input_ids: list[int]
    labels: list[int]


def mask_prompt(prompt: list[int], whole: list[int]) -> list[int]:
    """The labels of `whole`, which begins with `prompt`: IGNORE there, its own tokens after it."""
    return [IGNORE] * len(prompt) + whole[len(prompt) :]


def encode(
    tokenizer: "PreTrainedTokenizerBase", example: Example, max_length: int | None = None
) -> Encoded:
    """The chat of `example` as tokens; the prompt's labels are IGNORE, the answer's are learnt.

    Raises:
        DataError: if the chat is longer than `max_length` tokens: cutting it would cut the answer.
    """
    prompt = tokenizer(chat(tokenizer, example.prompt), add_special_tokens=False).input_ids
    whole = tokenizer(
        chat(tokenizer, example.prompt, example.answer), add_special_tokens=False
    ).input_ids
    if whole[: len(prompt)] != prompt:
        raise DataError(
            "the chat template changes the prompt once an answer follows, so the mask cannot be "
            f"placed; check the tokenizer's template on {example.prompt[:40]!r}"
        )
    if max_length is not None and len(whole) > max_length:
        raise DataError(
            f"{len(whole)} tokens in {example.prompt[:40]!r} exceed max_length={max_length}; "
            f"raise it to {len(whole)} or leave the example out"
        )
    return Encoded(whole, mask_prompt(prompt, whole))


def collate(items: Sequence[Encoded], pad_id: int, multiple: int = 8) -> "dict[str, Tensor]":
    """Right-padded int64 tensors (batch, longest, rounded up to `multiple`)."""
    import torch

    length = -(-max(len(item.input_ids) for item in items) // multiple) * multiple

    def padded(rows: Sequence[list[int]], fill: int) -> "Tensor":
        return torch.tensor([row + [fill] * (length - len(row)) for row in rows])

    return {
        "input_ids": padded([item.input_ids for item in items], pad_id),
        "attention_mask": padded([[1] * len(item.input_ids) for item in items], 0),
        "labels": padded([item.labels for item in items], IGNORE),
    }


def batches(
    items: Sequence[Encoded], batch: int, steps: int, pad_id: int, seed: int, start: int = 0
) -> "Iterator[dict[str, Tensor]]":
    """Batches `start` to `steps` of a run; each epoch is shuffled anew, by `seed` and its number.

    An item is seen once an epoch; the rest of an epoch that fills no batch is left for the next.

    Raises:
        ValueError: if `batch` is not between 1 and the number of items.
    """
    if not 1 <= batch <= len(items):
        raise ValueError(f"batch={batch} must lie between 1 and the {len(items)} items given")
    per_epoch = len(items) // batch
    for step in range(start, steps):
        epoch, place = divmod(step, per_epoch)
        order = list(range(len(items)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        chosen = order[place * batch : (place + 1) * batch]
        yield collate([items[i] for i in chosen], pad_id)
