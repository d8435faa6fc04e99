"""What DoRA costs beside LoRA: time and peak memory of a training step at the size of Llama-3.2-1B.

    python -m labkit.bench dora --out data/measurements/dora_1b.jsonl

Each configuration is measured in a process of its own, one after the other on a quiet machine:
whose layers (ours or PEFT's), which method, over which base, with checkpointing or without, and
how a step is run:

    eager      as Python goes along
    graph      recorded once as a CUDA graph and replayed: no time is lost between small kernels
    fused      the same, DoRA's element-wise work compiled; where activations are kept, a few
               outputs are made again instead
    compiled   each decoder layer through torch.compile

A step is forward, backward and AdamW on 4 x 1024 tokens, rank 16 on seven projections. The weights
are random with the exact shapes: time and memory do not depend on their values. PyTorch's memory
may grow in place (expandable_segments), so what a graph reserves is what it needs, without gaps.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from labkit import loss, measure
from labkit.bench.processes import in_turns
from labkit.dora import DoRALinear, in_kernels, inject_dora, make_again
from labkit.lora import inject, linear_maps
from labkit.machine import machine

RANK, ALPHA, BATCH, LENGTH = measure.RANK, measure.ALPHA, measure.BATCH, measure.LENGTH
WARM, TIMED = 3, 10  # steps
ALLOCATOR = "expandable_segments:True"
TOY = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TOY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


@dataclass(frozen=True)
class Setting:
    """One configuration; its name says all of it."""

    whose: str  # "ours" or "peft"
    method: str  # "lora", "dora" or "dora-exact"
    base: str  # "bf16" or "nf4"
    checkpointing: bool
    how: str  # "eager", "graph", "fused" or "compiled"
    toy: bool = False  # a few numbers, on the CPU

    @property
    def name(self) -> str:
        kept = "checkpointed" if self.checkpointing else "kept"
        return f"{self.whose} {self.method} {self.base} {kept} {self.how}"

    def has(self, words: Sequence[str]) -> bool:
        return any(word in self.name for word in words)


def settings(toy: bool = False) -> list[Setting]:
    """Every configuration, those of one comparison next to each other."""
    found = []
    for how, owners in (("eager", ("ours", "peft")), ("graph", ("ours",)), ("compiled", ("ours",))):
        for base in ("bf16", "nf4"):
            for checkpointing in (False, True):
                found += [
                    Setting(whose, method, base, checkpointing, how, toy)
                    for whose in owners
                    for method in ("lora", "dora")
                ]
    fused = [replace(s, how="fused") for s in found if s.how == "graph" and s.method == "dora"]
    return [*found, *fused, Setting("ours", "dora-exact", "bf16", False, "eager", toy)]


def in_nf4(model: nn.Module) -> nn.Module:
    """`model` with its linear maps in bitsandbytes' NF4, constants too; the head stays."""
    import bitsandbytes as bnb

    for name, linear in linear_maps(model).items():
        packed = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        codes = bnb.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        packed.weight = codes
        packed.support_avx512bf16_for_cpu = False
        model.set_submodule(name, packed.to(linear.weight.device))
    return model


def build(setting: Setting) -> nn.Module:
    """The model of a configuration, random, adapted, in bfloat16 on the GPU (a toy: on the CPU)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cpu" if setting.toy else "cuda"):
        model = LlamaForCausalLM(LlamaConfig(**(TOY if setting.toy else measure.LLAMA_1B)))
    torch.set_default_dtype(torch.float32)
    if setting.base == "nf4":
        model = in_nf4(model)
    model = (by_peft if setting.whose == "peft" else by_us)(model, setting)
    if setting.checkpointing:
        measure.checkpointed(model)
    if setting.how == "compiled":
        torch._dynamo.config.recompile_limit = 64  # each layer is one more variant of the same code
        for layer in getattr(model, "model", model).layers:
            layer.compile()
    torch.cuda.empty_cache()
    return model.train()


def by_us(model: nn.Module, setting: Setting) -> nn.Module:
    model = (inject if setting.method == "lora" else inject_dora)(model, rank=RANK, alpha=ALPHA)
    for module in model.modules():
        if isinstance(module, DoRALinear):
            module.exact = setting.method == "dora-exact"
    if setting.how == "fused":
        model = in_kernels(model if setting.checkpointing else make_again(model))
    return model


def by_peft(model: nn.Module, setting: Setting) -> nn.Module:
    """As PEFT does by default: adapters in float32."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules="all-linear",
        use_dora=setting.method == "dora",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def batch_of(model: nn.Module, toy: bool) -> dict[str, Tensor]:
    size, words = ((2, 16), 500) if toy else ((BATCH, LENGTH), measure.VOCABULARY)
    ids = torch.randint(words, size, generator=torch.Generator().manual_seed(0))
    return {name: ids.to(next(model.parameters()).device) for name in ("input_ids", "labels")}


def row(asked: dict[str, Any]) -> dict[str, Any]:
    """Measure one configuration in this process."""
    setting = Setting(**asked)
    model, toy = build(setting), setting.toy
    batch = batch_of(model, toy)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=not toy)

    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return loss.causal_loss(model, batch, select=False)

    graph = setting.how in ("graph", "fused")
    micro = measure.Recorded(model, batch, loss_of) if graph else measure.eager(model, loss_of)
    seconds, losses = [], []
    for number in range(WARM + TIMED):
        if number == WARM and not toy:
            torch.cuda.reset_peak_memory_stats()
        _synchronize(toy)
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=not graph)  # a record writes where its gradients lay
        losses.append(float(micro(batch).detach()))
        optimizer.step()
        _synchronize(toy)
        seconds.append(time.perf_counter() - begin)
    timed = seconds[WARM:]
    return {
        "name": setting.name,
        "setting": asdict(setting),
        "seconds": round(statistics.median(timed), 5),
        "quickest": round(min(timed), 5),
        "slowest": round(max(timed), 5),
        "peak_allocated_bytes": 0 if toy else torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": 0 if toy else torch.cuda.max_memory_reserved(),
        "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", ""),
        "trainable": sum(p.numel() for p in trained),
        "losses": [round(losses[0], 4), round(losses[-1], 4)],
    } | machine()


def _synchronize(toy: bool) -> None:
    if not toy:
        torch.cuda.synchronize()


def imports() -> None:
    """What takes long to import, before the turn to measure comes."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="*", default=[], help="words of the names to measure")
    parser.add_argument("--seconds", type=float, default=560, help="for all of it")
    parser.add_argument("--toy", action="store_true", help="a few numbers, on the CPU")


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every configuration whose name holds one of the words asked for, in turn."""
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", ALLOCATOR)  # read as torch is imported
    chosen = [s for s in settings(options.toy) if not options.only or s.has(options.only)]
    yield from in_turns("labkit.bench.dora", [asdict(s) for s in chosen], options.seconds)
