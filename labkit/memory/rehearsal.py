"""The dry run: the real code of model, PEFT and loss on tensors that have no values.

Fake tensors know their shape and dtype and nothing else, so a step of an 8B model takes seconds on
any CPU, and no weight is downloaded. engines.dry_run calls this in a process of its own.

What fake tensors cannot show: the workspaces of cuBLAS and the rounding of large blocks. The first
is added, see closed_form.CUBLAS; the second is left out.
"""

import json
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from labkit.machine import machine
from labkit.memory import building, fakes, stepping
from labkit.memory.closed_form import CUBLAS
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape
from labkit.memory.tracker import Tracker


def rehearsed(shape: ModelShape, setup: TrainingSetup) -> dict[str, Any]:
    """A training step on fake tensors in this process, as every step from the second on is."""
    begin = time.perf_counter()
    tracker = Tracker(shape)
    if setup.loss == "fused":
        tracker.owned = (shape.vocab, shape.hidden)
    fused = setup.stack == "trl" and setup.loss == "fused"
    manners = fakes.trl_manners() if fused else nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), tracker, fakes.gpu_manners(), manners:
        base = building.bare(shape, setup, "cpu", fakes.packed_class())
        with torch.no_grad():
            model = building.adapt(base, setup)
        building.checkpointed(model, setup)
        if fused:
            _trl_head(base)
        _name(tracker, model)
        optimizer = _optimizer(model, setup)
        batches = [stepping.batch_of(shape, setup, "cpu") for _ in range(setup.accumulation)]
        tracker.name([t for batch in batches for t in batch.values()], "workspace")
        phases: dict[str, dict[str, int]] = {}

        def mark(phase: str) -> None:
            top = sum(phases.get(phase, {}).values())
            if tracker.peak > top:
                phases[phase] = dict(tracker.peak_kinds)
            tracker.restart()

        _moments(optimizer, tracker)
        stepping.phased(model, mark)
        tracker.restart()
        stepping.step(model, optimizer, batches, setup, mark)
    for kinds in phases.values():
        kinds["workspace"] += CUBLAS
    return {"phases": phases, "seconds": time.perf_counter() - begin}


def _moments(optimizer: Any, tracker: Tracker) -> None:  # noqa: ANN401
    """Let the optimizer make the state that it has from its first step on."""
    groups = getattr(optimizer, "param_groups", [])
    trained = [p for group in groups for p in group["params"]]
    for p in trained:
        p.grad = torch.empty_like(p)
    optimizer.step()
    optimizer.zero_grad()
    state = optimizer.state
    if not isinstance(state, list):
        state = [t for each in state.values() for t in each.values() if torch.is_tensor(t)]
    tracker.name(state, "optimizer")


def _trl_head(base: nn.Module) -> None:
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))


def _name(tracker: Tracker, model: nn.Module) -> None:
    """Say what each parameter is, and call gradients so as they come."""

    def graded(p: nn.Parameter) -> None:
        tracker.name([p.grad], "gradients")

    for name, p in model.named_parameters():
        adapter = "lora_" in name
        table = "embed_tokens" in name or "lm_head" in name
        kind = "adapters" if adapter else "embeddings" if table else "weights"
        tracker.name([p], kind)
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(graded)
    for module in model.modules():
        tracker.name(getattr(module, "constants", []), "constants")


def _optimizer(model: nn.Module, setup: TrainingSetup) -> Any:  # noqa: ANN401
    if setup.optimizer in ("adamw", "sgd"):
        return stepping.optimizer_of(model, setup)
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    trained = [p for p in model.parameters() if p.requires_grad]
    return fakes.Held(trained, {id(p) for p in tables}, setup.optimizer)


def main() -> None:
    """Rehearse the configuration on stdin, as engines.dry_run and the survey ask."""
    said = json.loads(sys.stdin.read())
    found = rehearsed(ModelShape(**said["shape"]), TrainingSetup(**said["setup"]))
    peak = max(sum(kinds.values()) for kinds in found["phases"].values())
    print(json.dumps({"peak_allocated_bytes": peak} | found | machine()))


if __name__ == "__main__":
    main()
