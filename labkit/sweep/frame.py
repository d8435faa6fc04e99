"""One run, many runs in several processes, and the choice of a learning rate between them.

    load tiny -> adapt -> fit -> score the task and what the base could do before -> a row

A group is what is compared: a method with its rank, scale, base and number of steps. Its learning
rate is the one with the lowest mean loss on the validation set over the tuning seeds; then come
the runs that count, with other seeds, scored on the test set. The rows of both are kept, each with
its settings, the machine and the versions.

Scores are those of greedy decoding, taken without writing: see `labkit.evaluate.forced_score`.
"""

import copy
import functools
import importlib
import json
import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import nn

from labkit import data, evaluate, models, train
from labkit.history import Step, TrainingStopped
from labkit.machine import machine
from labkit.train import Settings

Row = dict[str, Any]
TUNING_SEEDS = (100, 101)
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Spec:
    """One run. Without `lr` and `seed` it names a group of runs that are compared with others."""

    sweep: str  # the module that adapts the model
    method: str
    steps: int
    rank: int = 0  # 0: no adapter
    alpha: float = 0.0
    scale: float = 0.0
    base: str = "float32"  # or "nf4": 4-bit maps that compute in float32
    learns: str = "task"  # the workbook's task, or a set that the sweep's own `examples` makes
    batch: int = 8
    lr: float = 0.0
    seed: int = 0
    split: str = "test"

    @property
    def group(self) -> "Spec":
        return replace(self, lr=0.0, seed=0, split="test")


class Observer(Protocol):
    """Looks at a run while it goes; `result` is added to the row."""

    def __call__(self, step: Step) -> None: ...
    def result(self) -> Row: ...


def module(sweep: str) -> ModuleType:
    return importlib.import_module(f"labkit.sweep.{sweep}")


@functools.cache
def _base(kind: str) -> models.Loaded:
    return models.load("tiny", "nf4" if kind == "nf4" else None, torch.float32)


@functools.cache
def _items(sweep: str, learns: str) -> list[data.Encoded]:
    """What a run learns from, in tokens."""
    found = data.examples("train") if learns == "task" else module(sweep).examples(learns)
    return [data.encode(_base("float32").tokenizer, example) for example in found]


def _scored(spec: Spec) -> list[data.Example]:
    """What a run is scored on; a set learnt by heart has nothing held out."""
    if own := getattr(module(spec.sweep), "scored", None):
        return own(spec)
    if spec.learns == "task":
        return data.examples(spec.split)
    return module(spec.sweep).examples(spec.learns)


def run(spec: Spec, watch: Callable[[nn.Module, Spec], Observer | None] | None = None) -> Row:
    """Train and score one run in this process, looked at by `watch` or the sweep's `observer`."""
    base, sweep = _base(spec.base), module(spec.sweep)
    torch.manual_seed(spec.seed)
    model = sweep.adapt(copy.deepcopy(base.model), spec)
    watch = watch or getattr(sweep, "observer", lambda *_: None)
    watcher = watch(model, spec)
    settings = Settings(steps=spec.steps, batch=spec.batch, lr=spec.lr, seed=spec.seed)
    row = asdict(spec) | {"trainable": train.count(model).trainable}
    try:
        history = train.fit(model, _items(spec.sweep, spec.learns), settings, on_step=watcher)
    except TrainingStopped as stopped:
        return row | {"stopped": str(stopped)} | machine()
    losses = [round(loss, 4) for loss in history.losses]
    row |= {"losses": losses, "seconds": round(history.seconds, 2)}
    task = evaluate.forced_score(model, base.tokenizer, _scored(spec))
    row |= {"task": task.exact_match, "task_loss": round(task.loss, 5)}
    if spec.split == "test":
        kept = evaluate.forced_score(model, base.tokenizer, data.examples("regression"))
        row |= {"regression": kept.exact_match, "regression_loss": round(kept.loss, 5)}
        row |= watcher.result() if watcher else {}
    return row | machine()


def _quiet() -> None:
    torch.set_num_threads(1)  # several processes share the cores


def run_all(
    specs: Sequence[Spec],
    processes: int,
    keep: Callable[[Row], None],
    job: Callable[[Spec], Row] = run,
) -> list[Row]:
    """Every run, the longest first, each row given to `keep` as it comes; in no fixed order."""
    ordered = sorted(specs, key=lambda spec: -spec.steps)
    rows = []
    spawned = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
    with ProcessPoolExecutor(processes, spawned, initializer=_quiet) as pool:
        for done in as_completed([pool.submit(job, spec) for spec in ordered]):
            rows.append(done.result())
            keep(rows[-1])
    return rows


def spec_of(row: Mapping[str, Any]) -> Spec:
    """The run that a row tells of."""
    return Spec(**{name: row[name] for name in Spec.__dataclass_fields__})


def best_rates(rows: Sequence[Row]) -> dict[Spec, float]:
    """By group, the rate with the lowest mean validation loss; a run that stopped counts as inf."""
    losses: dict[Spec, dict[float, list[float]]] = {}
    for row in rows:
        spec = spec_of(row)
        by_rate = losses.setdefault(spec.group, {})
        by_rate.setdefault(spec.lr, []).append(row.get("task_loss", math.inf))
    return {
        group: min(by_rate, key=lambda lr: statistics.mean(by_rate[lr]))
        for group, by_rate in losses.items()
    }


def sweep(
    groups: Sequence[Spec],
    rates: Callable[[Spec], Sequence[float]],
    processes: int,
    out: Path,
    seeds: Sequence[int] = SEEDS,
    job: Callable[[Spec], Row] = run,
) -> Iterator[Row]:
    """Tune every group, then run it with every seed; rows are appended to `out` as they come.

    A group that brings its rate is not tuned. Rows that `out` holds already are not run again, so
    a sweep that was cut off can go on.
    """
    known = read(out)
    done = {spec_of(row) for row in known}

    def keep(row: Row) -> None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def missing(wanted: Sequence[Spec]) -> list[Spec]:
        return [spec for spec in wanted if spec not in done]

    tuning = [
        replace(group, lr=lr, seed=seed, split="validation")
        for group in groups
        if not group.lr
        for lr in rates(group)
        for seed in TUNING_SEEDS
    ]
    known += run_all(missing(tuning), processes, keep, job)
    best = best_rates([row for row in known if row["split"] == "validation"])
    final = [replace(g, lr=g.lr or best[g], seed=seed) for g in groups for seed in seeds]
    yield from known
    yield from run_all(missing(final), processes, keep, job)


def read(path: Path) -> list[Row]:
    """The rows of a sweep's file; none if there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def linear_maps_train(model: nn.Module) -> nn.Module:
    """Full fine-tuning of the maps that adapters would adapt: these train, all else is frozen."""
    from labkit.lora import linear_maps

    model.requires_grad_(False)
    for module in linear_maps(model).values():
        module.requires_grad_(True)
    return model
