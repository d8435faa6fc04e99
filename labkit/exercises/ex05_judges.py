"""The judges of notebook 05 for its functions of numbers; that of the layer is in ex05_layer.

Each compares with the right answer, found by another route than the solution's, and then names the
slip by simulation: what would the published mistake give on this very input? No judge looks at
B = 0 alone, where nearly every wrong layer equals its base.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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
            (
                W / m,
                "(out,) lines up with the inputs, the last axis: m[:, None] lines up with the rows",
            )
        )
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


def _rows(W: Tensor) -> Tensor:
    return W.square().sum(1, keepdim=True).sqrt()


def _forward_slips(c: SimpleNamespace) -> Slips:
    D, m = c.B @ c.A, c.m[:, None]
    turned = c.W + c.s * D
    y, plain = c.x @ turned.T, c.x @ c.W.T
    update = c.s * c.x @ D.T
    right = c.x @ (m * turned / _rows(turned)).T
    dense = [
        (m * turned / turned.norm(dim=0), "the norm is taken over the wrong axis, one for each input; at B = 0 nobody sees it"),
        (m * turned / _rows(c.W), "the norm is that of W alone; it is that of W + scale B A, which B moves"),
        (m * turned / _rows(c.W + D), "the scale is missing inside the norm"),
        (m * (c.W + D) / _rows(c.W + D), "the scale is missing: the update is scale * B @ A"),
        (m * (c.W + D) / _rows(turned), "the scale is in the norm but not in the weight above it"),
        (m * c.W / _rows(c.W) + c.s * D, "the update stays outside: it turns the rows, so it is normalised with W"),
        (m * (c.W + c.s * D / _rows(D)), "the update is normalised by itself; the norm is that of the sum"),
        (m * turned / turned.norm(), "that divides by the length of the whole matrix; each row has its own"),
        (m * turned / _rows(turned).square(), "that divides by the square of the length: take the root"),
        (m * turned, "the rows keep their lengths: divide by the norm before the magnitude multiplies"),
        (turned / _rows(turned), "the magnitude is missing: these rows have length 1"),
        (m * c.W / _rows(c.W), "B and A are missing: only the lengths are learned there"),
        (m + turned / _rows(turned), "the magnitude multiplies the direction; it is not added"),
    ]  # fmt: skip
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


# --- 05.4 the detached norm -------------------------------------------------------------------


def _slopes(weight: Tensor, turned: Tensor, m: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of turned and m; zeros where there is none."""
    found = torch.autograd.grad((weight * up).sum(), (turned, m), allow_unused=True)
    return tuple(torch.zeros_like(t) if g is None else g for g, t in zip(found, (turned, m), strict=True))  # fmt: skip


def judge_detached_weight(answer: Callable[[Tensor, Tensor], Any]) -> str | None:
    """the same rows, the magnitude's gradient whole, and none through the norm"""
    for c in CASES:
        turned, m = (c.W + c.s * c.B @ c.A).requires_grad_(), c.m.clone().requires_grad_()
        lengths = _rows(turned)
        want = torch.diag(m) @ turned / lengths
        got = answer(turned, m)
        if slip := told(
            got, want.detach(), _value_slips(turned.detach(), m.detach()), "the weight"
        ):
            return slip
        if not got.requires_grad:
            return (
                "nothing can learn: the result hangs on no gradient. Hold the norm alone constant"
            )
        up = torch.linspace(-1, 2, turned.numel(), dtype=turned.dtype).reshape(turned.shape)
        right = _slopes(torch.diag(m) @ turned / lengths.detach(), turned, m, up)
        if slip := _slope_slip(_slopes(got, turned, m, up), right, _slopes(want, turned, m, up)):
            return slip
    return None


def _value_slips(turned: Tensor, m: Tensor) -> Slips:
    return [
        (m[:, None] * turned / turned.norm(dim=0), AXIS),
        (m[:, None] * turned, "the rows keep their lengths: divide by their norms"),
        (turned / _rows(turned), "the magnitude is missing"),
        (m[:, None] * turned / _rows(turned).square(), "the length is the root of the sum of squares"),
    ]  # fmt: skip


def _slope_slip(got: tuple, right: tuple, exact: tuple) -> str | None:
    """What the gradients of turned and m say of where the graph was cut."""
    if all(same(a, b) for a, b in zip(got, right, strict=True)):
        return None
    turned, m = got
    if not turned.any():
        return "the direction cannot learn: the gradient of `turned` is cut. Detach the norm alone"
    if not m.any():
        return "the magnitude cannot learn: it was detached too, with the norm it is divided by"
    if same(turned, exact[0]):
        return "the gradient still flows through the norm: detach the norm"
    return "the gradients are off although the weight is right: which tensor is detached?"


# --- 05.5 the factored norm -------------------------------------------------------------------


class _Sizes(TorchDispatchMode):
    """Remembers the largest matrix that is made within it."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def _norm_slips(c: SimpleNamespace) -> Slips:
    squares, P = c.W.square().sum(1), c.W @ c.A.T
    cross, own = (c.B * P).sum(1), (c.B @ (c.A @ c.A.T) * c.B).sum(1)
    s = c.s
    right = squares + 2 * s * cross + s * s * own
    rows = [
        (squares + s * s * own, "the middle term is missing: W and the update are not at right angles"),
        (squares + s * cross + s * s * own, "the middle term comes twice: (a + b)^2 = a^2 + 2ab + b^2"),
        (squares + 2 * s * cross + s * own, "the last term takes the square of the scale"),
        (squares + 2 * cross + own, "the scale is missing: the update is scale * B @ A"),
        (squares + 2 * s * cross, "the last term is missing: the update has a length of its own"),
        (squares + 2 * cross + s * s * own, "the scale is missing in the middle term"),
        (squares - 2 * s * cross + s * s * own, "the middle term has the wrong sign: W and the update are added"),
        (squares.square() + 2 * s * cross + s * s * own, "`squares` are squared already"),
        (squares.sqrt() + 2 * s * cross + s * s * own, "`squares` are squared lengths: take one root, at the end"),
        (squares + 2 * s * cross + s * s * (c.B * c.B).sum(1), "the last term needs A A^T between B and B"),
        (squares + 2 * s * P.sum(1) + s * s * own, "each row of products meets its own row of B"),
    ]  # fmt: skip
    roots = [(value.clamp(min=0).sqrt(), words) for value, words in rows]
    root = "take the root at the end: that is the squared length"
    return [(right, root), *roots]


def judge_factored_norms(answer: Callable[..., Any]) -> str | None:
    """the row lengths of W + scale B A from thin products alone"""
    for c in (case(40, 200, 2, 1.5), case(120, 60, 3, 0.5, torch.float64)):
        given = c.W.square().sum(1), c.W @ c.A.T, c.A, c.B, c.s
        with _Sizes() as made:
            got = answer(*given)
        want = torch.stack([row.dot(row) ** 0.5 for row in c.W + c.s * c.B @ c.A])
        if isinstance(got, Tensor) and got.shape == (len(want), len(want)):
            return "that is a matrix (out, out); only its diagonal is wanted: multiply by B and sum"
        if slip := told(got, want, _norm_slips(c), "the norms"):
            return slip
        if made.largest >= c.W.numel():
            return "right, but it forms a matrix as large as W: A A^T is only (rank, rank)"
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
    yield everything, "count only the maps that `targets` names"  # fmt: skip


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
                slip = next(named, "LoRA's count, and the outputs of every map in every layer")
            if slip:
                return f"{name}, {targets}: {slip}"
    return None
