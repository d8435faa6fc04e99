"""The judges of notebook 03: each finds the right answer by another route, then names the slip.

Quantiles come from a bisection of the error function, codes from a plain loop over the levels, bits
from the bytes of a weight that is counted out. A slip is named by simulation, as in notebook 04:
the first published mistake that gives what the learner's code gave is the one that is told.
"""

import contextlib
import inspect
import math
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from labkit import nf4
from labkit.exercises.compare import tensor_slip

NONE = "your code returned None: is a `return` missing?"
CHANGED = "your code changes {}: use abs(), not abs_(), and no `-=` or `/=` on an argument"
NEAR = 1e-5  # how near a wrong answer must be to a simulated slip


def _same(a: Any, b: Tensor) -> bool:  # noqa: ANN401
    """Whether an answer is the tensor that a slip gives, whatever its dtype."""
    if not isinstance(a, Tensor) or a.shape != b.shape:
        return False
    return torch.allclose(a.double(), b.double(), rtol=NEAR, atol=NEAR, equal_nan=True)


def _named(got: Any, slips: Iterable[tuple[Tensor, str]]) -> str | None:  # noqa: ANN401
    return next((told for wrong, told in slips if _same(got, wrong)), None)


def _rows(flat: Tensor, block: int) -> list[Tensor]:
    """The blocks of a flat tensor, the last one as short as it is."""
    return list(flat.split(block))


# --- 03.1 quantiles of one side ---------------------------------------------------------------

HALVES = ((8, 0.9677), (7, 0.96), (3, 0.9), (1, 0.8))  # how many, outermost probability
INFINITE = "the quantile of 1 is infinite: begin at `outermost`, which is less than 1"


