"""The judges of notebook 05 for its functions of numbers.

Those of the norm are in ex05_norms, that of the layer is in ex05_layer.

Each compares with the right answer, found by another route than the solution's, and then names the
slip by simulation: what would the published mistake give on this very input? No judge looks at
B = 0 alone, where nearly every wrong layer equals its base.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from labkit.exercises.compare import count_slip, tensor_slip

NONE = "your code returned None: is a `return` missing?"
Slips = list[tuple[Tensor, str]]


def same(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and torch.allclose(
        got.double(), want.double(), rtol=1e-3, atol=1e-5 * (1 + want.abs().max().item())
    )


def told(got: Any, want: Tensor, slips: Slips, what: str) -> str | None:  # noqa: ANN401
    """How a tensor differs from `want`: by the mistake that gives it, else plainly. None: not."""
    if isinstance(got, Tensor) and got.is_floating_point() and got.dtype == want.dtype:
        if same(got.detach(), want):
            return None
        for wrong, words in slips:
            if same(got.detach(), wrong):
                return words
    return tensor_slip(got, want, what, 1e-4)


# --- 05.1 decompose a weight ------------------------------------------------------------------

SHAPES = ((4, 4), (3, 5), (5, 2))  # square first: a wrong axis raises nothing there
BROADCAST = "(out,) lines up with the inputs, the last axis: m[:, None] lines up with the rows"
AXIS = "that is one number for each input; a row of an (out, in) weight makes one output: dim=1"


def _magnitude_slips(W: Tensor) -> Slips:
    sums = W.square().sum(1)
    return [
        (W.norm(dim=0), AXIS),
        (W.norm(), "that is the length of the whole matrix; each row has one of its own"),
        (W.norm().expand(len(W)), "that is the length of the whole matrix; each row has its own"),
        (sums, "the length is the root of the sum of squares"),
        ((sums / W.shape[1]).sqrt(), "that is the root of the MEAN square; a length takes the sum"),
        (W.abs().sum(1), "that adds absolute values (L1); a length is the root of added squares"),
        (W.abs().amax(1), "that is the largest entry of each row, not its length"),
        (W.sum(1), "that adds the entries; square them first, then take the root"),
        (W.norm(dim=1, keepdim=True), "the magnitude has shape (out,), one number a row: no keepdim"),
        (torch.ones(len(W)), "a magnitude of one forgets the lengths: the product must give W back"),
    ]  # fmt: skip


def _direction_slips(W: Tensor) -> Slips:
    m = W.norm(dim=1)
    slips = [
        (W, "the direction still has its lengths: divide each row by its magnitude"),
        (W / m.square()[:, None], "divided twice: rows of a direction have length 1"),
        (W * m[:, None], "that multiplies; divide each row by its magnitude"),
        (W / W.norm(dim=0), f"the rows must have length 1, not the columns: {AXIS}"),
        (W / W.norm(), "each row is divided by its own length, not by that of the matrix"),
    ]
    if W.shape[0] == W.shape[1]:
        slips.append(
            ((W / m[:, None]).T, "the direction is (out, in), as the weight: no transpose")
        )
        slips.append((W / m, BROADCAST))
    return slips  # fmt: skip


def judge_decompose(answer: Callable[[Tensor], Any]) -> str | None:
    """one length for each output, rows of length 1, and the weight given back"""
    torch.manual_seed(0)
    for shape in SHAPES:
        W = torch.randn(shape, dtype=torch.float64 if shape == SHAPES[-1] else torch.float32)
        got = answer(W)
        if got is None:
            return NONE
        if not isinstance(got, tuple | list) or len(got) != 2:
            return "return two tensors: magnitude, direction"
        m, V = got
        if isinstance(m, Tensor) and isinstance(V, Tensor) and m.ndim == 2 and V.ndim == 1:
            return "the other way round: first the magnitude, then the direction"
        lengths = torch.tensor([row.dot(row) ** 0.5 for row in W], dtype=W.dtype)
        slip = told(m, lengths, _magnitude_slips(W), "the magnitude")
        slip = slip or told(V, torch.diag(1 / lengths) @ W, _direction_slips(W), "the direction")
        if slip:
            return slip
    return None


# --- 05.2 DoRA's forward pass -----------------------------------------------------------------


def case(
    out: int, into: int, rank: int, scale: float, dtype: torch.dtype = torch.float32
) -> SimpleNamespace:
    """A layer as numbers, with B and the magnitude moved."""
    draw = torch.Generator().manual_seed(out)
    x, W = (torch.randn(*s, into, generator=draw, dtype=dtype) for s in ((2, 4), (out,)))
    A, B = torch.randn(rank, into, generator=draw), torch.randn(out, rank, generator=draw)
    m = torch.rand(out, generator=draw) + 0.5
    return SimpleNamespace(x=x, W=W, A=A.to(dtype), B=B.to(dtype), m=m.to(dtype), s=scale)


CASES = (case(4, 4, 2, 1.5), case(3, 5, 2, 0.75), case(6, 3, 2, 3.0, torch.float64))


def row_lengths(W: Tensor) -> Tensor:
    """Length of each row, shape (out, 1)."""
    return W.square().sum(1, keepdim=True).sqrt()


def _forward_slips(c: SimpleNamespace) -> Slips:
    D, m = c.B @ c.A, c.m[:, None]
    turned = c.W + c.s * D
    y, plain = c.x @ turned.T, c.x @ c.W.T
    update = c.s * c.x @ D.T
    right = c.x @ (m * turned / row_lengths(turned)).T
    dense = [
        (m * turned / turned.norm(dim=0), "the norm is taken over the wrong axis, one for each input; at B = 0 nobody sees it"),
        (m * turned / row_lengths(c.W), "the norm is that of W alone; it is that of W + scale B A, which B moves"),
        (m * turned / row_lengths(c.W + D), "the scale is missing inside the norm"),
        (m * (c.W + D) / row_lengths(c.W + D), "the scale is missing: the update is scale * B @ A"),
        (m * (c.W + D) / row_lengths(turned), "the scale is in the norm but not in the weight above it"),
        (m * c.W / row_lengths(c.W) + c.s * D, "the update stays outside: it turns the rows, so it is normalised with W"),
        (m * (c.W + c.s * D / row_lengths(D)), "the update is normalised by itself; the norm is that of the sum"),
        (m * turned / turned.norm(), "that divides by the length of the whole matrix; each row has its own"),
        (m * turned / row_lengths(turned).square(), "that divides by the square of the length: take the root"),
        (m * turned, "the rows keep their lengths: divide by the norm before the magnitude multiplies"),
        (turned / row_lengths(turned), "the magnitude is missing: these rows have length 1"),
        (row_lengths(c.W) * turned / row_lengths(turned), "use the magnitude that is given: it begins at the row lengths of W, and then it learns"),
        (c.W + m * D / row_lengths(D), "the magnitude stretches the update alone; it stretches the rows of W + scale B A"),
        (m * c.W / row_lengths(c.W), "B and A are missing: only the lengths are learned there"),
        (m + turned / row_lengths(turned), "the magnitude multiplies the direction; it is not added"),
    ]  # fmt: skip
    others = [
        (c.s * c.s, "the scale comes once: scale * B @ A"),
        (c.s / len(c.A), "`scale` is alpha / rank: it is divided by the rank already"),
        (-c.s, "the update is added to W"),
    ]
    dense += [(m * (c.W + s * D) / row_lengths(c.W + s * D), words) for s, words in others]
    if c.W.shape[0] == c.W.shape[1]:  # only there does lining up the wrong way raise nothing
        dense.append((c.m * turned / turned.norm(dim=1), BROADCAST))
        dense.append(((m * turned / row_lengths(turned)).T, "x meets the transpose: x @ weight.T, as the weight is (out, in)"))  # fmt: skip
    dense.append((m * m * turned / row_lengths(turned), "the magnitude multiplies once"))
    return [
        *((c.x @ weight.T, words) for weight, words in dense),
        (y, "that is LoRA: the rows have lengths of their own, given by the magnitude"),
        (plain + right, "the frozen map is counted twice: W is in the weight already"),
        (c.m * y / y.norm(dim=-1, keepdim=True), "that normalises the output; DoRA normalises the rows of the weight"),
        (plain + c.m * update / update.norm(dim=-1, keepdim=True), "that normalises the output of the update; DoRA normalises rows of the weight"),
    ]  # fmt: skip


def judge_dense_forward(answer: Callable[..., Any]) -> str | None:
    """rows of W + scale B A, each at its own learned length"""
    for c in CASES:
        got = answer(c.x, c.W, c.A, c.B, c.m, c.s)
        moved = torch.einsum("or,ri->oi", c.B, c.A) * c.s + c.W
        rows = torch.stack(
            [m * row / row.dot(row) ** 0.5 for m, row in zip(c.m, moved, strict=True)]
        )
        want = torch.einsum("oi,bti->bto", rows, c.x)
        if slip := told(got, want, _forward_slips(c), "the output"):
            return slip
    return None


# --- 05.6 count what DoRA trains --------------------------------------------------------------

NAMES = (
    "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip
CONFIGS = {
    "Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64),
    "a model whose heads are wider than its hidden size": (96, 200, 5, 4, 1, 32),
}
TARGETS = ("all-linear", ["q_proj", "v_proj"])
RANK = 12  # no number of layers, of heads or of maps


def _maps(c: SimpleNamespace) -> dict[str, tuple[int, int]]:
    """(out, in) of the seven projections."""
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    h, i = c.hidden_size, c.intermediate_size
    attention = {"q_proj": (q, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, q)}
    return attention | {"gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}


def _count_slips(
    c: SimpleNamespace, chosen: list[tuple[int, int]], everything: int
) -> Iterator[tuple[int, str]]:
    layers, n = c.num_hidden_layers, len(chosen)
    lora = layers * RANK * sum(map(sum, chosen))
    outs, ins = sum(out for out, _ in chosen), sum(into for _, into in chosen)
    yield lora, "that is LoRA alone; each row of each map has a length besides"
    yield 2 * lora, "DoRA is not twice LoRA: beside A and B there is one number for each output"
    yield lora + layers * ins, "one number for each input; the lengths belong to the outputs"
    yield lora + layers * (outs + ins), "one number for each output; the inputs have none"
    yield lora + outs, "each layer has lengths of its own: times the number of layers"
    yield lora + layers * RANK * outs, "a row has one length, whatever the rank"
    yield lora + layers * n, "a length for each row, not one for each map"
    yield lora + n, "a length for each row of each map in each layer"
    yield (
        lora + layers * c.hidden_size,
        "each map has as many lengths as outputs, not one hidden size a layer",
    )
    yield (
        lora + layers * n * c.hidden_size,
        "each map has as many lengths as outputs; they need not be the hidden size",
    )
    yield layers * outs, "A and B train as well"
    yield (
        lora + layers * sum(out * into for out, into in chosen),
        "those are the frozen weights; a row has one length",
    )
    yield everything, "count only the maps that `targets` names"
    all_outs = sum(out for out, _ in _maps(c).values())
    yield lora + layers * all_outs, "count the lengths of only the maps that `targets` names"


def judge_dora_parameters(answer: Callable[..., int]) -> str | None:
    """LoRA's numbers, and one more for each output of each map"""
    for name, values in CONFIGS.items():
        c = SimpleNamespace(**dict(zip(NAMES, values, strict=True)))
        maps = _maps(c)
        for targets in TARGETS:
            chosen = list(maps.values()) if targets == TARGETS[0] else [maps[t] for t in targets]
            got = answer(c, targets, RANK)
            # by an independent route: every A, B and m of every layer, one by one
            wanted, everything = (
                sum(RANK * into + out * RANK + out for _ in range(values[2]) for out, into in some)
                for some in (chosen, maps.values())
            )
            slip = count_slip(got)
            if slip is None and got != wanted:
                named = (
                    told for count, told in _count_slips(c, chosen, everything) if count == got
                )
                slip = next(named, "LoRA's count, and the outputs of each target in every layer")
            if slip:
                return f"{name}, {targets}: {slip}"
    return None
