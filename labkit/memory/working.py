"""What stands in memory for a moment: a layer at work, the loss, a weight unpacked.

A layer is fullest at one of a few moments; each is a function here, and the largest counts. All
give a pair of bytes over what stands there anyway: of activations and their gradients, and of
weights unpacked or cast. Letters as in kept.py.

    ahead       the MLP's last map on its way forward: copies of its input, DoRA's products
    down        that map on its way back: the gradient of its input by both branches
    product     the MLP's product on its way back: gradients of product, gate and up
    scores      eager attention on its way back: four tables of scores in float32

Which moments there are was read off the blocks that the allocator of an H100 held at the peak.
"""

from labkit.memory import kept
from labkit.memory.kept import Kept, Widths, masked

TILE = 64 * 2**20  # labkit.loss.CHUNK_BYTES: float32 logits that exist at one time
TRL_ROWS, TRL_COLUMNS = 4096, 32768  # the tile of TRL's fused head
Pair = tuple[int, int]
PARTS = ("input", "dropout", "A x", "DoRA", "unpacked")  # what an adapted map keeps


def mask_bytes(w: Widths) -> int:
    """The mask that all layers share: one byte a score, or numbers for eager attention."""
    length = w.setup.seq_len
    rows = w.setup.batch if masked(w.setup) else 1
    if w.setup.attention == "eager":
        return w.table * rows * length * length
    return rows * length * length if masked(w.setup) else 0


def dense(w: Widths, name: str) -> int:
    """A 4-bit map unpacked for one product: its weights and their float32 constants."""
    if not w.setup.quantized:
        return 0
    out, wide = w.shape.projections[name]
    constants = 4 * out * wide // 64 if w.setup.double_quant else 0
    return w.base * out * wide + constants


def forward(w: Widths, layer: tuple[Kept, ...]) -> Pair:
    """The last layer on its way forward, where nothing or only its input is kept before it."""
    i, t = w.shape.intermediate, w.setup.tokens
    if not w.setup.checkpointing:
        return ahead(w, layer)
    work, opened = ahead(w, ())  # nothing is kept inside it
    return work + 3 * w.inner * i * t, opened


def backward(w: Widths, layer: tuple[Kept, ...]) -> Pair:
    """The fullest moment of one layer on its way back, over all that it keeps."""
    gradient = w.stream * w.shape.hidden * w.setup.tokens
    moments = [down(w, layer), product(w, layer)]
    if w.setup.checkpointing:
        # The layer is run again when its first kept tensor is asked for. The scaled gradient of the
        # adapter's answer is there by then; with DoRA in float32, and beside a 16-bit stream twice.
        wide = 4 if w.stream == 4 else 8
        asked = (wide if w.setup.magnitudes else w.lora) * w.shape.hidden * w.setup.tokens
        work, opened = ahead(w, layer)
        moments.append((work + (asked if "down_proj" in w.setup.target_names else 0), opened))
    if w.setup.attention == "eager":
        moments.append(scores(w, layer))
    work, opened = max(moments, key=sum)
    return gradient + work, opened


def ahead(w: Widths, layer: tuple[Kept, ...]) -> Pair:
    """down_proj on its way forward: the frozen map first, then its adapter."""
    name, t, h = "down_proj", w.setup.tokens, w.shape.hidden
    one = w.shape.projections[name][1] * t
    alone, size = kept.own(w, name)
    adapted = name in w.setup.target_names
    shared = (adapted or not w.setup.adapted) and not alone
    read = 0 if shared else w.inner * one
    unmade = _bytes(layer, *(f"{part} ({name})" for part in PARTS)) - (size * one if shared else 0)
    frozen = (read + between(w) - unmade, dense(w, name))
    if not adapted:
        return frozen
    copies = [w.adapted(name)] * ((w.adapted(name) != w.inner) + bool(w.setup.dropout))
    if copies and alone and size == copies[-1]:
        copies.pop()  # the last copy is the one that is kept
    answers = w.out(name) * h * t
    work = read + sum(copies) * one + between(w) + answers
    if not w.setup.magnitudes:
        return max(frozen, (work, 0), key=sum)
    unmade = _bytes(layer, *(f"{part} ({name})" for part in ("input", "DoRA", "unpacked")))
    first, then = _factored(w, name)
    again = w.lora * one if w.setup.dropout and w.lora != w.adapted(name) else 0  # cast once more
    summing = 3 * 4 * h * t  # magnitudes times both answers, and the scaled one
    return max(frozen, (work - unmade, first), (work + max(again, summing), then), key=sum)


def between(w: Widths) -> int:
    """What the layer's code still names while down_proj runs: residual, and the MLP's input."""
    pair = ("gate_proj", "up_proj")
    read = [name for name in pair if name in w.setup.target_names or not w.setup.adapted]
    shared = any(not kept.own(w, name)[0] for name in read)
    residual = w.stream == 2  # a float32 one is what the second norm keeps
    return w.stream * (residual + (not shared)) * w.shape.hidden * w.setup.tokens


