"""One setup measured on a GPU: real code, random weights, the second step and later.

The first step is not counted: Adam makes its moments in it, and libraries warm up. Two figures of
the allocator are kept, since they answer different questions: the bytes of the blocks it handed
out (what max_memory_allocated says) and those that were asked for.
"""

import dataclasses
import json
import sys
import time
from collections import Counter
from typing import Any

import torch
from torch import nn

from labkit.machine import machine
from labkit.memory import building, stepping
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape

DEVICE = "cuda"
STEPS = 3
LISTED = 60  # sizes of blocks alive at the peak that a row keeps


class Marks:
    """Peak and rest of each phase of the later steps, as the allocator counts.

    From the second step on it also records every allocation, so that a row can say which blocks
    were alive at the fullest moment beside those that stood there before.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.rests: dict[str, int] = {}
        self.asked = 0
        self.reserved = 0
        self.on = False

    def start(self) -> None:
        """From here on phases count."""
        if not self.on:
            torch.cuda.memory._record_memory_history(context=None, max_entries=2_000_000)
        self.on = True

    def __call__(self, phase: str) -> None:
        torch.cuda.synchronize()
        if self.on:
            self.note(phase)
        torch.cuda.reset_peak_memory_stats()

    def note(self, phase: str) -> None:
        stats = torch.cuda.memory_stats()
        top = stats["allocated_bytes.all.peak"]
        self.peaks[phase] = max(self.peaks.get(phase, 0), top)
        self.rests[phase] = stats["allocated_bytes.all.current"]
        self.asked = max(self.asked, stats["requested_bytes.all.peak"])
        self.reserved = max(self.reserved, stats["reserved_bytes.all.peak"])


def row(shape: ModelShape, setup: TrainingSetup, steps: int = STEPS) -> dict[str, Any]:
    """Measure one setup in this process; a row for data/measurements."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("measuring needs a CUDA GPU; dry_run needs none")
    torch.manual_seed(0)
    marks = Marks()
    run = _trainer if setup.stack in ("trl", "transformers+peft") else _by_hand
    said = run(shape, setup, marks, steps)
    blocks = _alive_at_peak()
    return {
        "shape": shape.name,
        "setup": dataclasses.asdict(setup),
        "steps": steps,
        "peak_allocated_bytes": max(marks.peaks.values()),
        "peak_requested_bytes": marks.asked,
        "peak_reserved_bytes": marks.reserved,
        "phase_peaks": marks.peaks,
        "phase_rests": marks.rests,
        "alive_at_peak": blocks,
        **said,
        **machine(),
    }


def _by_hand(shape: ModelShape, setup: TrainingSetup, marks: Marks, steps: int) -> dict[str, Any]:
    model = building.adapt(building.bare(shape, setup, DEVICE), setup)
    building.checkpointed(model, setup)
    stepping.phased(model, marks)
    optimizer = stepping.optimizer_of(model, setup)
    batches = [stepping.batch_of(shape, setup, DEVICE) for _ in range(setup.accumulation)]
    loaded, seconds = torch.cuda.memory_allocated(), []
    for number in range(steps):
        if number:
            marks.start()
        begin = time.perf_counter()
        stepping.step(model, optimizer, batches, setup, marks)
        seconds.append(time.perf_counter() - begin)
    return {"loaded_bytes": loaded, "seconds": seconds[1:], "trained": _trained(model)}


def _trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _trainer(shape: ModelShape, setup: TrainingSetup, marks: Marks, steps: int) -> dict[str, Any]:
    """By transformers' Trainer, or by TRL's, as shipped."""
    from labkit.memory import trainers

    base = building.bare(shape, setup, DEVICE)
    trainer, model = trainers.made(base, shape, setup, steps, marks)
    stepping.phased(model, marks)
    loaded = torch.cuda.memory_allocated()
    trainer.train()
    return {
        "loaded_bytes": loaded,
        "seconds": trainers.seconds(trainer),
        "trained": _trained(model),
    }


def _alive_at_peak() -> dict[str, int]:
    """{bytes: how many} of the blocks alive at the fullest moment, the largest sums first."""
    trace = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
    sizes: dict[int, int] = {}
    total = top = at = 0
    for number, event in enumerate(trace):
        if event["action"] == "alloc":
            sizes[event["addr"]] = event["size"]
            total += event["size"]
        elif event["action"] == "free_completed":
            total -= sizes.pop(event["addr"], 0)
        if total > top:
            top, at = total, number
    sizes.clear()
    for event in trace[: at + 1]:
        if event["action"] == "alloc":
            sizes[event["addr"]] = event["size"]
        elif event["action"] == "free_completed":
            sizes.pop(event["addr"], 0)
    counted = Counter(sizes.values())
    largest = sorted(counted.items(), key=lambda pair: -pair[0] * pair[1])[:LISTED]
    return {str(size): count for size, count in largest}


def main() -> None:
    """Measure the configuration on stdin, as engines.measure and the survey ask."""
    said = json.loads(sys.stdin.read())
    shape, setup = ModelShape(**said["shape"]), TrainingSetup(**said["setup"])
    print(json.dumps(row(shape, setup, said.get("steps", STEPS))))


if __name__ == "__main__":
    main()
