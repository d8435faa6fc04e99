"""The updates in an adapter file that a learner brings, by layer and projection; no model needed.

    read_adapter(folder)              PEFT's folder, or ours: the config says the scale
    read_adapter(file, alpha=32)      a bare .safetensors file: it does not, so you do
    adapter_of(model)                 the same of a model with labkit's layers, as it is now

    in the file                     is        shape
    NAME.lora_A.weight              A         (rank, in)
    NAME.lora_B.weight              B         (out, rank)
    NAME.lora_magnitude_vector      DoRA's    (out,)
    NAME.lora_down, lora_up, alpha  kohya's names for A, B and alpha
    NAME.A, NAME.B, NAME.magnitude  the state_dict of labkit's own layers

    scale = alpha / rank, or alpha / sqrt(rank) where the config says use_rslora; rank_pattern and
    alpha_pattern replace both for the maps whose name they match

DoRA's magnitude is kept beside the pair. The change of its weight is m (W + D) / |W + D| - W, which
needs W; the spectrum of D = scale B A is that of the pair alone.

Sources: PEFT 0.21, peft/utils/save_and_load.py, get_pattern_key in peft/utils/other.py and
update_layer in peft/tuners/lora/layer.py. Left out on purpose: convolutions, embeddings, and
methods without A and B. Pickled files are never opened.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from labkit.adapters import CONFIG, WEIGHTS, AdapterError
from labkit.interchange import MAGNITUDE, factors_of, tensors
from labkit.lora import adapted
from labkit.spectra import Spectrum, spectrum

PREFIXES = ("base_model.model.", "base_model.", "module.", "diffusion_model.", "transformer.")
ENDS = {  # of a tensor's name, and what it is
    r"lora_A(\.\w+)?\.weight": "A",
    r"lora_B(\.\w+)?\.weight": "B",
    rf"{MAGNITUDE}(\.\w+)?(\.weight)?": "magnitude",
    r"lora_down\.weight": "A",
    r"lora_up\.weight": "B",
    r"alpha": "alpha",
    r"(lora\.)?A": "A",
    r"(lora\.)?B": "B",
}
# Starts that also change the base: B A is then not what training added to the original weight.
MOVED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Update:
    """scale * B @ A of one linear map; with DoRA also the length of each row."""

    name: str
    A: Tensor  # (rank, in)
    B: Tensor  # (out, rank)
    scale: float
    magnitude: Tensor | None = None  # (out,)

    @property
    def rank(self) -> int:
        return len(self.A)

    @property
    def layer(self) -> int | None:
        """The number of its layer: the first number in its name."""
        found = re.search(r"\.(\d+)\.", f".{self.name}.")
        return int(found[1]) if found else None

    @property
    def projection(self) -> str:
        """The last part of its name, such as q_proj."""
        return self.name.rpartition(".")[2]

    def spectrum(self) -> Spectrum:
        """Its singular values and directions."""
        return spectrum(self.A, self.B, self.scale)

    def __str__(self) -> str:
        out, into = len(self.B), self.A.shape[1]
        return f"{self.name}: {out} x {into}, rank {self.rank}, scale {self.scale:g}"

    __repr__ = __str__


@dataclass(frozen=True)
class Adapter:
    """Every update of an adapter, by the full name of its map in the base."""

    source: str
    updates: dict[str, Update]
    left_out: tuple[str, ...] = ()  # tensors that are no part of an update of a linear map

    @property
    def layers(self) -> list[int]:
        return sorted({u.layer for u in self.updates.values() if u.layer is not None})

    @property
    def projections(self) -> list[str]:
        """Their names, in the order of the file."""
        return list(dict.fromkeys(u.projection for u in self.updates.values()))

    def at(self, layer: int, projection: str) -> Update:
        """The update of one projection in one layer.

        Raises:
            AdapterError: if the adapter has none there.
        """
        for update in self.updates.values():
            if (update.layer, update.projection) == (layer, projection):
                return update
        raise AdapterError(
            f"{self.source} has no update of {projection} in layer {layer}: it has "
            f"{', '.join(self.projections)} in layers {self.layers}"
        )

    def __str__(self) -> str:
        ranks = sorted({u.rank for u in self.updates.values()})
        numbers = sum(u.A.numel() + u.B.numel() for u in self.updates.values())
        more = f"; {len(self.left_out)} other tensors left out" if self.left_out else ""
        dora = ", DoRA" if any(u.magnitude is not None for u in self.updates.values()) else ""
        return (
            f"{self.source}: {len(self.updates)} updates{dora}, rank "
            f"{', '.join(map(str, ranks))}, {numbers:,} numbers{more}"
        )

    __repr__ = __str__


def adapter_of(model: nn.Module, source: str = "the model") -> Adapter:
    """The adapter that `model` carries in labkit's own layers, copied.

    Raises:
        AdapterError: if it carries none.
    """
    scales = {name: factors_of(layer).scale for name, layer in adapted(model).items()}
    if not scales:
        raise AdapterError(f"{source} carries no adapter: call labkit.lora.inject first")
    state = {name: t.detach().cpu().clone() for name, t in tensors(model).items()}
    found, _ = _sorted(state)
    updates = {
        name: Update(name, parts["A"], parts["B"], scales[name], parts.get("magnitude"))
        for name, parts in found.items()
    }
    return Adapter(source, updates)


def read_adapter(path: Path, alpha: float | None = None) -> Adapter:
    """The updates in an adapter folder, or in a .safetensors file.

    Args:
        path: a folder with adapter_model.safetensors, or such a file under any name. The
            adapter_config.json beside it is read, too.
        alpha: needed where there is no config and the file itself does not hold it.

    Raises:
        AdapterError: a file that is missing, cut off, no adapter, or one whose B A cannot be read
            as an update; the sentence says which, and the way out.
    """
    file = _file_in(Path(path))
    found, left_out = _sorted(_read(file))
    if not found:
        raise AdapterError(
            f"{file.name} holds {_count(left_out)} and no lora_A or lora_B: it is a whole model or "
            "another kind of adapter; bring adapter_model.safetensors"
        )
    config = _config(file.parent / CONFIG)
    if config is not None and alpha is not None:
        raise AdapterError(f"alpha={alpha:g} was given, but {CONFIG} says it: leave alpha out")
    updates = {}
    for name, parts in found.items():
        _check(file.name, name, parts)
        scale = _scale(file.name, name, parts, config, alpha)
        updates[name] = Update(name, parts["A"], parts["B"], scale, parts.get("magnitude"))
    where = file.parent.name if file.name == WEIGHTS else file.name
    return Adapter(where, updates, tuple(left_out))


def _count(names: list[str]) -> str:
    return f"{len(names)} tensors, such as {names[0]}," if names else "no tensor"


def _file_in(path: Path) -> Path:
    file = path / WEIGHTS if path.is_dir() else path
    if file.suffix in (".bin", ".pt", ".pth", ".ckpt"):
        raise AdapterError(
            f"{file.name} is a pickle, which can run code and is never opened: save it anew with "
            "safetensors.torch.save_file"
        )
    if not file.is_file():
        pickled = (path / "adapter_model.bin").is_file()
        more = "; adapter_model.bin is a pickle and is never opened" if pickled else ""
        raise AdapterError(f"there is no {file.name} in {file.parent.name or '.'}{more}")
    return file


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise AdapterError(
            f"{file.name} is damaged, cut off or no safetensors file ({error}): copy it again"
        ) from error


def _config(file: Path) -> dict[str, Any] | None:
    """The config beside the weights; None if there is none.

    Raises:
        AdapterError: if it is broken, or says that B A is not the update.
    """
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        kind, _, _ = found["peft_type"], float(found["r"]), float(found["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{file.name} in {file.parent.name} is not readable ({type(error).__name__}: {error}): "
            "copy the whole folder again"
        ) from error
    if kind != "LORA":
        raise AdapterError(f"{file.parent.name} holds {kind}, not LORA: its update is not B A")
    start = str(found.get("init_lora_weights", True)).lower()
    if start.startswith(MOVED_BASE):
        raise AdapterError(
            f"{file.parent.name} began with {start}, which changes the base, too: B A is not what "
            "training added; save it with PEFT's path_initial_model_for_weight_conversion"
        )
    return found


def _sorted(state: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """By the name of a map, its tensors by what they are; and the names of all other tensors."""
    found: dict[str, dict[str, Tensor]] = {}
    others = []
    for full, tensor in state.items():
        hits = ((re.fullmatch(rf"(.+?)\.{end}", full), kind) for end, kind in ENDS.items())
        name, kind = next(((hit[1], kind) for hit, kind in hits if hit), (None, ""))
        if name is None:
            others.append(full)
        else:
            found.setdefault(_plain(name), {})[kind] = tensor
    alone = [name for name, parts in found.items() if not {"A", "B"} & set(parts)]
    return {n: parts for n, parts in found.items() if n not in alone}, others + alone


def _plain(name: str) -> str:
    """The name of the map in the base, without what wrappers put before it."""
    while prefix := next((p for p in PREFIXES if name.startswith(p)), None):
        name = name.removeprefix(prefix)
    return name


def _check(file: str, name: str, parts: Mapping[str, Tensor]) -> None:
    """That A, B and the magnitude are there, fit one another, and hold numbers."""
    for kind, other in (("A", "B"), ("B", "A")):
        if kind not in parts:
            raise AdapterError(f"{file} has {other} of {name} but not {kind}: copy it again")
    A, B = parts["A"], parts["B"]
    if A.ndim != 2 or B.ndim != 2 or len(A) != B.shape[1]:
        raise AdapterError(
            f"A {tuple(A.shape)} and B {tuple(B.shape)} of {name} in {file} are no pair of a "
            "linear map: A is (rank, in), B (out, rank)"
        )
    if "magnitude" in parts and parts["magnitude"].numel() != len(B):
        raise AdapterError(
            f"{name} in {file} has {parts['magnitude'].numel()} magnitudes for {len(B)} outputs: "
            "copy it again"
        )
    for kind, tensor in parts.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor.float()).all():
            raise AdapterError(
                f"{kind} of {name} in {file} holds what is no finite number: the run that made it "
                "broke"
            )


def _scale(
    file: str,
    name: str,
    parts: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    alpha: float | None,
) -> float:
    """What B A is multiplied with."""
    rank = len(parts["A"])
    if config is not None:
        said = int(_of_pattern(config.get("rank_pattern"), name, config["r"]))
        if said != rank:
            raise AdapterError(
                f"{CONFIG} says rank {said} for {name}, {file} has {rank}: they are not of one "
                "adapter"
            )
        alpha = float(_of_pattern(config.get("alpha_pattern"), name, config["lora_alpha"]))
        return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    alpha = float(parts["alpha"]) if "alpha" in parts else alpha
    if alpha is None:
        raise AdapterError(
            f"{file} has no {CONFIG} beside it, so the scale is unknown: say alpha=..., as it was "
            "in training (the scale is alpha / rank)"
        )
    return alpha / rank


def _of_pattern(patterns: Mapping[str, float] | None, name: str, usual: float) -> float:
    """The value of the first pattern that matches the end of `name`, as PEFT takes it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return usual
