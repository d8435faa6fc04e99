"""Adapter folders as PEFT writes and reads them, for models with labkit's own layers.

    adapter_model.safetensors   base_model.model.NAME.lora_A.weight (rank, in)
                                base_model.model.NAME.lora_B.weight (out, rank)
                                base_model.model.NAME.lora_magnitude_vector (out,), of DoRA alone
    adapter_config.json         r, lora_alpha, lora_dropout, use_dora, target_modules and more

    save_adapter(model, folder)   PEFT loads it: PeftModel.from_pretrained(base, folder)
    load_adapter(model, folder)   what PEFT saved, or we; on a plain base, or one with such layers

NAME is the full name of the adapted map in the base. The numbers go in and out as they are, so
both sides compute the same. Which maps are adapted follows from the tensors, not from
target_modules, which PEFT also allows to be a pattern.

Source: peft/utils/save_and_load.py and peft/tuners/lora/config.py, PEFT 0.21.
Left out on purpose: a rank by layer, rsLoRA's scale, trained biases, more than one adapter. A
folder that needs what is left out is refused by the name of the field.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from labkit.adapters import CONFIG, WEIGHTS, AdapterError
from labkit.dora import DoRALinear, inject_dora
from labkit.lora import adapted, inject, linear_maps

PREFIX = "base_model.model."  # PEFT wraps the model twice
SUFFIXES = {"lora_A.weight": "A", "lora_B.weight": "B"}
MAGNITUDE = "lora_magnitude_vector"
# Fields that say who, where and how it began; any other field that is set changes the function.
HARMLESS = set(
    "task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode "
    "r lora_alpha lora_dropout target_modules exclude_modules layers_to_transform layers_pattern "
    "init_lora_weights use_dora megatron_core qalora_group_size runtime_config".split()
)
STARTS = (True, False, "gaussian", "orthogonal")  # of A and B alone; the others move the base, too


@dataclass(frozen=True)
class Said:
    """What an adapter_config.json says of every update."""

    rank: int
    alpha: float
    dropout: float
    dora: bool = False

    def shapes(self, out: int, into: int) -> dict[str, tuple[int, ...]]:
        """What PEFT calls the trained tensors of a map (out, in), and their shapes."""
        found: dict[str, tuple[int, ...]] = {
            "lora_A.weight": (self.rank, into),
            "lora_B.weight": (out, self.rank),
        }
        return found | ({MAGNITUDE: (out,)} if self.dora else {})


def factors_of(layer: nn.Module) -> nn.Module:
    """The layer that holds A and B: the one that a DoRALinear wraps, or `layer` itself."""
    return layer.lora if isinstance(layer, DoRALinear) else layer


def parameters(layer: nn.Module) -> dict[str, Tensor]:
    """What PEFT calls the trained tensors of one adapted map, and these tensors."""
    found = {suffix: getattr(factors_of(layer), name) for suffix, name in SUFFIXES.items()}
    return found | ({MAGNITUDE: layer.magnitude} if isinstance(layer, DoRALinear) else {})


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every trained tensor of the adapted maps in `model`, by its name in PEFT's file."""
    return {
        f"{PREFIX}{name}.{suffix}": tensor
        for name, layer in adapted(model).items()
        for suffix, tensor in parameters(layer).items()
    }


def described(model: nn.Module) -> Said:
    """Rank, alpha, dropout and method of the adapted maps in `model`.

    Raises:
        AdapterError: if there is none, or they differ in it.
    """
    pairs = [
        (factors_of(layer), isinstance(layer, DoRALinear)) for layer in adapted(model).values()
    ]
    said = {Said(f.rank, f.alpha, getattr(f.dropout, "p", 0.0), dora) for f, dora in pairs}
    if not said:
        raise AdapterError("the model has no adapter to save: call labkit.lora.inject first")
    if len(said) > 1:
        one, other = sorted(map(str, said))[:2]
        raise AdapterError(
            f"the folder holds one rank, alpha and dropout for all maps, found {one} and {other}: "
            "inject all maps in one call"
        )
    return said.pop()


def _shortest(model: nn.Module) -> list[str]:
    """The last parts of the adapted names, if they name just these maps; else the full names."""
    names = list(adapted(model))
    last = {name.rpartition(".")[2] for name in names}
    same = [name for name in linear_maps(model) if name.rpartition(".")[2] in last]
    return sorted(last if len(same) == len(names) else names)


def config(model: nn.Module) -> dict[str, Any]:
    """The content of adapter_config.json; what is not named here has PEFT's default."""
    said = described(model)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if hasattr(model, "generate") else None,
        "base_model_name_or_path": getattr(model, "name_or_path", None),
        "inference_mode": True,
        "r": said.rank,
        "lora_alpha": said.alpha,
        "lora_dropout": said.dropout,
        "use_dora": said.dora,
        "target_modules": _shortest(model),
        "bias": "none",
    }


