"""LoRA: a training step with labkit's layers, with PEFT's, and with loralib's formula.

    python -m labkit.bench lora                          tiny on a CPU, a minute or two
    python -m labkit.bench lora --model llama-3.2-1b     its shape with random weights, on a GPU

    ours        LoRALinear, A and B in float32
    peft        PEFT as it comes, A and B in float32
    loralib     result += (dropout(x) @ A.T @ B.T) * scaling, A and B in the dtype of the base
    ours-base   LoRALinear with A and B in the dtype of the base
    peft-base   PEFT with autocast_adapter_dtype=False, the same
    full        no adapters: every linear map trains

A step clears the gradients, runs forward and backward, and AdamW. The weights of the large model
are random: speed and memory do not depend on their values, and nothing here tells of learning.
"""

import argparse
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import lora, models, train
from labkit.bench.timing import alternating, peak_bytes, ratio
from labkit.loss import causal_loss
from labkit.machine import machine
from labkit.measure import LLAMA_1B, checkpointed
from labkit.saved import Saved, saved

RANK, ALPHA = 16, 32


@dataclass(frozen=True)
class Setting:
    """What every row of one comparison has in common."""

    model: str  # tiny or llama-3.2-1b
    dtype: str  # of the base
    batch: int
    length: int
    dropout: float
    checkpointing: bool


class Loralib(nn.Module):
    """loralib's Linear, unmerged: its formula in its order, the factors in the base's dtype.

    Source: microsoft/LoRA, loralib/layers.py, Linear.forward.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base, self.scaling = base, alpha / rank
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)
        self.lora_dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result = F.linear(x, self.base.weight, bias=self.base.bias)
        thin = self.lora_dropout(x) @ self.lora_A.transpose(0, 1)
        result += (thin @ self.lora_B.transpose(0, 1)) * self.scaling
        return result


def with_loralib(model: nn.Module, setting: Setting) -> nn.Module:
    names = lora.matches(model)
    model.requires_grad_(False)
    for name in names:
        model.set_submodule(name, Loralib(model.get_submodule(name), RANK, ALPHA, setting.dropout))
    return model


def with_ours(model: nn.Module, setting: Setting, narrow: bool = False) -> nn.Module:
    lora.inject(model, "all-linear", RANK, ALPHA, setting.dropout)
    return model.to(getattr(torch, setting.dtype)) if narrow else model


def with_peft(model: nn.Module, setting: Setting, narrow: bool = False) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=setting.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=not narrow)


def full(model: nn.Module, setting: Setting) -> nn.Module:
    del setting
    names = lora.matches(model)
    model.requires_grad_(False)
    for name in names:
        model.get_submodule(name).requires_grad_(True)
    return model


METHODS: dict[str, Callable[[nn.Module, Setting], nn.Module]] = {
    "ours": with_ours,
    "peft": with_peft,
    "loralib": with_loralib,
    "ours-base": functools.partial(with_ours, narrow=True),
    "peft-base": functools.partial(with_peft, narrow=True),
    "full": full,
}
SAME_IN_FLOAT32 = ("ours-base", "peft-base")  # as ours and peft, when the base is float32


def base_of(setting: Setting, device: torch.device) -> nn.Module:
    """The frozen base: tiny as it is, or random weights in the shape of the large one."""
    dtype = getattr(torch, setting.dtype)
    if setting.model == "tiny":
        return models.load("tiny", quantize=None, dtype=dtype).model.to(device)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        return LlamaForCausalLM(LlamaConfig(**LLAMA_1B)).to(dtype)


class Subject:
    """One method on a base of its own, with its optimizer and the batch that all share."""

    def __init__(self, name: str, base: nn.Module, setting: Setting) -> None:
        torch.manual_seed(0)
        self.model = METHODS[name](base, setting).train()
        if setting.checkpointing:
            checkpointed(self.model)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        device = self.trained[0].device
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=device.type == "cuda")
        draw = torch.Generator().manual_seed(0)
        size, vocab = (setting.batch, setting.length), self.model.config.vocab_size
        ids = torch.randint(vocab, size, generator=draw).to(device)
        self.batch = {"input_ids": ids, "labels": ids}

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        causal_loss(self.model, self.batch).backward()
        self.optimizer.step()

    def saved(self) -> Saved:
        """What the forward pass keeps for the backward pass."""
        with saved(self.model) as kept:
            loss = causal_loss(self.model, self.batch)
        del loss
        return kept()


def compared(setting: Setting, names: list[str], rounds: int, device: str) -> Iterator[dict]:
    """One row a method: times of all rounds, the ratio to PEFT as it comes, bytes."""
    base = base_of(setting, torch.device(device))
    subjects = {name: Subject(name, copy.deepcopy(base), setting) for name in names}
    times = alternating({name: s.step for name, s in subjects.items()}, rounds)
    for name, subject in subjects.items():
        subject.optimizer.zero_grad()  # else the gradients of the last step hide in "before"
        to = "peft-base" if name in ("ours-base", "loralib") and "peft-base" in times else "peft"
        yield {
            "name": name,
            "setting": asdict(setting),
            "trainable": train.count(subject.model).trainable,
            "seconds": [round(t, 6) for t in times[name]],
            "ratio_to": to,
            "ratio": asdict(ratio(times[name], times[to])),
            "saved_bytes": subject.saved().activations,
            "peak_bytes": peak_bytes(subject.step),
        } | machine()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=("tiny", "llama-3.2-1b"), default="tiny")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, help="default: 8 for tiny, 4 for llama-3.2-1b")
    parser.add_argument("--length", type=int, help="default: 128 for tiny, 1024 for llama-3.2-1b")


def settings(options: argparse.Namespace) -> list[Setting]:
    """Without and with checkpointing; without it, also with dropout."""
    large = options.model != "tiny"
    batch, length = (4, 1024) if large else (8, 128)
    shape = (options.batch or batch, options.length or length)
    dtype = "bfloat16" if large else "float32"
    cases = [(0.0, False), (0.05, False), (0.0, True)]
    return [Setting(options.model, dtype, *shape, *case) for case in cases]


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every comparison, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for setting in settings(options):
        names = [n for n in METHODS if setting.dtype != "float32" or n not in SAME_IN_FLOAT32]
        yield from compared(setting, names, options.rounds, device)
