"""The judges of notebook 02: each counts by another route, then names the slip.

A slip is named by simulation: what would the published mistake give for this very model? The first
mistake that gives what the learner's code gave is the one that is told. The shapes are chosen so
that mistakes do not meet: heads narrower and wider than the hidden size, tied tables and own ones.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from labkit.exercises.compare import count_slip
from labkit.memory import ModelShape

Slips = Iterable[tuple[float, str]]  # what a mistake gives, and the words for it
Answer = Callable[..., Any]

NONE = "your code returned None: is a `return` missing?"


def _shape(name: str, *sizes: int, tied: bool) -> ModelShape:
    fields = ("hidden", "intermediate", "layers", "heads", "kv_heads", "head_dim", "vocab")
    return ModelShape(
        name=name, tied=tied, max_length=8192, **dict(zip(fields, sizes, strict=True))
    )


SHAPES = (
    _shape("Llama-3.2-1B", 2048, 8192, 16, 32, 8, 64, 128256, tied=True),
    _shape("a Llama with an output embedding of its own", 96, 200, 5, 6, 2, 16, 1000, tied=False),
    _shape("a Llama with wide heads", 128, 352, 3, 6, 1, 48, 700, tied=True),
)


def _maps(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """(out, in) of the seven projections, written out."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    h, i = shape.hidden, shape.intermediate
    attention = {"q_proj": (q, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, q)}
    return attention | {"gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}


def _slip(got: Any, want: int, slips: Slips, otherwise: str) -> str | None:  # noqa: ANN401
    """The words for what is wrong with the number `got`, or None."""
    if impossible := count_slip(got, "the result"):
        return impossible
    if got == want:
        return None
    units = ((8 * want, "count bytes, not bits"), (want // 2**20, "count bytes, not MiB"))
    return next((told for value, told in (*slips, *units) if value == got), otherwise)


# --- 02.1 every parameter of a Llama ----------------------------------------------------------


def _parameter_slips(s: ModelShape) -> Slips:
    h, i, layers, table = s.hidden, s.intermediate, s.layers, s.vocab * s.hidden
    q, kv, guess = s.heads * s.head_dim, s.kv_heads * s.head_dim, h // s.heads
    linear = sum(out * into for out, into in _maps(s).values())
    norms, tables = (2 * layers + 1) * h, table * (2 - s.tied)
    right = layers * linear + norms + tables

    def wide(q: int, kv: int) -> int:
        """The count when queries and keys had these widths."""
        return layers * (2 * h * q + 2 * h * kv + 3 * h * i) + norms + tables

    tie = "a tied output embedding is the input embedding: count it once"
    own = "this output embedding is not tied: it is a second table"
    return [
        (wide(q, q), "k_proj and v_proj are as wide as the key-value heads, not the query heads"),
        (right + table if s.tied else right - table, tie if s.tied else own),
        (right - tables, "the embedding is missing: vocab rows of the hidden size"),
        (right - layers * h * i, "a Llama's MLP has three maps: gate, up and down"),
        (right - norms, "the norms are missing: two a layer, and one at the end"),
        (right - h, "one norm is missing: the last one, behind all layers"),
        (right - 2 * layers * h, "the layers have norms too, two each"),
        (right - layers * h, "each layer has two norms: one before attention, one before the MLP"),
        (right - (layers - 1) * (linear + 2 * h), "that is one layer; the model has more"),
        (layers * linear, "those are the linear maps alone; norms and embeddings hold numbers too"),
        (wide(s.heads * guess, s.kv_heads * guess), "the shape says how wide a head is; hidden / heads need not be it"),
        (wide(h, s.kv_heads * guess), "the width of queries and keys comes from head_dim; it need not follow from hidden"),
        (right - layers * h * (q - kv), "o_proj takes in what the query heads put out, not the key-value heads"),
        (wide(h, kv), "q_proj puts out heads * head_dim, and o_proj takes it in; that need not be hidden"),
        (right + layers * (q + 2 * kv), "no projection of a Llama has a bias"),
        (12 * layers * h * h, "12 L h^2 counts a GPT: no gate, no shared keys, no embedding"),
        (right + s.max_length * h, "a Llama rotates queries and keys; it has no table of positions"),
        (right + norms, "a Llama's norm has a scale and no bias: one number for each hidden number"),
        (2 * right, "count parameters; their bytes come later"),
        (4 * right, "count parameters, not bytes in float32"),
    ]  # fmt: skip


def judge_parameters(answer: Answer) -> str | None:
    """seven maps and two norms a layer, a last norm, and the embedding as often as it exists"""
    for s in SHAPES:
        maps = sum(out * into for out, into in _maps(s).values())
        want = s.layers * (maps + 2 * s.hidden) + s.hidden + s.vocab * s.hidden * (2 - s.tied)
        otherwise = "write down the seven (out, in) shapes, the norms and the embedding"
        if slip := _slip(answer(s), want, _parameter_slips(s), otherwise):
            return f"{s.name}: {slip}"
    return None


# --- 02.2 a frozen base at rest in 4 bits -----------------------------------------------------

BLOCK, SUPER = 64, 256  # weights to a scale, scales to a second one


def _constants(n: int, double: bool) -> int:
    """Bytes of the quantisation constants of n weights."""
    blocks = math.ceil(n / BLOCK)
    return blocks + 4 * math.ceil(blocks / SUPER) if double else 4 * blocks


def _weight_slips(s: ModelShape, double: bool, prepared: bool) -> Slips:
    sizes = [out * into for out, into in _maps(s).values()] * s.layers
    linear, blocks = sum(sizes), sum(math.ceil(n / BLOCK) for n in sizes)
    scales, other = (sum(_constants(n, d) for n in sizes) for d in (double, not double))
    rest = s.vocab * s.hidden * (2 - s.tied) + (2 * s.layers + 1) * s.hidden
    outside = rest * (4 if prepared else 2)
    quantised = linear // 2 + scales
    right = quantised + outside
    dtype = "after prepare" if prepared else "before prepare"
    wrong_way = "the scales take one byte each" if double else "the scales are float32"
    floored = [n // BLOCK for n in sizes]
    floor = sum(n + 4 * (n // SUPER) if double else 4 * n for n in floored)
    alone = "each map is packed on its own: round its blocks up before you add"
    return [
        ((linear + rest) // 2, "half a byte for everything: scales cost too, and embeddings keep their dtype"),
        ((linear + rest) // 2 + _constants(linear + rest, double), "only the seven maps are packed; embeddings and norms keep their dtype"),
        (quantised + rest // 2, "the embedding and the norms are not quantised"),
        (right - scales, "the scales are missing: one for every 64 weights"),
        (right - scales + other, f"double={double}: {wrong_way}"),
        (right - scales + blocks, "the scales have scales: one float32 for every 256 of them" if double else "the scales are float32"),
        (right - scales + 4 * math.ceil(blocks / SUPER), "the scales themselves are missing: one byte for every 64 weights"),
        (right + 3 * blocks, "with double quantisation a scale takes one byte, not four"),
        (quantised + rest * (2 if prepared else 4), f"what is not quantised takes {4 if prepared else 2} bytes {dtype}"),
        *((int((linear + rest) * bits / 8), "4.127 bits a weight hold for the projections; the embedding is not packed")
          for bits in (4.127, 4 + 8 / BLOCK + 32 / (BLOCK * SUPER))),
        (right - scales + 2 * blocks, "no scale takes 16 bits: four bytes, or one with double quantisation"),
        (right - scales + floor, "a block that is not full has a scale too: round up"),
        *((right - scales + times * _constants(linear // times, double), alone) for times in (1, s.layers)),
        (right + 2 * linear, "the codes stand instead of the 16-bit weights, not beside them"),
        (quantised, "those are the projections; embedding and norms stand beside them"),
        (right + linear // 2, "4 bits are half a byte"),
        (2 * (linear + rest), "that is the model in 16 bits"),
        (quantised // s.layers + outside, "that is one layer; the model has more"),
    ]  # fmt: skip


def judge_weight_bytes(answer: Answer) -> str | None:
    """half a byte a weight and its scales for the projections; the rest keeps its own dtype"""
    for s in SHAPES:
        for double, prepared in ((True, False), (False, False), (True, True)):
            sizes = [out * into for out, into in _maps(s).values()]
            four = s.layers * sum(n // 2 + _constants(n, double) for n in sizes)
            rest = (2 * s.layers + 1) * s.hidden + s.vocab * s.hidden * (2 - s.tied)
            want = four + rest * (4 if prepared else 2)
            got = answer(s, double, prepared)
            otherwise = "add codes, scales, scales of scales, and what is not quantised"
            if slip := _slip(got, want, _weight_slips(s, double, prepared), otherwise):
                return f"{s.name}, double={double}, prepared={prepared}: {slip}"
    return None


# --- 02.3 what an adapter trains --------------------------------------------------------------

TARGETS: tuple[Any, ...] = ("all-linear", ("q_proj", "v_proj"), ("gate_proj", "down_proj"))
RANKS = (8, 7)  # neither is a number of layers: a forgotten rank is then no forgotten layer


def _adapter_slips(s: ModelShape, rank: int, names: Sequence[str], dora: bool) -> Slips:
    maps, layers = _maps(s), s.layers
    shapes = [maps[name] for name in names]
    outs, ins = sum(out for out, _ in shapes), sum(into for _, into in shapes)
    pairs, extra = layers * rank * (outs + ins), layers * outs * dora
    right = pairs + extra
    everything = [maps[name] for name in maps]
    all_pairs = layers * rank * sum(map(sum, everything))
    all_extra = layers * dora * sum(out for out, _ in everything)
    product = layers * rank * sum(out * into for out, into in shapes)
    return [
        (all_pairs + all_extra, "adapt the targets that were asked for, not all seven maps"),
        (pairs if dora else -1, "DoRA trains a magnitude too: one number for each output"),
        (pairs + layers * ins if dora else -1, "the magnitude has one number for each output row, not for each input"),
        (2 * pairs if dora else -1, "DoRA does not double LoRA: it adds one number for each output"),
        (pairs + layers * len(names) if dora else -1, "the magnitude is a vector: one number for each output"),
        (pairs + layers * rank * outs if dora else -1, "the magnitude does not depend on the rank"),
        (pairs + layers * outs, "the magnitude belongs to DoRA alone"),
        (right // layers, "that is one layer; the model has more"),
        (2 * layers * rank * s.hidden * len(names), "as if every map were hidden x hidden; take out and in from the shape"),
        (product + extra, "A and B stand side by side: add their sizes, they do not multiply"),
        (pairs // rank + extra, "where is the rank? A has that many rows, B that many columns"),
        (layers * rank * ins + extra, "that is A alone; B trains too"),
        (layers * rank * outs + extra, "that is B alone; A trains too"),
        (right + rank * (s.hidden + s.vocab), "the head is no target: it stays frozen, without a pair"),
        (4 * right, "count parameters; their bytes come later"),
    ]  # fmt: skip


def judge_adapter_parameters(answer: Answer) -> str | None:
    """a pair for each target in each layer, and for DoRA a magnitude for each output"""
    for s in SHAPES:
        for targets in TARGETS:
            names = list(_maps(s)) if targets == "all-linear" else list(targets)
            for rank, dora in zip(RANKS, (False, True), strict=True):
                shapes = [_maps(s)[name] for name in names]
                # by an independent route: the shape of every A, B and m, written out
                want = s.layers * sum(rank * i + o * rank + (o if dora else 0) for o, i in shapes)
                got = answer(s, rank, targets, dora)
                otherwise = "for each target add the sizes of A, of B and, with DoRA, of m"
                if slip := _slip(got, want, _adapter_slips(s, rank, names, dora), otherwise):
                    where = f"rank {rank}, {'+'.join(names)}, dora={dora}"
                    return f"{s.name}, {where}: {slip}"
    return None


# --- 02.4 the optimizer's moments -------------------------------------------------------------

TENSORS = (32_768, 131_072, 2_048, 8_192, 5_000, 4_096, 100_000)  # of a 1B, odd ones, both limits
SMALLEST_8BIT, SMALLEST_PAGED, STATE_BLOCK = 4096, 100_000, 256


def _moments(n: int, optimizer: str, itemsize: int) -> int:
    """Bytes of both moments of one tensor inside PyTorch's allocator."""
    if optimizer == "adamw":
        return itemsize * n + itemsize * n
    if optimizer == "adamw_8bit":
        return 8 * n if n < SMALLEST_8BIT else 2 * n + 8 * math.ceil(n / STATE_BLOCK)
    return 8 * n if optimizer == "paged_adamw_32bit" and n < SMALLEST_PAGED else 0


def _moment_slips(sizes: Sequence[int], optimizer: str, itemsize: int) -> Slips:
    n, right = sum(sizes), sum(_moments(size, optimizer, itemsize) for size in sizes)
    small = [size for size in sizes if size < SMALLEST_8BIT]
    first_8bit = _moments(SMALLEST_8BIT, "adamw_8bit", itemsize)
    blocks = sum(math.ceil(s / STATE_BLOCK) for s in sizes if s >= SMALLEST_8BIT)
    slips = {
        "adamw": [
            (8 * n, "torch keeps the moments in the dtype of the parameter, not in float32"),
            (4 * n, "torch keeps the moments in the dtype of the parameter: here 4 bytes a number"),
            (itemsize * n, "Adam keeps two moments for each number"),
            (3 * itemsize * n, "the gradient is no part of the optimizer: count the two moments"),
            (12 * n, "there is no float32 master copy here: count the two moments"),
            (2 * n, "moments are numbers of the parameter's dtype; count their bytes"),
        ],
        "adamw_8bit": [
            (2 * n, "8-bit moments have scales too, and small tensors keep float32"),
            (sum(2 * s + 8 * math.ceil(s / STATE_BLOCK) for s in sizes), "a tensor below 4,096 numbers keeps float32 moments"),
            (right - 8 * blocks, "each moment has a float32 scale for every 256 numbers"),
            (right - 4 * blocks, "each of the two moments has its scales"),
            (right - first_8bit + 8 * SMALLEST_8BIT, "a tensor of 4,096 numbers is large enough for 8 bits"),
            (right - sum((8 - 2 * itemsize) * s for s in small), "small tensors keep float32 moments, whatever the parameter is"),
            (right - sum(8 * s for s in small), "small tensors have moments too, in float32"),
            (sum(2 * s + 8 * math.ceil(s / 2048) if s >= SMALLEST_8BIT else 8 * s for s in sizes),
             "a scale stands for 256 numbers; 2,048 is an older block"),
            (n, "Adam keeps two moments, one byte each"),
            (2 * itemsize * n, "that is AdamW in the parameter's dtype; in 8 bits a moment takes a byte"),
            (8 * n, "that is float32; from 4,096 numbers on a moment takes one byte"),
        ],
        "paged_adamw_32bit": [
            (8 * n, "pages of 100,000 numbers or more live outside PyTorch's allocator"),
            (0, "a tensor below 100,000 numbers is not paged: its moments are ordinary memory"),
            (8 * n - right, "the other way round: the large tensors are the paged ones"),
            (right + 8 * SMALLEST_PAGED, "a tensor of 100,000 numbers is large enough for pages"),
            # the judge asks at 4 bytes first: one moment gives half there, the wrong width does not
            (right // 2, "these moments are float32 whatever the parameter is" if itemsize == 2 else "paged Adam keeps two moments as well"),
        ],
        "sgd": [
            (4 * n, "SGD without momentum keeps nothing"),
            (itemsize * n, "SGD without momentum keeps nothing, in any dtype"),
            (8 * n, "those are Adam's moments; SGD has none"),
        ],
    }  # fmt: skip
    return slips[optimizer]


def judge_optimizer_bytes(answer: Answer) -> str | None:
    """two moments, in the dtype of the parameter, in 8 bits with scales, or outside the allocator"""
    for optimizer in ("adamw", "adamw_8bit", "paged_adamw_32bit", "sgd"):
        for itemsize in (4, 2) if optimizer == "paged_adamw_32bit" else (2, 4):
            want = sum(_moments(n, optimizer, itemsize) for n in TENSORS)
            slips = _moment_slips(TENSORS, optimizer, itemsize)
            otherwise = "go tensor by tensor: two moments, their dtype, their scales"
            if slip := _slip(answer(list(TENSORS), optimizer, itemsize), want, slips, otherwise):
                return f"{optimizer}, {itemsize} bytes a number: {slip}"
    return None


# --- 02.5 what one layer keeps for the backward pass ------------------------------------------


def _kept(s: ModelShape, rank: int) -> list[tuple[str, int]]:
    """Every tensor that one layer keeps, bytes a token, in the order of the forward pass."""
    h, i, bf16, fp32 = s.hidden, s.intermediate, 2, 4
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    norm = [("norm", fp32 * h), ("deviation", fp32)]
    attention = [("queries", bf16 * q), ("keys", bf16 * kv), ("values", bf16 * kv)]
    attention += [("output", bf16 * q), ("sums", fp32 * s.heads)]
    mlp = [(name, bf16 * i) for name in ("gate", "silu", "up", "product")]
    inner = [("inner", bf16 * rank)] * 7
    return 2 * [*norm, ("input", bf16 * h)] + attention + mlp + inner


def _activation_slips(s: ModelShape, rank: int) -> Slips:
    h, i = s.hidden, s.intermediate
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    kept = _kept(s, rank)
    right = sum(size for _, size in kept)
    inner = 14 * rank
    rows = [4 * h, 4, 2 * h, 2 * q, 2 * kv, 4 * s.heads, 2 * i, 14 * rank]  # "each" overlooked
    numbers = 4 * h + 2 + 2 * q + 2 * kv + s.heads + 4 * i + 7 * rank
    return [
        (inner, "a frozen map keeps no input, but norms, attention and the MLP's products keep theirs"),
        (34 * h, "34 bytes x hidden counts another model: no shared keys, no gate, dropout everywhere"),
        (right + 4 * (q - kv), "keys and values are kept at the width of their own heads"),
        (right - 4 * h, "4 h are missing: a norm keeps its input in float32, 4 bytes, and its output in 2"),
        (right - 6 * h - 4, "there are two norms: two inputs, two scales and two outputs"),
        (right - 2 * kv, "keys and values are two tensors"),
        (right - 4 * s.heads + 4, "attention keeps a sum for each head, not one a token"),
        (sum(rows), "a row with 'each' holds more than one tensor: two norms, queries and output, keys and values, four of the MLP"),
        (numbers, "count bytes, not numbers"),
        (right - 8, "each norm keeps one float32 number a token besides its input"),
        (right - 8 * h - 8, "the two norms keep their inputs, in float32"),
        (right - 4 * s.heads, "attention keeps one float32 sum for each head"),
        (right - 2 * s.heads, "the sums of the softmax are float32: 4 bytes a head"),
        (right - 2 * q, "attention keeps its output too"),
        (right - 4 * q - 4 * kv - 4 * s.heads, "attention keeps queries, keys, values, output and its sums"),
        (right - 2 * i, "the MLP keeps four tensors: gate, its silu, up and their product"),
        (right - 4 * i, "the MLP keeps four tensors: gate, its silu, up and their product, not two"),
        (right + 6 * h + 2 * q, "q, k and v share one input, gate and up another: count each once"),
        (right + 6 * h, "q, k and v share one input, gate and up another: each is kept once"),
        (right - 12 * rank, "all seven adapters keep their inner result, rank numbers each"),
        (right - inner, "each adapter keeps its inner result, rank numbers, for B's gradient"),
        (right + inner, "the adapters work in bfloat16 here: 2 bytes a number"),
        (right + 2 * q + 2 * kv, "queries and keys are kept once, as attention reads them: after the rotation"),
        (right + 2 * q, "o_proj reads attention's output, which is kept already"),
        (right + 2 * i, "down_proj reads the product, which is kept already"),
        (right * s.layers, "that is every layer; the question is one"),
        (right // 2, "count bytes, not numbers"),
    ]  # fmt: skip


def judge_saved_per_token(answer: Answer) -> str | None:
    """two norms, two inputs, attention, four tensors of the MLP and seven inner results"""
    for s in SHAPES[::-1]:  # the last one first: in a 1B model 2 i happens to be 6 h + 2 q
        for rank in RANKS[::-1]:  # at rank 8 the seven inner results weigh what keys and values do
            want = sum(size for _, size in _kept(s, rank))
            otherwise = "go down the table row by row: numbers a token, times bytes a number"
            if slip := _slip(answer(s, rank), want, _activation_slips(s, rank), otherwise):
                return f"{s.name} at rank {rank}: {slip}"
    return None


# --- 02.6 the tables of logits ----------------------------------------------------------------

BATCHES = ((4096, 128256), (700, 1024))


def judge_logits_bytes(answer: Answer) -> str | None:
    """three float32 tables of tokens x vocabulary at once"""
    for tokens, vocab in BATCHES:
        cell = tokens * vocab
        slips = [
            (2 * cell, "that is the table in bfloat16; the loss makes float32 tables of it"),
            (4 * cell, "one float32 table; how many are alive when the gradient is made?"),
            (6 * cell, "three tables, and each is float32: 4 bytes a number"),
            (
                8 * cell,
                "two float32 tables; the log softmax, its gradient and the one before it make three",
            ),
            (10 * cell, "the gradients in float32 come first; the one in bfloat16 is made of them"),
            (14 * cell, "nobody holds the bfloat16 logits any more when the gradients are made"),
            (16 * cell, "the float32 copy of the logits is gone by then: three tables remain"),
            (32 * cell // 3, "8/3 tables is a published fit; count the tables"),
            (12 * vocab, "each token has a row of logits: where are the tokens?"),
            (12 * tokens, "a row is as long as the vocabulary"),
            (12 * (tokens + vocab), "rows times columns"),
            (3 * cell, "count bytes, not numbers"),
        ]
        otherwise = "tokens x vocabulary x 4 bytes, as often as a table is alive"
        if slip := _slip(answer(tokens, vocab), 12 * cell, slips, otherwise):
            return f"{tokens:,} tokens, {vocab:,} entries: {slip}"
    return None


# --- 02.7 the weight that is unpacked for a moment --------------------------------------------


def _dequantisation_slips(s: ModelShape) -> Slips:
    sizes = [out * into for out, into in _maps(s).values()]
    large, scales = max(sizes), 4 * math.ceil(max(sizes) / BLOCK)
    layer, right = sum(sizes), 2 * max(sizes) + scales
    return [
        (2 * large, "the float32 scales are unpacked too: one for every 64 weights"),
        (2 * large + scales // 4, "the scales are unpacked to float32: 4 bytes each"),
        (2 * s.layers * layer, "as if all layers were unpacked at once; one map is, at a time"),
        (sum(2 * n + 4 * math.ceil(n / BLOCK) for n in sizes) * s.layers, "one map at a time, not the whole model"),
        (right * s.layers, "one map at a time, not the largest of every layer"),
        (2 * s.vocab * s.hidden + 4 * math.ceil(s.vocab * s.hidden / BLOCK), "the embedding is not packed, so nobody unpacks it"),
        (2 * layer, "one map at a time, not a whole layer"),
        (sum(2 * n + 4 * math.ceil(n / BLOCK) for n in sizes), "one map at a time, not a whole layer with its scales"),
        (large // 2 + scales, "unpacked a weight takes 16 bits, not 4"),
        (4 * large + scales, "unpacked a weight takes 16 bits, not 32"),
        (large + scales, "unpacked a weight takes 16 bits: two bytes"),
        (2 * sizes[0] + 4 * math.ceil(sizes[0] / BLOCK), "q_proj is not the largest map: the MLP's are"),
        (2 * min(sizes) + 4 * math.ceil(min(sizes) / BLOCK), "the peak is set by the largest map, not the smallest"),
        (2 * right, "backward unpacks the map again, after forward has forgotten it: one at a time"),
        (right + large // 2, "the packed codes are counted at rest already"),
    ]  # fmt: skip


def judge_dequantised_bytes(answer: Answer) -> str | None:
    """the largest map in 16 bits with its scales in float32, one map at a time"""
    for s in SHAPES:
        large = max(out * into for out, into in _maps(s).values())
        want = 2 * large + 4 * math.ceil(large / BLOCK)
        otherwise = "the largest of the seven maps, 2 bytes a weight, and its scales"
        if slip := _slip(answer(s), want, _dequantisation_slips(s), otherwise):
            return f"{s.name}: {slip}"
    return None


# --- 02.8 the peak of a step ------------------------------------------------------------------

STEPS: tuple[dict[str, dict[str, int]], ...] = (
    {
        "forward": {"weights": 50, "activations": 30, "logits": 5},
        "loss": {"weights": 50, "activations": 20, "logits": 60},
        "backward": {"weights": 50, "activations": 45, "logits": 0},
    },
    {
        "forward": {"weights": 10, "activations": 70},
        "backward": {"weights": 10, "activations": 55, "gradients": 40},
        "optimizer": {"weights": 10, "gradients": 40, "moments": 45},
    },
)


def _peak_slips(phases: dict[str, dict[str, int]]) -> list[tuple[tuple[str, int], str]]:
    totals = {name: sum(kinds.values()) for name, kinds in phases.items()}
    fullest = max(totals, key=lambda name: totals[name])
    kinds = dict.fromkeys(kind for held in phases.values() for kind in held)
    maxima = sum(max(held.get(kind, 0) for held in phases.values()) for kind in kinds)
    single = max(phases, key=lambda name: max(phases[name].values()))
    last, first = list(phases)[-1], next(iter(phases))
    return [
        ((fullest, maxima), "the maxima of the kinds do not meet in one moment"),
        ((fullest, sum(totals.values())), "phases follow each other; their bytes are not held together"),
        ((single, max(phases[single].values())), "add up what a phase holds, then compare phases"),
        ((single, totals[single]), "compare the sums of the phases, not their largest piece"),
        ((last, totals[last]), "the last phase need not be the fullest"),
        ((first, totals[first]), "the first phase need not be the fullest"),
        ((min(totals, key=lambda name: totals[name]), min(totals.values())), "that is the emptiest phase"),
        ((max(totals), totals[max(totals)]), "compare bytes, not names"),
    ]  # fmt: skip


def judge_peak(answer: Answer) -> str | None:
    """the phase whose bytes add up to most, with its sum"""
    for phases in STEPS:
        totals = {name: sum(kinds.values()) for name, kinds in phases.items()}
        want = max(totals.items(), key=lambda item: item[1])
        got = answer(phases)
        if got is None:
            return NONE
        if isinstance(got, (int, str)):
            return f"return the phase and its bytes, a pair, not {got!r}"
        if not isinstance(got, tuple) or len(got) != 2:
            return f"return a pair (phase, bytes), not {type(got).__name__}"
        if got[::-1] == want:
            return "the other way round: first the phase, then its bytes"
        if got != want:
            named = (told for pair, told in _peak_slips(phases) if pair == got)
            return next(named, f"{got!r} is not the fullest of {totals}")
    return None
