"""A checkpoint of a training run: one safetensors file from which it goes on bit for bit.

What trains, what the optimizer remembers, the random generators and the numbers so far. The frozen
base is not in it. The file is written beside its place and renamed, so it is whole or not there.
"""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from labkit.project import LabkitError


class CheckpointError(LabkitError):
    """A checkpoint that cannot be written or read; says why and what to do."""


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def random_state() -> dict[str, Tensor]:
    """The state of torch's generators, from which dropout draws."""
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["random.cpu"])
    if "random.cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["random.cuda"])


def make_room(path: Path) -> None:
    """Make the folder of a checkpoint, so that one that cannot be is found before the first step.

    Raises:
        CheckpointError: if it cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritten(path, error, 0) from error


def _unwritten(path: Path, error: Exception, need: int) -> CheckpointError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    room = f"the disk is full: free {-(-need // 2**20)} MiB, or"
    why = room if full else f"{error}:"
    return CheckpointError(
        f"the checkpoint {path.name} could not be written ({why} choose another folder); "
        "the one before it, if any, is untouched"
    )


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    parameters = trained(model)
    held = {f"parameter.{name}": p.detach() for name, p in parameters.items()}
    for name, p in parameters.items():
        held |= {f"optimizer.{key}.{name}": v for key, v in optimizer.state[p].items()}
    held |= random_state()
    return {name: value.cpu().contiguous() for name, value in held.items()}


def save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, said: dict[str, Any]
) -> None:
    """Write the state of a run to `path`; `said` is what JSON can hold of it.

    Raises:
        CheckpointError: if the disk is full or the folder cannot be written; the checkpoint that
            was there before stays.
    """
    make_room(path)
    tensors = _tensors(model, optimizer)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, beside, metadata={"run": json.dumps(said)})
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        need = sum(t.numel() * t.element_size() for t in tensors.values())
        raise _unwritten(path, error, need) from error
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put the state in `path` back into model, optimizer and generators; returns what was said.

    Raises:
        CheckpointError: if there is none, it is broken, or it is of another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            said = json.loads(file.metadata()["run"])
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}; start without resume") from error
    except (SafetensorError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path.name} is no checkpoint ({error}); delete it") from error
    parameters = trained(model)
    _same_parameters(path, tensors, parameters)
    on_device = optimizer.defaults.get("fused") or optimizer.defaults.get("capturable")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(tensors[f"parameter.{name}"])
            optimizer.state[p] = {
                key: value.to(p.device) if key != "step" or on_device else value
                for key, value in _state_of(name, tensors).items()
            }
    set_random_state(tensors)
    return said


def _state_of(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the optimizer remembers of one parameter: its moments and its number of steps."""
    parts = {key: key.split(".", 2) for key in tensors if key.startswith("optimizer.")}
    return {what: tensors[key] for key, (_, what, of) in parts.items() if of == name}


def _same_parameters(
    path: Path, tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter]
) -> None:
    names = {key.removeprefix("parameter.") for key in tensors if key.startswith("parameter.")}
    if names != set(parameters):
        odd = sorted(names ^ set(parameters))[0]
        raise CheckpointError(
            f"{path.name} is of another model or method: {odd} is in one of them only"
        )
    for name, p in parameters.items():
        there = tuple(tensors[f"parameter.{name}"].shape)
        if there != tuple(p.shape):
            raise CheckpointError(
                f"{path.name} is of another model or method: {name} is {there} there, "
                f"{tuple(p.shape)} here; use the rank it was made with, or start without resume"
            )
