"""The banks of notebook 01: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, code)."""
    return tuple(Wrong(name, code, message) for name, message, code in rows)


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return _bank(*((name, message, f"{head}\n    return {code}") for name, message, code in rows))


TRUNCATED = _expressions(
    "def f(M, r):\n    U, S, Vh = torch.linalg.svd(M, full_matrices=False)",
    ("forgets the singular values", "each pair needs its singular value", "U[:, :r] @ Vh[:r]"),
    ("keeps the smallest", "those are the smallest", "U[:, -r:] * S[-r:] @ Vh[-r:]"),
    ("keeps the rest", "what the truncation leaves out", "U[:, r:] * S[r:] @ Vh[r:]"),
    ("takes Vh for V", "its ROWS are directions", "U[:, :r] * S[:r] @ Vh[:, :r].T"),
    ("keeps everything", "nothing was left out", "U * S @ Vh"),
    ("one too many", "`[:rank]` holds rank directions", "U[:, :r + 1] * S[:r + 1] @ Vh[:r + 1]"),
    ("one too few", "one direction is missing", "U[:, :r - 1] * S[:r - 1] @ Vh[:r - 1]"),
    ("takes the root", "not its root", "U[:, :r] * S[:r].sqrt() @ Vh[:r]"),
    ("squares", "not its square", "U[:, :r] * S[:r] ** 2 @ Vh[:r]"),
    ("takes QR for SVD", "does not order its directions", "torch.linalg.qr(M)[0][:, :r] @ torch.linalg.qr(M)[1][:r]"),
    ("keeps rows", "those are the first rows", "torch.cat([M[:r], 0 * M[r:]])"),
    ("keeps large entries", "few entries are no low rank", "M * (M.abs() >= M.abs().flatten().topk(r).values.min())"),
    ("returns the factors", "must be a tensor, not tuple", "U[:, :r], S[:r], Vh[:r]"),
    ("returns one factor", "it must be (6, 6)", "U[:, :r] * S[:r]"),
    ("works in float32", "it must be torch.float64", "(U[:, :r] * S[:r] @ Vh[:r]).float()"),
)  # fmt: skip

FACTORS = _expressions(
    "def f(out, width, r, like):\n"
    "    kind = dict(device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))\n"
    "    P, b = nn.Parameter, width ** -0.5\n"
    "    def U(*shape, a=b): return P((2 * torch.rand(*shape, **kind) - 1) * a)\n"
    "    def N(*shape, s): return P(torch.randn(*shape, **kind) * s)\n"
    "    def O(*shape): return P(torch.zeros(*shape, **kind))",
    ("both zero", "nothing ever trains", "O(r, width), O(out, r)"),
    ("both random", "does not start at its base", "U(r, width), U(out, r)"),
    ("A zero and B random", "A is random, B is zero", "O(r, width), U(out, r)"),
    ("B first", "first A, then B", "O(out, r), U(r, width)"),
    ("transposed", "A is (rank, in), B is (out, rank)", "U(width, r), O(r, out)"),
    ("B of the input's width", "B has shape", "U(r, width), O(width, r)"),
    ("normal", "that looks like a normal distribution", "N(r, width, s=b / 3 ** 0.5), O(out, r)"),
    ("standard normal", "divide by sqrt(in)", "N(r, width, s=1.0), O(out, r)"),
    ("uniform to 1", "uniform from -1 to 1", "U(r, width, a=1.0), O(out, r)"),
    ("kaiming as it comes", "a is sqrt(5)", "U(r, width, a=6 ** 0.5 * b), O(out, r)"),
    ("0.02", "the width decides", "N(r, width, s=0.02), O(out, r)"),
    ("half the bound", "half the width", "U(r, width, a=b / 2), O(out, r)"),
    ("by the rank", "not by the width of the input", "U(r, width, a=r ** -0.5), O(out, r)"),
    ("xavier", "(xavier)", "U(r, width, a=(6 / (r + width)) ** 0.5), O(out, r)"),
    ("bound as deviation", "it is the bound", "N(r, width, s=b), O(out, r)"),
    ("1 / in", "it is 1 / sqrt(in)", "U(r, width, a=1 / width), O(out, r)"),
    ("on one side of zero", "A is never negative", "P(torch.rand(r, width, **kind) * b), O(out, r)"),
    ("ones", "draw them", "P(torch.full((r, width), b, **kind)), O(out, r)"),
    ("always the same", "drawn anew", "P((2 * torch.rand(r, width, generator=torch.Generator().manual_seed(0), dtype=kind['dtype']).to(like.device) - 1) * b), O(out, r)"),
    ("plain tensors", "a plain tensor", "U(r, width).detach(), O(out, r).detach()"),
    ("frozen", "leave requires_grad on", "U(r, width).requires_grad_(False), O(out, r)"),
    ("in the base's dtype", "the factors are torch.bfloat16", "P(U(r, width).detach().to(like.dtype)), P(O(out, r).detach().to(like.dtype))"),
    ("always float32", "on a torch.float64 base", "P(U(r, width).detach().float()), P(O(out, r).detach().float())"),
    ("on the CPU", "not on the CPU", "P((2 * torch.rand(r, width, dtype=kind['dtype']) - 1) * b), P(torch.zeros(out, r, dtype=kind['dtype']))"),
    ("one factor", "return two parameters", "U(r, width)"),
)  # fmt: skip


