"""An adapter in the layout that vLLM loads: its limits checked, then the command that serves it.

    vllm_problems(config, max_rank)    what vLLM would refuse, or drop without a word
    export(folder, out)                adapter_config.json and adapter_model.safetensors, checked
    command(base, folders)             vllm serve BASE --enable-lora --lora-modules ada=PATH ...

vLLM reads r, lora_alpha, target_modules, bias, modules_to_save, use_rslora and use_dora. Any other
field is dropped in silence, so a rank or alpha by layer would be served with the wrong scale, and
PiSSA's start, which moved the base, on a base that nobody moved. Such a folder is refused here.

Source: vllm/lora/peft_helper.py (fields, DoRA, modules_to_save), vllm/lora/lora_model.py (modules,
by the tensors' names), vllm/config/lora.py (MaxLoRARanks), docs/features/lora.md (the command).
Left out on purpose: adapters of embeddings and heads, and the engine itself.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from labkit.adapters import CARD, CONFIG, WEIGHTS, AdapterError, read_card
from labkit.interchange import HARMLESS, PREFIX, STARTS

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py, MaxLoRARanks
SEVEN = set("q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split())
REFUSED = {
    "use_dora": "vLLM has no DoRA: merge the adapter into a model of its own",
    "modules_to_save": "vLLM loads no whole modules: train LoRA on them, or merge",
    "rank_pattern": "vLLM drops a rank by layer and scales all layers by r: use one rank",
    "alpha_pattern": "vLLM drops an alpha by layer and scales all by lora_alpha: use one alpha",
}
FIELDS = ("peft_type", "r", "lora_alpha", "target_modules", "bias", "use_rslora", "use_dora")


def vllm_problems(config: Mapping[str, Any], max_rank: int = 16) -> dict[str, str]:
    """What keeps vLLM from serving an adapter: field of adapter_config.json to one sentence.

    Empty if vLLM loads it and computes what PEFT does. rsLoRA is served.

    Args:
        config: the content of adapter_config.json.
        max_rank: the server's --max-lora-rank.
    """
    found = {field: why for field, why in REFUSED.items() if config.get(field)}
    if config["r"] > max_rank:
        found["r"] = f"rank {config['r']} is above --max-lora-rank {max_rank}: raise the limit"
    if config.get("bias", "none") != "none":
        found["bias"] = "vLLM loads no trained biases: train with bias='none'"
    targets = config["target_modules"]
    listed = [targets] if isinstance(targets, str) else targets
    if odd := {t.rpartition(".")[2] for t in listed} - SEVEN - {"all-linear"}:
        found["target_modules"] = f"{min(odd)} is none of the seven projections: leave it out"
    return found


def rank_limit(rank: int) -> int:
    """The smallest --max-lora-rank that vLLM allows and that takes adapters of `rank`.

    Raises:
        AdapterError: if none does.
    """
    for limit in RANKS:
        if rank <= limit:
            return limit
    raise AdapterError(f"rank {rank} is above vLLM's largest limit, {RANKS[-1]}: merge the adapter")


def check(folder: Path, max_rank: int | None = None) -> dict[str, Any]:
    """The config of an adapter that vLLM serves.

    Raises:
        AdapterError: names every problem, and the way out.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, "pt") as file:
            names = list(file.keys())
        problems = vllm_problems(config, max_rank or rank_limit(config["r"]))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise AdapterError(f"{folder.name} has no readable adapter: {error}") from error
    said = [*problems.values(), *_dropped(config), *_strange(names)]
    if said:
        raise AdapterError(f"vLLM cannot serve {folder.name}: " + "; ".join(said))
    return config


def _dropped(config: Mapping[str, Any]) -> Iterator[str]:
    """What vLLM passes over, although it changes what the adapter computes."""
    read = HARMLESS | {*FIELDS, *REFUSED}
    for field, value in config.items():
        if field not in read and value and value != "none":
            yield f"vLLM drops {field}, which changes what the adapter computes"
    if config.get("init_lora_weights", True) not in STARTS:
        yield "the start of A and B moved the base, too: convert the adapter with PEFT"


def _strange(names: Sequence[str]) -> Iterator[str]:
    """The first tensor that is no factor of one of the seven projections."""
    for name in names:
        place, _, kind = name.removesuffix(".weight").rpartition(".")
        known = kind in ("lora_A", "lora_B") and place.rpartition(".")[2] in SEVEN
        if not known or not name.startswith(PREFIX) or not name.endswith(".weight"):
            yield f"{name} is no lora_A or lora_B of one of the seven projections"
            return


def export(folder: Path, out: Path) -> Path:
    """Write the adapter in `folder` and its card to `out` as vLLM loads it; returns `out`.

    Raises:
        AdapterError: without a card; if vLLM would refuse it, or serve something else.
    """
    config = check(folder)
    said = {field: config[field] for field in FIELDS if field in config}
    card = read_card(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / CARD).write_text(f"{card}\n", encoding="utf-8")  # vLLM passes over it
    (out / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    (out / CONFIG).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return out


def command(base: str, folders: Mapping[str, Path], max_loras: int | None = None) -> str:
    """The shell command that serves a base with these adapters, by name.

    Args:
        max_loras: adapters in one batch; None: all of them.

    Raises:
        AdapterError: if vLLM would refuse one of them.
    """
    if not folders:
        raise AdapterError("no adapters to serve: name at least one")
    limit = max(rank_limit(check(folder)["r"]) for folder in folders.values())
    modules = " ".join(shlex.quote(f"{name}={folder}") for name, folder in folders.items())
    return (
        f"vllm serve {shlex.quote(base)} --enable-lora --lora-modules {modules} "
        f"--max-lora-rank {limit} --max-loras {max_loras or len(folders)}"
    )
