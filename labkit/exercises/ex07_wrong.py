"""The banks of notebook 07: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, code)."""
    return tuple(Wrong(name, code, message) for name, message, code in rows)


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return _bank(*((name, message, f"{head}\n    return {code}") for name, message, code in rows))


def _scales(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, scale), each put into the layer."""
    body = (
        "def f(layer):\n    r, a = layer.rank, layer.alpha\n    layer.scale = {}\n    return layer"
    )
    return _bank(*((name, message, body.format(code)) for name, message, code in rows))


RSLORA = (
    *_scales(
        ("LoRA's own", "that is LoRA's own scale", "a / r"),
        ("alpha = 2 rank on top", "alpha = 2 rank on top", "2 * r / math.sqrt(r)"),
        ("alpha = rank on top", "alpha = rank on top", "r / math.sqrt(r)"),
        ("divides again", "divided twice", "layer.scale / math.sqrt(r)"),
        ("root over all", "the root is that of the rank alone", "math.sqrt(a / r)"),
        ("root of alpha", "not that of alpha", "math.sqrt(a) / r"),
        ("multiplies", "that multiplies by the root", "a * math.sqrt(r)"),
        ("alpha alone", "nothing is divided", "a"),
        ("no alpha", "alpha is missing", "1 / math.sqrt(r)"),
        ("square", "the square of the rank", "a / r**2"),
        ("upside down", "upside down", "math.sqrt(r) / a"),
        ("logarithm", "a logarithm of the rank", "a / math.log2(r)"),
    ),
    *_bank(
        ("returns nothing", "is a `return` missing", "def f(layer):\n    layer.scale = layer.alpha / math.sqrt(layer.rank)"),
        ("returns the scale", "return the layer", "def f(layer):\n    return layer.alpha / math.sqrt(layer.rank)"),
        ("overwrites alpha", "alpha and rank stay", "def f(layer):\n    layer.alpha = layer.alpha * math.sqrt(layer.rank)\n    layer.scale = layer.alpha / layer.rank\n    return layer"),
        ("scales B", "A and B stay as they are", "def f(layer):\n    layer.B.data *= math.sqrt(layer.rank)\n    return layer"),
        ("another layer", "that is another layer", "def f(layer):\n    import copy\n    layer = copy.deepcopy(layer)\n    layer.scale = layer.alpha / math.sqrt(layer.rank)\n    return layer"),
        ("a tensor", "the scale is a number", "def f(layer):\n    layer.scale = layer.alpha / torch.tensor(float(layer.rank)).sqrt()\n    return layer"),
    ),
)  # fmt: skip

_GROUPS = (
    "def f(model, lr, ratio=16.0):\n"
    "    layers = list(adapted(model).values())\n"
    "    A, B = [l.A for l in layers], [l.B for l in layers]\n"
    "    pair = lambda a, b: [{'params': A, 'lr': a}, {'params': B, 'lr': b}]"
)
LORA_PLUS = _expressions(
    _GROUPS,
    ("higher rate for A", "the other way round", "pair(ratio * lr, lr)"),
    ("lowers A", "A's is not divided", "pair(lr / ratio, lr)"),
    ("slows B", "that makes B slower", "pair(lr, lr / ratio)"),
    ("one rate", "both have the same rate", "pair(lr, lr)"),
    ("raises both", "both are raised", "pair(ratio * lr, ratio * lr)"),
    ("adds", "it is not added", "pair(lr, lr + ratio)"),
    ("ratio as rate", "the ratio is no rate", "pair(lr, ratio)"),
    ("lr in the middle", "not the middle of both", "pair(lr / ratio**0.5, lr * ratio**0.5)"),
    ("B has no rate", "has no rate of its own", "[{'params': A, 'lr': lr}, {'params': B}]"),
    ("B alone", "no group holds every A", "[{'params': B, 'lr': ratio * lr}]"),
    ("A alone", "no group holds every B", "[{'params': A, 'lr': lr}]"),
    ("frozen weights too", "frozen weights are in a group", "[{'params': [*A, *(l.base.weight for l in layers)], 'lr': lr}, {'params': B, 'lr': ratio * lr}]"),
    ("parameters alone", "return a list of groups", "[*A, *B]"),
    ("a dict", 'each {"params": [...]', "{'A': lr, 'B': ratio * lr}"),
    ("refuses no ratio", "a ratio below 1 passes", "pair(lr, ratio * lr)"),
    ("returns nothing", "is a `return` missing", "None"),
    ("B first", "the groups change places", "pair(lr, ratio * lr)[::-1]"),
    ("a group a layer", "that is 4 groups", "[{'params': [p], 'lr': r} for l in layers for p, r in ((l.A, lr), (l.B, ratio * lr))]"),
    ("by shape", "the layers differ", "[{'params': [p for p in A + B if p.shape[0] < p.shape[1]], 'lr': lr}, {'params': [p for p in A + B if p.shape[0] >= p.shape[1]], 'lr': ratio * lr}]"),
)  # fmt: skip
LORA_PLUS += _bank(
    (
        "by a letter of the name",
        "appear in more than one parameter group",
        _GROUPS
        + "\n    named = [*model.named_parameters()]\n    A = [p for n, p in named if 'A' in n]\n"
        "    B = [p for n, p in named if 'B' in n]\n    return pair(lr, ratio * lr)",
    ),
    (
        "refuses a ratio of 1",
        "a ratio of 1 is refused",
        _GROUPS + "\n    if ratio <= 1 or not layers:\n        raise ValueError('ratio')\n"
        "    return pair(lr, ratio * lr)",
    ),
    (
        "refuses a ratio of zero alone",
        "a ratio of 0.99 passes",
        _GROUPS + "\n    if ratio < 0.9 or not layers:\n        raise ValueError('ratio')\n"
        "    return pair(lr, ratio * lr)",
    ),
    (
        "another ratio unless told",
        "for lr=0.02 and ratio=16",
        _GROUPS.replace("16.0", "8.0") + "\n    return pair(lr, ratio * lr)",
    ),
    (
        "refuses no model",
        "a model without adapters passes",
        _GROUPS
        + "\n    if ratio < 1:\n        raise ValueError('ratio')\n    return pair(lr, ratio * lr)",
    ),
)

PRINCIPAL = _expressions(
    "def f(W, rank, scale):\n"
    "    U, S, Vh = torch.linalg.svd(W, full_matrices=False)\n"
    "    u, s, v = U[:, :rank], S[:rank], Vh[:rank]\n"
    "    root = (s / scale).sqrt()\n"
    "    A, B = root[:, None] * v, u * root\n"
    "    made = lambda A, B: (A, B, W - scale * B @ A)\n"
    "    whole = s.sqrt()",
    ("base unchanged", "the rest still holds these directions", "A, B, W"),
    ("rest without scale", "and the scale is missing", "A, B, W - B @ A"),
    ("adds again", "they are added once more", "A, B, W + scale * B @ A"),
    ("returns the update", "that is what A and B hold", "A, B, scale * B @ A"),
    ("no rest", "A and B do not hold all of W", "A, B, torch.zeros_like(W)"),
    ("rest turned", "the sign of the rest is turned", "A, B, scale * B @ A - W"),
    ("scale left in", "`scale` times too large", "made(whole[:, None] * v, u * whole)"),
    ("scale in both", "taken out of both factors whole", "made(whole[:, None] * v / scale, u * whole / scale)"),
    ("weakest", "those are the weakest directions", "made((S[-rank:] / scale).sqrt()[:, None] * Vh[-rank:], U[:, -rank:] * (S[-rank:] / scale).sqrt())"),
    ("no lengths", "the lengths S are missing", "made(v, u)"),
    ("S in both", "whole in both it is squared", "made(s[:, None] * v / scale, u * s / scale)"),
    ("root in one", "one factor took the root", "made(root[:, None] * v, u)"),
    ("S in B alone", "the product is right, the shares are not", "made(v, u * s / scale)"),
    ("Vh not transposed", "torch.linalg.svd returns the transpose", "made(root[:, None] * Vh[:, :rank].T, B)"),
    ("LoRA's start", "scale * B A is zero, LoRA's start", "made(torch.randn_like(A), torch.zeros_like(B))"),
    ("sign turned", "the sign is turned", "made(-A, B)"),
    ("A as (in, rank)", "A has shape", "A.T, B, W - scale * B @ A"),
    ("factors alone", "return three tensors: A, B, rest", "A, B"),
    ("rest in place", "W itself was changed", "A, B, W.sub_(scale * B @ A)"),
    ("always float64", "it must be that of W", "A.double(), B.double(), (W - scale * B @ A).double()"),
)  # fmt: skip

_TURNS = (
    "def f(W, rounded, rank, scale, steps=1):\n"
    "    low = torch.zeros_like(W)\n"
    "    for _ in range({count}):\n"
    "        base = {base}\n"
    "        A, B, rest = principal({lost}, rank, {given})\n"
    "        low = {low}\n"
    "    return {result}"
)
_USUAL = {
    "count": "steps", "base": "rounded(W - low)", "lost": "W - base", "given": "scale",
    "low": "scale * B @ A", "result": "A, B, base",
}  # fmt: skip


def _turns(*rows: tuple[str, str, dict[str, str]]) -> tuple[Wrong, ...]:
    """Rows of (name, message, what differs from the right answer)."""
    return _bank(*((name, told, _TURNS.format(**_USUAL | other)) for name, told, other in rows))


ALTERNATE = _turns(
    ("rounds W each time", "that is one turn", {"base": "rounded(W)"}),
    ("one turn too few", "that is 2 turns", {"count": "max(1, steps - 1)"}),
    ("one turn too many", "that is 4 turns", {"count": "steps + 1"}),
    ("base not rounded", "the base is not rounded", {"result": "A, B, W - low"}),
    ("base is W", "the base is W itself", {"result": "A, B, W"}),
    ("rounded once more", "rounded once more after the last pair", {"result": "A, B, rounded(W - low)"}),
    ("pair for what was rounded", "not for what was rounded", {"lost": "W - low - base"}),
    ("scale missing in low", "low is scale * B A", {"low": "B @ A"}),
    ("scale left in", "`scale` times too large", {"given": "1.0", "low": "B @ A"}),
    ("subtracts the pair", "the pair is subtracted", {"result": "-A, B, base"}),
    ("pair for W", "not for W", {"lost": "W", "base": "rounded(W)"}),
    ("no pair", "that is plain rounding", {"result": "A, 0 * B, rounded(W)"}),
    ("two tensors", "return three tensors: A, B, base", {"result": "A, B"}),
    ("base in place", "W was written into", {"result": "A, B, W.copy_(base)"}),
    ("in float32", "it must be that of W", {"result": "A.float(), B.float(), base.float()"}),
)  # fmt: skip
ALTERNATE += _bank(
    (
        "five turns unless told",
        "turns instead of 1",
        _TURNS.format(**_USUAL).replace("steps=1", "steps=5"),
    ),
    (
        "starts as PiSSA",
        "that starts from W itself, as PiSSA does",
        "def f(W, rounded, rank, scale, steps=1):\n"
        "    A, B, rest = principal(W, rank, scale)\n"
        "    return A, B, rounded(rest)",
    ),
)

WEAKEST = _expressions(
    "def f(scores, budget):\n"
    "    flat = torch.cat(scores)\n"
    "    order, n = flat.sort(descending=True).values, len(flat)\n"
    "    least = order[budget - 1]\n"
    "    share = budget // len(scores)\n"
    "    first = lambda s, k: s.argsort(descending=True).argsort() < k",
    ("marks those that stay", "that marks those that stay", "[s >= least for s in scores]"),
    ("switches off the strongest", "the strongest are switched off", "[s > order[n - budget] for s in scores]"),
    ("budget of those that go", "`budget` is how many stay", "[s < order[n - budget - 1] for s in scores]"),
    ("each layer alike", "that is one rank for all", "[~first(s, share) for s in scores]"),
    ("one too many", "one too many stays", "[s < order[min(budget, n - 1)] for s in scores]"),
    ("one too few", "one too few stays", "[s <= least for s in scores]"),
    ("one in every layer", "a layer may lose all its triplets", "[(s < least) & (s < s.max()) if (s < least).all() else s <= (order[budget] if budget < n else -1) for s in scores]"),
    ("mean", "not by the mean score", "[s <= flat.mean() for s in scores]"),
    ("median of a layer", "not by each layer's median", "[s <= s.median() for s in scores]"),
    ("shares of a layer", "not as shares of their layer", "[s / s.sum() < torch.cat([t / t.sum() for t in scores]).sort(descending=True).values[budget - 1] for s in scores]"),
    ("by place", "that goes by place", "[torch.arange(len(s)) >= share for s in scores]"),
    ("nothing at the full budget", "the budget holds all of them", "[s <= order[min(budget, n - 1)] for s in scores]"),
    ("places", "numbers or places of triplets are none", "[(s < least).nonzero().flatten() for s in scores]"),
    ("one mask", "return a list of 3 masks", "flat < least"),
    ("zeroes the scores", "the scores were written into", "[(s < least, s.masked_fill_(s < least, 0))[0] for s in scores]"),
    ("returns nothing", "is a `return` missing", "None"),
)  # fmt: skip

SHARED_UPDATE = _expressions(
    "def f(x, A, B, b, d):\n"
    "    i, o, r = x.shape[-1], len(b), len(d)\n"
    "    P, Q = A.to(x.dtype), B.to(x.dtype)\n"
    "    b, d = b.to(x.dtype), d.to(x.dtype)\n"
    "    a, w = P[:, :i], Q[:o]\n"
    "    lin = F.linear",
    ("no d", "d is missing", "b * lin(lin(x, a), w)"),
    ("no b", "b is missing", "lin(d * lin(x, a), w)"),
    ("neither", "b and d are missing", "lin(lin(x, a), w)"),
    ("d twice", "d comes once", "b * lin(d * d * lin(x, a), w)"),
    ("b twice", "b comes once", "b * b * lin(d * lin(x, a), w)"),
    ("b as a bias too", "b is no bias", "b * lin(d * lin(x, a), w) + b"),
    ("scaled by rank", "VeRA has no scale", "b * lin(d * lin(x, a), w) / r"),
    ("exchanged", "b and d are exchanged", "d * lin(b * lin(x, a), w)"),
    ("no slices", "on a map smaller than the pair", "b * lin(d * lin(x, P), Q)"),
    ("last rows", "the first `out` rows of B serve", "b * lin(d * lin(x, a), Q[-o:])"),
    ("last columns", "the first `in` columns of A serve", "b * lin(d * lin(x, P[:, -i:]), w)"),
    ("B transposed", "B is (out, rank)", "b * (d * lin(x, a) @ Q[:o])"),
    ("A transposed", "A is (rank, in)", "b * lin(d * (x @ P[:, :i]), w)"),
    ("an activation", "there is no activation", "b * lin(torch.relu(d * lin(x, a)), w)"),
    ("no cast", "it fails on x in another dtype", "b * lin(d * lin(x, A[:, :i]), B[:o])"),
    ("with x", "the update alone is asked", "x + b * lin(d * lin(x, a), w)"),
    ("squeezed", "the update has shape", "(b * lin(d * lin(x, a), w)).squeeze()"),
    ("detached", "no gradient passes", "(b * lin(d * lin(x, a), w)).detach()"),
    ("vectors detached", "no gradient reaches b", "b.detach() * lin(d.detach() * lin(x, a), w)"),
    ("x detached", "no gradient reaches x", "b * lin(d * lin(x.detach(), a), w)"),
    ("b put into the pair", "an input was written into", "lin(d * lin(x, a), B.data[:o].mul_(b[:, None]).to(x.dtype))"),
    ("trains the pair", "A and B are set to train", "b * lin(d * lin(x, A.requires_grad_()[:, :i].to(x.dtype)), w)"),
)  # fmt: skip