def _layers(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, methods): what the library's layer becomes with them."""
    head = "class Layer(LoRALinear):\n"
    return _bank(*((name, told, head + methods) for name, told, methods in rows))


def _made(line: str) -> str:
    """A layer whose constructor ends in one more statement."""
    return (
        "    def __init__(self, base, rank, alpha, dropout=0.0):\n"
        f"        super().__init__(base, rank, alpha, dropout)\n        {line}"
    )


def _forward(expression: str) -> str:
    """A layer whose forward pass returns something else."""
    return (
        "    def forward(self, x):\n        W, b, u = self.base.weight, self.base.bias, self.update(x)"
        f"\n        return {expression}"
    )


def _update(expression: str) -> str:
    """A layer with another update."""
    return (
        "    def update(self, x):\n        s, drop = self.scale, self.dropout\n"
        f"        A, B = self.A.to(x.dtype), self.B.to(x.dtype)\n        return {expression}"
    )


LORA_LINEAR = _layers(
    ("scale alpha", "scaled by alpha; it is", _made("self.scale = alpha")),
    ("scale alpha / sqrt(rank)", "the scale of rsLoRA", _made("self.scale = alpha / rank ** 0.5")),
    ("scale 2", "the scale is fixed at 2", _made("self.scale = 2.0")),
    ("whole division", "rounded down", _made("self.scale = alpha // rank")),
    ("frozen map without a gradient", "comes through the frozen map", "    def forward(self, x):\n        with torch.no_grad():\n            y = self.base(x)\n        return y + self.update(x)"),
    ("update of a detached input", "comes through the update", _forward("self.base(x) + self.update(x.detach())")),
    ("factors by their data", "A gets no gradient", "    def update(self, x):\n        return self.scale * self.dropout(x) @ self.A.data.T.to(x.dtype) @ self.B.T.to(x.dtype)"),
    ("keeps no alpha", "has no `alpha`", _made("del self.alpha")),
    ("scale upside down", "upside down", _made("self.scale = rank / alpha")),
    ("scale 1 / rank", "alpha is missing", _made("self.scale = 1 / rank")),
    ("divides by the rank twice", "the rank divides twice", _made("self.scale = alpha / rank ** 2")),
    ("no scale", "the update is not scaled", _update("drop(x) @ A.T @ B.T")),
    ("scale twice", "the scale is applied twice", _update("s * s * drop(x) @ A.T @ B.T")),
    ("takes the update away", "is added, not taken away", _update("-s * drop(x) @ A.T @ B.T")),
    ("no update", "where is the update?", _forward("self.base(x)")),
    ("only the update", "a fresh layer gives zero", _forward("u")),
    ("adds nothing of the bias", "bit for bit: is B zero", _forward("x @ W.T + u")),
    ("feeds the update with the output", "the update goes through the frozen map", _forward("self.base(x) * (1 + u)")),
    ("reads the weight of the base", "call the base, do not read it", _forward("F.linear(x, W, b) + u")),
    ("base trains", "the base still trains", _made("self.base.requires_grad_(True)")),
    ("a copy of the base", "is a copy", _made("import copy; self.base = copy.deepcopy(self.base); base.requires_grad_(True)")),
    ("bias trains", "freeze its weight and its bias", _made("self.base.bias.requires_grad_(True) if getattr(self.base, 'bias', None) is not None else None")),
    ("freezes the factors too", "does not train", _made("self.requires_grad_(False)")),
    ("B random", "is B zero, and the base untouched?", _made("nn.init.normal_(self.B)")),
    ("factors as plain tensors", "A does not train", _made("A = self.A.data; del self.A; self.A = A")),
    ("transposed A", "A has shape", _made("self.A = nn.Parameter(self.A.data.T.clone())")),
    ("forms B A", "B A is formed", _update("drop(x) @ (s * B @ A).T")),
    ("dropout on the output", "not behind A or B", _update("drop(s * x @ A.T @ B.T)")),
    ("dropout on the thin product", "x, and not behind", _update("s * drop(x @ A.T) @ B.T")),
    ("no dropout", "where is the dropout?", _update("s * x @ A.T @ B.T")),
    ("dropout on the frozen map", "dropout touches the frozen map", "    def forward(self, x):\n        return super().forward(self.dropout(x))"),
    ("dropout in evaluation", "which eval() switches off", _update("s * F.dropout(x, getattr(drop, 'p', 0.0), True) @ A.T @ B.T")),
    ("does not cast", "a bfloat16 input raises", "    def update(self, x):\n        return self.scale * self.dropout(x) @ self.A.T @ self.B.T"),
    ("casts the input up", "a bfloat16 input gives torch.float32", "    def update(self, x):\n        return self.scale * self.dropout(x).to(self.A.dtype) @ self.A.T @ self.B.T"),
    ("factors in bfloat16", "the factors train in float32", _made("w = next(iter(base.state_dict().values())); self.to(w.dtype)")),
    ("delta without the scale", "the scale belongs to it", "    def delta(self):\n        return self.B @ self.A"),
    ("delta with the weight", "the update alone", "    def delta(self):\n        return self.base.weight + self.scale * self.B @ self.A"),
    ("delta transposed", "delta() has shape", "    def delta(self):\n        return (self.scale * self.B @ self.A).T"),
    ("takes rank 0", "rank 0 is accepted", "    def __init__(self, base, rank, alpha, dropout=0.0):\n        super().__init__(base, max(rank, 1), alpha, dropout)"),
    ("forgets the return", "is a `return` missing?", "    def forward(self, x):\n        self.base(x) + self.update(x)"),
    ("knows no dropout", "the fourth argument", "    def __init__(self, base, rank, alpha):\n        super().__init__(base, rank, alpha)"),
    ("looks for parameters alone", "may keep theirs in buffers", _made("next(base.parameters())")),
    ("leaves the stub of extra_repr", "cannot be printed", "    def extra_repr(self):\n        raise NotImplementedError"),
)  # fmt: skip

