"""What DoRA costs beside LoRA: time and peak memory of a training step at the size of Llama-3.2-1B.

    python -m labkit.bench.dora all --out data/measurements/dora_1b.jsonl

Each configuration is measured in a process of its own, one after the other on a quiet machine:
whose layers (ours or PEFT's), which method, over which base, with checkpointing or without, and
how a step is run:

    eager      as Python goes along
    graph      recorded once as a CUDA graph and replayed: no time is lost between small kernels
    compiled   each decoder layer through torch.compile

A step is forward, backward and AdamW on 4 x 1024 tokens, rank 16 on seven projections. The weights
are random with the exact shapes: time and memory do not depend on their values.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labkit import loss, measure
from labkit.dora import DoRALinear, inject_dora
from labkit.lora import inject, linear_maps

RANK, ALPHA, BATCH, LENGTH = measure.RANK, measure.ALPHA, measure.BATCH, measure.LENGTH
WARM, TIMED = 3, 10  # steps
AT_ONCE = min(8, os.cpu_count() or 1)  # processes that import together, before they measure in turn
TOY = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TOY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


@dataclass(frozen=True)
class Setting:
    """One configuration; its name says all of it."""

    whose: str  # "ours" or "peft"
    method: str  # "lora", "dora" or "dora-exact"
    base: str  # "bf16" or "nf4"
    checkpointing: bool
    how: str  # "eager", "graph" or "compiled"

    @property
    def name(self) -> str:
        kept = "checkpointed" if self.checkpointing else "kept"
        return f"{self.whose} {self.method} {self.base} {kept} {self.how}"


def settings() -> list[Setting]:
    """Every configuration, those of one comparison next to each other."""
    found = []
    for how, owners in (("eager", ("ours", "peft")), ("graph", ("ours",)), ("compiled", ("ours",))):
        for base in ("bf16", "nf4"):
            for checkpointing in (False, True):
                found += [
                    Setting(whose, method, base, checkpointing, how)
                    for whose in owners
                    for method in ("lora", "dora")
                ]
    return [*found, Setting("ours", "dora-exact", "bf16", False, "eager")]


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


def build(setting: Setting, toy: bool = False) -> nn.Module:
    """The model of a configuration, random, adapted, in bfloat16 on the GPU (a toy: on the CPU)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cpu" if toy else "cuda"):
        model = LlamaForCausalLM(LlamaConfig(**(TOY if toy else measure.LLAMA_1B)))
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


def row(setting: Setting, toy: bool = False) -> dict[str, Any]:
    """Measure one configuration in this process."""
    model = build(setting, toy)
    batch = batch_of(model, toy)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=not toy)

    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return loss.causal_loss(model, batch, select=False)

    graph = setting.how == "graph"
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
        "trainable": sum(p.numel() for p in trained),
        "losses": [round(losses[0], 4), round(losses[-1], 4)],
    } | ({"gpu": "none"} if toy else measure.machine())


def _synchronize(toy: bool) -> None:
    if not toy:
        torch.cuda.synchronize()


class Worker:
    """A process that imports its libraries at once, and measures when it is told to."""

    def __init__(self, setting: Setting, toy: bool) -> None:
        command = [sys.executable, "-m", "labkit.bench.dora", "row", "--setting"]
        command += [json.dumps(asdict(setting)), *(["--toy"] if toy else [])]
        self.name = setting.name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Come back when the libraries are imported."""
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def measure(self, seconds: float) -> str:
        """The row as JSON, or what went wrong."""
        try:
            said, wrong = self.process.communicate("go\n", timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            return json.dumps({"name": self.name, "error": f"not done within {seconds:.0f} s"})
        if self.process.returncode:
            return json.dumps({"name": self.name, "error": wrong[-1500:]})
        return said.splitlines()[-1]


def all_rows(out: Path, only: Sequence[str], seconds: float, toy: bool) -> None:
    """Every configuration whose name holds one of `only`, appended to `out` as it is measured."""
    begin = time.perf_counter()
    chosen = [s for s in settings() if not only or any(part in s.name for part in only)]
    for start in range(0, len(chosen), AT_ONCE):
        workers = [Worker(setting, toy) for setting in chosen[start : start + AT_ONCE]]
        for worker in workers:
            worker.ready()
        for worker in workers:
            line = worker.measure(seconds - (time.perf_counter() - begin))
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            print(line, flush=True)


def one_row(options: argparse.Namespace) -> None:
    import bitsandbytes  # noqa: F401  what takes long is imported before the turn comes
    import peft  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(row(Setting(**json.loads(options.setting)), options.toy)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labkit.bench.dora")
    parser.add_argument("what", choices=("row", "all"))
    parser.add_argument("--setting", help="one configuration as JSON, for row")
    parser.add_argument("--only", nargs="*", default=[], help="words of a name, for all")
    parser.add_argument("--out", type=Path, default=Path("dora_1b.jsonl"))
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--toy", action="store_true", help="a few numbers, on the CPU")
    options = parser.parse_args()
    if options.what == "row":
        one_row(options)
    else:
        all_rows(options.out, options.only, options.seconds, options.toy)


if __name__ == "__main__":
    main()
