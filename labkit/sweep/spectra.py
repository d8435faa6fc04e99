"""Adapters of several ranks and full fine-tuning, read: how many directions, and at what price.

    learns      what the answers are                          question
    task        the right ones                                what does the update look like?
    shuffled    each letter's swapped for another's           what is left when nothing can be
                                                              learnt but the form?
    codes       500 codes of firms, learnt by heart           the same where the rank does matter

    method      lora, full, and both at HOT times the tuned rate (lora-hot, full-hot)
    steps       20, 100, and 300, which is over-trained

The rates are those that `labkit.sweep ranks` found for alpha 16; for 300 steps those of 100. On
shuffled answers a rate cannot be tuned, so they take the rate of the task. A row holds each of
FIELDS as a list over `maps`; for seed 0 the singular values themselves, the first MOST of them; and
what the scores come to when the adapter is cut to a smaller rank, by `spectra.truncated` and by
keeping its first rows instead. Of the losses every tenth is kept.

Beside each count of intruders stand two controls: an update with the same singular values and
random directions, and dense noise of the same Frobenius norm.
"""

import argparse
import functools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from labkit import data, evaluate, lora, models, project, spectra
from labkit.adapters import CONFIG, WEIGHTS
from labkit.history import Step
from labkit.interchange import PREFIX, save_adapter
from labkit.skills import Example
from labkit.sweep import dora, frame
from labkit.sweep.frame import Row, Spec, linear_maps_train

WHAT = ("task", "shuffled", "hot", "codes")
RANKS = (4, 16, 64)
ALPHA = 16.0
STEPS = (20, 100, 300)
USUAL, LONG = 100, 300
HOT = 4
CODE_STEPS, CODE_BATCH = 200, 32
CODE_RATES, CODE_RATE_FULL = (4e-3, 8e-3), 1.6e-3  # labkit.sweep dora tuned both at rank 4
TOP_K, THRESHOLD = 10, 0.5  # of the intruders
FIRST = 4  # directions, of `first` and `amplified`
KEPT = 16  # directions of a full update that are kept in its file
MOST = 64  # singular values that a row holds
EVERY = 10  # steps between two losses of a row
CUTS = (1, 2, 4, 8, 16, 32)
FIELDS = (
    "moved",  # |D|_F / |W|_F
    "strength",  # |D|_2 / |W|_2
    "effective",  # effective rank, by entropy
    "energy90",  # directions that hold 90% of the squares
    "first",  # share of the squares in the first FIRST directions
    "intruders",  # among the TOP_K first left vectors of W + D
    "scrambled",  # the same of D's values on random directions
    "noise",  # the same of dense noise of D's Frobenius norm
    "amplified",  # |D| / |U^T W V| over the first FIRST directions
    "amplified_all",  # the same over all of them
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS))
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--adapters", type=Path, help="where the updates themselves are kept")


def groups(options: argparse.Namespace) -> list[Spec]:
    """Every rank and full fine-tuning, for each number of steps and each kind of answers."""
    plain = [Spec("spectra", "full", 0)]
    plain += [replace(plain[0], method="lora", rank=r, alpha=ALPHA) for r in options.ranks]
    plain = [replace(s, scale=s.alpha / s.rank if s.rank else 0.0) for s in plain]
    usual = [replace(s, steps=USUAL, lr=tuned(s.method, s.rank, USUAL)) for s in plain]
    found = {
        "task": [
            replace(s, steps=steps, lr=tuned(s.method, s.rank, min(steps, USUAL)))
            for steps in options.steps
            for s in plain
        ],
        "shuffled": [replace(s, learns="shuffled") for s in usual],
        "hot": [replace(s, method=f"{s.method}-hot", lr=HOT * s.lr) for s in usual],
        "codes": [
            replace(
                s, learns="codes", steps=CODE_STEPS, batch=CODE_BATCH,
                lr=CODE_RATE_FULL if s.method == "full" else 0.0,
            )
            for s in plain
        ],
    }  # fmt: skip
    return [spec for what in options.what for spec in found[what]]


@functools.cache
def _recorded() -> dict[Spec, float]:
    rows = frame.read(project.data("measurements", "lora_ranks.jsonl"))
    return frame.best_rates([row for row in rows if row["split"] == "validation"])