FACTOR_GRADIENTS = _expressions(
    "def f(G, A, B, s):\n    a, b = s * B.T @ G, s * G @ A.T",
    ("the other way round", "first the gradient of A", "b, a"),
    ("no scale", "both gradients carry the scale", "B.T @ G, G @ A.T"),
    ("scale twice", "the scale is there twice", "s * a, s * b"),
    ("the step, not the gradient", "the gradient itself has no minus", "-a, -b"),
    ("A never moves", "zero only where B is zero", "0 * A, b"),
    ("no scale on A", "the gradient of A carries the scale too", "a / s, b"),
    ("no scale on B", "the gradient of B carries the scale too", "a, b / s"),
    ("B not transposed", "multiply by B transposed", "s * B @ G if B.shape == G.shape else a, b"),
    ("A not transposed", "A transposed", "a, s * G @ A if A.shape == G.shape else b"),
    ("neither transposed", "both factors are transposed", "(s * B @ G, s * G @ A) if B.shape == A.shape else (a, b)"),
    ("each by itself", "A's gradient holds B", "(s * A.T @ G, s * G @ B.T) if B.shape == A.shape else (a, b)"),
    ("gradients transposed", "not of its transpose", "a.T, b.T"),
    ("divides by the scale", "dividing is for its inverse", "a / s**2, b / s**2"),
    ("None for zero", "the gradient of A is None", "None, b"),
    ("one gradient", "return two tensors", "a"),
    ("in float32", "the gradient of A has dtype", "a.float(), b.float()"),
)  # fmt: skip

