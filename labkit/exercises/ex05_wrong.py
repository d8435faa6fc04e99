"""The banks of notebook 05: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, code)."""
    return tuple(Wrong(name, code, message) for name, message, code in rows)


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return _bank(*((name, message, f"{head}\n    return {code}") for name, message, code in rows))


DECOMPOSE = _expressions(
    "def f(W):\n    m = W.norm(dim=1)",
    ("wrong axis", "that is one number for each input", "W.norm(dim=0), W / W.norm(dim=0)"),
    ("whole matrix", "that is the length of the whole matrix; each row has one", "W.norm(), W / W.norm()"),
    ("no root", "the length is the root of the sum of squares", "m**2, W / m[:, None]**2"),
    ("mean square", "root of the MEAN square", "W.square().mean(1).sqrt(), W / W.square().mean(1).sqrt()[:, None]"),
    ("absolute values", "adds absolute values (L1)", "W.abs().sum(1), W / W.abs().sum(1)[:, None]"),
    ("largest entry", "the largest entry of each row", "W.abs().amax(1), W / W.abs().amax(1)[:, None]"),
    ("sum", "square them first", "W.sum(1), W / W.sum(1)[:, None]"),
    ("keepdim", "the magnitude has shape (out,)", "m[:, None], W / m[:, None]"),
    ("magnitude of ones", "a magnitude of one forgets the lengths", "torch.ones(len(W)), W / m[:, None]"),
    ("no division", "the direction still has its lengths", "m, W"),
    ("divides twice", "divided twice", "m, W / m[:, None] ** 2"),
    ("multiplies", "that multiplies", "m, W * m[:, None]"),
    ("columns of length one", "not the columns", "m, W / W.norm(dim=0)"),
    ("divides by the matrix", "not by that of the matrix", "m, W / W.norm()"),
    ("lines up with the inputs", "m[:, None] lines up with the rows", "m, W / m"),
    ("transposed direction", "the direction is (out, in), as the weight", "m, (W / m[:, None]).T"),
    ("other way round", "first the magnitude, then the direction", "W / m[:, None], m"),
    ("magnitude alone", "return two tensors", "m"),
)  # fmt: skip

DENSE_FORWARD = _expressions(
    "def f(x, W, A, B, m, s):\n"
    "    T, D, c = W + s * B @ A, B @ A, m[:, None]\n"
    "    n = lambda M: M.norm(dim=1, keepdim=True)\n"
    "    y = x @ T.T",
    ("wrong axis", "the norm is taken over the wrong axis", "x @ (c * T / T.norm(dim=0, keepdim=True)).T"),
    ("norm of W alone", "the norm is that of W alone", "x @ (c * T / n(W)).T"),
    ("no scale in the norm", "the scale is missing inside the norm", "x @ (c * T / n(W + D)).T"),
    ("no scale", "the scale is missing: the update is", "x @ (c * (W + D) / n(W + D)).T"),
    ("scale in the norm alone", "in the norm but not in the weight", "x @ (c * (W + D) / n(T)).T"),
    ("update outside", "the update stays outside", "x @ (c * W / n(W) + s * D).T"),
    ("normalises the update", "the update is normalised by itself", "x @ (c * (W + s * D / n(D))).T"),
    ("whole matrix", "divides by the length of the whole matrix", "x @ (c * T / T.norm()).T"),
    ("no root", "divides by the square of the length", "x @ (c * T / n(T) ** 2).T"),
    ("no norm", "divide by the norm before the magnitude", "x @ (c * T).T"),
    ("no magnitude", "the magnitude is missing", "x @ (T / n(T)).T"),
    ("makes the magnitude anew", "use the magnitude that is given", "x @ (n(W) * T / n(T)).T"),
    ("stretches the update alone", "the magnitude stretches the update alone", "x @ (W + c * D / n(D)).T"),
    ("lines up with the inputs", "m[:, None] lines up with the rows", "x @ (m * T / T.norm(dim=1)).T"),
    ("no transpose", "x meets the transpose", "x @ (c * T / n(T))"),
    ("scale squared", "the scale comes once", "x @ (c * (W + s * s * D) / n(W + s * s * D)).T"),
    ("scale by rank again", "divided by the rank already", "x @ (c * (W + s / len(A) * D) / n(W + s / len(A) * D)).T"),
    ("magnitude squared", "the magnitude multiplies once", "x @ (c * c * T / n(T)).T"),
    ("subtracts", "the update is added", "x @ (c * (W - s * D) / n(W - s * D)).T"),
    ("lengths only", "B and A are missing", "x @ (c * W / n(W)).T"),
    ("adds the magnitude", "it is not added", "x @ (c + T / n(T)).T"),
    ("LoRA", "that is LoRA", "y"),
    ("W twice", "the frozen map is counted twice", "x @ W.T + x @ (c * T / n(T)).T"),
    ("normalises the output", "that normalises the output; DoRA", "m * y / y.norm(dim=-1, keepdim=True)"),
    ("normalises the update's output", "the output of the update", "x @ W.T + m * (x @ D.T) / (x @ D.T).norm(dim=-1, keepdim=True)"),
)  # fmt: skip

