"""What the advice of `labkit.guide` rests on: sentences whose numbers are worked out here.

Each function gives a Reason: a sentence, and the recorded rows, the closed form or the named source
behind it. The bytes are those of one example, EXAMPLE; the scores are those of the tiny model.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit import fair, project, verdicts
from labkit.intervals import by_rank
from labkit.memory import GIB, ModelShape, TrainingSetup, adapter_parameters, estimate
from labkit.memory import weight_bytes as nf4_bytes
from labkit.table import Table
from labkit.verdicts import Case

EXAMPLE, RANK, BATCH, LENGTH = "llama-3-8b", 16, 1, 1024  # what the bytes are worked out for
MOVED = ("PiSSA", "OLoRA", "LoftQ")  # their base is not the published one
WAY = "bf16 checkpointed eager"  # of a step of DoRA, in labkit.verdicts
PEFT = "PEFT 0.21, tuners/adalora and tuners/vera"
VERA_RANK, WIDER = 256, 1.5  # as in labkit.sweep.variants: of VeRA, and AdaLoRA's start


@dataclass(frozen=True)
class Reason:
    """A sentence, and what it rests on."""

    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.text} [{self.source}]"


NOT_IN_VLLM = Reason(
    "vLLM refuses DoRA and loads no other kind of adapter than LoRA: DoRA, AdaLoRA and VeRA must "
    "be merged first; rsLoRA, LoRA+ and QLoRA leave plain LoRA files",
    "vllm/lora/peft_helper.py; docs.vllm.ai, LoRA adapters",
)
SUFFICES = Reason("the score suffices, so the plain method stays", "your answer")


@functools.cache
def rows_of(name: str) -> tuple[Mapping[str, Any], ...]:
    """The rows of one file of data/measurements."""
    path = project.data("measurements", name)
    return tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def peak(method: str) -> float:
    """GiB at the fullest moment of a step of EXAMPLE."""
    setup = TrainingSetup(method=method, rank=RANK, batch=BATCH, seq_len=LENGTH)
    return estimate(ModelShape.preset(EXAMPLE), setup).peak / GIB


def on_memory(rows: Sequence[fair.Row], case: Case) -> Reason:
    """What rounding the base saves, and what it costs."""
    gap = fair.difference(rows, "QLoRA", "LoRA", case, "task_loss")
    return Reason(
        f"{EXAMPLE} with {BATCH} x {LENGTH} tokens peaks at {peak('lora'):.1f} GiB in LoRA and at "
        f"{peak('qlora'):.1f} in QLoRA; rounding the base moves the loss by {gap.middle:+.4f} nats "
        f"({gap.low:+.4f} to {gap.high:+.4f}) on {case}",
        "labkit.memory.estimate; variants.jsonl",
    )


def on_rate(rows: Sequence[fair.Row], case: Case) -> Reason:
    """The first thing to tune: what a rate costs that is a few factors of two off."""
    tried, best = fair.tuning(rows, "LoRA", case), fair.best_rate(rows, "LoRA", case)
    worst = max(loss for loss, _ in tried.values()) / tried[best][0]
    own = {name: fair.best_rate(rows, name, case) for name in fair.methods(rows, case)}
    low, high = (pick(own, key=own.__getitem__) for pick in (min, max))
    return Reason(
        f"tune the learning rate first: the worst of {len(tried)} rates leaves LoRA with "
        f"{worst:,.0f} times the loss of the best; and each method has its own, from {own[low]:g} "
        f"of {low} to {own[high]:g} of {high} on {case}",
        "variants.jsonl, validation",
    )


def none_ahead(
    rows: Sequence[fair.Row], plain: str, tried: Sequence[str], cases: Sequence[Case]
) -> Reason:
    """That no method which is left is shown better than the plain one in every case; which in some.

    Args:
        tried: the methods that are left.
    """
    if not tried:
        return Reason("no other method is left to compare", "your answers before")
    some = [n for n in tried if any(n in fair.ahead(rows, case) for case in cases)]
    partly = f" (in one of them: {', '.join(some)})" if some else ""
    return Reason(
        f"none of {', '.join(tried)} is shown to have a lower loss than {plain} on "
        f"{'both ' if len(cases) == 2 else ''}{said(cases)}{partly}: raise the rank or gather "
        "examples before the method is changed",
        "variants.jsonl",
    )


def one_ahead(rows: Sequence[fair.Row], method: str, cases: Sequence[Case]) -> Reason:
    """How a method differs from the plain one in loss and in old skills, in each case."""
    other = fair.PAIRS.get(method, "LoRA")
    parts = []
    for case in cases:
        loss, kept = (
            fair.difference(rows, method, other, case, value)
            for value in ("task_loss", "regression")
        )
        parts.append(
            f"on {case}, the loss differs by {loss.middle:+.4f} nats ({loss.low:+.4f} to "
            f"{loss.high:+.4f}) and old skills by {kept.middle:+.1%} ({kept.low:+.1%} to "
            f"{kept.high:+.1%})"
        )
    return Reason(f"{method} less {other}: {'; '.join(parts)}", "variants.jsonl")


def on_old_skills(rows: Sequence[fair.Row], tried: Sequence[str], cases: Sequence[Case]) -> Reason:
    """Which methods keep more, and how much more plain LoRA keeps at half of its rate."""
    more = [n for n in tried if all(n in fair.ahead(rows, case, "regression") for case in cases)]
    control = rows_of("slower.jsonl")
    kept, loss = (fair.halved(control, value) for value in ("regression", "task_loss"))
    case = Case(control[0]["rank"], control[0]["steps"])
    return Reason(
        f"more old skills are kept by {', '.join(more) or 'none'} of what is left; but every rate "
        f"was tuned by the task alone, and half of its rate changes what LoRA itself keeps by "
        f"{kept.middle:+.1%} (loss {loss.middle:+.4f} nats, {kept.n} seeds, {case}): lower the "
        "rate before the method is changed",
        "variants.jsonl; slower.jsonl",
    )


def said(cases: Sequence[Case]) -> str:
    """Several cases as one."""
    return " and ".join(str(case) for case in cases)


def price(method: str) -> Reason:
    """What a method costs beside the plain one."""
    if method == "DoRA":
        cost = verdicts.cost(verdicts.costs(), "ours", WAY)
        return Reason(f"a step of DoRA takes {cost.time:.2f} of LoRA's ({WAY})", "dora_1b.jsonl")
    if method in MOVED:
        size, ratio = start(method)
        return Reason(
            f"its base is not the published one: keep it, since the adapter is of no use without; "
            f"its start on a map of {size} takes as long as {ratio:,.1f} steps of that map",
            "variants_starts.jsonl",
        )
    if method == "AdaLoRA":
        return Reason("it trains more triplets than it keeps, and has a schedule to set", PEFT)
    if method == "VeRA":
        return Reason("every map reads and writes through the wide frozen pair", PEFT)
    return Reason("it costs nothing but another rate to tune", "labkit.variants")


def start(method: str) -> tuple[str, float]:
    """The largest map that was timed, and how many of its steps the start of a method takes."""
    rows = [r for r in rows_of("variants_starts.jsonl") if r["name"] == method.lower()]
    row = max(rows, key=lambda r: r["size"][0] * r["size"][1])
    return " x ".join(map(str, row["size"])), row["ratio"]["median"]


def trained(method: str, shape: ModelShape, rank: int) -> int:
    """How many values a method trains in all seven projections."""
    sizes = shape.projections.values()  # (out, in)
    if method == "full":
        return shape.linear
    if method == "VeRA":
        return shape.layers * sum(VERA_RANK + out for out, _ in sizes)
    if method == "AdaLoRA":
        wide = round(WIDER * rank)
        return adapter_parameters(shape, wide) + shape.layers * len(sizes) * wide
    return adapter_parameters(shape, rank, dora=method == "DoRA")


def kept(method: str, shape: ModelShape, rank: int) -> int:
    """Bytes in 16 bits that a method leaves beside the published base.

    PiSSA and OLoRA leave a plain LoRA of twice the rank, which holds start and end; LoftQ also its
    own rounded base; AdaLoRA the triplets that stay; VeRA its vectors, since a seed gives the rest.
    """
    if method in ("PiSSA", "OLoRA"):
        return 2 * adapter_parameters(shape, 2 * rank)
    if method == "LoftQ":
        return 2 * adapter_parameters(shape, rank) + nf4_bytes(shape)
    if method == "AdaLoRA":
        maps = shape.layers * len(shape.projections)
        return 2 * (adapter_parameters(shape, rank) + maps * rank)
    return 2 * trained(method, shape, rank)


def costs(model: str = EXAMPLE, rank: int = RANK) -> Table:
    """What trains and what is left, for each method, beside LoRA's."""
    shape = ModelShape.preset(model)
    plain = trained("LoRA", shape, rank)
    lines = [
        (
            name,
            f"{trained(name, shape, rank):,}",
            f"{trained(name, shape, rank) / plain:.3g}",
            f"{kept(name, shape, rank) / 1e6:,.1f}",
        )
        for name in fair.METHODS
    ]
    head = ("", "values that train", "of LoRA's", "left in 16 bits, MB")
    return Table(head, lines, f"{model}, rank {rank}, seven projections; VeRA at {VERA_RANK}")


def on_tenants(many: bool, merged: bool) -> Reason:
    """Bytes for each adapter, and what a lower rank would score."""
    shape = ModelShape.preset(EXAMPLE)
    model = 2 * shape.parameters / 1e9
    if not many:
        size = f"{model:.1f} GB of {EXAMPLE} in 16 bits"
        words = (
            f"merged, one adapter is a model of its own: {size}, and no extra product a token"
            if merged
            else f"for one adapter beside {size}, merging would save its two products a token"
        )
        return Reason(words, "labkit.memory")
    one, low = (2 * adapter_parameters(shape, rank) / 1e6 for rank in (RANK, 1))
    score = by_rank(rows_of("lora_ranks.jsonl"), "task", method="lora", steps=20)
    whole = (
        f"merged, every tenant is a model of {model:.1f} GB; unmerged it is {one:.1f} MB"
        if merged
        else f"every tenant is {one:.1f} MB beside one base of {model:.1f} GB"
    )
    return Reason(
        f"{whole} at rank {RANK} in 16 bits; rank 1 would be {low:.1f} MB, and has "
        f"{score[1].middle:.1%} of the letters right where rank {RANK} has "
        f"{score[RANK].middle:.1%}",
        "labkit.memory; lora_ranks.jsonl",
    )
