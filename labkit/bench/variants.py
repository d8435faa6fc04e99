"""What the start of an adapter costs: plain LoRA's, and those that decompose the weight first.

    python -m labkit.bench variants                  maps of Llama-3.2-1B's sizes, on a GPU
    python -m labkit.bench variants --sizes 128x384  any size, also on a CPU

    lora       A at random, B zero
    olora      a QR decomposition of W
    pissa      an SVD of W
    qlora      W rounded to NF4, then as lora
    loftq      five times: round, then an SVD of what that lost
    step       not a start: forward and backward of this one map for 4,096 tokens, to compare with

All starts of one size run in turns on the same random weight. Its values do not matter to the
time. A model has many maps; the start is paid once for each.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from labkit.bench.timing import alternating, ratio
from labkit.lora import LoRALinear
from labkit.machine import machine
from labkit.sweep.variants import START

RANK, ALPHA = 16, 32
SIZES = ("2048x2048", "8192x2048")  # out x in: queries, and the way up, of Llama-3.2-1B
STARTS = ("lora", "olora", "pissa", "qlora", "loftq")
TOKENS = 4096


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="out x in, as 2048x2048")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=TOKENS)


def start(name: str, base: nn.Linear) -> Callable[[], nn.Module]:
    """A call that adapts a copy of `base`, as often as it is asked."""
    return lambda: START[name](LoRALinear(copy.deepcopy(base), RANK, ALPHA))


def step(base: nn.Linear, tokens: int) -> Callable[[], None]:
    """A call that runs one adapted map forward and back."""
    layer = LoRALinear(copy.deepcopy(base), RANK, ALPHA)
    x = torch.randn(tokens, base.in_features, device=base.weight.device, requires_grad=True)
    return lambda: layer(x).sum().backward()


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each start of each size: seconds of every round, and the ratio to the step."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for size in options.sizes:
        out, into = map(int, size.split("x"))
        torch.manual_seed(0)
        base = nn.Linear(into, out, bias=False, device=device)
        timed = {name: start(name, base) for name in STARTS}
        timed["step"] = step(base, options.tokens)
        times = alternating(timed, options.rounds, warm=1)
        for name in STARTS:
            yield {
                "name": name,
                "size": [out, into],
                "rank": RANK,
                "tokens": options.tokens,
                "seconds": [round(t, 6) for t in times[name]],
                "step_seconds": [round(t, 6) for t in times["step"]],
                "ratio": asdict(ratio(times[name], times["step"])),
            } | machine()
