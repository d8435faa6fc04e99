"""What one decoder layer keeps from its forward pass for its backward pass, tensor by tensor.

The table is read off the code of transformers' Llama and of PEFT's layers. Each entry is a tensor
that autograd saves: a product with a frozen W saves W alone, so the input of a map is kept only
where something that trains reads it, or where a cast or a dropout makes a copy of it.

    symbol        meaning
    T, S          tokens of the micro-batch; tokens of a row
    h, i, q, k    widths: residual stream, inside the MLP, queries, keys (and values)
    a             heads of the queries
    s, c, p       bytes: of the residual stream, of computation, of the adapters
    r             rank

Source: transformers/models/llama/modeling_llama.py, peft/tuners/lora/layer.py, bnb.py and dora.py;
checked against saved-tensor hooks and against the allocator of a GPU. Left out: fused kernels that
replace the norm or the SwiGLU (Liger), flash-attn's own package, activation offloading.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from labkit.memory.setup import DTYPES, TrainingSetup
from labkit.memory.shapes import ModelShape

INPUTS = {  # a map -> what it reads
    "q_proj": "norm 1",
    "k_proj": "norm 1",
    "v_proj": "norm 1",
    "o_proj": "attention",
    "gate_proj": "norm 2",
    "up_proj": "norm 2",
    "down_proj": "product",
}


@dataclass(frozen=True)
class Kept:
    """A tensor that a layer keeps: bytes, the bytes as a formula, where in the layer it is made."""

    name: str
    bytes: int
    formula: str
    late: bool = False  # behind the attention's scores, so gone when these go back


@dataclass(frozen=True)
class Widths:
    """Bytes of one number at each place of a layer, as the dtypes flow through the code."""

    shape: ModelShape
    setup: TrainingSetup

    @cached_property
    def base(self) -> int:
        return DTYPES[self.setup.base_dtype]

    @cached_property
    def adapter(self) -> int:
        return DTYPES[self.setup.adapter_dtype]

    @cached_property
    def table(self) -> int:
        """Of what is not packed: embeddings, norms, head."""
        return 4 if self.setup.quantized and self.setup.prepared else self.base

    @cached_property
    def widened(self) -> bool:
        """DoRA's float32 magnitudes make a 4-bit map answer in float32 under autocast."""
        return self.setup.method == "qdora" and self.setup.autocast

    @cached_property
    def stream(self) -> int:
        """Of the residual stream, from the first layer's end on."""
        into = {"o_proj", "down_proj"} & set(self.setup.target_names)
        return 4 if self.widened and into else self.table

    @cached_property
    def compute(self) -> int:
        """Of products and attention."""
        return 2 if self.setup.autocast else self.stream

    def out(self, name: str) -> int:
        """Of what the map `name` answers."""
        if not self.setup.quantized:
            return self.compute
        if self.widened and name in self.setup.target_names:
            return 4
        return self.compute if name == "o_proj" else self.read(name)

    def read(self, name: str) -> int:
        """Of what the map `name` reads."""
        if INPUTS[name] == "attention":
            return self.compute
        if INPUTS[name] == "product":
            return self.inner
        return self.stream

    @cached_property
    def inner(self) -> int:
        """Of the MLP's product."""
        return max(self.out("gate_proj"), self.out("up_proj"))

    def adapted(self, name: str) -> int:
        """Of the adapter's input before autocast: PEFT casts it to the dtype of A, except in 4 bits
        under autocast."""
        if self.setup.quantized and self.setup.autocast:
            return self.read(name)
        return self.adapter

    @cached_property
    def lora(self) -> int:
        """Of what A and B answer."""
        return 2 if self.setup.autocast else self.adapter


def layer(shape: ModelShape, setup: TrainingSetup) -> tuple[Kept, ...]:
    """All that one layer keeps for one micro-batch."""
    w = Widths(shape, setup)
    parts = (_norms(w), _inputs(w), _adapters(w), _attention(w), _mlp(w), _weights(w))
    return tuple(kept for part in parts for kept in part if kept.bytes)


def _norms(w: Widths) -> Iterator[Kept]:
    """Each norm keeps its input in float32 and 1 / rms; if it trains, its normalised input too."""
    t, h = w.setup.tokens, w.shape.hidden
    for number in (1, 2):
        yield Kept(f"norm {number}", (4 * h + 4) * t, "(4h + 4) T", number == 2)
        if not w.setup.adapted:
            yield Kept(f"norm {number}", w.stream * h * t, "s h T", number == 2)
    if w.shape.qk_norm:
        q, k, heads = w.shape.q, w.shape.kv, w.shape.heads + w.shape.kv_heads
        yield Kept("norms of q, k", (4 * (q + k) + 4 * heads) * t, "(4q + 4k + 4 heads) T")
        if not w.setup.adapted:
            yield Kept("norms of q, k", w.compute * (q + k) * t, "c (q + k) T")