_MOVED = (
    "def f(build):\n"
    "    torch.manual_seed(0)\n"
    "    lora, x = LoRALinear(nn.Linear({into}, {out}, bias={bias}), rank={rank}, alpha={alpha}), torch.randn(7, {into})\n"
    "    layer, base = build(lora), lora.base\n"
    "    {move}\n"
    "    W = base.weight\n"
    "    want = dense_forward(x, W, lora.A, lora.B, {lengths}, lora.scale) + (base.bias if {bias} else 0)\n"
    "    return {verdict}"
)
_USUAL = {
    "into": 5, "out": 3, "bias": True, "rank": 2, "alpha": 3.0, "move": "nn.init.normal_(lora.B)",
    "lengths": "W.norm(dim=1)", "verdict": "torch.allclose(layer(x), want, atol=1e-5)",
}  # fmt: skip


def _checks(*rows: tuple[str, str, dict[str, object]]) -> tuple[Wrong, ...]:
    """Rows of (name, message, what differs from a right check)."""
    return _bank(*((name, told, _MOVED.format(**_USUAL | other)) for name, told, other in rows))


IS_DORA = _checks(
    ("at B = 0", "at B = 0 it equals its base", {"move": "pass"}),
    ("compares with LoRA", "it refuses the library's own", {"verdict": "torch.allclose(layer(x), lora(x), atol=1e-5)"}),
    ("alpha = rank", "choose alpha other than rank", {"alpha": 2.0}),
    ("rank 1", "choose rank at least 2", {"rank": 1}),
    ("no bias", "give the base a bias", {"bias": False}),
    ("one output", "give the base several outputs", {"out": 1}),
    ("first output only", "look at every output", {"verdict": "torch.allclose(layer(x)[:, 0], want[:, 0], atol=1e-5)"}),
    ("forgets the bias", "the bias added", {"verdict": "torch.allclose(layer(x), want - base.bias, atol=1e-5)"}),
    ("lengths of the sum", "m the row lengths of W", {"lengths": "(W + lora.delta()).norm(dim=1)"}),
    ("no tolerance", "a tolerance for rounding", {"verdict": "torch.equal(layer(x), want)"}),
    ("says yes to all", "it lets a layer pass", {"verdict": "layer(x).shape == want.shape"}),
    ("wide tolerance", "the tolerance is for rounding alone", {"verdict": "torch.allclose(layer(x), want, atol=1.0)"}),
    ("lengths alone", "lengths alone fit it, too", {"verdict": "torch.allclose((layer(torch.eye(5)) - layer(torch.zeros(1, 5))).norm(dim=0), W.norm(dim=1), atol=1e-5)"}),
    ("returns a tensor", "return True or False", {"verdict": "(layer(x) - want).abs().max() < 1e-5"}),
    ("returns nothing", "is a `return` missing", {"verdict": "None"}),
)  # fmt: skip

DETACHED_WEIGHT = _expressions(
    "def f(T, m):\n    n, c = T.norm(dim=1, keepdim=True), m[:, None]",
    ("no detach", "still flows through the norm", "c * T / n"),
    ("detaches the gain", "it was detached too", "(c / n).detach() * T"),
    ("detaches the magnitude too", "the magnitude cannot learn", "c.detach() * T / n.detach()"),
    ("detaches the direction", "the gradient of `turned` is cut", "c * (T / n).detach()"),
    ("detaches all", "the result hangs on no gradient", "(c * T / n).detach()"),
    ("wrong axis", "a row of an (out, in) weight makes one output", "c * T / T.norm(dim=0).detach()"),
    ("no norm", "the rows keep their lengths", "c * T"),
    ("no magnitude", "the magnitude is missing", "T / n.detach()"),
    ("whole matrix", "by the length of the whole matrix", "c * T / T.norm().detach()"),
    ("lines up with the inputs", "m[:, None] lines up with the rows", "m * T / T.norm(dim=1).detach()"),
    ("no root", "the root of the sum of squares", "c * T / n.detach() ** 2"),
)  # fmt: skip

