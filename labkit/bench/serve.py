"""Many adapters in one batch: tokens a second by their number, and what a change of adapter takes.

    python -m labkit.bench serve                          tiny on a CPU
    python -m labkit.bench serve --model llama-3.2-1b     its shape with random weights, on a GPU

    base      no adapter at all: the bound
    gather    one pass of the base, each row its own A and B
    swap      a pass for each adapter's rows; before it, its A and B are copied into one LoRA model
    merged    a pass for each adapter's rows, in a merged copy of its own (as many as --copies)
    peft      PEFT's mixed batch: one pass of the base, a loop over adapters in each map
    base-graph, gather-graph      the same work recorded once as a CUDA graph and replayed

Row i of a batch belongs to adapter i modulo their number. Two batches: 64 rows of one token, as in
decoding (without a cache of keys and values), and 8 rows of 256 tokens (tiny: 32), as prompts come.
Every way computes the logits of each row's last token; they are compared before they are timed.
PEFT gets fewer adapters (--peft): the time to add one grows with the number that is there.
"""

import argparse
import copy
import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labkit import lora, models
from labkit.bench.timing import alternating, ratio
from labkit.interchange import save_adapter
from labkit.machine import machine
from labkit.measure import LLAMA_1B
from labkit.serve import swapping
from labkit.serve.bank import Bank, Factors

NUMBERS = (1, 2, 4, 8, 16, 32, 64)
SHAPES = {"tiny": ((64, 1), (8, 32)), "llama-3.2-1b": ((64, 1), (8, 256))}  # rows, tokens a row
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """What all ways of one comparison have in common."""

    model: str
    dtype: str
    rank: int
    adapters: int
    batch: int
    length: int


def base_of(name: str, device: str) -> nn.Module:
    """The frozen base: tiny in float32, or random bfloat16 weights in the large one's shape."""
    if name == "tiny":
        return models.load("tiny", quantize=None, dtype=torch.float32).model.to(device)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_1B))
    torch.set_default_dtype(torch.float32)
    return model.requires_grad_(False).eval()


def drawn(model: nn.Module, rank: int, seed: int) -> Factors:
    """An adapter that nobody trained: A and B drawn so that the update is a few percent of W."""
    draw = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    maps = {}
    for name, linear in lora.linear_maps(model).items():
        W = linear.weight
        A, B = W.new_empty(rank, W.shape[1]), W.new_empty(W.shape[0], rank)
        A.normal_(0, W.shape[1] ** -0.5, generator=draw)
        B.normal_(0, 0.01, generator=draw)
        maps[name] = (A, B)
    return Factors(rank, 2.0, maps)


def injected(base: nn.Module, rank: int) -> nn.Module:
    """A copy of `base` with LoRA layers whose A and B have its dtype.

    `model.to(dtype)` would round the frequencies of the rotary embedding as well.
    """
    model = lora.inject(copy.deepcopy(base), rank=rank, alpha=2 * rank)
    for layer in lora.adapted(model).values():
        layer.A.data, layer.B.data = layer.A.data.to(base.dtype), layer.B.data.to(base.dtype)
    return model.requires_grad_(False)


class Subjects:
    """Every way, on copies of one base, with the same adapters."""

    def __init__(self, base: nn.Module, rank: int, numbers: int, copies: int, peft: int) -> None:
        self.adapters = [drawn(base, rank, seed) for seed in range(numbers)]
        self.copies = [self._merged(base, one) for one in self.adapters[:copies]]
        self.peft, self.most = self._peft(copy.deepcopy(base), rank, peft), peft
        self.plain = injected(base, rank)
        self.bank = Bank(base, numbers, rank)
        for number, one in enumerate(self.adapters):
            self.bank.put(str(number), one)

    @staticmethod
    @torch.no_grad()
    def _merged(base: nn.Module, one: Factors) -> nn.Module:
        merged = copy.deepcopy(base)
        for name, (A, B) in one.maps.items():
            merged.get_submodule(name).weight += one.scale * (B @ A)
        return merged

    @torch.no_grad()
    def _peft(self, base: nn.Module, rank: int, most: int) -> nn.Module:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", init_lora_weights=False
        )
        model = get_peft_model(base, config, adapter_name="0", autocast_adapter_dtype=False)
        for number in range(1, most):
            model.add_adapter(str(number), config, autocast_adapter_dtype=False)
        for number, one in enumerate(self.adapters[:most]):
            for name, (A, B) in one.maps.items():
                layer = model.base_model.model.get_submodule(name)
                layer.lora_A[str(number)].weight.copy_(A)
                layer.lora_B[str(number)].weight.copy_(B)
        return model.eval()

    def steps(self, ids: Tensor, n: int, graphs: bool) -> dict[str, Step]:
        """Each way as a step: the logits of the last token of each row, (rows, vocabulary)."""
        names = [str(row % n) for row in range(len(ids))]
        found: dict[str, Step] = {
            "base": lambda: last(self.bank.model, ids),
            "gather": lambda: self._gathered(ids, names),
            "swap": lambda: self._swapped(ids, n),
        }
        if n <= self.most:
            found["peft"] = lambda: last(self.peft, ids, adapter_names=names)
        if n <= len(self.copies):
            found["merged"] = lambda: by_group(ids, n, lambda k, rows: last(self.copies[k], rows))
        if graphs:
            found["base-graph"] = recorded(lambda: last(self.bank.model, ids))
            which = torch.arange(len(ids), device=ids.device) % n
            self.bank.rows.which = which
            found["gather-graph"] = recorded(lambda: last(self.bank.model, ids), which)
            self.bank.rows.which = None
        return found

    def _gathered(self, ids: Tensor, names: list[str]) -> Tensor:
        with self.bank.chosen(names) as model:
            return last(model, ids)

    def _swapped(self, ids: Tensor, n: int) -> Tensor:
        layers = lora.adapted(self.plain)
        places = [t for layer in layers.values() for t in (layer.A, layer.B)]

        def one(number: int, rows: Tensor) -> Tensor:
            maps = self.adapters[number].maps
            torch._foreach_copy_(places, [t for name in layers for t in maps[name]])
            return last(self.plain, rows)

        return by_group(ids, n, one)


