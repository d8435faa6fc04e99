"""A model folder, looked at before anything of it is loaded.

Config, architecture, safetensors, their names and shapes, tokenizer: whatever is missing, damaged
or of another model is one sentence with the way out. Pickles stay closed: only safetensors count.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from labkit.project import LabkitError

ARCHITECTURES = ("llama", "mistral", "qwen2")  # the seven projections have the same names in them


class ModelError(LabkitError):
    """A model that cannot be loaded; says why and what to do."""


def check(folder: Path, fits: bool = True) -> None:
    """Look at a model folder before anything of it is loaded.

    Args:
        fits: compare names and shapes with those of the config's model, too. Building it takes
            transformers, whose import takes seconds.

    Raises:
        ModelError: no or a broken config, an unknown architecture, no safetensors, a damaged one,
            one of another model, no tokenizer.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder.name} has no config.json: is it a model folder?") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise ModelError(f"config.json in {folder.name} is broken: fetch it again") from error
    if not isinstance(config, dict):
        raise ModelError(f"config.json in {folder.name} is broken, no object: fetch it again")
    if config.get("model_type") not in ARCHITECTURES:
        raise ModelError(
            f"{folder.name} is a {config.get('model_type')!r} model; the workbook knows "
            f"{', '.join(ARCHITECTURES)}"
        )
    found = _shapes(_weights(folder))
    if fits and "quantization_config" not in config:  # packed weights have shapes of their own
        _fits(folder, found)
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder.name} has no tokenizer.json: copy it from the base model")


def _weights(folder: Path) -> list[Path]:
    """The files that transformers reads: one, or those that the index names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        raise ModelError(
            f"{folder.name} has no safetensors; pickled weights (.bin, .pt) are never opened, "
            "because a pickle can run code: convert them on a machine you trust"
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index.name} in {folder.name} is broken: fetch it again") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError(f"{folder.name} lacks {', '.join(missing)}: fetch it again")
    return [folder / name for name in names]


def _shapes(weights: list[Path]) -> dict[str, list[int]]:
    """Name and shape of every tensor, from the heads of the files."""
    found = {}
    for path in weights:
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                found |= {name: file.get_slice(name).get_shape() for name in names}
        except SafetensorError as error:
            raise ModelError(
                f"{path.name} is damaged or cut off ({error}): delete it and fetch it again"
            ) from error
    return found


def _fits(folder: Path, found: dict[str, list[int]]) -> None:
    """Compare what is there with what the config asks for.

    transformers would fill a missing weight with noise, leave out one too many, take a 4-bit one
    of another shape, and go on.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # a bad number in a config can raise anything
        said = " ".join(str(error).split())[:120]
        raise ModelError(
            f"config.json in {folder.name} describes no model ({said}): fetch it again"
        ) from error
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings and "lm_head.weight" not in found:
        del wanted["lm_head.weight"]
    names = {name for name in wanted | found if not name.endswith("rotary_emb.inv_freq")}
    if wrong := sorted(name for name in names if wanted.get(name) != found.get(name)):
        first, more = wrong[0], f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(
            f"the weights in {folder.name} do not fit its config ({first}{more}: "
            f"{found.get(first, 'none')} in the file, {wanted.get(first, 'none')} by the config): "
            "fetch both again from one place"
        )
