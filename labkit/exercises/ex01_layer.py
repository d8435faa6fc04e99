"""The judges of notebook 01 for its factors and its layer.

Every probe stands away from the start (B = 0), where most mistakes look right: out, in and rank
differ, alpha is no multiple that hides the scale, inputs come in batches and in a second dtype.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from labkit.exercises.compare import tensor_slip
from labkit.exercises.ex01_judges import NONE, named, same

OUT, IN, RANK, ALPHA = 6, 5, 4, 14.0  # scale 3.5: no whole number, nor any other reading of it
SCALE = ALPHA / RANK
NAMES = ("A", "B", "base", "rank", "alpha", "scale", "in_features", "out_features", "dropout")


class Packed(nn.Module):
    """A frozen linear map that keeps its weight elsewhere, as 4-bit maps do."""

    def __init__(self, out: int, width: int) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = width, out, None
        self.register_buffer("codes", torch.randn(width, out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.codes

    def dense(self) -> Tensor:
        return self.codes.T


def moved(layer: nn.Module) -> nn.Module:
    """Both factors away from their start."""
    with torch.no_grad():
        for factor in (layer.A, layer.B):
            factor.copy_(torch.randn(factor.shape))
    return layer


# --- 01.2 the start ---------------------------------------------------------------------------

MANY = (7, 400, 60)  # out, in, rank: 24,000 numbers, so that their spread is known to 1%


def judge_factors(answer: Callable[..., Any]) -> str | None:
    """A random within 1 / sqrt(in), B zero, both where the base is and in float32"""
    like = torch.zeros(2)
    torch.manual_seed(0)
    got = answer(*MANY, like)
    slip = _pair_slip(got) or _spread_slip(*got)
    if slip:
        return slip
    if torch.equal(got[0], answer(*MANY, like)[0]):
        return "A comes out the same twice: it must be drawn anew for each layer"
    kinds = {torch.bfloat16: torch.float32, torch.float64: torch.float64}
    for given, want in kinds.items():
        for factor in answer(4, 5, 3, like.to(given)):
            if factor.dtype != want:
                return f"on a {given} base the factors are {factor.dtype}; they must be {want}"
    for factor in answer(4, 5, 3, like.to("meta")):  # a device that every machine has
        if factor.device.type != "meta":
            return "the factors must be made on the device of `like`, not on the CPU"
    return None


def _pair_slip(got: Any) -> str | None:  # noqa: ANN401
    out, width, rank = MANY
    if got is None:
        return NONE
    if not isinstance(got, tuple | list) or len(got) != 2:
        return "return two parameters, A and B"
    for name, factor in zip("AB", got, strict=True):
        if not isinstance(factor, Tensor):
            return f"{name} must be a tensor, not {type(factor).__name__}"
    shapes = tuple(tuple(factor.shape) for factor in got)
    if shapes == ((out, rank), (rank, width)):
        return "the other way round: first A, then B"
    if shapes == ((width, rank), (rank, out)):
        return "both are transposed: A is (rank, in), B is (out, rank)"
    for name, shape, want in zip("AB", shapes, ((rank, width), (out, rank)), strict=True):
        if shape != want:
            return f"{name} has shape {shape}; it must be {want}"
    for name, factor in zip("AB", got, strict=True):
        if not isinstance(factor, nn.Parameter):
            return f"{name} is a plain tensor: only an nn.Parameter is found by the optimizer"
        if not factor.requires_grad:
            return f"{name} does not train: leave requires_grad on"
    return None


def _spread_slip(A: Tensor, B: Tensor) -> str | None:
    _, width, rank = MANY
    a_moves, b_moves = bool(A.detach().any()), bool(B.detach().any())
    if not a_moves and not b_moves:
        return (
            "both are zero: each gradient passes through the other factor, so nothing ever trains"
        )
    if b_moves:
        both = "both are random: the update is not zero, so the layer does not start at its base"
        return both if a_moves else "the other way round: A is random, B is zero"
    if not A.isfinite().all():
        return "A holds NaN or infinity: torch.empty is not filled yet"
    bound, largest, spread = width**-0.5, A.abs().max().item(), A.std().item()
    if spread < 0.2 * bound and len(A.unique()) < 3:
        return "every number of A is the same, so all its rows read the same: draw them"
    if largest <= bound and abs(spread - bound / math.sqrt(3)) < 0.03 * bound:
        return None
    if A.min() >= 0:
        return "A is never negative: draw it on both sides of zero"
    if abs(spread - bound / math.sqrt(3)) < 0.03 * bound:
        seen = "that looks like a normal distribution; A is uniform"
        return f"A has the right spread, but numbers up to {largest / bound:.1f} / sqrt(in): {seen}"
    guesses = {
        "kaiming with a=0, sqrt(6) times too wide: a is sqrt(5)": math.sqrt(2) * bound,
        "scaled by the rank, not by the width of the input": rank**-0.5 / math.sqrt(3),
        "scaled by rank and width together (xavier); take the width of the input": math.sqrt(2 / (width + rank)),
        "1 / sqrt(in) as the standard deviation; it is the bound": bound,
        "of width 1, whatever the input: divide by sqrt(in)": 1.0,
        "uniform from -1 to 1: divide by sqrt(in)": 1 / math.sqrt(3),
        "1 / in as the bound; it is 1 / sqrt(in)": bound**2 / math.sqrt(3),
        "0.02, whatever the input: the width decides": 0.02,
        "half the width; it goes from -1 / sqrt(in) to 1 / sqrt(in)": bound / math.sqrt(12),
    }  # fmt: skip
    near = next((text for text, s in guesses.items() if abs(spread / s - 1) < 0.02), None)
    seen = f": that looks like {near}" if near else ""
    return f"A's spread is {spread:.4f}, not {bound / math.sqrt(3):.4f}{seen}"


# --- 01.3 the layer ---------------------------------------------------------------------------


def base_of(dtype: torch.dtype = torch.float32, bias: bool = True) -> nn.Linear:
    return nn.Linear(IN, OUT, bias=bias).to(dtype)


def judge_lora_linear(build: Callable[..., nn.Module]) -> str | None:
    """starts at its base, trains A and B alone, adds scale * B A x"""
    torch.manual_seed(0)
    base = base_of()
    layer = build(base, RANK, ALPHA)
    if not isinstance(layer, nn.Module):
        return "the layer must be an nn.Module"
    if missing := [name for name in NAMES if not hasattr(layer, name)]:
        return f"the layer has no `{missing[0]}`: keep {', '.join(NAMES)}"
    for check in (_start_slip, _trains_slip, _forward_slip, _delta_slip, _backward_slip):
        if slip := check(layer, base):
            return slip
    return (
        _dtype_slip(build) or _packed_slip(build) or _dropout_slip(build) or _cost_slip(build)
        or _rank_slip(build) or _printed_slip(layer)
    )  # fmt: skip


def _start_slip(layer: nn.Module, base: nn.Linear) -> str | None:
    x = torch.randn(7, IN)
    shapes = {"A": (RANK, IN), "B": (OUT, RANK)}
    for name, want in shapes.items():
        if (found := tuple(getattr(layer, name).shape)) != want:
            return f"{name} has shape {found}; it must be {want}"
    got, want = layer(x), base(x)
    if got is None:
        return NONE
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return tensor_slip(got, want, "the output")
    if torch.equal(got, want):
        return None
    if torch.equal(got, got * 0):
        return "a fresh layer gives zero: the frozen map is missing from the sum"
    return "a fresh layer must equal its base, bit for bit: is B zero, and the base untouched?"


def _trains_slip(layer: nn.Module, base: nn.Linear) -> str | None:
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    if layer.base is not base and isinstance(layer.base, nn.Linear):
        return "`layer.base` is a copy: keep the map that was given, and freeze that one"
    if any(p.requires_grad for p in base.parameters()):
        return "the base still trains: freeze its weight and its bias"
    if trained != {"A", "B"}:
        lost = sorted({"A", "B"} - trained)
        if lost:
            return f"{lost[0]} does not train: it must be a parameter with a gradient"
        return f"{sorted(trained)} train; only A and B may"
    if "base" not in dict(layer.named_children()):
        return "the base must be a submodule (self.base), or it is not saved and not moved"
    return None


def _output_slips(layer: nn.Module, base: nn.Linear, x: Tensor) -> list[tuple[Tensor, str]]:
    with torch.no_grad():
        y, u = base(x), x @ layer.A.T @ layer.B.T
    scales = {
        ALPHA: "the update is scaled by alpha; it is alpha / rank",
        1.0: "the update is not scaled: alpha / rank stands before it",
        ALPHA / math.sqrt(RANK): "that is alpha / sqrt(rank), the scale of rsLoRA; here it is alpha / rank",
        SCALE**2: "the scale is applied twice",
        2.0: "the scale is fixed at 2; it is alpha / rank",
        ALPHA // RANK: "the scale is rounded down: divide with /, not with //",
        1 / RANK: "alpha is missing: the scale is alpha / rank",
        RANK / ALPHA: "the scale is upside down: alpha / rank",
        SCALE / RANK: "the rank divides twice: alpha / rank, once",
        -SCALE: "the update is added, not taken away",
    }  # fmt: skip
    plain = "the update goes through the frozen map as well: it starts from x"
    return [
        *((y + scale * u, text) for scale, text in scales.items()),
        (y, "once B moves, the output must move: where is the update?"),
        (SCALE * u, "the frozen map is missing from the sum"),
        (y - (0 if base.bias is None else base.bias) + SCALE * u, "the base's bias is missing: call the base"),
        (y + SCALE * u + (0 if base.bias is None else base.bias), "the bias is added twice"),
        (SCALE * (y + u), "the scale belongs to the update alone, not to the frozen map"),
        (y + y * SCALE * u, plain),
    ]  # fmt: skip


def _forward_slip(layer: nn.Module, base: nn.Linear) -> str | None:
    moved(layer)
    for shape in ((7, IN), (2, 3, IN), (IN,)):
        x = torch.randn(shape)
        W = base.weight + SCALE * torch.einsum("or,ri->oi", layer.B, layer.A)
        want = (x.double() @ W.double().T + base.bias.double()).float().detach()
        got = layer(x)
        slip = tensor_slip(got, want, f"the output for x of shape {shape}", 1e-4)
        if slip:
            fits = isinstance(got, Tensor) and got.shape == want.shape
            return (named(got.detach(), _output_slips(layer, base, x)) if fits else None) or slip
    if abs(float(layer.scale) - SCALE) > 1e-6:
        return f"layer.scale is {layer.scale}; it must be alpha / rank, {SCALE:g} here"
    return None


def _delta_slip(layer: nn.Module, base: nn.Linear) -> str | None:
    want = SCALE * torch.einsum("or,ri->oi", layer.B, layer.A).detach()
    if layer.delta() is None:
        return "delta() returned None: is a `return` missing?"
    if same(layer.delta(), want / SCALE):
        return "delta() is what the update adds to the weight: the scale belongs to it"
    if same(layer.delta(), want + base.weight.detach()):
        return "delta() is the update alone, without the frozen weight"
    if slip := tensor_slip(layer.delta(), want, "delta()", 1e-4):
        return slip
    x = torch.randn(4, IN)
    return tensor_slip(layer.update(x), x @ want.T, "update(x)", 1e-4)


def _backward_slip(layer: nn.Module, base: nn.Linear) -> str | None:
    """Layers below need the gradient of x, from the frozen map and from the update."""
    x, G = torch.randn(7, IN, requires_grad=True), torch.randn(7, OUT)
    through, beside = G @ base.weight.detach(), G @ layer.delta().detach()
    layer.zero_grad()
    (layer(x) * G).sum().backward()
    if x.grad is None or same(x.grad, beside):
        return "no gradient of x comes through the frozen map: freeze it, but leave out no_grad"
    if same(x.grad, through):
        return "no gradient of x comes through the update: leave out detach and no_grad"
    A, B = layer.A.detach(), layer.B.detach()
    full = G.T @ x.detach()  # what W itself would feel
    for name, want in (("A", SCALE * B.T @ full), ("B", SCALE * full @ A.T)):
        grad = getattr(layer, name).grad
        if grad is None:
            return f"{name} gets no gradient: leave out detach, data and no_grad"
        if slip := tensor_slip(grad, want, f"the gradient of {name}", 1e-4):
            return slip
    return tensor_slip(x.grad, through + beside, "the gradient of x", 1e-4)


def _dtype_slip(build: Callable[..., nn.Module]) -> str | None:
    layer = moved(build(base_of(torch.bfloat16), RANK, ALPHA))
    x = torch.randn(7, IN, dtype=torch.bfloat16)
    try:
        got = layer(x)
    except RuntimeError as error:
        return f"a bfloat16 input raises: cast the factors to the dtype of x ({str(error)[:60]})"
    if got.dtype != x.dtype:
        return f"a bfloat16 input gives {got.dtype}: cast the factors to the dtype of x"
    if layer.A.dtype != torch.float32 or layer.B.dtype != torch.float32:
        return f"on a bfloat16 base A is {layer.A.dtype}; the factors train in float32"
    W = layer.base.weight.double() + layer.delta().double()
    want = x.double() @ W.T + layer.base.bias.double()
    off = ((got.double() - want).norm() / want.norm()).item()
    return f"in bfloat16 the output is off by {off:.0%}" if off > 0.02 else None


def _packed_slip(build: Callable[..., nn.Module]) -> str | None:
    base = Packed(OUT, IN)
    try:
        layer = moved(build(base, RANK, ALPHA))
        got = layer(x := torch.randn(7, IN))
    except AttributeError as error:
        return f"a 4-bit base has no plain weight: call the base, do not read it ({error})"
    except StopIteration:
        return "this base has no parameters: 4-bit maps may keep theirs in buffers; look there too"
    want = x @ (base.codes + layer.delta().T)
    return tensor_slip(got, want.detach(), "the output over a 4-bit base", 1e-4)


def _dropout_slip(build: Callable[..., nn.Module]) -> str | None:
    base, x = base_of(), torch.randn(64, IN)
    try:
        layer = build(base, RANK, ALPHA, 0.5).train()
    except TypeError:
        return "the fourth argument is the dropout"
    if not torch.equal(layer(x), base(x)):
        return "dropout touches the frozen map: only the update's input may lose numbers"
    one = torch.zeros(64, IN)
    one[:, 0] = 1.0  # a single feature: either all of the update is there, doubled, or none
    moved(layer)
    with torch.no_grad():
        full, got = SCALE * layer.B @ layer.A[:, 0], layer(one) - base(one)
    if same(got, full.expand_as(got)):
        return "in training the update must lose some of its input: where is the dropout?"
    whole = [same(row, 0 * full) or same(row, 2 * full) for row in got]
    if not all(whole):
        return "dropout acts on the update's input, x, and not behind A or B"
    if not same(layer.eval()(one) - base(one), full.expand_as(got)):
        return "dropout is on in evaluation: use nn.Dropout, which eval() switches off"
    return None


def _cost_slip(build: Callable[..., nn.Module]) -> str | None:
    layer, x = build(nn.Linear(64, 64), 2, 4.0), torch.randn(3, 64)
    counter = FlopCounterMode(display=False)
    with counter:
        layer(x)
    frozen, thin = 2 * 3 * 64 * 64, 2 * 3 * 2 * (64 + 64)
    if counter.get_total_flops() > frozen + 2 * thin:
        return "B A is formed, a matrix as large as W: multiply x by A, then by B"
    return None


def _rank_slip(build: Callable[..., nn.Module]) -> str | None:
    try:
        build(base_of(), 0, ALPHA)
    except ValueError:
        return None
    except ZeroDivisionError:
        return "rank 0 ends in a ZeroDivisionError: raise a ValueError that says what is allowed"
    return "rank 0 is accepted: raise a ValueError that says what is allowed"


def _printed_slip(layer: nn.Module) -> str | None:
    try:
        repr(layer)
    except (NotImplementedError, TypeError):  # the stub's own line, or None where text must stand
        return "the layer cannot be printed: `extra_repr` returns a text; or leave it out"
    return None