PARAMETER_COUNT = _expressions(
    "def f(c, targets, r):\n"
    "    names = list(projections(c)) if targets == 'all-linear' else [targets] if isinstance(targets, str) else targets\n"
    "    if bad := [n for n in names if n not in projections(c)]: raise ValueError(bad[0])\n"
    "    shapes = [projections(c)[n] for n in names]\n"
    "    L, every = c.num_hidden_layers, projections(c).values()\n"
    "    right = L * r * sum(map(sum, shapes))",
    ("r * d * k", "they do not multiply", "L * r * sum(o * i for o, i in shapes)"),
    ("one layer", "that is one layer; the model has more", "right // L"),
    ("no rank", "where is the rank? A has", "right // r"),
    ("neither layers nor rank", "that is one layer at rank 1", "right // L // r"),
    ("all seven whatever is asked", "that is all seven maps", "L * r * sum(map(sum, every))"),
    ("the frozen weights", "those are the frozen weights", "L * sum(o * i for o, i in shapes)"),
    ("keys at the query width", "not the query heads", "L * r * sum(c.num_attention_heads * c.head_dim + c.hidden_size if n in ('k_proj', 'v_proj') else sum(projections(c)[n]) for n in names)"),
    ("square maps", "a projection need not be square", "L * r * sum(2 * i for _, i in shapes)"),
    ("rank twice", "the rank is there twice", "r * right"),
    ("with the frozen weights", "count only what trains", "right + L * sum(o * i for o, i in shapes)"),
    ("doubled", "that is twice too many", "2 * right"),
    ("every map hidden by hidden", "read its own (out, in)", "2 * L * r * c.hidden_size * len(names)"),
    ("with the head", "the head is no projection", "right + r * (c.vocab_size + c.hidden_size)"),
    ("A alone", "that is A alone", "L * r * sum(i for _, i in shapes)"),
    ("B alone", "that is B alone", "L * r * sum(o for o, _ in shapes)"),
    ("one pair a layer", "the first target alone", "L * r * sum(shapes[0])"),
    ("misses plain text", "may come as plain text", "0 if isinstance(targets, str) else right"),
    ("a float", "must be a whole number (int), not float", "right / 1"),
)  # fmt: skip
PARAMETER_COUNT += _bank(
    ("counts an unknown name as nothing", "'query_proj', counts as", "def f(c, targets, r):\n    s = projections(c)\n    names = [targets] if isinstance(targets, str) else targets\n    names = s if targets == 'all-linear' else [n for n in names if n in s]\n    return c.num_hidden_layers * r * sum(sum(s[n]) for n in names)"),
    ("raises KeyError", "an unknown target raises KeyError", "def f(c, targets, r):\n    s = projections(c)\n    names = [targets] if isinstance(targets, str) else targets\n    names = s if targets == 'all-linear' else names\n    return c.num_hidden_layers * r * sum(sum(s[n]) for n in names)"),
    ("says nothing of the name", "say in the error which target", "def f(c, targets, r):\n    try:\n        return parameter_count(c, targets, r)\n    except ValueError:\n        raise ValueError('no such target')"),
    ("reads a name letter by letter", "one target, not its letters", "def f(c, targets, r):\n    s = projections(c)\n    names = s if targets == 'all-linear' else list(targets)\n    return c.num_hidden_layers * r * sum(sum(s[n]) for n in names)"),
)  # fmt: skip

HELD_BYTES = _expressions(
    "def h(f, t):\n    w, g, m = 2 * f + 4 * t, 4 * t, 8 * t",
    ("factors in bfloat16", "the trained numbers are float32", "2 * (f + t), g, m"),
    ("base in float32", "the frozen numbers rest in bfloat16", "4 * (f + t), g, m"),
    ("forgets A and B", "A and B are weights too", "2 * f, g, m"),
    ("forgets the base", "the frozen weights stay in memory", "4 * t, g, m"),
    ("base in 4 bits", "that is a base in 4 bits", "f // 2 + 4 * t, g, m"),
    ("gradients in bfloat16", "the gradient of a float32 number", "w, 2 * t, m"),
    ("gradients of everything", "a frozen weight gets no gradient", "w, 4 * (f + t), m"),
    ("no gradients", "every trained number has a gradient", "w, 0, m"),
    ("one moment", "Adam keeps two moments a number", "w, g, 4 * t"),
    ("a master copy as moment", "the weight itself is counted already", "w, g, 12 * t"),
    ("moments of everything", "Adam keeps nothing for a frozen weight", "w, g, 8 * (f + t)"),
    ("no moments", "where are Adam's moments?", "w, g, 0"),
    ("bits", "count bytes, not bits", "8 * w, 8 * g, 8 * m"),
    ("another order", "the order is weights, gradients, moments", "m, g, w"),
    ("the sum", "return three numbers", "w + g + m"),
    ("floats", "must be a whole number (int), not float", "float(w), g, m"),
)  # fmt: skip

