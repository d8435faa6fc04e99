"""An adapter folder with its card: size predicted, saved, loaded, and checked against its base.

    adapter_model.safetensors   A and B of each adapted map
    adapter_config.json         PEFT's: rank, alpha, targets
    card.json                   base and its hash, data hash, settings, versions, scores

An adapter is worth nothing on another base, so `load` compares the hash of the base's weights.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from labkit import train
from labkit.data import Example
from labkit.models import Loaded
from labkit.project import LabkitError
from labkit.train import Settings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig

WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "card.json"
FLOAT32 = 4  # bytes; PEFT trains and saves adapters in it
VERSIONS = ("torch", "transformers", "peft", "bitsandbytes")


class AdapterError(LabkitError):
    """An adapter that cannot be used; says why and what to do."""


def training_bytes(parameters: int) -> tuple[int, int]:
    """Bytes of an adapter of so many float32 numbers: in its file, and held in training.

    Training holds the numbers, their gradients and Adam's two moments.
    """
    return FLOAT32 * parameters, FLOAT32 * parameters * (1 + 1 + 2)


def file_bytes(model: "PeftModel") -> int:
    """Bytes of adapter_model.safetensors before it is written: 8, its header, its tensors."""
    from peft import get_peft_model_state_dict

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name, tensor in sorted(state.items()):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"))
    return 8 + -(-len(text) // 8) * 8 + end


def predicted_bytes(
    config: "PretrainedConfig", rank: int, targets: str | Sequence[str] = "all-linear"
) -> int:
    """Bytes of adapter_model.safetensors for a model of this config, from shapes alone."""
    return file_bytes(train.on_meta(config, rank, targets))


def data_sha256(examples: Sequence[Example]) -> str:
    """One hash over what was trained on, in its order."""
    rows = "\n".join(json.dumps(asdict(example), sort_keys=True) for example in examples)
    return hashlib.sha256(rows.encode()).hexdigest()


@dataclass(frozen=True)
class Card:
    """What one must know to use an adapter, or to make it again."""

    base: str
    base_sha256: str
    data_sha256: str
    rank: int
    alpha: float
    targets: list[str]
    settings: dict[str, Any]
    scores: dict[str, float]
    versions: dict[str, str]
    date: str

    def __str__(self) -> str:
        text = json.dumps(asdict(self), indent=2)
        lists = re.compile(r"\[[^\[\]{}]*\]")  # on one line each
        return lists.sub(lambda found: " ".join(found[0].split()), text)

    __repr__ = __str__


def card(
    model: "PeftModel",
    base: Loaded,
    examples: Sequence[Example],
    settings: Settings,
    scores: dict[str, float],
) -> Card:
    """The card of what was trained on `examples`."""
    config = model.peft_config["default"]
    return Card(
        base=base.tier,
        base_sha256=base.weights_sha256,
        data_sha256=data_sha256(examples),
        rank=config.r,
        alpha=config.lora_alpha,
        targets=sorted(config.target_modules),
        settings={name: v for name, v in asdict(settings).items() if name != "checkpoint"},
        scores={name: round(score, 4) for name, score in scores.items()},
        versions={name: metadata.version(name) for name in VERSIONS},
        date=date.today().isoformat(),
    )


def save(model: "PeftModel", folder: Path, said: Card) -> Path:
    """Write adapter and card; returns the weights file.

    Raises:
        AdapterError: if the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
            model.save_pretrained(beside, save_embedding_layers=False)
            (Path(beside) / CARD).write_text(f"{said}\n", encoding="utf-8")
            folder.mkdir(exist_ok=True)
            for path in Path(beside).iterdir():  # only now is the adapter before it replaced
                os.replace(path, folder / path.name)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise AdapterError(
            f"the adapter could not be written to {folder.name} ({why}): "
            f"free {-(-file_bytes(model) // 2**20)} MiB or choose another folder"
        ) from error
    return folder / WEIGHTS


def read_card(folder: Path) -> Card:
    """The card of an adapter folder.

    Raises:
        AdapterError: if there is none, or it is broken.
    """
    try:
        return Card(**json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise AdapterError(
            f"{folder.name} has no readable card.json ({error}): this workbook did not save it; "
            "PeftModel.from_pretrained loads it unchecked"
        ) from error


def check_base(folder: Path, said: Card, base: Loaded, other_base: bool = False) -> None:
    """Whether the base is the one that a card names, by the hash of its weights.

    Raises:
        AdapterError: if it is not, and `other_base` does not allow it.
    """
    if said.base_sha256 != base.weights_sha256 and not other_base:
        raise AdapterError(
            f"{folder.name} was trained on {said.base} with weights {said.base_sha256[:12]}.., "
            f"this is {base.tier} with {base.weights_sha256[:12]}..: load the base it names, or "
            "say other_base=True and score it before you trust it"
        )


def load(folder: Path, base: Loaded, other_base: bool = False) -> "PeftModel":
    """The adapter in `folder` on `base`.

    Args:
        other_base: load it although the weights of the base are not those it was trained on.

    Raises:
        AdapterError: no card, another base, or a damaged file.
    """
    from peft import PeftModel

    said = read_card(folder)
    lost = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if lost:  # PEFT would go and ask a hub for it
        raise AdapterError(f"the adapter in {folder.name} cannot be read: it has no {lost[0]}")
    check_base(folder, said, base, other_base)
    try:
        return PeftModel.from_pretrained(base.model, folder)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise AdapterError(
            f"the adapter in {folder.name} cannot be read ({str(error)[:120]}): copy it anew, or "
            "train it again with the settings in its card"
        ) from error
