"""Adapters that nobody trained, on tiny: what the tests of serving put on a shelf."""

import copy
import functools

import torch

from labkit import adapters, lora, models
from labkit.serve import shelf


@functools.cache
def _loaded(quantize):
    return models.load("tiny", quantize=quantize, dtype=torch.float32)


def tiny(quantize=None):
    """A copy of tiny in float32, or in NF4, that a test may change."""
    kept = _loaded(quantize)
    return models.Loaded(
        copy.deepcopy(kept.model), kept.tokenizer, kept.tier, kept.folder, kept.description
    )


def adapted(base, rank, seed, strength=0.12):
    """`base` with LoRA layers whose B is drawn, so that the answers differ from the base's."""
    lora.inject(base.model, "all-linear", rank, alpha=3 * rank)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora.adapted(base.model).values():
            layer.A.normal_(0, layer.in_features**-0.5, generator=draw)
            layer.B.normal_(0, strength, generator=draw)
    return base


def card(base, rank=4):
    return adapters.Card(
        base.tier, base.weights_sha256, "d" * 64, rank, 3.0 * rank, ["q_proj"], {"steps": 1},
        {"task": 0.5}, {"torch": torch.__version__}, "2026-11-25",
    )  # fmt: skip


def stock(root, base, **ranks):
    """Write one adapter for each name and rank; returns the models that hold them."""
    made = {}
    for seed, (name, rank) in enumerate(ranks.items()):
        made[name] = adapted(tiny(), rank, seed)
        shelf.save(made[name].model, root / name, card(base, rank))
    return made
