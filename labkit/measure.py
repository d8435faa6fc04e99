"""The fine-tune at its real size, measured on a GPU: one configuration, one process, one row.

    python -m labkit.measure checkpoint --folder runs/llama-random --tokenizer FOLDER
    python -m labkit.measure row hand --folder runs/llama-random
    python -m labkit.measure all --folder runs/llama-random --out data/measurements/qlora_1b.jsonl

The checkpoint has the exact shape of Llama-3.2-1B and random weights. Memory and speed are those of
the real model, since neither depends on the values; nothing here says anything about learning.

    trl      SFTTrainer as shipped: checkpointing, its chunked loss, bfloat16 adapters
    plain    transformers and PEFT after prepare_model_for_kbit_training, full logits
    hand-eager, hand-prepare    the loop by hand without the record, and after prepare
    hand     labkit's loop: causal_loss, checkpointing, bfloat16 adapters, a recorded CUDA graph
    t4       the loop by hand in float16 within 15 GiB, as on a T4

Setting of the lessons: 4 x 1024 tokens, accumulated 4 times, rank 16 on seven projections.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labkit import loss, models, project, train
from labkit.machine import machine
from labkit.table import Table

BATCH, LENGTH, ACCUMULATE, RANK, ALPHA = 4, 1024, 4, 16, 32
WARM, TIMED = 2, 4  # optimizer steps
VOCABULARY = 128_000  # ordinary tokens of Llama 3
LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def write_checkpoint(folder: Path, tokenizer: Path) -> None:
    """A Llama-3.2-1B of random bfloat16 weights, with the tokenizer files of `tokenizer`."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_1B))
    torch.set_default_dtype(previous)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def rows(seed: int = 0) -> Iterator[dict[str, Tensor]]:
    """Endless micro-batches of random ordinary tokens, every one learnt."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        ids = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=generator)
        yield {"input_ids": ids.cuda(), "labels": ids.cuda()}


def adapted(folder: Path, dtype: torch.dtype, prepare: bool = False) -> nn.Module:
    """The 4-bit model with adapters; in `dtype`, or float32 after prepare."""
    from peft import prepare_model_for_kbit_training

    model = models.load(folder, dtype=dtype).model
    if prepare:
        model = prepare_model_for_kbit_training(model)
    model = train.attach(model, rank=RANK, alpha=ALPHA)
    if dtype is torch.bfloat16 and not prepare:  # float16 is too narrow for Adam's moments
        for p in model.parameters():
            if p.requires_grad:
                p.data = p.data.to(dtype)
    return model


def checkpointed(model: nn.Module) -> None:
    """Keep only the input of each layer; the rest is computed again in the backward pass."""
    model.enable_input_require_grads()
    # No dropout, so there is no random state to restore: that is one device call less a layer.
    keywords = {"use_reentrant": False, "preserve_rng_state": False}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=keywords)


class Recorded:
    """Forward and backward of one micro-batch, recorded once as a CUDA graph, then replayed.

    Thousands of small kernels a layer cost more time to start from Python than to run. A replay
    starts them all at once; it needs one fixed shape, so the batch is copied into place.
    """

    def __init__(self, model: nn.Module, batch: dict[str, Tensor], loss_of: train.Loss) -> None:
        self.batch = {name: value.clone() for name, value in batch.items()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):  # warm-up: libraries choose and allocate here, not in the record
                loss_of(model, self.batch).backward()
        torch.cuda.current_stream().wait_stream(aside)
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        torch.cuda.empty_cache()
        self.graph = torch.cuda.CUDAGraph()
        # Recorded on the stream of the warm-up: cuBLAS keeps 64 MiB for each stream it has seen.
        with torch.cuda.graph(self.graph, stream=aside):
            self.loss = loss_of(model, self.batch)
            self.loss.backward()

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        for name, place in self.batch.items():
            place.copy_(batch[name])
        self.graph.replay()
        return self.loss


def by_hand(model: nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """The loop by hand; the time of each optimizer step and the first and last loss."""

    def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        if options.logits:
            return model(**batch, use_cache=False).loss / ACCUMULATE
        return loss.causal_loss(model, batch, select=False) / ACCUMULATE

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.0, fused=True)
    model.train()
    source = rows()
    micro = eager(model, loss_of) if not options.graph else Recorded(model, next(source), loss_of)
    seconds, losses = [], []
    for _ in range(WARM + TIMED):
        batches = [next(source) for _ in range(ACCUMULATE)]
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for p in trained:
            if p.grad is not None:
                p.grad.zero_()
        said = sum(float(micro(batch).detach()) for batch in batches)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
        losses.append(said)
    return {"seconds": seconds[WARM:], "losses": losses}


def eager(model: nn.Module, loss_of: train.Loss) -> Callable[[dict[str, Tensor]], Tensor]:
    def micro(batch: dict[str, Tensor]) -> Tensor:
        value = loss_of(model, batch)
        value.backward()
        return value

    return micro


def by_trl(folder: Path) -> dict[str, Any]:
    """SFTTrainer as shipped, on rows of 1024 tokens; the time of each optimizer step."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    loaded = models.load(folder, dtype=torch.bfloat16)
    seconds, losses, begin = [], [], [0.0]

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
            torch.cuda.synchronize()
            begin[0] = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin[0])

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:  # noqa: ANN401
            losses.extend([logs["loss"]] if "loss" in logs else [])

    source, steps = rows(), WARM + TIMED
    ids = [row.tolist() for _ in range(steps * ACCUMULATE) for row in next(source)["input_ids"]]
    seven = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    trainer = SFTTrainer(
        model=loaded.model,
        processing_class=loaded.tokenizer,
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=seven, task_type="CAUSAL_LM"
        ),
        args=SFTConfig(
            output_dir="runs/trl",
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATE,
            learning_rate=2e-4,
            max_length=LENGTH,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
        ),
        callbacks=[Clock()],
    )
    trainer.train()
    return {
        "seconds": seconds[WARM:],
        "losses": losses,
        "trainable": train.count(trainer.model).trainable,
    }