def own(w: Widths, name: str) -> tuple[bool, int]:
    """Whether what reads the input of a map keeps a copy of its own, and in how many bytes."""
    if not w.setup.adapted:
        return w.compute != w.read(name), w.compute
    wide = w.adapted(name)
    own = wide != w.read(name) or w.setup.dropout > 0
    if w.setup.autocast and wide == 4:
        return True, 2
    return own, wide


def _inputs(w: Widths) -> Iterator[Kept]:
    """What the maps read, where something that trains reads it: shared, or a copy for each."""
    t, shared = w.setup.tokens, set()
    names = w.setup.target_names if w.setup.adapted else tuple(INPUTS)
    for name in names:
        width = w.shape.projections[name][1]
        alone, size = own(w, name)
        if alone:
            yield Kept(f"input ({name})", size * width * t, f"{size} T in({name})", _late(name))
        elif INPUTS[name] not in shared and not _fused_output(w, name):
            shared.add(INPUTS[name])
            yield Kept(f"input ({name})", size * width * t, f"{size} T {INPUTS[name]}", _late(name))
        if w.setup.adapted and w.setup.dropout:
            yield Kept(f"dropout ({name})", width * t, f"T in({name})", _late(name))


def _late(name: str) -> bool:
    return INPUTS[name] != "norm 1"


def _fused_output(w: Widths, name: str) -> bool:
    """Fused attention keeps its output for itself; the map behind it reads the same tensor."""
    return INPUTS[name] == "attention" and w.setup.attention == "sdpa"


def _adapters(w: Widths) -> Iterator[Kept]:
    t = w.setup.tokens
    for name in w.setup.target_names:
        out, wide = w.shape.projections[name]
        late = _late(name)
        yield Kept(f"A x ({name})", w.lora * w.setup.rank * t, "c r T", late)
        if not w.setup.magnitudes:
            continue
        # Without dropout the frozen map's own answer; with it, a product with the unpacked weight.
        frozen = w.read(name) if w.setup.quantized else w.out(name)
        result = w.lora if w.setup.dropout else frozen
        yield Kept(f"DoRA ({name})", (result + w.lora) * out * t, f"2 c T out({name})", late)
        if w.setup.dropout and (w.setup.quantized or w.adapted(name) != w.base):
            size = 2 if w.setup.autocast else w.adapted(name)
            yield Kept(f"unpacked ({name})", size * out * wide, f"c in out({name})", late)


def _attention(w: Widths) -> Iterator[Kept]:
    t, s = w.setup.tokens, w.setup.seq_len
    q, k, a, c = w.shape.q, w.shape.kv, w.shape.heads, w.compute
    if w.setup.attention == "eager":
        yield Kept("attention", 3 * c * q * t, "3 c q T")
        yield Kept("scores", 4 * a * s * t, "4 a S T", True)
        if c == 2:
            yield Kept("scores", 2 * a * s * t, "2 a S T", True)
        return
    wide = q if masked(w.setup) else k
    yield Kept("attention", c * (2 * q + 2 * wide) * t, "c (2q + 2k) T")
    yield Kept("attention", 4 * a * t, "4 a T")
    if masked(w.setup):
        yield Kept("attention", c * s * t, "c S T")


def masked(setup: TrainingSetup) -> bool:
    """Whether the layers get an attention mask: labkit's loss gives none, padding stands behind."""
    return setup.padded and not (setup.stack == "labkit" and setup.loss == "fused")


def _mlp(w: Widths) -> Iterator[Kept]:
    """The gate before and behind SiLU, and up."""
    each = 2 * w.out("gate_proj") + w.out("up_proj")
    yield Kept("MLP", each * w.shape.intermediate * w.setup.tokens, "3 c i T", True)


def _weights(w: Widths) -> Iterator[Kept]:
    """16-bit copies that autocast makes of float32 weights, kept until the layer is through."""
    if not w.setup.autocast:
        return
    if w.setup.adapted and w.adapter == 4:
        sizes = [w.shape.projections[name] for name in w.setup.target_names]
        ranks = sum(w.setup.rank * (out + wide) for out, wide in sizes)
        yield Kept("weight casts", 2 * ranks, "2 P / L")
    if w.base == 4 and not w.setup.quantized:
        yield Kept("weight casts", 2 * w.shape.linear // w.shape.layers, "2 n / L")
