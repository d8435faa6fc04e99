"""A model whose weights have been rounded: what 4 bits cost it, in its own terms.

    round_linears(model, code, block)        every linear map but the head, rounded in place
    with in_code(model, code, block): ...    the same, and the first weights back at the end
    perplexity(model, tokenizer, examples)   exp of the mean loss of a token, prompts included

Nothing is stored in 4 bits here. Each weight becomes the number that 4 bits would give back, so
any code and any block size can be tried on any model. The head and the embeddings stay as they
are, as bitsandbytes and transformers leave them.

Left out on purpose: double quantisation, whose error is far below that of the codes.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labkit.blocks import rounded
from labkit.data import IGNORE, Example, collate, encode
from labkit.loss import causal_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.no_grad()
def round_linears(model: nn.Module, code: Tensor, block: int = 64) -> nn.Module:
    """`model`, each weight of its linear maps but the head rounded to `code` in place.

    Raises:
        ValueError: if it has no such linear map, or a weight cannot be rounded.
    """
    for module in _maps(model):
        module.weight.copy_(rounded(module.weight, code, block))
    return model


@contextmanager
def in_code(model: nn.Module, code: Tensor, block: int = 64) -> Iterator[nn.Module]:
    """Within it the weights of `model` are rounded to `code`; then they are what they were.

    Raises:
        ValueError: as `round_linears`.
    """
    before = [module.weight.detach().clone() for module in _maps(model)]
    try:
        yield round_linears(model, code, block)
    finally:
        for module, weight in zip(_maps(model), before, strict=True):
            module.weight.data.copy_(weight)


def _maps(model: nn.Module) -> list[nn.Linear]:
    """The linear maps of a model but its head.

    Raises:
        ValueError: if there is none, or one holds codes instead of numbers.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    maps = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    if not maps:
        raise ValueError(f"{type(model).__name__} has no linear map whose weight can be rounded")
    for module in maps:
        if not module.weight.is_floating_point():
            raise ValueError(f"a weight of {module.weight.dtype} is rounded already: load it plain")
    return maps


@torch.no_grad()
def perplexity(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    examples: Sequence[Example],
    batch: int = 32,
) -> float:
    """exp of the mean cross entropy over all tokens of the chats, but the first of each.

    Prompts count as well: an answer that the model knows has next to no entropy of its own.

    Raises:
        ValueError: if there are no examples.
    """
    if not examples:
        raise ValueError("no examples: perplexity is a mean over their tokens")
    items = sorted((encode(tokenizer, e) for e in examples), key=lambda i: len(i.input_ids))
    total, tokens = 0.0, 0
    for start in range(0, len(items), batch):
        given = collate(items[start : start + batch], tokenizer.pad_token_id)
        labels = given["input_ids"].where(given["attention_mask"] == 1, IGNORE).to(model.device)
        guessed = int((labels[:, 1:] != IGNORE).sum())
        chats = {"input_ids": given["input_ids"].to(model.device), "labels": labels}
        total += causal_loss(model, chats).item() * guessed
        tokens += guessed
    return math.exp(total / tokens)