def tuned(method: str, rank: int, steps: int) -> float:
    """The rate that the recorded sweep of ranks found for such a run.

    Raises:
        ValueError: if it has no such run.
    """
    for spec, rate in _recorded().items():
        if (spec.method, spec.rank, spec.steps) == (method, rank, 20 if steps < USUAL else USUAL):
            return rate
    raise ValueError(f"lora_ranks.jsonl has tuned no rate for {method}, rank {rank}, {steps} steps")


def rates(spec: Spec) -> Sequence[float]:
    """Where the rate of a group that brings none is looked for: the codes."""
    return CODE_RATES


@functools.cache
def examples(learns: str) -> list[Example]:
    """The set of that name; shuffled: the letters of the training set with answers of others."""
    if learns == "codes":
        return dora.examples(learns)
    if learns != "shuffled":
        raise ValueError(f"learns={learns!r} is no set of this sweep: shuffled, codes")
    found = data.examples("train")
    answers = [example.answer for example in found]
    random.Random("shuffled").shuffle(answers)
    return [replace(e, answer=answer) for e, answer in zip(found, answers, strict=True)]


def scored(spec: Spec) -> list[Example]:
    """Letters with their right answers, or the codes that were to be learnt."""
    return examples("codes") if spec.learns == "codes" else data.examples(spec.split)


def adapt(model: nn.Module, spec: Spec) -> nn.Module:
    """The model with what trains."""
    if spec.method.startswith("full"):
        return linear_maps_train(model)
    return lora.inject(model, "all-linear", spec.rank, spec.alpha)


def short(name: str) -> str:
    """The name of a map as layer and projection: 2.v_proj."""
    parts = name.split(".")
    return f"{parts[2]}.{parts[-1]}"


def left_vectors(weight: Tensor) -> Tensor:
    """All left singular vectors of an (out, in) weight as columns."""
    return torch.linalg.svd(weight, full_matrices=False).U


def intruders(before: Tensor, tuned_weight: Tensor) -> int:
    """`spectra.intruder_dimensions` for a base whose left vectors are known already."""
    after = left_vectors(tuned_weight)[:, :TOP_K]
    return int(((before.T @ after).abs().amax(dim=0) < THRESHOLD).sum())


def reading(
    W: Tensor, before: Tensor, update: Tensor, found: spectra.Spectrum
) -> list[float | int]:
    """FIELDS of one map; what is counted as a whole number, the rest to three digits.

    Args:
        W, update: (out, in), float64.
        before: the left singular vectors of W.
        found: the SVD of `update`.
    """
    values = found.values
    noise = torch.randn_like(update)
    noise *= update.norm() / noise.norm()
    control = spectra.scrambled(values, *update.shape)
    inside = found.left.T @ W @ found.right
    numbers: list[Tensor | float | int] = [
        update.norm() / W.norm(),
        values[0] / torch.linalg.matrix_norm(W, 2),
        spectra.effective_rank(values),
        spectra.energy_rank(values),
        spectra.energy(values, FIRST),
        *(intruders(before, W + change) for change in (update, control, noise)),
        values[:FIRST].norm() / inside[:FIRST, :FIRST].norm(),
        values.norm() / inside.norm(),
    ]
    return [n if isinstance(n, int) else float(f"{float(n):.3g}") for n in numbers]