FACTORED_NORMS = _expressions(
    "def f(squares, P, A, B, s):\n"
    "    cross, own = (B * P).sum(1), (B @ (A @ A.T) * B).sum(1)",
    ("no middle term", "not at right angles", "(squares + s**2 * own).sqrt()"),
    ("middle term once", "the middle term comes twice", "(squares + s * cross + s**2 * own).sqrt()"),
    ("scale not squared", "takes the square of the scale", "(squares + 2 * s * cross + s * own).sqrt()"),
    ("no scale", "the scale is missing: the update", "(squares + 2 * cross + own).sqrt()"),
    ("no last term", "the last term is missing", "(squares + 2 * s * cross).clamp(min=0).sqrt()"),
    ("no scale in the middle", "missing in the middle term", "(squares + 2 * cross + s**2 * own).clamp(min=0).sqrt()"),
    ("subtracts", "the middle term has the wrong sign", "(squares - 2 * s * cross + s**2 * own).clamp(min=0).sqrt()"),
    ("no root", "take the root at the end", "squares + 2 * s * cross + s**2 * own"),
    ("squares the squares", "are squared already", "(squares**2 + 2 * s * cross + s**2 * own).clamp(min=0).sqrt()"),
    ("root too early", "take one root, at the end", "(squares.sqrt() + 2 * s * cross + s**2 * own).clamp(min=0).sqrt()"),
    ("no A A^T", "needs A A^T between", "(squares + 2 * s * cross + s**2 * (B * B).sum(1)).clamp(min=0).sqrt()"),
    ("adds the lengths", "lengths do not add", "squares.sqrt() + s * own.sqrt()"),
    ("diagonal of A A^T", "rows of A are not at right angles", "(squares + 2 * s * cross + s**2 * (B * B) @ (A * A).sum(1)).clamp(min=0).sqrt()"),
    ("sums the products", "meets its own row of B", "(squares + 2 * s * P.sum(1) + s**2 * own).clamp(min=0).sqrt()"),
    ("forms B A", "it forms a matrix as large as W", "(squares + 2 * s * cross + s**2 * (B @ A).square().sum(1)).sqrt()"),
    ("keeps the matrix", "only its diagonal is wanted", "(squares + 2 * s * P @ B.T + s**2 * B @ (A @ A.T) @ B.T).clamp(min=0).sqrt()"),
)  # fmt: skip

DORA_PARAMETERS = _expressions(
    "def f(c, targets, r):\n"
    "    maps, lora, L = projections(c), parameter_count(c, targets, r), c.num_hidden_layers\n"
    "    some = [maps[n] for n in (maps if targets == 'all-linear' else targets)]\n"
    "    outs, ins = sum(o for o, _ in some), sum(i for _, i in some)",
    ("LoRA alone", "that is LoRA alone", "lora"),
    ("twice LoRA", "DoRA is not twice LoRA", "2 * lora"),
    ("inputs", "the lengths belong to the outputs", "lora + L * ins"),
    ("outputs and inputs", "the inputs have none", "lora + L * (outs + ins)"),
    ("one layer's lengths", "times the number of layers", "lora + outs"),
    ("rank lengths a row", "whatever the rank", "lora + L * r * outs"),
    ("one length a map", "not one for each map", "lora + L * len(some)"),
    ("one hidden size a layer", "not one hidden size a layer", "lora + L * c.hidden_size"),
    ("one hidden size a map", "need not be the hidden size", "lora + L * len(some) * c.hidden_size"),
    ("lengths alone", "A and B train as well", "L * outs"),
    ("the frozen weights too", "those are the frozen weights", "lora + L * sum(o * i for o, i in some)"),
    ("ignores the targets", "only the maps that `targets` names", "dora_parameters(c, 'all-linear', r)"),
    ("lengths of every map", "the lengths of only the maps", "lora + L * sum(o for o, _ in maps.values())"),
    ("a share", "must be a whole number", "1.03 * lora"),
)  # fmt: skip