def save_adapter(model: nn.Module, folder: Path) -> Path:
    """Write the adapter of `model` so that PEFT can load it; returns the weights file.

    Raises:
        AdapterError: if there is no adapter, or the folder cannot be written.
    """
    said, state = config(model), tensors(model)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
            save_file(state, Path(beside) / WEIGHTS, metadata={"format": "pt"})
            (Path(beside) / CONFIG).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
            folder.mkdir(exist_ok=True)
            for name in (WEIGHTS, CONFIG):  # only now is the adapter before it replaced
                os.replace(Path(beside) / name, folder / name)
    except (OSError, SafetensorError) as error:
        need = sum(t.numel() * t.element_size() for t in state.values())
        raise AdapterError(
            f"the adapter could not be written to {folder.name} ({error}): "
            f"free {-(-need // 2**20)} MiB or choose another folder"
        ) from error
    return folder / WEIGHTS


def load_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """Put the adapter in `folder` on `model`, in place; returns `model`.

    A plain model gets the layers first; one that has them must have the same.

    Raises:
        AdapterError: files that are missing, broken, incomplete or of another kind or model.
    """
    said, state = read_config(folder), _read_weights(folder)
    names = _modules(folder, state, said)
    if not adapted(model):
        _check_names(folder, names, set(linear_maps(model)))
        _check_shapes(folder, names, state, said, linear_maps(model))
        put = inject_dora if said.dora else inject
        put(model, names, said.rank, said.alpha, said.dropout)
    elif described(model) != said or set(names) != set(adapted(model)):
        raise AdapterError(
            f"{folder.name} has {said} on {len(names)} maps, the model has {described(model)} on "
            f"{len(adapted(model))}: load it on a plain base instead"
        )
    else:
        _check_shapes(folder, names, state, said, adapted(model))
    with torch.no_grad():
        for name, tensor in tensors(model).items():
            tensor.copy_(state[name])
    return model


def read_tensors(folder: Path) -> tuple[Said, dict[str, dict[str, Tensor]]]:
    """What a folder holds without a model: its settings, and by map each tensor by its suffix.

    Raises:
        AdapterError: as `read_config`; or a broken or incomplete file.
    """
    said, state = read_config(folder), _read_weights(folder)
    names, suffixes = _modules(folder, state, said), said.shapes(0, 0)
    return said, {n: {s: state[f"{PREFIX}{n}.{s}"] for s in suffixes} for n in names}


def read_config(folder: Path) -> Said:
    """Rank, alpha, dropout and method from a folder's adapter_config.json.

    Raises:
        AdapterError: no or a broken file, another method, or a field that changes the function.
    """
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = found.get("peft_type")
        rank, alpha, dropout = found["r"], found["lora_alpha"], found["lora_dropout"]
        said = Said(int(rank), float(alpha), float(dropout), bool(found.get("use_dora")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterError(
            f"{folder.name} has no readable {CONFIG} ({type(error).__name__}: {error}): "
            "copy the whole folder again"
        ) from error
    if kind != "LORA":
        raise AdapterError(f"{folder.name} holds {kind}, not LORA: load it with PEFT")
    odd = {k: v for k, v in found.items() if k not in HARMLESS and v and v != "none"}
    if found.get("init_lora_weights", True) not in STARTS:
        odd["init_lora_weights"] = found["init_lora_weights"]
    if odd:
        field, value = next(iter(odd.items()))
        raise AdapterError(
            f"{folder.name} has {field}={value!r}, which labkit's layers do not compute: "
            "load it with PEFT"
        )
    return said


def _read_weights(folder: Path) -> dict[str, Tensor]:
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        more = "; adapter_model.bin is a pickle and is never opened" if pickled else ""
        raise AdapterError(f"{folder.name} has no {WEIGHTS}{more}: copy the whole folder again")
    try:
        return load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise AdapterError(
            f"{WEIGHTS} in {folder.name} is damaged or cut off ({error}): copy it again"
        ) from error


def _modules(folder: Path, state: Mapping[str, Tensor], said: Said) -> list[str]:
    """The names of the adapted maps, each with all its tensors and nothing besides."""
    kinds = said.shapes(0, 0)
    split = [(name, suffix) for name in state for suffix in kinds if name.endswith(f".{suffix}")]
    names = {n.removesuffix(f".{s}").removeprefix(PREFIX) for n, s in split}
    whole = {f"{PREFIX}{name}.{suffix}" for name in names for suffix in kinds}
    if not state or whole != set(state):
        odd = min(whole ^ set(state), default="any tensor")
        lacks = "lacks" if odd in whole or not state else "has, unexpectedly,"
        raise AdapterError(f"{WEIGHTS} in {folder.name} {lacks} {odd}: copy it again")
    return sorted(names)


def _check_names(folder: Path, names: list[str], there: set[str]) -> None:
    if lost := [name for name in names if name not in there]:
        raise AdapterError(
            f"{folder.name} adapts {lost[0]} and {len(lost) - 1} more maps that the model has not: "
            "load the base that it was trained on"
        )


def _check_shapes(
    folder: Path,
    names: list[str],
    state: Mapping[str, Tensor],
    said: Said,
    maps: Mapping[str, nn.Module],
) -> None:
    for name in names:
        shapes = said.shapes(maps[name].out_features, maps[name].in_features)
        for suffix, shape in shapes.items():
            found = tuple(state[f"{PREFIX}{name}.{suffix}"].shape)
            if found != shape:
                raise AdapterError(
                    f"{name}.{suffix} is {found} in {folder.name}, the model and r={said.rank} "
                    f"want {shape}: load the base that it was trained on"
                )
