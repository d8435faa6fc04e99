"""A walk through the checklists of popular lessons, with a learner's own run.

    checklist(run)     what is to be done before an adapter ships
    failures(run)      what is said to go wrong in production

Each line is computed from the run. A line of `checklist` that does not hold is a reason not to
ship; a line of `failures` that does not hold is a warning that does not apply.

Left out on purpose: what no code can check here, such as the answers to prompts that must be
refused, and the advice on occupancy, which needs a GPU.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from labkit import adapters, data, evaluate
from labkit.data import Example
from labkit.models import Loaded
from labkit.serve.merging import AS_TRAINED, RIGHT, Merges
from labkit.serve.tenants import Trained
from labkit.table import Table

if TYPE_CHECKING:
    from peft import PeftModel

KEPT = 0.95  # the share of the base's own skills that an adapter has to keep
PADS = 9  # in front of a prompt, to see whether they move its answer


@dataclass(frozen=True)
class Run:
    """What a learner has at the end: the base, an adapter with its history, and a merged folder."""

    base: Loaded
    adapted: "PeftModel"
    trained: Trained
    merged: Path  # the folder that write_merged made
    merges: Merges
    letters: Sequence[Example]  # trained on
    unseen: Sequence[Example]
    skills: Sequence[Example]  # questions that the base answers

    @property
    def card(self) -> adapters.Card:
        return adapters.read_card(self.trained.folder)


@dataclass(frozen=True)
class Line:
    """One line of a list, whether it holds, and what was found."""

    text: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Walk:
    """The lines in their order."""

    lines: list[Line]

    def __getitem__(self, text: str) -> Line:
        return {line.text: line for line in self.lines}[text]

    def _table(self) -> Table:
        rows = [(line.text, "yes" if line.holds else "no", line.found) for line in self.lines]
        return Table(("line", "holds", "in this run"), rows)

    def __str__(self) -> str:
        return str(self._table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()


def checklist(run: Run) -> Walk:
    """What is to be done before an adapter ships."""
    tokenizer, score = run.base.tokenizer, run.trained.score
    untaught = evaluate.forced_score(run.base.model, tokenizer, run.unseen).exact_match
    before, after = (
        evaluate.forced_score(model, tokenizer, run.skills).exact_match
        for model in (run.base.model, run.adapted)
    )
    said = evaluate.answers(run.adapted, tokenizer, [e.prompt for e in run.unseen[:4]])
    right = sum(map(evaluate.is_json, said))
    apart = {e.prompt for e in run.letters}.isdisjoint(e.prompt for e in run.unseen)
    losses, off = run.trained.history.losses, run.merges.losses
    moved = abs(off[RIGHT] - off[AS_TRAINED])
    falls = losses[-1] < losses[0]
    return Walk(
        [
            Line("a test set apart", apart, f"{len(run.unseen)} letters"),
            Line("the loss falls", falls, f"{losses[0]:.2f} to {losses[-1]:.3f}"),
            Line("some answers read", right == len(said), f"{right} of {len(said)} are JSON"),
            Line(
                "better than the base",
                score.exact_match > untaught,
                f"{untaught:.0%} to {score.exact_match:.0%} of unseen letters",
            ),
            Line(
                f"{KEPT:.0%} of old skills kept",
                after >= KEPT * before,
                f"{before:.0%} to {after:.0%} of {len(run.skills)} questions",
            ),
            Line("the merged model scored", moved < 1e-3, f"its loss is off by {moved:.0e}"),
        ]
    )


def failures(run: Run) -> Walk:
    """What is said to go wrong in production."""
    card, tokenizer = run.card, run.base.tokenizer
    pad, end = tokenizer.pad_token, tokenizer.eos_token
    moved, finite = _moved_by_padding(run), all(map(math.isfinite, run.trained.history.losses))
    drop = run.adapted.peft_config["default"].lora_dropout
    files = [folder / "tokenizer.json" for folder in (run.merged, run.base.folder)]
    same = files[0].read_bytes() == files[1].read_bytes()
    peft = card.versions["peft"]
    mode = "training" if run.adapted.training else "evaluation"
    checkpoints = any(getattr(m, "gradient_checkpointing", False) for m in run.adapted.modules())
    return Walk(
        [
            Line("another base is refused", refused(run), f"wanted {card.base_sha256[:12]}.."),
            Line("the tokenizer goes along", same, "the merged folder holds the base's"),
            Line("PEFT is pinned", peft == metadata.version("peft"), f"the card says {peft}"),
            Line("padding spoils answers", moved > 1e-3, f"masked, logits move by {moved:.0e}"),
            Line("dropout stays on", run.adapted.training, f"{mode} mode; trained with {drop:g}"),
            Line("no prepare, so NaN", not finite, f"finite: {finite}, without prepare"),
            Line("pad must be end of turn", pad == end, f"{pad} and {end}"),
            Line("checkpointing is a must", checkpoints, "trained without"),
        ]
    )


def refused(run: Run) -> bool:
    """Whether the adapter is refused on a base whose hash is not that of its card."""
    other = dataclasses.replace(run.card, base_sha256="0" * 64)
    try:
        adapters.check_base(run.trained.folder, other, run.base)
    except adapters.AdapterError:
        return True
    return False


@torch.no_grad()
def _moved_by_padding(run: Run) -> float:
    """The largest change of a last logit when masked pads stand before the prompt."""
    tokenizer, device = run.base.tokenizer, run.adapted.device
    text = data.chat(tokenizer, run.unseen[0].prompt)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    padded = torch.tensor([[tokenizer.pad_token_id] * PADS + ids], device=device)
    mask = (torch.arange(padded.shape[1], device=device) >= PADS).long()[None]
    with_pads = run.adapted(padded, attention_mask=mask).logits[0, -1]
    return (with_pads - run.adapted(padded[:, PADS:]).logits[0, -1]).abs().max().item()