def _cdf(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _quantile(p: float) -> float:
    """z with Phi(z) = p, by halving the interval in which it lies."""
    low, high = -9.0, 9.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _cdf(middle) < p else (low, middle)
    return low


def _side(n: int, p: float) -> list[float]:
    return [_quantile(0.5 + (p - 0.5) * (n - i) / n) for i in range(n)]


def _half_slips(n: int, p: float) -> list[tuple[list[float], str]]:
    right, step = _side(n, p), (p - 0.5) / n
    steps = [p - i * step for i in range(n)]
    wide = (p - 0.5) / max(n - 1, 1)
    zero = "the last one is the quantile of 1/2, zero: both halves share it, so leave it out"
    return [
        ([0.0 if abs(q) < 1e-9 else q for q in [*right, 0.0]], zero),
        ([_quantile(p - i * wide) for i in range(n)], zero),
        (right[::-1], "the largest comes first"),
        ([-q for q in right], "those lie below zero: `outermost` is above 1/2, so its quantile is positive"),
        (steps, "those are the probabilities; return their quantiles, NormalDist().inv_cdf(p)"),
        ([_cdf(x) for x in steps], "cdf goes from a value to a probability; inv_cdf goes back, from a probability to the quantile"),
        ([math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in steps], "pdf is the height of the bell; inv_cdf gives the quantile"),
        ([right[0] * (n - i) / n for i in range(n)], "these are even steps of the value, as in INT4; make even steps of the probability"),
        ([*right[1:], 0.0], "the first step is skipped: begin at `outermost` itself"),
        (right[1:], "the first step is skipped: begin at `outermost` itself"),
        ([_quantile(x - step / 2) for x in steps], "these are the middles of the steps; the first probability is `outermost` itself"),
        ([_quantile(p * (n - i) / n) for i in range(n)], "the steps end at 1/2, not at 0: this is one half of the bell"),
        ([q / right[0] for q in right], "do not divide by the largest yet: `levels` does, once both halves are there"),
        ([_quantile(0.5 + (x - 0.5) / 2) for x in steps], "the probability runs from 1/2 to `outermost`, and needs no halving"),
        ([_quantile((1 + x) / 2) for x in steps], "erf counts both sides of zero: the quantile of p is sqrt(2) * erfinv(2 p - 1)"),
    ]  # fmt: skip


def judge_half(answer: Callable[[int, float], list[float]]) -> str | None:
    """even steps of probability, from the outermost down to the one above 1/2"""
    for n, p in HALVES:
        try:
            got = answer(n, p)
        except ValueError as error:  # statistics.StatisticsError is one
            if "0.0 < p < 1.0" not in str(error):
                raise
            return INFINITE
        slip = _half_slip(got, n, p)
        if slip:
            return f"half({n}, {p}): {slip}"
    return None


def _half_slip(got: Any, n: int, p: float) -> str | None:  # noqa: ANN401
    if got is None:
        return NONE
    if not isinstance(got, list):
        return f"return a list of floats, not {type(got).__name__}"
    other = next((q for q in got if not isinstance(q, float)), None)
    if other is not None:
        return f"return a list of floats, not of {type(other).__name__}"
    if not all(map(math.isfinite, got)):
        return INFINITE
    if _close(got, _side(n, p)):
        return None
    known = next((told for wrong, told in _half_slips(n, p) if _close(got, wrong)), None)
    if known or len(got) != n:
        return known or f"{len(got)} quantiles; there must be {n}"
    if any(_close(got, _side(n, fixed)) for fixed in (31 / 32, 29 / 30, (29 / 30 + 31 / 32) / 2)):
        return "use the argument `outermost`, not a number of your own"
    pairs = enumerate(zip(got, _side(n, p), strict=True))
    place, (yours, right) = next((i, pair) for i, pair in pairs if abs(pair[0] - pair[1]) > 5e-6)
    step = 0.5 + (p - 0.5) * (n - place) / n
    return f"number {place + 1} is {yours:.4f}; the quantile of {step:.4f} is {right:.4f}"


def _close(a: list[float], b: list[float]) -> bool:
    near = (math.isclose(x, y, abs_tol=5e-6) for x, y in zip(a, b, strict=False))
    return len(a) == len(b) and all(near)


# --- 03.2 the two halves ----------------------------------------------------------------------

EDGE = 1 - (1 / 30 + 1 / 32) / 2  # between the outermost middles of 15 and of 16 equal cells


def _table(below: int, above: int, low: float = EDGE, high: float = EDGE) -> Tensor:
    """A code of `below` + zero + `above` levels, not divided by the largest."""
    points = [*(-q for q in _side(below, low)), 0.0, *reversed(_side(above, high))]
    return torch.tensor(points, dtype=torch.float64)


def _scaled(points: Tensor) -> Tensor:
    return points / points.abs().max()


def _level_slips() -> list[tuple[Tensor, str]]:
    right, way = _table(7, 8), "the outermost probability is the mean of 29/30 and 31/32"
    cells = torch.tensor([_quantile((i + 0.5) / 16) for i in range(16)])
    edges = torch.tensor([_quantile(i / 16) for i in range(1, 16)])
    no_zero = torch.cat([-torch.tensor(_side(8, EDGE)), torch.tensor(_side(8, EDGE)).flip(0)])
    inner = torch.tensor([_quantile(i / 17) for i in range(1, 17)])
    cut = torch.tensor([*(-q for q in _side(8, EDGE)[1:]), 0.0, *reversed(_side(8, EDGE))])
    paper = (inner[1:] + inner[:-1]) / 2  # equation 4 for i = 1 to 15; at i = 0 it is infinite
    return [
        (_scaled(_table(8, 7)), "the wrong way round: NF4 has seven levels below zero and eight above"),
        (right, "divide by the largest: the levels run from -1 to 1"),
        (_scaled(no_zero), "zero is missing: a weight that is zero must stay zero"),
        (no_zero, "zero is missing, and the levels must run from -1 to 1"),
        (_scaled(cells), "those are the middles of 16 equal cells: none of them is zero"),
        (cells, "those are the middles of 16 equal cells: none of them is zero"),
        (_scaled(edges), "those are the 15 borders of 16 equal cells: one code of the 16 stays unused"),
        (_scaled(paper), "that is the paper's equation 4 without its infinite ends, and it is not NF4: build two halves"),
        (_scaled(cut), "the seven are half(7) with steps of their own, not seven of the eight"),
        (torch.linspace(-1, 1, 16), "evenly spaced levels are those of INT4: take quantiles"),
        (_scaled(_table(7, 8, high=31 / 32, low=29 / 30)), f"both halves begin at one probability: {way}"),
        (_scaled(_table(7, 8, high=29 / 30, low=31 / 32)), f"both halves begin at one probability: {way}"),
        *((_scaled(_table(7, 8, p, p)), f"{way}, {EDGE:.7f}; yours is {p:.7f}") for p in (31 / 32, 29 / 30, 0.9677, 0.995, 15 / 16)),
        (_scaled(right).abs().sort().values, "the seven below zero lost their sign"),
        (right / right[-2], "divide by the largest of all, not by another one"),
        (right / right.std(), "divide by the largest, not by the standard deviation"),
    ]  # fmt: skip


def judge_levels(answer: Callable[[], Tensor]) -> str | None:
    """seven below, zero, eight above; the largest is 1"""
    got, want = answer(), _scaled(_table(7, 8)).float()
    if got is None:
        return NONE
    if not isinstance(got, Tensor):
        return f"return a tensor of 16 levels, not {type(got).__name__}"
    if got.ndim != 1:
        return f"the levels have shape {tuple(got.shape)}; it must be (16,)"
    if got.isinf().any():
        return "a level is infinite: the quantiles of 0 and 1 are no levels, begin at `outermost`"
    slip = tensor_slip(got, want, "the table of levels", 1e-6)
    if slip:
        return _level_slip(got, want) or slip
    if _is_pasted(answer, want):
        return "those are NF4's levels, but ready-made: build them from `half`, and paste none"
    return None


SHIPPED = {"get_4bit_type", "create_normal_map"}  # bitsandbytes' own makers of the table
FEW_PASTED = 3  # inner levels written as numbers: fewer may be there by chance


def _is_pasted(answer: Any, want: Tensor) -> bool:  # noqa: ANN401
    """Whether the table stands in the function as numbers, or comes from a name outside it."""
    function = inspect.unwrap(answer)
    code = getattr(function, "__code__", None)
    if code is None:
        return False  # a class or a partial: nothing to read
    names, numbers = _names_and_numbers(code)
    pasted = sum(
        any(abs(level - abs(n)) < 1e-4 for n in numbers) for level in want[1:-1].abs() if level
    )
    outside = [getattr(function, "__globals__", {}).get(name) for name in names]
    ready = any(isinstance(x, Tensor) and _same(x, want) for x in outside)
    return pasted >= FEW_PASTED or ready or not names.isdisjoint(SHIPPED)


def _names_and_numbers(code: types.CodeType) -> tuple[set[str], list[float]]:
    names, left, numbers = set(code.co_names), list(code.co_consts), []
    while left:
        const = left.pop()
        if isinstance(const, types.CodeType):
            names |= set(const.co_names)
            left += const.co_consts
        elif isinstance(const, tuple):
            left += const
        elif isinstance(const, float):
            numbers.append(const)
    return names, numbers


def _level_slip(got: Tensor, want: Tensor) -> str | None:
    ordered = got.sort().values
    if got.dtype != want.dtype and _same(ordered, want):
        return "those are the right levels; they come as float32"
    if not got.equal(ordered) and _same(ordered, want):
        return "those are the right levels; in ascending order"
    known = _named(ordered, _level_slips())
    if known is None and len(ordered) != 16:
        more = "" if 0 in ordered else ": zero is missing"
        if len(ordered.unique()) < len(ordered):
            more = ": one occurs twice, and zero belongs in once"
        return f"{len(ordered)} levels; four bits count 16{more}"
    return known


# --- 03.3 the constant of a block -------------------------------------------------------------


def _weights() -> list[tuple[Tensor, int]]:
    """Weights and blocks: short last blocks, a block of zeros, bfloat16, a view, one that fits."""
    torch.manual_seed(0)
    plain = torch.randn(10, 14) * torch.arange(1, 15)
    plain[0, 3], plain.view(-1)[16:24] = -60.0, 0.0
    plain.view(-1)[8:16] = -plain.view(-1)[8:16].abs() - 1
    plain.view(-1)[136:] /= 1000  # the short block at the end: whatever fills it up is larger
    return [
        (plain, 8),
        (torch.randn(6, 10, dtype=torch.bfloat16), 16),
        (torch.randn(12, 4).T, 12),
        (torch.randn(2, 64) - 1, 64),
    ]


def _absmax(weight: Tensor, block: int) -> Tensor:
    """By a plain loop over the values, in the order of their rows."""
    values = [float(x) for row in weight for x in row]
    starts = range(0, len(values), block)
    return torch.tensor([max(abs(x) for x in values[i : i + block]) for i in starts])


def _absmax_slips(weight: Tensor, block: int) -> list[tuple[Tensor, str]]:
    flat = weight.flatten().float()
    blocks, right = _rows(flat, block), _absmax(weight, block)

    def each(of: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([of(b) for b in blocks])

    full = torch.cat([flat, flat.new_zeros(-len(flat) % block)])
    by_row = torch.stack([b.abs().max() for row in weight.float() for b in _rows(row, block)])
    ones = torch.cat([right[:-1], right[-1:].clamp(min=1)])
    return [
        (full.view(block, -1).abs().amax(dim=0), "a block's values are neighbours: view(-1, block), not view(block, -1)"),
        (by_row, "a block may run on into the next row: flatten the weight first"),
        (torch.stack([b.abs().max() for b in flat.chunk(block)]), "`block` is how many values a block has, not how many blocks there are"),
        *([] if ones.equal(right) else [(ones, "what fills up the last block is larger than its own values: fill it up with zeros")]),
        (right.square(), "that is the square of the largest magnitude"),
        (each(torch.max), "the largest value is not the largest magnitude: take |w| first"),
        (each(torch.min), "the smallest value is not the largest magnitude: take |w| first"),
        (each(lambda b: b.max().abs()), "take |w| first, then the largest: a large negative value counts too"),
        (each(lambda b: b.max() - b.min()), "that is the range, max - min; NF4 is scaled by the largest magnitude"),
        (each(lambda b: (b.max() - b.min()) / 2), "that is half the range; NF4 is scaled by the largest magnitude"),
        (each(lambda b: b.std()), "that is the standard deviation; the largest magnitude maps the block onto -1 to 1"),
        (each(lambda b: b.std(correction=0)), "that is the standard deviation; the largest magnitude maps the block onto -1 to 1"),
        (each(lambda b: b.abs().mean()), "that is the mean magnitude; take the largest"),
        (each(torch.norm), "that is the length of the block as a vector; take its largest magnitude"),
        (flat.abs().max(), "that is the whole weight's; every block has its own"),
        (flat.abs().max()[None], "that is the whole weight's; every block has its own"),
        (flat.abs().max().expand(len(blocks)), "that is the whole weight's; every block has its own"),
        (weight.float().abs().amax(dim=1), "that is one a row; a block is a run of `block` values, whatever the rows"),
        (weight.float().abs().amax(dim=0), "that is one a column; a block is a run of `block` values along the rows"),
        (_absmax(weight.T, block), "the weight is read column by column; read it row by row"),
        (right[:, None], "one number a block, in one dimension: shape (blocks,)"),
        (right[: len(flat) // block], "the last block is not full, and its values are dropped: it has a constant too"),
        (_absmax(weight, 64), "use the argument `block`, not 64"),
        (torch.cat([b.abs().max().expand(len(b)) for b in blocks]), "one number a block, not one a value"),
    ]  # fmt: skip


def judge_block_absmax(answer: Callable[[Tensor, int], Tensor]) -> str | None:
    """one float32 a block, the largest magnitude; a short last block counts"""
    for weight, block in _weights():
        where = f"a weight {tuple(weight.shape)} in blocks of {block}"
        given = weight.clone()
        try:
            got = answer(given, block)
        except NotImplementedError:
            raise
        except RuntimeError as error:
            return f"{where}: {_shape_slip(str(error))}"
        if not given.equal(weight):
            return f"{where}: {CHANGED.format('the weight itself')}"
        if isinstance(got, tuple):
            return "`max` along a dimension gives values and places: take the values, or use amax"
        slip = tensor_slip(got, _absmax(weight, block), "the result")
        if slip:
            known = _named(got, _absmax_slips(weight, block)) or _dtype_slip(got)
            return f"{where}: {known or slip}"
    return None


def _shape_slip(error: str) -> str:
    if "view size is not compatible" in error:
        return "this weight is a view whose rows do not follow each other: use flatten or reshape"
    if "is invalid for input of size" in error:
        return "the last block is not full: fill it with zeros, which change no largest magnitude"
    return f"your code raised RuntimeError: {error.splitlines()[0][:120]}"


def _dtype_slip(got: Any) -> str | None:  # noqa: ANN401
    if isinstance(got, Tensor) and got.dtype in (torch.bfloat16, torch.float16):
        return "the constants are kept in float32, whatever the dtype of the weight"
    return None


# --- 03.4 the nearest level -------------------------------------------------------------------

TIE = torch.tensor([-1.0, -0.5, 0.0, 0.25, 1.0])  # its midpoints are exact in float32


def _searches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """(values, absmax, code): NF4 with blocks of zeros and of 1e-7, a square, 256 levels, ties."""
    torch.manual_seed(0)
    table = _scaled(_table(7, 8)).float()
    values = torch.randn(6, 10) * torch.tensor([1.0, 3, 0.01, 50, 1, 1e-7])[:, None]
    values[4] = 0
    square = torch.randn(4, 4) * torch.tensor([1.0, 20, 0.1, 3])[:, None]
    many = torch.linspace(-1, 1, 256) ** 3
    tied = torch.zeros(2, 6)  # the second block is one of zeros, whose level is not the seventh
    tied[0] = torch.tensor([-1.5, 0.25, 1.25, -0.5, -0.9, 2.0])  # halved: mostly midpoints of TIE
    cases = [(values, table), (square, table), (torch.randn(3, 40), many), (tied, TIE)]
    return [(v, v.abs().amax(dim=1), code) for v, code in cases]


def _codes(values: Tensor, absmax: Tensor, code: Tensor) -> Tensor:
    """By a plain loop in Python's double precision; of two equally near levels the lower one."""
    table = code.tolist()
    rows = []
    for row, top in zip(values.tolist(), absmax.tolist(), strict=True):
        scaled = [x / top if top else 0.0 for x in row]
        rows.append([min(range(len(table)), key=lambda i: abs(table[i] - x)) for x in scaled])
    return torch.tensor(rows, dtype=torch.uint8)


def _search_slips(values: Tensor, absmax: Tensor, code: Tensor) -> list[tuple[Tensor, str]]:
    scaled = values / absmax.clamp(min=1e-30)[:, None]
    n, right = len(code), _codes(values, absmax, code)
    middles = (code[1:] + code[:-1]) / 2

    def cut(x: Tensor, borders: Tensor = middles, right: bool = False) -> Tensor:
        return torch.bucketize(x, borders, right=right)

    def at(scale: Tensor) -> Tensor:
        return cut(values / scale[:, None])

    dead = absmax == 0
    far = (scaled[..., None] - code).abs().argmax(dim=-1)
    nf4_only = torch.bucketize(scaled, ((t := _scaled(_table(7, 8)).float())[1:] + t[:-1]) / 2)
    zeros = right.clone().long()
    little = "what is added to absmax, or put in place of a small one, moves values: only a block of zeros needs care"
    unfinished = "a block of zeros has absmax 0, and 0 / 0 is no number: give it the level zero"
    floor = "that is the level below; halfway between two levels the nearer one changes, so cut at the midpoints"
    return [
        (zeros.masked_fill(dead[:, None], n - 1) if dead.any() else zeros - 99, unfinished),
        (zeros.masked_fill(dead[:, None], 0) if dead.any() else zeros - 99, unfinished),
        (zeros.masked_fill(dead[:, None], 7) if dead.any() else zeros - 99, "7 is the place of zero in NF4 alone: 0 / 0 is the trouble, so divide the zeros by another number"),
        ((cut(scaled, code, True) - 1).clamp(0, n - 1), floor),
        (cut(scaled, code).clamp(0, n - 1) - 1, floor),
        ((cut(scaled, code) - 1).clamp(0, n - 1), floor),
        (cut(scaled, code).clamp(0, n - 1), "that is the level above; the nearer one may lie below, so cut at the midpoints"),
        (cut(values), "divide each block by its absmax first: the levels run from -1 to 1"),
        (cut(values * absmax[:, None]), "divide by absmax; multiplying is the way back"),
        (cut(values / absmax.max()), "that divides by the largest absmax of all; each block has its own"),
        (cut(values.abs() / absmax.clamp(min=1e-30)[:, None]), "the sign is lost: levels lie on both sides of zero"),
        ((scaled * 7).round() + 7, "rounding on an even grid is right for INT4 alone: look at the levels in `code`"),
        (((scaled + 1) / 2 * (n - 1)).round(), "rounding on an even grid is right for INT4 alone: look at the levels in `code`"),
        (cut(scaled, right=True), "a tie goes to the lower level, as in bitsandbytes"),
        (far, "that is the farthest level: argmin, not argmax"),
        (at(absmax.clamp(min=1)), "an absmax below 1 counts as well: only zero needs care"),
        *((at(absmax.clamp(min=bit)), little) for bit in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
        *((at(absmax + bit), little) for bit in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)),
        (nf4_only, "use the argument `code`: it need not be NF4"),
        (code[right.long()], "those are the levels; return their places in `code`"),
        (code[right.long()] * absmax[:, None], "those are the values on the way back; return the places in `code`"),
        (cut(values / values.std(dim=1, keepdim=True)), "that divides by the standard deviation; divide by absmax"),
        *([(cut(values / absmax), "a square block hides it: absmax belongs to the rows, so divide by absmax[:, None]")] if len(absmax) == values.shape[1] else []),
    ]  # fmt: skip


def judge_nearest(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str | None:
    """the nearest level of any code; ties go down, and a block of zeros stays zero"""
    for values, absmax, code in _searches():
        given = values.clone()
        try:
            got = answer(given, absmax.clone(), code.clone())
        except NotImplementedError:
            raise
        except RuntimeError as error:
            if "must match the size" not in str(error):
                raise
            return f"{tuple(values.shape)} values: absmax belongs to the rows, so absmax[:, None]"
        if not given.equal(values):
            return f"{tuple(values.shape)} values: {CHANGED.format('the values themselves')}"
        want = _codes(values, absmax, code)
        slip = tensor_slip(got, want, "the result", 0.0)
        if slip:
            known = _kind_slip(got, want) or _named(got, _search_slips(values, absmax, code))
            return f"{tuple(values.shape)} values, {len(code)} levels: {known or slip}"
    return None


def _kind_slip(got: Any, want: Tensor) -> str | None:  # noqa: ANN401
    if _same(got, want):
        return "a code fits in one byte: return uint8"
    if isinstance(got, Tensor) and _same(got, want.flatten()):
        return "keep the shape of `values`, (blocks, block)"
    return None


# --- 03.5 two codes a byte --------------------------------------------------------------------


def _packs() -> list[Tensor]:
    torch.manual_seed(0)
    mixed = torch.randint(0, 16, (11,))
    return [c.to(torch.uint8) for c in (torch.tensor([1, 14, 15, 0, 3, 9]), mixed, mixed[:1])]


def _packed(codes: Tensor, fill: int = 7, swapped: bool = False) -> Tensor:
    """By hand: two hexadecimal digits a byte."""
    digits = [f"{c:x}" for c in codes.tolist()] + [f"{fill:x}"] * (len(codes) % 2)
    pairs = zip(digits[::2], digits[1::2], strict=True)
    return torch.tensor([int(b + a if swapped else a + b, 16) for a, b in pairs], dtype=torch.uint8)


def _pack_slips(codes: Tensor) -> list[tuple[Tensor, str]]:
    c, odd = codes.long(), len(codes) % 2
    even = torch.cat([c, torch.full((odd,), 7)])
    a, b, half = even[::2], even[1::2], len(even) // 2
    zero = "an odd count is filled up by 7, the code of the level zero; "
    front = torch.cat([torch.full((odd,), 7), c])
    bracket = "`+` binds before `<<`: put the shift into brackets, or join with `|`"
    return [
        (_packed(codes, swapped=True), "the other way round: the first code of a pair goes into the high half of its byte"),
        (_packed(codes, swapped=True, fill=0), "the other way round: the first code of a pair goes into the high half of its byte"),
        (even[:half] << 4 | even[half:], "neighbours share a byte: codes 0 and 1, then 2 and 3"),
        (even[half:] << 4 | even[:half], "neighbours share a byte: codes 0 and 1, then 2 and 3"),
        (a + b, "the two codes run together: shift the first by four bits before you add"),
        (a | b, "the two codes run together: shift the first by four bits before you join them"),
        (a << 4, "the second code of each pair is lost"),
        (a << 4 & b, "`&` keeps the bits that both have, here none; join the halves with `|`"),
        (a * 10 + b, "ten is the base of our digits; a code has four bits, so its base is 16"),
        (a * 15 + b, "four bits count 16 codes, so the first one weighs 16, not 15"),
        (b, "the first code is lost: `<< 4` shifts it up; `>>` shifts down, and `<< 8` out of the byte"),
        ((a + b << 4) % 256, bracket),
        (even.to(torch.uint8)[::2] << 4 + even.to(torch.uint8)[1::2], bracket),
        (a << 8 | b, "a code has four bits: shift by 4, not by 8"),
        (a << 2 | b, "a code has four bits: shift by 4, not by 2"),
        *([(_packed(codes, fill=0), zero + "code 0 is the level -1"), (_packed(codes, fill=15), zero + "code 15 is the level 1"),
           (_packed(codes, fill=8), zero + "code 8 is the first level above"),
           (torch.cat([_packed(c[:-1]).long(), c[-1:]]), "the last code goes into the high half too, and 7 into the low half"),
           (front[::2] << 4 | front[1::2], "fill up at the end, not at the front"),
           (_packed(codes)[:-1], "with an odd count the last code is dropped; it needs a byte too")] if odd else []),
        *([] if odd else [(torch.cat([_packed(codes).long(), torch.tensor([0x77])]), "an even count needs no filling up")]),
        (c, "that is one code a byte; two fit"),
    ]  # fmt: skip


def judge_pack(answer: Callable[[Tensor], Tensor]) -> str | None:
    """neighbours share a byte, the first in its high half; an odd count is filled up"""
    for codes in _packs():
        try:
            got = answer(codes)
        except NotImplementedError:
            raise
        except RuntimeError as error:
            if len(codes) % 2 == 0 or "size" not in str(error):
                raise
            return f"{len(codes)} codes: with an odd count the last code has no neighbour: fill up with 7"
        slip = tensor_slip(got, _packed(codes), "the result", 0.0)
        if slip:
            known = _named(got, _pack_slips(codes))
            if known is None and _same(got, _packed(codes)):
                known = f"a packed pair fits in one byte: return uint8, not {got.dtype}"
            return f"{len(codes)} codes: {known or slip}"
    return None


# --- 03.6 the constants, quantised too --------------------------------------------------------


OWN_MEAN = "one mean for the whole weight, not one for each superblock"


def _constants() -> list[tuple[Tensor, Tensor, int]]:
    """(absmax, code, block): more than two superblocks of 256, and another size."""
    torch.manual_seed(0)
    many = torch.randn(600, 64).abs().amax(dim=1) * torch.linspace(0.5, 2, 600)
    for end in (slice(280, 300), slice(512, 600)):  # short superblocks, all near the mean
        many[end] = many[:300].mean() + (many[end] - many[end].mean()) / 50
    fine = torch.linspace(-1, 1, 255).pow(3)
    return [(many, fine, 256), (many[:300], torch.linspace(-1, 1, 33), 40)]


def _double(
    absmax: Tensor, code: Tensor, block: int, offset: Tensor | float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """By loops over superblocks and levels, with `offset` (the mean) taken off first."""
    mean = absmax.mean() if offset is None else torch.as_tensor(offset)
    rows = _rows(absmax - mean, block)
    second = torch.stack([row.abs().max() for row in rows])
    codes = [_codes(row[None], top[None], code)[0] for row, top in zip(rows, second, strict=True)]
    return torch.cat(codes), second, mean


def _double_slips(absmax: Tensor, code: Tensor, block: int) -> list[tuple[Any, str]]:
    mean, centred = absmax.mean(), absmax - absmax.mean()
    _, right, _ = codes = _double(absmax, code, block)
    plain = _double(absmax, code, block, 0.0)
    each = zip(*(_double(row, code, block) for row in _rows(absmax, block)), strict=True)
    each_codes, each_second, each_mean = each
    std = torch.stack([row.std() for row in _rows(centred, block)])
    by_64 = _double(absmax, code, 64)
    lowest = _double(absmax, code, block, absmax.min())
    median = _double(absmax, code, block, absmax.median())
    whole = centred.abs().max()
    uncentred = torch.cat(
        [
            _codes(row[None], top[None], code)[0]
            for row, top in zip(_rows(absmax, block), right, strict=True)
        ]
    )
    turned = _double(-absmax, code, block)
    by_bare = torch.cat(
        [
            _codes(row[None], top[None], code)[0]
            for row, top in zip(_rows(centred, block), plain[1], strict=True)
        ]
    )
    late = torch.cat([right[:-1], torch.maximum(right[-1:], mean[None])])  # zeros became -mean
    by_late = torch.cat(
        [
            _codes(row[None], top[None], code)[0]
            for row, top in zip(_rows(centred, block), late, strict=True)
        ]
    )
    short = absmax.new_zeros(-len(absmax) % block)
    filled = _double(torch.cat([absmax, short]), code, block)
    alone = _codes(centred[None], whole[None], code)[0]
    taken = "take the mean off first: every absmax is positive, so half of the signed levels would stay unused"
    return [
        (plain, taken),
        ((plain[0], plain[1], mean), f"the mean is returned, but it was not taken off; {taken}"),
        ((by_late, late, mean), "the zeros that fill up the last superblock became -mean, and are its largest: take the mean off first, then fill up"),
        ((by_bare, plain[1], mean), "the second constants are those of absmax minus its mean"),
        ((codes[0], plain[1], mean), "the second constants are those of absmax minus its mean"),
        ((torch.cat(each_codes), torch.cat(each_second), torch.stack(each_mean)), OWN_MEAN),
        ((torch.cat(each_codes), torch.cat(each_second), torch.stack(each_mean).mean()), OWN_MEAN),
        ((filled[0][: len(absmax)], *filled[1:]), "the zeros that fill up were counted in the mean: take the mean of absmax as it came"),
        (by_64, f"64 weights make a block; a superblock has `block` constants, here {block}"),
        (_double(absmax, code, 256), f"use the argument `block`, here {block}, not 256"),
        ((uncentred, right, mean), "the scales are right, but what is rounded is absmax minus its mean as well"),
        ((turned[0], right, mean), "that is the mean minus absmax; take the mean off absmax"),
        (lowest, "take off the mean, not the smallest: the code is signed"),
        (median, "take off the mean, not the median"),
        ((codes[0], right, -mean), "the offset is the mean itself: the way back adds it"),
        ((alone, whole.expand(len(right)), mean), f"one constant for all; every {block} of them share one of their own"),
        ((alone, whole[None], mean), f"one constant for all; every {block} of them share one of their own"),
        ((alone, whole, mean), f"one constant for all; every {block} of them share one of their own"),
        ((codes[0], std, mean), "the second level is scaled by its largest magnitude, not by its standard deviation"),
        ((right, codes[0], mean), "codes come first, then their constants, then the offset"),
        ((mean, codes[0], right), "codes come first, then their constants, then the offset"),
        ((codes[0][: len(absmax) // block * block], right[: len(absmax) // block], mean), "the last superblock is not full, and its constants are dropped"),
        ((codes[0].new_tensor(_padded(codes[0], centred, code, block)), right, mean), "the padding got codes as well: cut it off, one code for each constant"),
        ((code[codes[0].long()], right, mean), "those are the levels; keep their places in `code`"),
    ]  # fmt: skip


def _padded(codes: Tensor, centred: Tensor, code: Tensor, block: int) -> list[int]:
    zero = int(code.abs().argmin())
    return codes.tolist() + [zero] * (-len(centred) % block)


def judge_quantize_absmax(answer: Callable[..., Any]) -> str | None:
    """the mean off, then 8-bit codes with one constant a superblock"""
    for absmax, code, block in _constants():
        given, want = absmax.clone(), _double(absmax, code, block)
        got = answer(given, code.clone(), block)
        if got is None:
            return NONE
        if not isinstance(got, tuple) or len(got) != 3:
            return "return three things: the codes, their constants, the mean that was taken off"
        names = ("the tensor of codes", "the tensor of scales", "the offset")
        if not given.equal(absmax):
            return CHANGED.format("absmax itself")
        found = (tensor_slip(g, w, n, 1e-6) for g, w, n in zip(got, want, names, strict=True))
        slip = next((s for s in found if s), None)
        if slip:
            if all(_same(g, w) for g, w in zip(got, want, strict=True)):
                return slip  # the numbers are right, and their kind is not
            known = (
                told
                for wrong, told in _double_slips(absmax, code, block)
                if all(_same(g, w) for g, w in zip(got, wrong, strict=True))
            )
            return f"{len(absmax)} constants in superblocks of {block}: {next(known, None) or (OWN_MEAN if _many(got[2]) else slip)}"
    return None


def _many(offset: Any) -> bool:  # noqa: ANN401
    return isinstance(offset, Tensor) and offset.numel() > 1


# --- 03.7 every bit counted -------------------------------------------------------------------

BLOCKS = ((64, None), (64, 256), (20, None), (128, 64))


def _counted(block: int, superblock: int | None) -> float:
    """Bits a weight, from the bytes of a weight that fills its superblocks exactly."""
    n = block * (superblock or 1) * 2
    codes, blocks = n // 2, n // block
    constants = 4 * blocks if superblock is None else blocks + 4 * (blocks // superblock)
    return 8 * (codes + constants) / n


def _bits_slips(block: int, superblock: int | None) -> list[tuple[float, str]]:
    right, once = _counted(block, superblock), _counted(block, None)
    s = superblock or 256
    fixed = "use the arguments, not 64 and 256"
    at_32 = "a constant of float32 has 32 bits, not 16"
    doubled = [
        (once, "with a superblock the constants take 8 bits each, and no longer 32"),
        (4 + 24 / block, "8 bits replace the 32; they do not come off them"),
        (4 + 8 / block + 32 / (block * s) + 32 / s, f"the second constants are counted twice, once for {s} weights"),
        (4 + (8 + 32 / s) * block, "a block shares its constant: divide by the block, do not multiply"),
        (4 + 8 / block, f"the second constants are left out: 32 bits for every {s} blocks"),
        (4 + 8 / block + 32 / s, f"a second constant serves {s} blocks of {block} weights, not {s} weights"),
        (4 + 32 / (block * s), "the 8-bit codes of the constants are left out"),
        (once + right - 4, "the float32 constants are gone once their 8-bit codes are there"),
        (4 + 8 / block + 16 / (block * s), at_32),
        (once - 0.4, "0.4 is a rounded saving: count the codes and constants"),
        (once - 0.37 * 8, "that takes 0.37 for bytes; it is bits, and there are only 4.5 of them"),
        (once - 0.37, "0.37 is a rounded saving: count the codes and constants"),
        (4 + 8 / block + 32 / block / block, "the superblock is an argument of its own"),
        (4 + 8 / block + 32 / (block * 256), "the superblock is an argument of its own"),
    ]  # fmt: skip
    share = 32 / block
    plain = [
        (4 + share + 32 / (block * 256), "without a superblock there are no second constants"),
        *((round(right, digits), "that is rounded; return the number itself") for digits in (1, 2, 3, 4)),
    ]  # fmt: skip
    return [
        *([] if superblock else plain[:1]),
        (4.0, "the block's constant is left out: 32 bits, shared by its weights"),
        *(doubled if superblock else []),
        (right - 4, "that is the constants' share alone; add the 4 bits of the code"),
        (right / 8, "that is in bytes; count bits"),
        (4 + 4 / block, "4 bytes are 32 bits: count bits throughout"),
        (4 + 16 / block, at_32),
        (4 + 32.0, "the block shares its constant: divide by the block"),
        (4 + block / 32, "the share is 32 / block, the other way round"),
        (16 / right, "that is the factor against 16 bits; return the bits"),
        (4.5, fixed),
        (_counted(64, 256), fixed),
        *plain[1:],
    ]  # fmt: skip


def judge_bits_per_weight(answer: Callable[..., float]) -> str | None:
    """the code, its share of the constant, and the constant's own constant"""
    for block, superblock in BLOCKS:
        got, want = answer(block, superblock), _counted(block, superblock)
        if got is None:
            return NONE
        if isinstance(got, bool) or not isinstance(got, (int, float)):
            return f"return a number, not {type(got).__name__}"
        if not math.isclose(got, want, rel_tol=1e-9):
            slips = _bits_slips(block, superblock)
            near = (told for wrong, told in slips if math.isclose(got, wrong, rel_tol=1e-9))
            last = f"{got:.4f} bits is not what the bytes come to, {want:.4f}"
            return f"block {block}, superblock {superblock}: {next(near, last)}"
    return None


# --- 03.8 a product whose weight stays packed -------------------------------------------------

OUT, IN = 6, 10
KEPT_W = "the decoded weight is kept until the backward pass: keep the codes, decode again"


def _frozen(out: int = OUT, into: int = IN) -> nf4.Quantized:
    torch.manual_seed(0)
    return nf4.quantize(torch.randn(out, into))


def judge_nf4_product(answer: Any) -> str | None:  # noqa: ANN401
    """right forward and backward, and nothing dense kept between them"""
    cases = (
        ((3, 4, IN), torch.float32, (OUT, IN), False),
        ((5, 8), torch.float32, (8, 8), True),  # square: a forgotten transpose still fits
        ((2, IN), torch.bfloat16, (OUT, IN), True),
    )
    for shape, dtype, size, biased in cases:
        q, x = _frozen(*size), torch.randn(shape, dtype=dtype, requires_grad=True)
        slip = _product_slip(answer, q, x, torch.randn(size[0], dtype=dtype) if biased else None)
        if slip:
            bias = "" if biased else ", without a bias"
            return f"x {shape} in {str(dtype).removeprefix('torch.')}{bias}: {slip}"
    return None


def _product_slip(answer: Any, q: nf4.Quantized, x: Tensor, bias: Tensor | None) -> str | None:  # noqa: ANN401
    W = nf4.dequantize(q, x.dtype)
    if not hasattr(answer, "apply"):
        return "write a class that inherits from torch.autograd.Function: it is called by apply"
    decoded: list[weakref.ref[Tensor]] = []
    try:
        with _decoding_watched(answer, decoded):
            y = answer.apply(x, q, bias)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        return _multiplied_slip(error, "forward")
    except TypeError as error:
        if bias is None and "unsupported operand" in str(error) and "NoneType" in str(error):
            return "a bias that is None cannot be added: F.linear takes it as it is"
        raise
    product = torch.einsum("...i,oi->...o", x.detach(), W)
    near = 1e-5 if x.dtype == torch.float32 else 2e-2
    slip = tensor_slip(y, product if bias is None else product + bias, "the output", near)
    if slip:
        return _forward_slip(y, x.detach(), W, product) or slip
    if y.grad_fn is None:
        return "no gradient can flow back: let autograd see x"
    if not isinstance(y.grad_fn, torch.autograd.function.BackwardCFunction):
        return (
            "autograd wrote this backward, and keeps W for it: inherit from torch.autograd.Function"
        )
    if any(one() is not None for one in decoded):
        return KEPT_W
    return _kept_slip(y.grad_fn, x, W) or _back_slip(y, x, W, near)


@contextlib.contextmanager
def _decoding_watched(answer: Any, decoded: list[weakref.ref[Tensor]]) -> Iterator[None]:  # noqa: ANN401
    """What the learner's `dequantize` gives is followed: a global or a closure may keep it too."""

    dequantize = nf4.dequantize  # `there` may be that module itself

    def watched(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        W = dequantize(*args, **kwargs)
        decoded.append(weakref.ref(W))
        return W

    there = getattr(getattr(answer, "forward", None), "__globals__", {})
    if there.get("dequantize") is not dequantize:
        yield
        return
    there["dequantize"] = watched
    try:
        yield
    finally:
        there["dequantize"] = dequantize


def _forward_slip(y: Any, x: Tensor, W: Tensor, product: Tensor) -> str | None:  # noqa: ANN401
    if _same(y, product):
        return "the bias is left out: add it where there is one"
    if W.shape[0] == W.shape[1] and isinstance(y, Tensor) and y.shape == product.shape:
        bias = y.detach() - x @ W  # the same row everywhere, if W was not turned
        if torch.allclose(bias, bias[0].expand_as(bias), atol=1e-4):
            return "forward multiplies by W; the output is x @ W.T"
    return None


def _multiplied_slip(error: RuntimeError, where: str) -> str:
    said = str(error).splitlines()[0]
    if "Boolean value of Tensor" in said:
        return "a tensor of several numbers is neither true nor false: ask `bias is None`"
    if "same dtype" in said:
        return f"{where} multiplies two dtypes: decode in that of the other factor: dequantize takes a dtype"
    if "shapes cannot be multiplied" in said or "Expected size for first two" in said:
        right = {
            "forward": "x @ W.T, since W is (out, in)",
            "backward": "grad @ W, from (..., out) to (..., in)",
        }
        return f"{where} does not fit: {right[where]}"
    return f"{where} raised RuntimeError: {said[:150]}"


def _tensors(kept: Any) -> list[Tensor]:  # noqa: ANN401
    """Every tensor in what a node keeps, inside tuples, lists and dictionaries too."""
    if isinstance(kept, Tensor):
        return [kept]
    if isinstance(kept, dict):
        kept = tuple(kept.values())
    return [t for part in kept for t in _tensors(part)] if isinstance(kept, (tuple, list)) else []


def _kept_slip(node: Any, x: Tensor, W: Tensor) -> str | None:  # noqa: ANN401
    """What the node keeps besides the codes, while it waits for the backward pass."""
    kept = [*_tensors(node.saved_tensors), *_tensors(vars(node))]
    if any(t.is_floating_point() and t.shape in (W.shape, W.T.shape) for t in kept):
        return KEPT_W
    if any(t.is_floating_point() and t.shape == x.shape for t in kept):
        return "x is kept until the backward pass; a frozen weight's gradient is not needed, so x is not"
    return None


def _back_slip(y: Tensor, x: Tensor, W: Tensor, near: float) -> str | None:
    grad = torch.randn(y.shape).to(y.dtype)
    try:
        y.backward(grad)
    except NotImplementedError:
        raise
    except RuntimeError as error:
        said = str(error)
        if "incorrect number of gradients" in said:
            return (
                "backward returns one value for each input of forward: x's gradient, and None twice"
            )
        if "different than None" in said:
            return "q and the bias are frozen: None for both, behind the gradient of x"
        if "invalid gradient" in said:
            return "the gradient of x must have x's shape: grad @ W, from (..., out) to (..., in)"
        return _multiplied_slip(error, "backward")
    if x.grad is None:
        return "no gradient reaches x: the first thing that backward returns is x's"
    want = torch.einsum("...o,oi->...i", grad, W)
    slip = tensor_slip(x.grad, want, "the gradient of x", near)
    if slip is None:
        return None
    named = [
        (torch.zeros_like(want), "the gradient is zero: W is frozen, x is not"),
        (torch.ones_like(grad) @ W, "`grad` is not used: what comes from above is multiplied in"),
        (-want, "the sign is wrong: no minus belongs here"),
    ]
    if W.shape[0] == W.shape[1]:
        again = "backward multiplies by W.T again: forward did that, so the way back is grad @ W"
        named += [(grad @ W.T, again), (grad, "W is missing in the way back: grad @ W")]
    return _named(x.grad, named) or slip
