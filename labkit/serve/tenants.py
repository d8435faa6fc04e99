"""Two invented customers of one base, small enough to train while one waits.

    acme    wants each letter as a JSON record
    bolt    wants one line of it: who pays, and how much

    trained(name, ...)     an adapter on the NF4 base, on the shelf with its card
    crowd(...)             copies of them under many names in one bank
    ways(bank, n)          one token for every row: gathered, or adapter by adapter

Left out on purpose: a rate for each customer, and more data than one run of a few steps sees.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from labkit import adapters, data, evaluate, models, train
from labkit.data import Example
from labkit.models import Loaded
from labkit.serve.bank import Bank, read

TENANTS = ("acme", "bolt")


def wants(name: str, examples: Sequence[Example]) -> list[Example]:
    """The letters with the answers that a customer wants.

    Raises:
        ValueError: if the customer is none of TENANTS.
    """
    if name not in TENANTS:
        raise ValueError(f"{name!r} is none of {', '.join(TENANTS)}")
    return list(examples) if name == "acme" else [_line(example) for example in examples]


def _line(example: Example) -> Example:
    told = json.loads(example.answer)
    return Example(example.prompt, f"{told['person']}: {told['amount']}", example.skill)


@dataclass(frozen=True)
class Trained:
    """One adapter: its folder, how the training went, and its score on letters it has not seen."""

    folder: Path
    history: train.History
    score: evaluate.ForcedScore

    def __str__(self) -> str:
        first, last = self.history.losses[0], self.history.losses[-1]
        return f"{self.folder.name}: loss {first:.2f} to {last:.3f}; unseen letters: {self.score}"

    __repr__ = __str__


def trained(
    folder: Path, letters: Sequence[Example], unseen: Sequence[Example], settings: train.Settings
) -> Trained:
    """Train an adapter of rank 8 on tiny in NF4 for the customer that `folder` is named after.

    Raises:
        ValueError: if that is none of TENANTS.
    """
    examples = wants(folder.name, letters)
    torch.manual_seed(settings.seed)
    base = models.load("tiny", dtype=torch.float32)
    model = train.attach(base.model, rank=8, alpha=16)
    items = [data.encode(base.tokenizer, example) for example in examples]
    history = train.fit(model, items, settings)
    score = evaluate.forced_score(model, base.tokenizer, wants(folder.name, unseen))
    card = adapters.card(model, base, examples, settings, {"exact_match": score.exact_match})
    adapters.save(model, folder, card)
    return Trained(folder, history, score)


def crowd(base: Loaded, root: Path, slots: int) -> Bank:
    """A bank on a copy of `base`, full of the adapters in `root`: acme-0, bolt-0, acme-1, ..."""
    bank = Bank(copy.deepcopy(base.model), slots, rank=8)
    for number in range(slots):
        name = TENANTS[number % len(TENANTS)]
        bank.put(f"{name}-{number // len(TENANTS)}", read(root / name))
    return bank


def ways(bank: Bank, adapters: int, rows: int = 8) -> dict[str, Callable[[], object]]:
    """Steps that compute one token for each row, the rows dealt out to so many adapters.

    gather: one pass, each row with its own adapter. loop: one pass for each adapter and its rows.

    Raises:
        ValueError: if the rows cannot be dealt out evenly, or the bank holds fewer adapters.
    """
    if rows % adapters or adapters > len(bank.held):
        raise ValueError(f"adapters={adapters}: a divisor of {rows}, at most {len(bank.held)}")
    names = sorted(bank.held)[:adapters]
    every = names * (rows // adapters)
    parts = [[name] * (rows // adapters) for name in names]
    return {
        "gather": lambda: _token(bank, every),
        "loop": lambda: [_token(bank, part) for part in parts],
    }


@torch.no_grad()
def _token(bank: Bank, names: Sequence[str]) -> torch.Tensor:
    """Logits (rows, 1, vocabulary) of one forward pass over one token a row."""
    ids = torch.ones(len(names), 1, dtype=torch.long, device=bank.model.device)
    with bank.chosen(names) as model:
        return model(ids).logits