class Reader:
    """Reads the update of every map when a run has ended, and may keep it in a folder."""

    def __init__(self, model: nn.Module, spec: Spec, folder: Path | None = None) -> None:
        self.model, self.spec, self.folder = model, spec, folder
        if spec.method.startswith("full"):
            self.start = {n: m.weight.detach().clone() for n, m in lora.linear_maps(model).items()}

    def __call__(self, step: Step) -> None:
        """Nothing to note between the steps."""

    @torch.no_grad()
    def result(self) -> Row:
        torch.manual_seed(self.spec.seed)  # of the controls
        weights, found = self.updates()
        read = []
        for name, S in found.items():
            W = weights[name]
            update = (S.left * S.values) @ S.right.T
            read.append(reading(W, left_vectors(W), update, S))
        row: Row = {"maps": [short(name) for name in found]}
        row |= dict(zip(FIELDS, map(list, zip(*read, strict=True)), strict=True))
        if self.spec.seed == 0 and self.spec.method in ("lora", "full") and self.spec.steps != LONG:
            row["values"] = {
                short(n): [float(f"{s:.3g}") for s in S.values[:MOST]] for n, S in found.items()
            }
        if self.folder and self.spec.method in ("lora", "full") and self.spec.steps == USUAL:
            keep(self.model, found, self.folder / folder_name(self.spec))
        if self.spec.learns != "shuffled" and self.spec.rank > min(RANKS):
            row["cut"] = cut_scores(self.model, self.spec, found)
        return row

    def updates(self) -> tuple[dict[str, Tensor], dict[str, spectra.Spectrum]]:
        """By map: W before training, float64 on the CPU, and the SVD of what was added to it."""
        maps = lora.linear_maps(self.model)
        if self.spec.method.startswith("full"):
            weights = {n: W.cpu().double() for n, W in self.start.items()}
            dense = {n: maps[n].weight.cpu().double() - W for n, W in weights.items()}
            svds = {n: torch.linalg.svd(D, full_matrices=False) for n, D in dense.items()}
            return weights, {n: spectra.Spectrum(S, U, Vh.T) for n, (U, S, Vh) in svds.items()}
        weights = {n: lora.dense(m.base).cpu().double() for n, m in maps.items()}
        return weights, {
            n: spectra.spectrum(m.A.cpu(), m.B.cpu(), m.scale) for n, m in maps.items()
        }


def folder_name(spec: Spec) -> str:
    kind = f"rank{spec.rank}" if spec.rank else "full"
    return f"{kind}-{spec.learns}-seed{spec.seed}"


def keep(model: nn.Module, found: dict[str, spectra.Spectrum], folder: Path) -> None:
    """The adapter of `model` as PEFT would save it; of a full update the KEPT first directions of
    each map, as an adapter whose alpha is its rank."""
    if lora.adapted(model):
        save_adapter(model, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, S in found.items():
        root = S.values[:KEPT].sqrt()
        for end, pair in (("A", (S.right[:, :KEPT] * root).T), ("B", S.left[:, :KEPT] * root)):
            state[f"{PREFIX}{name}.lora_{end}.weight"] = pair.float().contiguous()
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    said = {"peft_type": "LORA", "r": KEPT, "lora_alpha": KEPT}
    (folder / CONFIG).write_text(json.dumps(said) + "\n", encoding="utf-8")


def cut_scores(
    model: nn.Module, spec: Spec, found: dict[str, spectra.Spectrum]
) -> dict[str, list[float]]:
    """By rank cut to: task, loss and old skills of the best pair of that rank; then task and loss
    of the first rows of A and columns of B as they are. The model is left cut."""
    tokenizer = models.load("tiny", None, torch.float32).tokenizer
    layers = lora.adapted(model)
    whole = {n: (m.A.detach().clone(), m.B.detach().clone()) for n, m in layers.items()}
    rows = {}
    for k in (k for k in CUTS if k < spec.rank):
        put(layers, {n: spectra.truncated(*pair, layers[n].scale, k) for n, pair in whole.items()})
        task = evaluate.forced_score(model, tokenizer, scored(spec))
        kept = evaluate.forced_score(model, tokenizer, data.examples("regression"))
        put(layers, {n: (A[:k], B[:, :k]) for n, (A, B) in whole.items()})
        naive = evaluate.forced_score(model, tokenizer, scored(spec))
        numbers = (task.exact_match, task.loss, kept.exact_match, naive.exact_match, naive.loss)
        rows[str(k)] = [float(f"{number:.4g}") for number in numbers]
    return rows


def put(layers: dict[str, nn.Module], pairs: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Smaller pairs into the layers; what is left of A and B becomes zero."""
    for name, (A, B) in pairs.items():
        layer = layers[name]
        for whole, part in ((layer.A, A), (layer.B.T, B.T)):
            whole.zero_()
            whole[: len(part)] = part


def observer(model: nn.Module, spec: Spec, folder: Path | None = None) -> Reader | None:
    return Reader(model, spec, folder) if spec.split == "test" else None


def run(spec: Spec, folder: Path | None = None) -> Row:
    """One run, whose update goes into `folder`."""
    row = frame.run(spec, functools.partial(observer, folder=folder))
    return row | {"losses": row.get("losses", [])[::EVERY]}


def job(options: argparse.Namespace) -> Callable[[Spec], Row]:
    """How this sweep runs one Spec, in any process."""
    return functools.partial(run, folder=options.adapters)