def _factored(w: Widths, name: str) -> Pair:
    """DoRA's weights at two moments: while the norm is taken, and in the product after it.

    B(A(identity)) keeps the identity for its gradient; the norm takes three sums of weights.
    Source: peft/tuners/lora/dora.py, get_lora_weight, get_weight_norm and forward.
    """
    out, wide = w.shape.projections[name]
    cast = 2 if w.setup.autocast and w.adapter == 4 else 0
    identity, weight = w.lora * wide * wide, w.adapted(name) * out * wide
    making = (w.adapter + cast) * wide * wide + w.lora * out * wide
    return max(making, identity + 4 * weight), identity + 2 * weight


def down(w: Widths, layer: tuple[Kept, ...]) -> Pair:
    """down_proj on its way back: the adapter's branch first, then the frozen map's.

    What A read is gone as soon as A has gone back, the mask of the dropout a moment later.
    """
    name = "down_proj"
    one = w.shape.intermediate * w.setup.tokens
    adapted = name in w.setup.target_names
    branch = w.inner if adapted else 0  # the gradient that came through the adapter, waiting
    cast = w.inner if w.compute != w.inner else 0
    read = _bytes(layer, f"input ({name})")
    gone = read + _bytes(layer, f"dropout ({name})")
    moments = [
        ((branch + w.compute) * one - gone, dense(w, name)),
        ((branch + w.compute + cast) * one - gone, 0),
    ]
    if adapted:
        wide = w.adapted(name)
        # Float32 answers among 16-bit ones: their gradient as it comes, scaled, and cast back.
        wides = (2 * w.lora + (0 if w.setup.quantized else w.compute)) * w.shape.hidden
        answers = wides * w.setup.tokens if w.lora != w.compute else 0
        moments.append((w.lora * one + answers, 0))
        moments.append(((wide + (wide if w.setup.dropout else w.lora)) * one - read, 0))
    return max(moments, key=sum)


def _bytes(layer: tuple[Kept, ...], *names: str) -> int:
    return sum(each.bytes for each in layer if each.name in names)


def product(w: Widths, layer: tuple[Kept, ...]) -> Pair:
    """gate times up on its way back; what down_proj kept is gone."""
    gone = sum(each.bytes for each in layer if each.name.endswith("(down_proj)"))
    return 3 * w.inner * w.shape.intermediate * w.setup.tokens - gone, 0


def scores(w: Widths, layer: tuple[Kept, ...]) -> Pair:
    """Softmax on its way back: its output, two gradients and their product; the MLP is gone."""
    t, s, a = w.setup.tokens, w.setup.seq_len, w.shape.heads
    gone = sum(each.bytes for each in layer if each.late)
    return 16 * a * s * t - gone, 0


def cached(w: Widths) -> int:
    """16-bit copies of what trains in float32: autocast keeps them to the end of the forward pass.

    Without checkpointing each layer keeps its own anyway, and kept.py counts them.
    """
    if not (w.setup.autocast and w.setup.checkpointing):
        return 0
    if not w.setup.adapted:
        return 2 * w.shape.parameters if w.base == 4 else 0
    if w.adapter == 2:
        return 0
    pairs = (w.shape.projections[name] for name in w.setup.target_names)
    return 2 * w.shape.layers * w.setup.rank * sum(out + wide for out, wide in pairs)


def loss(w: Widths) -> tuple[int, int, int]:
    """(activations, weights cast, logits) at the fullest moment of the loss."""
    v, h, t = w.shape.vocab, w.shape.hidden, w.setup.tokens
    cast = 2 * v * h if w.table == 4 and w.setup.autocast else 0
    if w.setup.loss == "full_logits":
        return 0, cast, 12 * v * t
    if w.setup.stack == "trl":
        tile = 2 * min(t, TRL_ROWS) * TRL_COLUMNS
        table = 0 if w.setup.adapted else (4 + (2 if w.base == 2 else 0)) * v * h  # its gradient
        return (2 * w.stream + 4) * h * t, 2 * TRL_COLUMNS * h if cast else 0, tile + table
    return _tiled(w, cast)


def _tiled(w: Widths, cast: int) -> tuple[int, int, int]:
    """labkit.loss: the tile of one turn beside that of the turn before, and the gradient of h."""
    v, h, t = w.shape.vocab, w.shape.hidden, w.setup.tokens
    rows = max(1, TILE // (4 * v))
    one, two = 4 * v * min(rows, t), 4 * v * max(0, min(rows, t - rows))  # of the first turns
    half = one // 2 if w.compute == 2 else 0  # 16-bit logits beside their float32 copy
    slope = one // 2 if w.stream == 2 else 0  # the gradient in the dtype of h
    before = (
        slope or one
    )  # what the turn before leaves: its gradient, or its logits under that name
    summing = max(2 * one, before + 2 * two)  # logsumexp subtracts the largest out of place
    widest = max(one + half, one + slope + (two + half * two // one if two else 0), summing)
    casting = max(half, one + slope + half * two // one if two else 0)
    states = (3 if w.setup.batch > 1 else 2) * w.stream * h * t
    casts = cached(w)
    if casting + cast > widest:
        widest, casts = casting, casts + cast
    if w.setup.adapted:
        return states, casts, widest
    # The head's gradient in float32: with a turn's share of it, then scaled and cast.
    share, end = (4 + w.compute) * v * h, (8 + (2 if w.base == 2 else 0)) * v * h
    return max((states, casts, widest + share), (states, 0, end), key=sum)