FIRST_STEP = _expressions(
    "def f(G, A, s, rate, optimizer):\n"
    "    adam, g = optimizer == 'adam', s * G @ A.T\n"
    "    move = g.sign() if adam else g\n"
    "    B = -rate * move\n"
    "    right = s * B @ A",
    ("no minus", "the minus is missing", "-right"),
    ("scale once", "B's gradient carries the scale, and so does", "right / s"),
    ("scale once too often", "the scale is there once too often", "s * right"),
    ("no scale at all", "neither in B's gradient nor in the product", "-rate * (G @ A.T) @ A"),
    ("SGD for Adam", "every number of B moves equally far", "-s * rate * g @ A"),
    ("Adam for SGD", "without its sign", "-s * rate * g.sign() @ A"),
    ("no rate", "where is the rate?", "right / rate"),
    ("sign of the whole", "not of the whole update", "-rate * (s * g @ A).sign() if adam else right"),
    ("sign of G", "not of G", "s * -rate * (G.sign() @ A.T) @ A if adam else right"),
    ("divides by the norm", "not by the norm of all", "-s * rate * g / g.norm() @ A if adam else right"),
    ("full fine-tuning", "that is a step of full fine-tuning", "-rate * G"),
    ("stays at zero", "but it does not stay there", "0 * G"),
    ("returns B", "has shape", "B"),
    ("in float32", "has dtype torch.float32", "right.float()"),
)  # fmt: skip