def row(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one configuration in this process."""
    torch.cuda.reset_peak_memory_stats()
    if options.gib:
        share = options.gib * 2**30 / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(share)
    found = by_trl(options.folder) if options.name == "trl" else _hand_row(options)
    each = statistics.median(found["seconds"])
    return {
        "name": options.name,
        "tokens_per_second": round(BATCH * LENGTH * ACCUMULATE / each),
        "seconds_per_step": round(each, 4),
        "slowest_step": round(max(found["seconds"]), 4),
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "trainable": found["trainable"],
        "losses": [round(value, 4) for value in found["losses"]],
        "setting": {k: v for k, v in vars(options).items() if k in SWITCHES},
    } | machine()


SWITCHES = ("graph", "liger", "logits", "prepare", "checkpointing", "dtype", "gib", "compile")


def _hand_row(options: argparse.Namespace) -> dict[str, Any]:
    if options.liger:
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama(fused_linear_cross_entropy=False, cross_entropy=False)
    model = adapted(options.folder, getattr(torch, options.dtype), options.prepare)
    if options.checkpointing:
        checkpointed(model)
    if options.compile:
        for layer in model.get_base_model().model.layers:
            layer.compile()
    return by_hand(model, options) | {"trainable": train.count(model).trainable}


BARS = ("tokens_per_second", "peak_allocated_bytes")  # what is compared
CONFIGURATIONS = {
    "trl": [],
    "plain": ["--logits", "--prepare", "--no-graph"],
    "hand-eager": ["--no-graph"],
    "hand-prepare": ["--prepare", "--no-graph"],
    "hand": [],
    "hand-liger": ["--liger"],
    "hand-compile": ["--compile", "--no-graph"],
    "hand-no-checkpointing": ["--no-checkpointing"],
    "t4": ["--dtype", "float16", "--gib", "15"],
}


def all_rows(options: argparse.Namespace) -> None:
    """Each configuration in a process of its own; a row, or what went wrong, is written at once."""
    begin = time.perf_counter()
    for name in options.only or CONFIGURATIONS:
        command = [sys.executable, "-m", "labkit.measure", "row", name]
        command += ["--folder", str(options.folder), *CONFIGURATIONS[name]]
        left = options.seconds - (time.perf_counter() - begin)
        if left < 20:
            return
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=left, check=False
            )
            line = (
                done.stdout.splitlines()[-1]
                if done.returncode == 0
                else json.dumps({"name": name, "error": done.stderr[-1500:]})
            )
        except subprocess.TimeoutExpired:
            line = json.dumps({"name": name, "error": f"not done within {left:.0f} s"})
        with options.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


def rows_on_disk() -> list[dict[str, Any]]:
    """The rows recorded in data/measurements/qlora_1b.jsonl."""
    path = project.data("measurements", "qlora_1b.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measured() -> Table:
    """What `rows_on_disk` holds, as a table."""
    found = rows_on_disk()
    rows = [
        (
            row["name"],
            f"{row['tokens_per_second']:,}",
            f"{row['peak_allocated_bytes'] / 2**30:.2f}",
            f"{row['peak_reserved_bytes'] / 2**30:.2f}",
        )
        for row in found
    ]
    first = found[0]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    caption = f"{first['gpu']}, {versions}, {first['date']}"
    return Table(("", "tokens/s", "peak allocated, GiB", "peak reserved, GiB"), rows, caption)


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(prog="python -m labkit.measure")
    parser.add_argument("what", choices=("checkpoint", "row", "all"))
    parser.add_argument("name", nargs="?", default="hand", help="the row's name")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS)
    parser.add_argument("--seconds", type=float, default=500)
    yes_no = argparse.BooleanOptionalAction
    for name, default in (("graph", True), ("checkpointing", True)):
        parser.add_argument(f"--{name}", action=yes_no, default=default)
    for name in ("liger", "logits", "prepare", "compile"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--gib", type=float)
    options = parser.parse_args()
    needed = {"checkpoint": "tokenizer", "all": "out"}.get(options.what)
    if needed and getattr(options, needed) is None:
        parser.error(f"{options.what} needs --{needed}")
    if options.what == "checkpoint":
        write_checkpoint(options.folder, options.tokenizer)
    elif options.what == "row":
        print(json.dumps(row(options)))
    else:
        all_rows(options)


if __name__ == "__main__":
    main()