def last(model: nn.Module, ids: Tensor, **more: Any) -> Tensor:  # noqa: ANN401
    return model(input_ids=ids, use_cache=False, logits_to_keep=1, **more).logits[:, -1]


def by_group(ids: Tensor, n: int, of: Callable[[int, Tensor], Tensor]) -> Tensor:
    """`of(k, rows)` for the rows of each adapter k, put back in the order of `ids`."""
    parts = [of(k, ids[k::n]) for k in range(min(n, len(ids)))]
    out = parts[0].new_empty(len(ids), parts[0].shape[-1])
    for k, part in enumerate(parts):
        out[k::n] = part
    return out


def recorded(step: Step, *read: Tensor) -> Step:
    """`step` as a CUDA graph: recorded once, then replayed without Python.

    Args:
        read: tensors that the record reads and nobody else keeps. A replay reads the addresses of
            the recording, so what was there must not be freed.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(2):  # warm-up: libraries choose and allocate here, not in the record
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    return functools.partial(_replay, graph, out, read)


def _replay(graph: torch.cuda.CUDAGraph, out: Tensor, read: tuple[Tensor, ...]) -> Tensor:
    del read  # the partial keeps it
    graph.replay()
    return out


def compared(subjects: Subjects, setting: Setting, rounds: int, graphs: bool) -> Iterator[dict]:
    """One row a way: seconds of all rounds, ratio to the gather, difference from it."""
    device = next(subjects.bank.model.parameters()).device
    draw = torch.Generator().manual_seed(0)
    vocabulary = subjects.bank.model.config.vocab_size
    ids = torch.randint(vocabulary, (setting.batch, setting.length), generator=draw).to(device)
    with torch.no_grad():
        steps = subjects.steps(ids, setting.adapters, graphs)
        said = {name: step().float().clone() for name, step in steps.items()}
        times = alternating(steps, rounds)
    scale = said["gather"].norm()
    for name, seconds in times.items():
        yield {
            "name": name,
            "setting": asdict(setting),
            "seconds": [round(t, 6) for t in seconds],
            "ratio_to": "gather",
            "ratio": asdict(ratio(seconds, times["gather"])),
            "difference": float((said[name] - said["gather"]).norm() / scale),
        } | machine()


def changes(model: str, rank: int, rounds: int, device: str) -> Iterator[dict[str, Any]]:
    """One row for each way to change the adapter."""
    base = base_of(model, device)
    with tempfile.TemporaryDirectory() as where:
        folders = (Path(where) / "0", Path(where) / "1")
        written = injected(base, rank)
        for folder in folders:
            save_adapter(written, folder)
        size = (folders[0] / "adapter_model.safetensors").stat().st_size
        maps = len(lora.adapted(written))
        del written
        steps = swapping.ways(folders, copy.deepcopy(base), base, rank)
        times = alternating(steps, rounds)
    setting = {"model": model, "rank": rank, "maps": maps, "file_bytes": size}
    for name, seconds in times.items():
        row = {"name": name, "setting": setting, "seconds": [round(t, 7) for t in seconds]}
        yield row | machine()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=("tiny", "llama-3.2-1b"), default="tiny")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--copies", type=int, default=16, help="merged models held at one time")
    parser.add_argument("--peft", type=int, default=32, help="adapters that PEFT holds")
    parser.add_argument("--adapters", type=int, nargs="*", default=list(NUMBERS))


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every number of adapters in both batches, then the changes of adapter."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield from changes(options.model, options.rank, options.rounds, device)
    base, most = base_of(options.model, device), max(options.adapters)
    copies, peft = min(options.copies, most), min(options.peft, most)
    subjects = Subjects(base, options.rank, most, copies, peft)
    dtype = str(base.dtype).removeprefix("torch.")
    for batch, length in SHAPES[options.model]:
        for n in sorted(options.adapters):
            if n <= batch:
                setting = Setting(options.model, dtype, options.rank, n, batch, length)
                yield from compared(subjects, setting, options.rounds, device == "cuda")
