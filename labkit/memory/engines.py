"""The two engines that run the real code, each in a process of its own.

    dry_run(shape, setup)    on fake tensors, on any CPU, without weights
    measure(shape, setup)    on the GPU at hand, with random weights

Whatever goes wrong there, a crash of the process included, is an error here and never the end of
a notebook's kernel. Nothing of torch is imported in this process.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from labkit.memory.breakdown import Breakdown
from labkit.memory.closed_form import check, estimate, reserved_of, resident, smi_of
from labkit.memory.kept import Widths
from labkit.memory.parts import peak
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape
from labkit.project import LabkitError

SECONDS = 120  # longer than a dry run of any preset takes


class EngineError(LabkitError):
    """A dry run or a measurement that did not end well; the text says the last thing it said."""


def dry_run(shape: ModelShape, setup: TrainingSetup, seconds: float = SECONDS) -> Breakdown:
    """Bytes by kind at the peak of a training step, the real code run on fake tensors.

    Raises:
        SetupError: what this model cannot run.
        EngineError: the process that runs it failed or took longer than `seconds`.
    """
    found = _child("rehearsal", shape, setup, seconds)
    phases = found["phases"]
    phase, top = peak(phases)
    reserved = reserved_of(top, shape, setup)
    return Breakdown(
        kinds=phases[phase],
        phase=phase,
        reserved=reserved,
        smi=smi_of(reserved),
        engine="dry run",
        phases=phases,
        notes={"seconds": found["seconds"]},
    )


def measure(shape: ModelShape, setup: TrainingSetup, seconds: float = 300) -> Breakdown:
    """The peak of a training step on this machine's GPU, with the closed form's beside it.

    The allocator tells the total and the phase, not the kinds: what stands there through the step
    is counted, and the rest of the measured bytes is put under activations. `notes` holds the
    closed form's peak ("predicted"), the seconds of a step and the row as the survey writes it.

    Raises:
        SetupError: what this model cannot run.
        EngineError: no CUDA GPU, not enough memory, or a process that failed.
    """
    row = _child("measuring", shape, setup, seconds)
    kinds = resident(Widths(shape, setup))
    kinds["activations"] = row["peak_allocated_bytes"] - sum(kinds.values())
    phases = row["phase_peaks"]
    return Breakdown(
        kinds=kinds,
        phase=max(phases, key=lambda name: phases[name]),
        reserved=row["peak_reserved_bytes"],
        smi=smi_of(row["peak_reserved_bytes"]),
        engine="measured",
        notes={
            "predicted": estimate(shape, setup).peak,
            "seconds": sorted(row["seconds"])[len(row["seconds"]) // 2],
            "row": row,
        },
    )


def _child(module: str, shape: ModelShape, setup: TrainingSetup, seconds: float) -> dict[str, Any]:
    """What `python -m labkit.memory.MODULE` prints last for a configuration."""
    check(shape, setup)
    said = json.dumps({"shape": asdict(shape), "setup": asdict(setup)})
    command = [sys.executable, "-W", "ignore", "-m", f"labkit.memory.{module}"]
    what = f"{module} of {shape.name}"
    try:
        done = subprocess.run(
            command, input=said, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{what} took longer than {seconds:g} s") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise EngineError(f"{what} failed: {last[0]}")
    return json.loads(done.stdout.splitlines()[-1])
