"""NF4: quantise, dequantise and multiply beside bitsandbytes, and what codes cost a model.

    python -m labkit.bench nf4                    speed: a 4096 x 4096 weight, under a minute
    python -m labkit.bench nf4 --what model       the tiny model, fine-tuned and rounded: on a GPU

Speed   each step of ours and of bitsandbytes in turns, on the same weight; the bits of both are
        compared before. The bandwidth is that of a plain copy of the weight, timed with them.
Model   LoRA is trained on the task and merged; then each code rounds the merged weights.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from labkit import codes, data, evaluate, fitted, lora, models, nf4, rounding, train
from labkit.bench.timing import Step, alternating, peak_bytes, ratio
from labkit.history import Settings
from labkit.machine import machine

TOKENS = 256  # rows of x in the products
WHOLE = 2**30  # a block larger than any matrix: one absmax for each


@dataclass(frozen=True)
class Task:
    """One thing that both can do, and the bytes that it must read and write at the least."""

    name: str
    ours: Step
    theirs: Step
    least_bytes: int


def tasks(weight: Tensor) -> list[Task]:
    """Quantise, with double quantisation too; dequantise; multiply forward and back."""
    import bitsandbytes.functional as peer

    def theirs(double: bool) -> tuple[Tensor, Any]:
        return peer.quantize_4bit(weight, compress_statistics=double, quant_type="nf4")

    found = []
    for double in (False, True):
        q, (packed, state) = nf4.quantize(weight, double=double), theirs(double)
        least, plus = q.nbytes + weight.nbytes, ", double" if double else ""
        found += [
            Task(
                f"quantise{plus}",
                lambda double=double: nf4.quantize(weight, double=double),
                lambda double=double: theirs(double),
                least,
            ),
            Task(
                f"dequantise{plus}",
                lambda q=q: nf4.dequantize(q),
                lambda packed=packed, state=state: peer.dequantize_4bit(packed, state),
                least,
            ),
        ]
    return [*found, products(weight)]


def products(weight: Tensor) -> Task:
    """Forward and backward through the layers, on TOKENS rows."""
    linear = nn.Linear(*reversed(weight.shape), bias=False, device="meta", dtype=weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    x = torch.randn(TOKENS, weight.shape[1], device=weight.device, dtype=weight.dtype)
    x.requires_grad_(True)

    def step(layer: nn.Module) -> Callable[[], Tensor]:
        return lambda: torch.autograd.grad(layer(x).sum(), x)[0]

    ours = nf4.NF4Linear(linear)
    return Task("forward and backward", step(ours), step(linear4bit(linear)), weight.nbytes)


def linear4bit(linear: nn.Linear) -> nn.Module:
    """bitsandbytes' layer of a linear map without bias, double quantisation on."""
    import bitsandbytes as bnb

    weight = linear.weight.detach()
    layer = bnb.nn.Linear4bit(
        linear.in_features, linear.out_features, False, compute_dtype=weight.dtype
    )
    layer.weight = bnb.nn.Params4bit(
        weight.cpu(), False, compress_statistics=True, quant_type="nf4"
    )
    layer = layer.to(weight.device)
    layer.support_avx512bf16_for_cpu = False  # else an evaluation repacks its codes in place
    return layer


def shares_equal(weight: Tensor) -> dict[str, float]:
    """Shares of bytes, constants and values that are the same bits as bitsandbytes' here."""
    import bitsandbytes.functional as peer

    q = nf4.quantize(weight, double=True)
    packed, state = peer.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    pairs = {
        "packed": (q.packed, packed.flatten()),
        "absmax": (q.absmax, state.absmax),
        "scales": (q.scales, state.state2.absmax),
        "offset": (q.offset, state.offset),
        "weight": (nf4.dequantize(q), peer.dequantize_4bit(packed, state)),
    }
    return {name: (a == b).float().mean().item() for name, (a, b) in pairs.items()}


def speed(size: int, rounds: int, device: str, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    """One row a task: seconds of both in every round, their ratio, bytes and bandwidth."""
    draw = torch.Generator().manual_seed(0)
    weight = (torch.randn(size, size, generator=draw) * 0.02).to(device, dtype)
    equal, room = shares_equal(weight), torch.empty_like(weight)
    for task in tasks(weight):
        steps = {"ours": task.ours, "bitsandbytes": task.theirs}
        steps["copy"] = lambda: room.copy_(weight)
        times = alternating(steps, rounds)
        bandwidth = 2 * weight.nbytes / min(times["copy"])  # it reads and writes the weight
        yield {
            "name": task.name,
            "size": size,
            "dtype": str(dtype).removeprefix("torch."),
            "equal": equal,
            "seconds": {name: [round(t, 7) for t in times[name]] for name in times},
            "ratio": asdict(ratio(times["ours"], times["bitsandbytes"])),
            "of_bandwidth": {
                name: round(task.least_bytes / min(times[name]) / bandwidth, 4)
                for name in ("ours", "bitsandbytes")
            },
            "bandwidth": round(bandwidth),
            "peak_bytes": {name: peak_bytes(steps[name]) for name in ("ours", "bitsandbytes")},
        } | machine()


CODES = {
    "nf4": codes.levels,
    "fp4": codes.fp4,
    "e2m1": codes.e2m1,
    "int4": codes.int4,
    "af4_corrected": fitted.af4_corrected,
}
CASES = [
    *((name, block) for name in ("nf4", "fp4", "int4") for block in (64, 256, 4096, WHOLE)),
    ("e2m1", 64),
    ("af4_corrected", 64),
]


def fine_tuned(steps: int) -> models.Loaded:
    """The tiny model in float32, trained on the task with LoRA and merged."""
    loaded = models.load("tiny", quantize=None, dtype=torch.float32)
    torch.manual_seed(0)
    lora.inject(loaded.model, "all-linear", rank=16, alpha=32)
    items = [data.encode(loaded.tokenizer, example) for example in data.examples("train")]
    train.fit(loaded.model, items, Settings(steps=steps))
    lora.merge(loaded.model)
    return loaded


def model_rows(steps: int, limit: int | None) -> Iterator[dict[str, Any]]:
    """One row for the merged weights, and one for each code and block size."""
    model, tokenizer, _ = fine_tuned(steps)
    letters, questions = data.examples("test")[:limit], data.examples("regression")
    questions = questions[:: len(questions) // limit if limit else 1]  # they stand by skill

    def scored(name: str, block: int | None) -> dict[str, Any]:
        return {
            "name": name,
            "block": "matrix" if block == WHOLE else block,
            "steps": steps,
            "perplexity": rounding.perplexity(model, tokenizer, questions),
            "task": asdict(evaluate.score_task(model, tokenizer, letters)),
            "regression": evaluate.score_regression(model, tokenizer, questions).exact_match,
        } | machine()

    yield scored("float32", None)
    for name, block in CASES:
        with rounding.in_code(model, CODES[name](), block):
            yield scored(name, block)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--what", choices=("speed", "model"), default="speed")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the weight")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=150, help="of the fine-tune")
    parser.add_argument("--limit", type=int, help="questions and letters that are scored")


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Speed in float32, on a GPU in bfloat16 as well; or the model's scores."""
    if options.what == "model":
        yield from model_rows(options.steps, options.limit)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for dtype in (torch.float32, torch.bfloat16) if device == "cuda" else (torch.float32,):
        yield from speed(options.size, options.rounds, device, dtype)
