"""An adapter folded into the base: W' = W + s B A, and which W that has to be.

    trained on   merged into                     what comes out
    W            W                               what was trained, but for rounding
    Q(W), NF4    D = dequantised Q(W)            what was trained, but for rounding
    Q(W), NF4    W, the original                 off by W - D, often as large as the update
    Q(W), NF4    D, and quantised again          off by Q's error, a second time

    lost_share(W, delta, dtype)     what a merged weight in 16 bits loses of the update
    dequantised(base)               a plain model that holds the numbers the 4 bits stand for
    write_merged(model, ...)        a folder that plain transformers loads

Source: QLoRA, https://arxiv.org/abs/2305.14314, section 3, computes with D; bfloat16 keeps 8 bits.
Left out on purpose: merging several adapters into one.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labkit import evaluate, lora, models
from labkit.adapters import WEIGHTS, AdapterError, check_base, read_card
from labkit.data import Example
from labkit.interchange import load_adapter
from labkit.linears import dense
from labkit.models import Loaded
from labkit.nf4 import NF4Linear
from labkit.table import Table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MERGED = "merged.json"


def merge_qlora(
    original: Tensor, packed: NF4Linear, A: Tensor, B: Tensor, scale: float
) -> tuple[Tensor, float]:
    """The merged weight of a QLoRA map, and how far a merge into the original would be off.

    Args:
        original: (out, in), the weight before it was packed into 4 bits.
        packed: the map that the adapter was trained on.
        A, B: (rank, in) and (out, rank).

    Returns:
        The weight (out, in) in float32 that computes what was trained; and the size of
        original - dequantised, as a multiple of the size of the update (Frobenius norms).
    """
    W = dense(packed).float()
    delta = scale * (B.float() @ A.float())
    off = (original.float() - W).norm() / delta.norm()
    return W + delta, off.item()


def lost_share(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    """How much of an update is lost when the merged weight is kept in `dtype`.

    The sum is taken in float32 and rounded once. 0: nothing is lost; near 1: the update is gone.

    Args:
        W: (out, in), a weight that `dtype` holds exactly.
        delta: (out, in), the update.

    Returns:
        The Frobenius norm of (rounded sum - W) - delta, over that of delta.
    """
    W, delta = W.float(), delta.float()
    kept = (W + delta).to(dtype).float() - W
    return ((kept - delta).norm() / delta.norm()).item()


@dataclass(frozen=True)
class Rounded:
    """An update of one size in one dtype: what a merge loses, and the entries it leaves alone."""

    size: float  # of the update beside the weight, Frobenius
    dtype: str
    lost: float
    unchanged: float  # share of the entries of W that do not move


def rounding(
    W: Tensor,
    delta: Tensor,
    sizes: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4),
    dtypes: Sequence[torch.dtype] = (torch.bfloat16, torch.float16, torch.float32),
) -> list[Rounded]:
    """The same update at several sizes: |delta| = size |W|, merged into W in each dtype."""
    found = []
    for dtype in dtypes:
        held = W.float().to(dtype).float()
        for size in sizes:
            update = delta.float() * (size * held.norm() / delta.float().norm())
            still = ((held + update).to(dtype).float() == held).float().mean().item()
            name = str(dtype).removeprefix("torch.")
            found.append(Rounded(size, name, lost_share(held, update, dtype), still))
    return found


def dequantised(base: Loaded) -> Loaded:
    """A plain model with the numbers that the packed maps of `base` stand for; `base` stays."""
    plain = models.load(base.folder, quantize=None, dtype=base.model.dtype)
    with torch.no_grad():
        for name, packed in lora.linear_maps(base.model).items():
            plain.model.get_submodule(name).weight.copy_(dense(packed))
    return _named(plain, base, "dequantised from NF4")


def requantised(base: Loaded) -> Loaded:
    """`base`, a plain model, with each linear map rounded to NF4 and its constants to 8 bits."""
    with torch.no_grad():
        for linear in lora.linear_maps(base.model).values():
            linear.weight.copy_(NF4Linear(linear, double=True).dense())
    return base


def _named(plain: Loaded, base: Loaded, what: str) -> Loaded:
    said = f"{base.tier}, {what}, {str(plain.model.dtype).removeprefix('torch.')}"
    return Loaded(plain.model, plain.tokenizer, base.tier, base.folder, said)


def merged_into(plain: Loaded, folder: Path, other_base: bool = False) -> Loaded:
    """`plain` with the adapter in `folder` folded in, in place.

    Raises:
        AdapterError: no card, another base, or a damaged adapter.
    """
    check_base(folder, read_card(folder), plain, other_base)
    lora.merge(load_adapter(plain.model, folder))
    return _named(plain, plain, f"with {folder.name} merged")


@dataclass(frozen=True)
class Merges:
    """Loss of one QLoRA adapter by the way it is merged, in nats a token."""

    losses: dict[str, float]
    exact: dict[str, float]  # share of answers exactly right

    def __str__(self) -> str:
        return str(self._table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        rows = [(way, f"{n:.4f}", f"{self.exact[way]:.0%}") for way, n in self.losses.items()]
        return Table(("way", "loss, nats", "exactly right"), rows)


AS_TRAINED, RIGHT = "as trained, on NF4", "into the dequantised base"
WRONG, AGAIN, HALF = "into the original base", "quantised again", "dequantised, in bfloat16"


def merges(folder: Path, tier: str, examples: Sequence[Example]) -> Merges:
    """Score the adapter as it was trained, and after each way to merge it.

    Raises:
        AdapterError: as `merged_into`.
    """
    packed = models.load(tier, dtype=torch.float32)
    plain = dequantised(packed)
    check_base(folder, read_card(folder), packed)
    load_adapter(packed.model, folder)
    done = {AS_TRAINED: evaluate.forced_score(packed.model, packed.tokenizer, examples)}
    original = merged_into(models.load(tier, quantize=None, dtype=torch.float32), folder)
    done[RIGHT] = evaluate.forced_score(merged_into(plain, folder).model, plain.tokenizer, examples)
    done[WRONG] = evaluate.forced_score(original.model, plain.tokenizer, examples)
    done[HALF] = evaluate.forced_score(_rounded(plain.model), plain.tokenizer, examples)
    again = requantised(merged_into(dequantised(models.load(tier, dtype=torch.float32)), folder))
    done[AGAIN] = evaluate.forced_score(again.model, plain.tokenizer, examples)
    return Merges(
        {way: score.loss for way, score in done.items()},
        {way: score.exact_match for way, score in done.items()},
    )


@torch.no_grad()
def _rounded(model: "PreTrainedModel") -> "PreTrainedModel":
    """`model`, its weights rounded to bfloat16 in place; it still computes in float32.

    `model.to(torch.bfloat16)` would round the frequencies of the rotary embedding as well, which
    are no weights and stay in float32 when a saved model is loaded.
    """
    for weight in model.parameters():
        weight.copy_(weight.bfloat16())
    return model


def write_merged(merged: Loaded, adapter: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Write a merged model with its tokenizer, and what it was made from; returns the folder.

    Plain transformers loads it: AutoModelForCausalLM.from_pretrained(folder).

    Args:
        dtype: of the weights on disk; the model is not changed.

    Raises:
        AdapterError: if the folder has something in it, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise AdapterError(f"{folder.name} is not empty: choose a new folder for the merged model")
    said = {
        "base": merged.tier,
        "base_sha256": merged.weights_sha256,
        "adapter": adapter.name,
        "adapter_sha256": _sha256(adapter / WEIGHTS),
        "dtype": str(dtype).removeprefix("torch."),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
            whole = Path(beside) / "model"
            _in_dtype(merged.model, dtype).save_pretrained(whole)
            merged.tokenizer.save_pretrained(whole)
            (whole / MERGED).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
            if folder.exists():  # it is empty; Windows would not replace it
                folder.rmdir()
            os.replace(whole, folder)
    except OSError as error:
        raise AdapterError(f"the merged model cannot be written to {folder}: {error}") from error
    return folder


def _in_dtype(model: "PreTrainedModel", dtype: torch.dtype) -> "PreTrainedModel":
    """A copy of a model with its floating-point weights in `dtype`."""
    from transformers import AutoModelForCausalLM

    copy = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = model.generation_config
    return copy


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def share_lost(model: nn.Module, dtype: torch.dtype) -> dict[str, float]:
    """By map: what a merge in `dtype` would lose of the update that a model with adapters holds."""
    return {
        name: lost_share(dense(layer.base).to(dtype), layer.delta().detach(), dtype)
        for name, layer in lora.adapted(model).items()
    }