def _injections(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, body): `put(name, layer)` and `over(name)` stand ready."""
    head = (
        "def f(model, targets='all-linear', rank=16, alpha=32, dropout=0.0):\n"
        "    def over(name, r=rank, a=alpha, d=dropout, mode=True):\n"
        "        layer = LoRALinear(model.get_submodule(name), r, a, d)\n"
        "        return layer.train(model.training) if mode else layer\n"
        "    put, freeze = model.set_submodule, model.requires_grad_\n"
    )
    written = ((name, told, head + body) for name, told, body in rows)
    return _bank(*written)


def _each(layer: str, names: str = "matches(model, targets)", first: str = "freeze(False)") -> str:
    return f"    names = {names}\n    {first}\n    for n in names:\n        put(n, {layer})\n    return model"


_LINEAR = "[n for n, m in model.named_modules() if isinstance(m, nn.Linear)"
INJECT = _injections(
    ("does not freeze", "trains: freeze the whole model", _each("over(n)", first="pass")),
    ("freezes last", "the adapters are frozen too", _each("over(n)", first="pass").replace("    return model", "    freeze(False)\n    return model")),
    ("freezes linear maps alone", "norms and head too", _each("over(n)", first="[m.requires_grad_(False) for m in model.modules() if isinstance(m, nn.Linear)]")),
    ("matches parts of names", "compare whole names", _each("over(n)", _LINEAR + " and any(t in n for t in ([targets] if isinstance(targets, str) else targets))] if targets != 'all-linear' else matches(model, targets)")),
    ("matches ends of names", "is not asked for", _each("over(n)", _LINEAR + " and n.endswith(tuple([targets] if isinstance(targets, str) else targets))] if targets != 'all-linear' else matches(model, targets)")),
    ("adapts the head", "the head got an adapter", _each("over(n)", _LINEAR + "] if targets == 'all-linear' else matches(model, targets)")),
    ("adapts one layer", "every layer has maps of that name", _each("over(n)", "[n for n in matches(model, targets) if '.0.' in n]")),
    ("its own rank", "pass the rank on", _each("over(n, r=16)")),
    ("rank and alpha swapped", "A has 12 rows at rank 3", _each("over(n, r=alpha, a=rank)")),
    ("A frozen", "does not train: both factors must", _each("over(n)").replace("    return model", "    [m.A.requires_grad_(False) for m in model.modules() if isinstance(m, LoRALinear)]\n    return model")),
    ("one layer for all", "maps share one layer", "    names = matches(model, targets)\n    freeze(False)\n    one = over(names[0])\n    for n in names:\n        put(n, one)\n    return model"),
    ("its own alpha", "pass alpha on", _each("over(n, a=32)")),
    ("no dropout", "pass the dropout on", _each("over(n, d=0.0)")),
    ("in training mode", "keep the mode", _each("over(n, mode=False)")),
    ("returns nothing", "is a `return` missing?", _each("over(n)").replace("return model", "pass")),
    ("returns the layers", "return the model, not dict", _each("over(n)").replace("return model", "return {n: 1 for n in names}")),
    ("works on a copy", "change the model itself", "    import copy\n    return inject(copy.deepcopy(model), targets, rank, alpha, dropout)"),
    ("adapts nothing", "no map got an adapter", "    freeze(False)\n    return model"),
    ("adapts twice", "an adapter inside an adapter", _each("over(n)").replace("    return model", "    for n in names:\n        put(n + '.base', LoRALinear(model.get_submodule(n + '.base'), rank, alpha, dropout).train(model.training))\n    return model")),
    ("silent on no match", "passes in silence", "    try:\n        return inject(model, targets, rank, alpha, dropout)\n    except ValueError:\n        return model"),
    ("freezes, then matches", "match before you freeze", "    freeze(False)\n    return inject(model, targets, rank, alpha, dropout)"),
    ("freezes, then makes the layers", "make all layers first", _each("over(n)")),
    ("sets by the last name", "takes the full name", "    names = matches(model, targets)\n    freeze(False)\n    for n in names:\n        setattr(model, n.rpartition('.')[2], over(n))\n    return model"),
    ("moves B", "bit for bit: B is zero", "    inject(model, targets, rank, alpha, dropout)\n    with torch.no_grad():\n        [m.base.weight.add_(1) for m in model.modules() if isinstance(m, LoRALinear)]\n    return model"),
)  # fmt: skip

MERGED = _expressions(
    "def f(layer, dtype=None):\n"
    "    W, d, s = dense(layer.base).detach(), layer.delta().detach(), layer.scale\n"
    "    kind, bias = dtype or W.dtype, getattr(layer.base, 'bias', None)\n"
    "    def plain(weight, b=bias, to=kind):\n"
    "        made = nn.Linear(weight.shape[1], weight.shape[0], bias=b is not None)\n"
    "        made.weight = nn.Parameter(weight.to(to), requires_grad=False)\n"
    "        if b is not None:\n"
    "            made.bias = nn.Parameter(b.detach().clone().to(to), requires_grad=False)\n"
    "        return made\n"
    "    right = W.to(d.dtype) + d",
    ("no scale", "delta() holds alpha / rank", "plain(W + d / s)"),
    ("scale alpha", "scaled by alpha; it is alpha / rank", "plain(W + d * layer.rank)"),
    ("scale twice", "the scale is there twice", "plain(W + s * d)"),
    ("takes the update away", "added to W, not taken away", "plain(W - d)"),
    ("adds it twice", "the update is added twice", "plain(right + d)"),
    ("the base alone", "where is the update?", "plain(W.clone())"),
    ("the update alone", "add the frozen weight", "plain(d)"),
    ("transposed", "the weight has shape", "plain(right.T)"),
    ("the weight alone", "not the weight alone", "right"),
    ("the layer", "return a plain nn.Linear, not LoRALinear", "layer"),
    ("rounds the update first", "add in float32, then round once", "plain(W + d.to(W.dtype))"),
    ("ignores the dtype", "asked for torch.float32", "plain(right, to=W.dtype)"),
    ("always float32", "over a torch.bfloat16 base", "plain(right, to=torch.float32)"),
    ("loses the bias", "the base's bias is lost", "plain(right, b=None)"),
    ("keeps the bias of a new map", "the update adds nothing to it", "plain(right, b=None if bias is None else bias + 1)"),
    ("a bias from nowhere", "the merged map has one", "plain(right, b=torch.zeros(len(W)) if bias is None else bias)"),
    ("trains", "the merged map still trains", "plain(right).requires_grad_(True)"),
    ("reads the weight of the base", "read it with dense(layer.base)", "plain(layer.base.weight.detach().to(d.dtype) + d)"),
)  # fmt: skip
MERGED += _bank(
    ("changes the base in place", "a second call would add the update twice", "def f(layer, dtype=None):\n    if hasattr(layer.base, 'weight'):\n        layer.base.weight.data += layer.delta().detach().to(layer.base.weight.dtype)\n    return merged(layer, dtype)"),
    ("returns the base", "that is the base itself", "def f(layer, dtype=None):\n    return layer.base"),
    ("shares the bias", "the base's own tensor", "def f(layer, dtype=None):\n    made = merged(layer, dtype)\n    if layer.base.bias is not None:\n        made.bias = layer.base.bias\n    return made"),
)  # fmt: skip
