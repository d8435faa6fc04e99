"""Answers held to a form while they are written: greedy decoding among the allowed tokens.

    RECORD = ('{"kind": "', Words(), '", "amount": ', Number(), '}')

    piece        allows
    a text       its own characters, nothing else
    Words(most)  1 to `most` printable characters, none of them " or a backslash
    Number(most) a whole number without a leading zero, of 1 to `most` digits
    OneOf(...)   one of a few texts, none of which begins another

A state is (piece, what was written of it). A token is allowed if all its characters can follow,
one after the other; a token may end one value and begin the next piece. At the end only the end of
turn is allowed. So every answer is valid JSON with the right fields, whatever the model would say.
That is all: the values may still be wrong.

Left out on purpose: nested objects, optional fields, escapes. A library such as outlines or
xgrammar compiles whole JSON schemas in this manner.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labkit.evaluate.scores import continued
from labkit.skills import FIELDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Words:
    """Text inside quotes."""

    most: int = 30

    def extends(self, written: str, char: str) -> bool:
        """Whether `char` can follow what is written of this piece."""
        plain = char.isprintable() and char.isascii() and char not in '"\\'
        return plain and len(written) < self.most and (char != " " or bool(written))

    def complete(self, written: str) -> bool:
        """Whether the piece may end here."""
        return bool(written)


@dataclass(frozen=True)
class Number:
    """A whole number, as JSON writes it: no leading zero."""

    most: int = 6

    def extends(self, written: str, char: str) -> bool:
        return char in "0123456789" and len(written) < self.most and written != "0"

    def complete(self, written: str) -> bool:
        return bool(written)


@dataclass(frozen=True)
class OneOf:
    """One of a few texts."""

    texts: tuple[str, ...]

    def extends(self, written: str, char: str) -> bool:
        return any(text.startswith(written + char) for text in self.texts)

    def complete(self, written: str) -> bool:
        return written in self.texts


Piece = str | Words | Number | OneOf
State = tuple[int, str]  # the piece, and what was written of it


def record_shape() -> tuple[Piece, ...]:
    """The record of the workbook's task: five fields, in order, the kind one of two."""
    values: dict[str, Piece] = {"kind": OneOf(("invoice", "contract")), "amount": Number(4)}
    pieces: list[Piece] = []
    before = "{"
    for field in FIELDS:
        value = values.get(field, Words())
        quote = "" if isinstance(value, Number) else '"'
        pieces += [f"{before}{json.dumps(field)}: {quote}", value]
        before = f"{quote}, "
    return (*pieces, before.replace(", ", "}"))


def step(pieces: Sequence[Piece], state: State, char: str) -> State | None:
    """The state after one more character; None if it cannot stand here."""
    place, written = state
    while place < len(pieces):
        piece = pieces[place]
        found = OneOf((piece,)) if isinstance(piece, str) else piece
        if found.extends(written, char):
            return place, written + char
        if not found.complete(written):
            return None
        place, written = place + 1, ""
    return None


def walk(pieces: Sequence[Piece], state: State, text: str) -> State | None:
    """The state after a whole text."""
    found: State | None = state
    for char in text:
        found = step(pieces, found, char) if found else None
    return found


def finished(pieces: Sequence[Piece], state: State) -> bool:
    """Whether everything is written."""
    last = pieces[-1]
    piece = OneOf((last,)) if isinstance(last, str) else last
    return state[0] == len(pieces) - 1 and piece.complete(state[1])


class Shape:
    """What may follow, for one tokenizer: `after(n)` is a logits processor of transformers."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", pieces: Sequence[Piece]) -> None:
        self.pieces, self.end = tuple(pieces), tokenizer.eos_token_id
        special = set(tokenizer.all_special_ids)
        self.texts = ["" if i in special else tokenizer.decode([i]) for i in range(len(tokenizer))]
        self.allowed = lru_cache(maxsize=None)(self._allowed)

    def _allowed(self, state: State) -> Tensor:
        """For each token whether it can stand here, bool (vocabulary,)."""
        can = [bool(t) and walk(self.pieces, state, t) is not None for t in self.texts]
        can[self.end] = finished(self.pieces, state)
        return torch.tensor(can)

    @property
    def longest(self) -> int:
        """Characters of the longest answer, so at most as many tokens, and the end of turn."""
        return 1 + sum(map(_longest, self.pieces))

    def after(self, prompt: int) -> Callable[[Tensor, Tensor], Tensor]:
        """What puts the logits of tokens that cannot follow at minus infinity.

        Args:
            prompt: tokens in front of the answer, padding included.
        """

        def processor(ids: Tensor, scores: Tensor) -> Tensor:
            rows = [row[prompt:] for row in ids.tolist()]
            allowed = torch.stack([self._of(row) for row in rows]).to(scores.device)
            return scores.masked_fill(~allowed, float("-inf"))

        return processor

    def _of(self, written: Sequence[int]) -> Tensor:
        if self.end in written:  # an answer that ended waits for the others of its batch
            return torch.ones(len(self.texts), dtype=torch.bool)
        state = walk(self.pieces, (0, ""), "".join(self.texts[i] for i in written))
        if state is None:
            raise ValueError(f"the tokens {list(written)} do not fit the shape")
        return self.allowed(state)


def _longest(piece: Piece) -> int:
    if isinstance(piece, str):
        return len(piece)
    return max(map(len, piece.texts)) if isinstance(piece, OneOf) else piece.most


def filled(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    pieces: Sequence[Piece] | None = None,
) -> list[str]:
    """The greedy answer to each chat text among those of a shape, by default `record_shape()`."""
    shape = Shape(tokenizer, pieces or record_shape())
    return continued(model, tokenizer, texts, shape.longest, processor=shape.after)
