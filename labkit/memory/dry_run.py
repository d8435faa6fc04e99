"""The dry run: the real code of model, PEFT and loss on tensors that have no values.

Fake tensors know their shape and dtype and nothing else, so a step of an 8B model takes seconds on
any CPU, and no weight is downloaded. It runs in a process of its own: whatever goes wrong there is
an error here and never the end of a notebook's kernel.

What fake tensors cannot show: the workspaces of cuBLAS and the rounding of large blocks. The first
is added, see closed_form.CUBLAS; the second is left out.
"""

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from labkit.memory.breakdown import Breakdown
from labkit.memory.closed_form import CUBLAS, check, reserved_of, smi_of
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape
from labkit.project import LabkitError

SECONDS = 120  # longer than any model of the presets takes


class DryRunError(LabkitError):
    """A dry run that did not end; the text says the last thing it said."""


def dry_run(shape: ModelShape, setup: TrainingSetup, seconds: float = SECONDS) -> Breakdown:
    """Bytes by kind at the peak of a training step, the real code run on fake tensors.

    Raises:
        SetupError: what this model cannot run.
        DryRunError: the process that runs it failed or took longer than `seconds`.
    """
    check(shape, setup)
    said = json.dumps({"shape": asdict(shape), "setup": asdict(setup)})
    command = [sys.executable, "-W", "ignore", "-m", "labkit.memory.dry_run"]
    try:
        done = subprocess.run(
            command, input=said, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DryRunError(f"the dry run took longer than {seconds:.0f} s") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise DryRunError(f"the dry run of {shape.name} failed: {last[0]}")
    return breakdown(json.loads(done.stdout.splitlines()[-1]))


def breakdown(found: dict[str, Any]) -> Breakdown:
    """What `stepped` found, as the dataclass that all engines return."""
    phases = found["phases"]
    phase = max(phases, key=lambda name: sum(phases[name].values()))
    top = sum(phases[phase].values())
    return Breakdown(
        kinds=phases[phase],
        phase=phase,
        reserved=reserved_of(top),
        smi=smi_of(top),
        engine="dry run",
        phases=phases,
        notes={"seconds": found["seconds"]},
    )


def stepped(shape: ModelShape, setup: TrainingSetup, listing: bool = False) -> dict[str, Any]:
    """A training step on fake tensors in this process, as every step from the second on is."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from labkit.memory import building, fakes, stepping
    from labkit.memory.tracker import Tracker

    begin = time.perf_counter()
    tracker = Tracker(shape)
    tracker.listing = listing
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
        sizes: dict[str, dict[int, int]] = {}

        def mark(phase: str) -> None:
            top = sum(phases.get(phase, {}).values())
            if tracker.peak > top:
                phases[phase] = dict(tracker.peak_kinds)
                sizes[phase] = dict(tracker.peak_sizes)
            tracker.restart()

        _moments(optimizer, tracker)
        stepping.phased(model, mark)
        tracker.restart()
        stepping.step(model, optimizer, batches, setup, mark)
    for kinds in phases.values():
        kinds["workspace"] += CUBLAS
    return {"phases": phases, "seconds": time.perf_counter() - begin, "sizes": sizes}


def _moments(optimizer: Any, tracker: Any) -> None:  # noqa: ANN401
    """Let the optimizer make the state that it has from its first step on."""
    import torch

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


def _trl_head(base: Any) -> None:  # noqa: ANN401
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))


def _name(tracker: Any, model: Any) -> None:  # noqa: ANN401
    """Say what each parameter is, and call gradients so as they come."""

    def graded(p: Any) -> None:  # noqa: ANN401
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


def _optimizer(model: Any, setup: TrainingSetup) -> Any:  # noqa: ANN401
    from torch import nn

    from labkit.memory import fakes, stepping

    if setup.optimizer in ("adamw", "sgd"):
        return stepping.optimizer_of(model, setup)
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    trained = [p for p in model.parameters() if p.requires_grad]
    return fakes.Held(trained, {id(p) for p in tables}, setup.optimizer)


def main() -> None:
    said = json.loads(sys.stdin.read())
    found = stepped(ModelShape(**said["shape"]), TrainingSetup(**said["setup"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
