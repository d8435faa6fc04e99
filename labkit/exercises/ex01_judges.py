"""The judges of notebook 01 for its functions of numbers.

Those of its layer are in ex01_layer, those of injection and merging in ex01_model.

Each compares with the right answer, found by another route than the solution's, and then names the
slip by simulation: what would the published mistake give on this very input?
"""

import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from labkit.exercises.compare import count_slip, tensor_slip

NONE = "your code returned None: is a `return` missing?"
Slips = Iterable[tuple[Any, str]]


def same(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and torch.allclose(
        got.double(), want.double(), rtol=1e-3, atol=1e-5 * (1 + want.abs().max().item())
    )


def named(got: Tensor, slips: Slips) -> str | None:
    """The first mistake that gives what the learner's code gave."""
    return next((told for wrong, told in slips if same(got, wrong)), None)


def told(got: Any, want: Tensor, slips: Slips, what: str) -> str | None:  # noqa: ANN401
    """How a tensor differs from `want`: by the mistake that gives it, else plainly. None: not."""
    slip = tensor_slip(got, want, what, 1e-4)
    fits = isinstance(got, Tensor) and got.shape == want.shape and got.is_floating_point()
    return slip and ((named(got.detach(), slips) if fits else None) or slip)


# --- 01.1 truncate an update ------------------------------------------------------------------

SHAPES = ((6, 6), (7, 4), (4, 9))  # square first: a wrong transpose shows by its values there


def _nearest(M: Tensor, rank: int) -> Tensor:
    """By another route: project the rows on the leading eigenvectors of M^T M."""
    V = torch.linalg.eigh(M.double().T @ M.double()).eigenvectors[:, -rank:]
    return (M.double() @ V @ V.T).to(M.dtype)


def _truncation_slips(M: Tensor, rank: int) -> list[tuple[Tensor, str]]:
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    Q, R = torch.linalg.qr(M)
    rows, some = M.clone(), M.abs().flatten().topk(rank).values.min()
    rows[rank:] = 0
    at_all = "U and Vh are directions of length 1: each pair needs its singular value between them"
    slips = [
        (U[:, :rank] @ Vh[:rank], at_all),
        (U[:, -rank:] * S[-rank:] @ Vh[-rank:], "those are the smallest: svd gives the largest first"),
        (M - _nearest(M, rank), "that is the rest, what the truncation leaves out"),
        (M, "that is the whole matrix: nothing was left out"),
        (_nearest(M, rank + 1), f"that has rank {rank + 1}: `[:rank]` holds rank directions"),
        (U[:, :rank] * S[:rank].sqrt() @ Vh[:rank], "the singular value itself stands there, not its root"),
        (U[:, :rank] * S[:rank] ** 2 @ Vh[:rank], "the singular value itself stands there, not its square"),
        (Q[:, :rank] @ R[:rank], "qr does not order its directions by size; svd does"),
        (rows, "those are the first rows; take directions, which svd finds"),
        (M * (M.abs() >= some), "those are the largest entries; few entries are no low rank"),
    ]  # fmt: skip
    if len(M) == len(M.T):
        turned = U[:, :rank] * S[:rank] @ Vh[:, :rank].T
        slips.append((turned, "the third factor is V transposed already: its ROWS are directions"))
    if rank > 1:
        slips.append((_nearest(M, rank - 1), f"that has rank {rank - 1}: one direction is missing"))
    return slips


def judge_nearest(answer: Callable[[Tensor, int], Tensor]) -> str | None:
    """the largest directions, each with its singular value"""
    torch.manual_seed(0)
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            for rank in (2, 1, 3):
                M = torch.randn(shape, dtype=dtype)
                got = answer(M.clone(), rank)
                slip = told(got, _nearest(M, rank), _truncation_slips(M, rank), "the result")
                if slip:
                    return f"a {tuple(shape)} matrix at rank {rank}: {slip}"
    return None


# --- 01.4 the gradients of A and B ------------------------------------------------------------

PROBES = ((3, 3, 3), (5, 7, 2), (6, 4, 3))  # out, in, rank


def _pair(out: int, width: int, rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    G, A = torch.randn(out, width, dtype=dtype), torch.randn(rank, width, dtype=dtype)
    return G, A, torch.randn(out, rank, dtype=dtype)


def _by_autograd(G: Tensor, A: Tensor, B: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The gradients of a loss whose gradient with respect to W' is G."""
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
    (G * (scale * B @ A)).sum().backward()
    return A.grad, B.grad


def _gradient_slips(
    want: tuple[Tensor, Tensor], G: Tensor, A: Tensor, B: Tensor, scale: float
) -> list[tuple[tuple[Tensor, Tensor], str]]:
    """Pairs that mistakes give; the second of the three probes tells transposes by their shape."""
    dA, dB = want
    square = G.shape == A.shape == B.shape
    slips = [
        ((dB, dA), "the other way round: first the gradient of A, then that of B"),
        ((dA / scale, dB / scale), "W' holds scale * B A, so both gradients carry the scale"),
        ((dA * scale, dB * scale), "the scale is there twice: each gradient carries it once"),
        ((dA / scale**2, dB / scale**2), "multiply by the scale; dividing is for its inverse"),
        ((-dA, -dB), "that is the step downhill; the gradient itself has no minus"),
        ((torch.zeros_like(A), dB), "A's gradient is zero only where B is zero"),
        ((dA, dB / scale), "the gradient of B carries the scale too"),
        ((dA / scale, dB), "the gradient of A carries the scale too"),
    ]
    if square:
        slips += [
            ((scale * B @ G, dB), "A's gradient passes back through B: multiply by B transposed"),
            ((dA, scale * G @ A), "B's gradient meets the input that A has read: A transposed"),
            ((scale * B @ G, scale * G @ A), "both factors are transposed in the chain rule"),
            ((dA.T, dB.T), "each gradient has the shape of its factor, not of its transpose"),
            ((scale * A.T @ G, scale * G @ B.T), "A's gradient holds B, and B's holds A"),
        ]
    return slips


def judge_factor_gradients(answer: Callable[..., tuple[Tensor, Tensor]]) -> str | None:
    """each factor's gradient passes through the other, and carries the scale"""
    torch.manual_seed(0)
    for shape in PROBES:
        for dtype, moved in ((torch.float32, 1), (torch.float64, 1), (torch.float32, 0)):
            G, A, B = _pair(*shape, dtype)
            scale, B = 1.7, B * moved
            want = _by_autograd(G, A, B, scale)
            got = answer(G, A, B, scale)
            slip = _two_slip(got) or _gradient_slip(got, want, (G, A, B, scale))
            if slip:
                return slip
    return None


def _two_slip(got: Any) -> str | None:  # noqa: ANN401
    if got is None:
        return NONE
    if not isinstance(got, tuple | list) or len(got) != 2:
        return "return two tensors: the gradient of A, then that of B"
    return None


def _gradient_slip(got: Any, want: tuple[Tensor, Tensor], inputs: tuple[Any, ...]) -> str | None:  # noqa: ANN401
    for factor, each in zip("AB", got, strict=True):
        if each is None:
            return (
                f"the gradient of {factor} is None: where nothing is felt it is a tensor of zeros"
            )
    pairs = zip(got, want, ("the gradient of A", "the gradient of B"), strict=True)
    plain = [slip for g, w, what in pairs if (slip := tensor_slip(g, w, what, 1e-4))]
    if not plain or not all(isinstance(g, Tensor) for g in got):
        return plain[0] if plain else None
    slips = _gradient_slips(want, *inputs)
    pairs = (text for wrong, text in slips if all(map(same, got, wrong)))
    return next(pairs, plain[0])


# --- 01.5 count from a config -----------------------------------------------------------------

CONFIGS = {
    "Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64, 128_256),
    "a model whose heads are wider than its hidden size": (96, 200, 5, 4, 1, 32, 311),
}
CONFIG_NAMES = (
    "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
)  # fmt: skip
CHOSEN = ("all-linear", ["q_proj", "v_proj"], ["down_proj", "k_proj", "o_proj"], "v_proj")


def _pairs(c: SimpleNamespace) -> dict[str, tuple[int, int]]:
    """(out, in) of the seven maps, written out once more."""
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    h, i = c.hidden_size, c.intermediate_size
    attention = {"q_proj": (q, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, q)}
    return attention | {"gate_proj": (i, h), "up_proj": (i, h), "down_proj": (h, i)}


def _count_slips(
    c: SimpleNamespace, names: list[str], targets: str | list[str], rank: int
) -> list[tuple[int, str]]:
    pairs, layers = _pairs(c), c.num_hidden_layers
    one = sum(sum(pairs[name]) for name in names)
    q = c.num_attention_heads * c.head_dim
    wide = pairs | {"k_proj": (q, c.hidden_size), "v_proj": (q, c.hidden_size)}
    product = sum(math.prod(pairs[name]) for name in names)
    every = sum(map(sum, pairs.values()))
    square = sum(2 * pairs[name][1] for name in names)
    added = "A and B stand side by side: add their sizes, they do not multiply"
    return [
        (layers * rank * product, added),
        (rank * product, added),
        (rank * one, "that is one layer; the model has more"),
        (layers * one, "where is the rank? A has that many rows, B that many columns"),
        (one, "that is one layer at rank 1: where are the layers, and where is the rank?"),
        (layers * rank * every, f"that is all seven maps; only {targets!r} get a pair"),
        (layers * product, "those are the frozen weights; count A and B"),
        (layers * rank * sum(sum(wide[n]) for n in names), "k_proj and v_proj are as wide as the key-value heads, not the query heads"),
        (layers * rank * square, "B has `out` rows, not `in`: a projection need not be square"),
        (layers * rank * sum(pairs[n][1] for n in names), "that is A alone; B trains too"),
        (layers * rank * sum(pairs[n][0] for n in names), "that is B alone; A trains too"),
        (layers * rank * sum(pairs[names[0]]), "that is the first target alone: sum over all of them"),
        (2 * layers * rank * c.hidden_size * len(names), "not every map is hidden by hidden: read its own (out, in)"),
        (layers * rank * rank * one, "the rank is there twice: each row of A and column of B counts once"),
        (layers * (rank * one + product), "W is frozen: count only what trains"),
        (2 * layers * rank * one, "that is twice too many: alpha, gradients and moments are no parameters"),
        (layers * rank * one + rank * (c.vocab_size + c.hidden_size), "the head is no projection: it is never adapted"),
        (0, "nothing was counted: \"all-linear\" stands for all seven, and one name may come as plain text"),
    ]  # fmt: skip


def judge_parameter_count(answer: Callable[[Any, Any, int], int]) -> str | None:
    """every chosen map has a pair of its own, in every layer"""
    for name, values in CONFIGS.items():
        config = SimpleNamespace(**dict(zip(CONFIG_NAMES, values, strict=True)))
        for targets in CHOSEN:
            for rank in (8, 3):
                try:
                    got = answer(config, targets, rank)
                except (KeyError, ValueError) as error:
                    if targets != "v_proj":
                        raise
                    told = f"your code raised {type(error).__name__}"
                    return f"{told} for 'v_proj': a plain text is one target, not its letters"
                slip = count_slip(got) or _counted(got, config, targets, rank)
                if slip:
                    return f"{name}, {targets!r} at rank {rank}: {slip}"
    return _unknown_target(answer, config)


def _counted(got: int, config: SimpleNamespace, targets: Any, rank: int) -> str | None:  # noqa: ANN401
    pairs = _pairs(config)
    names = [targets] if isinstance(targets, str) else targets
    names = list(pairs) if targets == "all-linear" else names
    # by an independent route: the shape of every A and every B, written out
    sizes = [rank * into + out * rank for out, into in (pairs[n] for n in names)]
    if got == config.num_hidden_layers * sum(sizes):
        return None
    slips = _count_slips(config, names, targets, rank)
    return next((text for wrong, text in slips if wrong == got), "write the (out, in) shapes down")


def _unknown_target(answer: Callable[[Any, Any, int], int], config: SimpleNamespace) -> str | None:
    try:
        got = answer(config, ["q_proj", "query_proj"], 4)
    except ValueError as error:
        clear = "query_proj" in str(error)
        return None if clear else "say in the error which target is unknown: 'query_proj'"
    except KeyError:
        return "an unknown target raises KeyError: raise a ValueError that names it"
    return (
        f"an unknown target, 'query_proj', counts as {got!r:.20}: raise a ValueError that names it"
    )


# --- 01.6 what training holds -----------------------------------------------------------------


def judge_held_bytes(answer: Callable[[int, int], tuple[int, int, int]]) -> str | None:
    """frozen weights cost 2 bytes; a trained number costs 4 + 4 + 8"""
    for f, t in ((1_235_814_400, 11_272_192), (0, 4_689_152), (1000, 0)):
        got = answer(f, t)
        if got is None:
            return NONE
        if not isinstance(got, tuple | list) or len(got) != 3:
            return "return three numbers: bytes of weights, of gradients, of moments"
        got = tuple(got)
        kinds = ("bytes of weights", "bytes of gradients", "bytes of moments")
        slip = next((s for s in map(count_slip, got, kinds) if s), None) or _held_slip(got, f, t)
        if slip:
            return f"{f:,} frozen and {t:,} trained: {slip}"
    return None


def _held_slip(got: tuple[int, int, int], f: int, t: int) -> str | None:
    right = (2 * f + 4 * t, 4 * t, 8 * t)
    if got == right:
        return None
    if got == tuple(8 * n for n in right):
        return "count bytes, not bits"
    if sorted(got) == sorted(right):
        return "the order is weights, gradients, moments"
    of_weights = {
        2 * (f + t): "the trained numbers are float32, 4 bytes each",
        4 * (f + t): "the frozen numbers rest in bfloat16, 2 bytes each",
        2 * f: "A and B are weights too: 4 bytes for each trained number",
        4 * t: "the frozen weights stay in memory: 2 bytes each",
        f // 2 + 4 * t: "that is a base in 4 bits; this one rests in bfloat16, 2 bytes each",
    }
    of_gradients = {
        2 * t: "the gradient of a float32 number is float32, 4 bytes",
        0: "every trained number has a gradient",
        2 * f + 4 * t: "a frozen weight gets no gradient",
        4 * (f + t): "a frozen weight gets no gradient, and no bytes for one",
    }
    of_moments = {
        4 * t: "Adam keeps two moments a number: of the gradient and of its square",
        12 * t: "Adam keeps two moments; the weight itself is counted already",
        8 * (f + t): "Adam keeps nothing for a frozen weight",
        0: "where are Adam's moments? It keeps two for each trained number",
    }
    checks = zip(got, right, (of_weights, of_gradients, of_moments), strict=True)
    kinds = ("weights", "gradients", "moments")
    for kind, (mine, want, slips) in zip(kinds, checks, strict=True):
        if mine != want:
            return slips.get(mine, f"the {kind} take {want:,} bytes, not {mine:,}")
    return None


# --- 01.7 the first step ----------------------------------------------------------------------


def _stepped(G: Tensor, A: Tensor, scale: float, rate: float, optimizer: str) -> Tensor:
    """By torch's own optimizer and autograd, with a B that starts at zero."""
    B = torch.nn.Parameter(torch.zeros(len(G), len(A), dtype=G.dtype))
    (G * (scale * B @ A)).sum().backward()
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    kind([B], lr=rate).step()
    return (scale * B @ A).detach()


def _step_slips(
    G: Tensor, A: Tensor, scale: float, rate: float, optimizer: str
) -> list[tuple[Tensor, str]]:
    want, other = (_stepped(G, A, scale, rate, o) for o in (optimizer, _other(optimizer)))
    flat, gradient = rate * G @ A.T, scale * G @ A.T
    sign = "Adam's first step is rate * sign(gradient): every number of B moves equally far"
    length = gradient / gradient.norm()
    return [
        (-want, "the minus is missing: a step goes against the gradient"),
        (want / scale, "W' moves by scale * B A: B's gradient carries the scale, and so does the product"),
        (want * scale, "the scale is there once too often"),
        (-flat @ A, "the scale is there neither in B's gradient nor in the product"),
        (other, sign if optimizer == "adam" else "SGD steps by the gradient as it is, without its sign"),
        (want / rate, "where is the rate?"),
        (-rate * (scale**2 * G @ A.T @ A).sign(), "Adam takes the sign of B's gradient, not of the whole update"),
        (-rate * scale * scale * (G.sign() @ A.T) @ A, "take the sign of B's gradient, G A^T, not of G"),
        (-rate * scale * (G.sign() @ A.T) @ A, "take the sign of B's gradient, G A^T, not of G"),
        (-rate * scale * length @ A, "divide each number by its own size, not by the norm of all"),
        (-rate * G, "that is a step of full fine-tuning; LoRA moves W' through B and A"),
        (-rate * G.sign(), "that is a step of full fine-tuning; LoRA moves W' through B and A"),
        (torch.zeros_like(G), "nothing moved: B starts at zero, but it does not stay there"),
    ]  # fmt: skip


def _other(optimizer: str) -> str:
    return "sgd" if optimizer == "adam" else "adam"


def judge_first_step(answer: Callable[..., Tensor]) -> str | None:
    """B moves by its gradient or its sign, and W' by scale * B A"""
    torch.manual_seed(0)
    for out, width, rank in ((5, 7, 2), (6, 4, 3)):
        for optimizer in ("sgd", "adam"):
            for dtype in (torch.float32, torch.float64):
                G, A, _ = _pair(out, width, rank, dtype)
                inputs = (G, A, 0.6, 0.05, optimizer)
                got = answer(*inputs)
                what = f"the step under {optimizer}"
                slip = told(got, _stepped(*inputs), _step_slips(*inputs), what)
                if slip:
                    return f"{optimizer}: {slip}"
    return None
