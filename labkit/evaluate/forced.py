"""Exact match without writing a word: one forward pass over the right answers.

Greedy decoding gives the right answer exactly if the likeliest token is the right one at each of
its places, the end of turn included, each time after the right tokens before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from labkit.data import IGNORE, Example, collate, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ForcedScore:
    """Over `n` right answers: the share that greedy decoding would give, and the mean loss."""

    n: int
    exact_match: float
    loss: float  # nats a learnt token

    def __str__(self) -> str:
        return f"{self.exact_match:.1%} of {self.n} exactly right, loss {self.loss:.4f}"

    __repr__ = __str__


@dataclass(frozen=True)
class Forced:
    """One right answer, forced: whether greedy decoding gives it, its loss and its length."""

    hit: bool
    nats: float
    tokens: int


@torch.no_grad()
def forced(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    batch: int = 50,
) -> list[Forced]:
    """Each example's right answer in one forward pass; see `forced_score`.

    Raises:
        ValueError: if there is no example.
    """
    if not examples:
        raise ValueError("0 answers for 0 examples: give one each")
    encoded = [encode(tokenizer, example) for example in examples]
    found: list[Forced] = []
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(encoded), batch):
            part = collate(encoded[start : start + batch], tokenizer.pad_token_id)
            ids, mask, labels = (v.to(model.device) for v in part.values())
            logits, labels = model(ids, attention_mask=mask).logits[:, :-1].float(), labels[:, 1:]
            learnt = labels != IGNORE
            hits = ((logits.argmax(-1) == labels) | ~learnt).all(1)
            flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            values = (hits, flat.view_as(labels).sum(1), learnt.sum(1))
            found += map(Forced, *(value.tolist() for value in values))
    finally:
        model.train(was_training)
    return found


def forced_score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    batch: int = 50,
) -> ForcedScore:
    """Exact match of greedy answers, and the loss, in one forward pass over the right answers.

    Raises:
        ValueError: if there is no example.
    """
    found = forced(model, tokenizer, examples, batch)
    loss = sum(f.nats for f in found) / sum(f.tokens for f in found)
    return ForcedScore(len(found), sum(f.hit for f in found) / len(found), loss)


def forced_hits(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    batch: int = 50,
) -> list[bool]:
    """For each example, whether greedy decoding gives exactly its answer; as `forced_score`."""
    return [f.hit for f in forced(model, tokenizer, examples, batch)]
