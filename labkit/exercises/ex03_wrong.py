"""The bank of notebook 03: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, code)."""
    return tuple(Wrong(name, code, message) for name, message, code in rows)


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return _bank(*((name, message, f"{head}\n    return {code}") for name, message, code in rows))


HALF = _expressions(
    "def f(n, p):\n"
    "    normal, step = NormalDist(), (p - 0.5) / n\n"
    "    steps, right = [p - i * step for i in range(n)], half(n, p)\n"
    "    z = normal.inv_cdf",
    ("keeps the quantile of 1/2", "both halves share it", "right + [0.0]"),
    ("spreads n steps down to 1/2 itself", "the last one is the quantile of 1/2", "[z(p - i * (p - 0.5) / max(n - 1, 1)) for i in range(n)]"),
    ("smallest first", "the largest comes first", "right[::-1]"),
    ("the negative side", "those lie below zero", "[-q for q in right]"),
    ("probabilities for quantiles", "those are the probabilities", "steps"),
    ("cdf for its inverse", "cdf goes from a value to a probability", "[normal.cdf(x) for x in steps]"),
    ("pdf for the inverse cdf", "pdf is the height of the bell", "[normal.pdf(x) for x in steps]"),
    ("even steps of the value", "even steps of the value", "[z(p) * (n - i) / n for i in range(n)]"),
    ("skips the outermost", "the first step is skipped", "right[1:]"),
    ("the middles of the steps", "these are the middles", "[z(x - step / 2) for x in steps]"),
    ("down to zero", "the steps end at 1/2, not at 0", "[z(p * (n - i) / n) for i in range(n)]"),
    ("begins at 1", "the quantile of 1 is infinite", "[z(1 - i / (2 * n)) for i in range(n)]"),
    ("begins at 1 with torch", "begin at `outermost`, which is less than 1", "torch.distributions.Normal(0., 1.).icdf(torch.linspace(1, 0.5, n + 1)[:-1]).tolist()"),
    ("an outermost of its own", "use the argument `outermost`", "half(n, (29 / 30 + 31 / 32) / 2)"),
    ("divides too early", "do not divide by the largest yet", "[q / right[0] for q in right]"),
    ("halves the probability", "needs no halving", "[z(0.5 + (x - 0.5) / 2) for x in steps]"),
    ("halves each step", "number 2 is", "[z(0.5 + (p - 0.5) * 0.5 ** i) for i in range(n)]"),
    ("erfinv of p", "erf counts both sides", "[2 ** 0.5 * torch.erfinv(torch.tensor(x)).item() for x in steps]"),
    ("a tensor", "return a list of floats", "torch.tensor(right)"),
    ("a list of tensors", "not of Tensor", "[torch.tensor(q) for q in right]"),
)  # fmt: skip

LEVELS = _expressions(
    "def f():\n"
    "    p = (29 / 30 + 31 / 32) / 2\n"
    "    z = NormalDist().inv_cdf\n"
    "    t = lambda points: torch.tensor(sorted(points))\n"
    "    both = lambda a, b, p=p: t([-q for q in half(a, p)] + [0.0] + half(b, p))\n"
    "    ends = lambda low, high: t([-q for q in half(7, low)] + [0.0] + half(8, high))\n"
    "    s = lambda x: x / x.abs().max()",
    ("eight below, seven above", "the wrong way round", "s(both(8, 7))"),
    ("the table of bitsandbytes", "paste none", "torch.tensor([-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0, 0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0])"),
    ("not divided", "the levels run from -1 to 1", "both(7, 8)"),
    ("no zero", "zero is missing: a weight", "s(t([-q for q in half(8, p)] + half(8, p)))"),
    ("no zero, not divided", "zero is missing, and", "t([-q for q in half(8, p)] + half(8, p))"),
    ("middles of equal cells", "the middles of 16 equal cells", "s(t([z((i + 0.5) / 16) for i in range(16)]))"),
    ("borders of equal cells", "the 15 borders of 16 equal cells", "s(t([z(i / 16) for i in range(1, 16)]))"),
    ("the paper's equation 4, finite part", "that is the paper's equation 4", "s(t([(z(i / 17) + z((i + 1) / 17)) / 2 for i in range(1, 16)]))"),
    ("the paper's equation 4 as printed", "a level is infinite", "t([(float(z(i / 17) if i else -float('inf')) + z((i + 1) / 17)) / 2 for i in range(16)])"),
    ("evenly spaced", "are those of INT4", "torch.linspace(-1, 1, 16)"),
    ("a probability for each half", "both halves begin at one probability", "s(ends(29 / 30, 31 / 32))"),
    ("31/32 alone", "yours is 0.9687500", "s(both(7, 8, 31 / 32))"),
    ("29/30 alone", "yours is 0.9666667", "s(both(7, 8, 29 / 30))"),
    ("the rounded 0.9677", "yours is 0.9677000", "s(both(7, 8, 0.9677))"),
    ("no sign", "lost their sign", "s(both(7, 8)).abs()"),
    ("descending", "in ascending order", "s(both(7, 8)).flip(0)"),
    ("float64", "they come as float32", "s(both(7, 8)).double()"),
    ("seven of the eight", "not seven of the eight", "s(t([-q for q in half(8, p)[1:]] + [0.0] + half(8, p)))"),
    ("fifteen levels without zero", "16: zero is missing", "s(t([-q for q in half(7, p)] + half(8, p)))"),
    ("zero twice", "one occurs twice", "s(t([-q for q in half(7, p)] + [0.0, 0.0] + half(8, p)))"),
    ("divided by the standard deviation", "not by the standard deviation", "both(7, 8) / both(7, 8).double().std().float()"),
    ("a list", "return a tensor of 16 levels", "s(both(7, 8)).tolist()"),
)  # fmt: skip

BLOCK_ABSMAX = _expressions(
    "def f(w, b):\n"
    "    flat, right = w.flatten().float(), block_absmax(w, b)\n"
    "    blocks = flat.split(b)\n"
    "    each = lambda of: torch.stack([of(x) for x in blocks])",
    ("largest, not largest magnitude", "the largest value is not the largest magnitude", "each(torch.max)"),
    ("the magnitude of the largest", "a large negative value counts too", "each(lambda x: x.max().abs())"),
    ("the range", "that is the range", "each(lambda x: x.max() - x.min())"),
    ("half the range", "half the range", "each(lambda x: (x.max() - x.min()) / 2)"),
    ("standard deviation", "that is the standard deviation", "each(torch.std)"),
    ("mean magnitude", "that is the mean magnitude", "each(lambda x: x.abs().mean())"),
    ("length", "the length of the block as a vector", "each(torch.norm)"),
    ("the whole weight's", "every block has its own", "flat.abs().max().expand(len(blocks))"),
    ("one a row", "that is one a row", "w.float().abs().amax(dim=1)"),
    ("one a column", "that is one a column", "w.float().abs().amax(dim=0)"),
    ("column by column", "read column by column", "block_absmax(w.T, b)"),
    ("keeps the dimension", "in one dimension", "right[:, None]"),
    ("drops the last block", "its values are dropped", "right[: len(flat) // b]"),
    ("blocks of 64 always", "use the argument `block`", "block_absmax(w, 64)"),
    ("asks for whole blocks", "the last block is not full: fill it", "w.reshape(-1, b).float().abs().amax(dim=1)"),
    ("views a view", "use flatten or reshape", "F.pad(w.view(-1).float(), (0, -w.numel() % b)).view(-1, b).abs().amax(dim=1)"),
    ("stays in bfloat16", "kept in float32, whatever", "right.to(w.dtype)"),
    ("blocks across", "not view(block, -1)", "F.pad(flat, (0, -len(flat) % b)).view(b, -1).abs().amax(0)"),
    ("blocks end with their row", "may run on into the next row", "torch.stack([x.abs().max() for row in w.float() for x in row.split(b)])"),
    ("block many blocks", "not how many blocks", "torch.stack([x.abs().max() for x in flat.chunk(b)])"),
    ("fills up with ones", "larger than its own values", "F.pad(flat, (0, -len(flat) % b), value=1.0).view(-1, b).abs().amax(1)"),
    ("the square", "the square of the largest", "right ** 2"),
    ("changes the weight", "not abs_()", "block_absmax(w.view(-1).abs_() if w.is_contiguous() else w, b)"),
    ("max along a dimension", "gives values and places", "F.pad(flat, (0, -len(flat) % b)).view(-1, b).abs().max(1)"),
    ("one a value", "not one a value", "right.repeat_interleave(b)[: len(flat)]"),
)  # fmt: skip

NEAREST = _expressions(
    "def f(v, a, code):\n"
    "    n, scaled = len(code), v / a.clamp(min=1e-30)[:, None]\n"
    "    middles, right = (code[1:] + code[:-1]) / 2, nearest(v, a, code)\n"
    "    cut = lambda x: torch.bucketize(x, middles).to(torch.uint8)",
    ("the level below", "that is the level below", "(torch.bucketize(scaled, code, right=True) - 1).clamp(0, n - 1).to(torch.uint8)"),
    ("the level above", "that is the level above", "torch.bucketize(scaled, code).clamp(0, n - 1).to(torch.uint8)"),
    ("divides by zero", "0 / 0 is no number", "cut(v / a[:, None])"),
    ("divides by zero, then argmin", "give it the level zero", "((v / a[:, None])[..., None] - code).abs().argmin(-1).to(torch.uint8)"),
    ("does not scale", "divide each block by its absmax first", "cut(v)"),
    ("multiplies", "multiplying is the way back", "cut(v * a[:, None])"),
    ("one scale for all", "divides by the largest absmax of all", "cut(v / a.max())"),
    ("divides along the wrong axis", "absmax belongs to the rows", "cut(v / a) if len(a) == v.shape[1] else right"),
    ("loses the sign", "the sign is lost", "cut(v.abs() / a.clamp(min=1e-30)[:, None])"),
    ("an even grid", "rounding on an even grid", "((scaled + 1) / 2 * (n - 1)).round().to(torch.uint8)"),
    ("ties go up", "a tie goes to the lower level", "torch.bucketize(scaled, middles, right=True).to(torch.uint8)"),
    ("the levels themselves", "those are the levels", "code[right.long()]"),
    ("the values on the way back", "those are the values on the way back", "code[right.long()] * a[:, None]"),
    ("the standard deviation", "that divides by the standard deviation", "cut(v / v.std(dim=1, keepdim=True))"),
    ("the farthest", "that is the farthest level", "((scaled[..., None] - code).abs().argmax(-1)).to(torch.uint8)"),
    ("clamps absmax at 1", "an absmax below 1", "cut(v / a.clamp(min=1)[:, None])"),
    ("adds a little to absmax", "what is added to absmax", "cut(v / (a + 1e-3)[:, None])"),
    ("adds very little to absmax", "moves values", "cut(v / (a + 1e-8)[:, None])"),
    ("clamps absmax at a thousandth", "in place of a small one", "cut(v / a.clamp(min=1e-3)[:, None])"),
    ("7 for every block of zeros", "in NF4 alone", "right.masked_fill((a == 0)[:, None], 7)"),
    ("divides in place", "changes the values themselves", "cut(v.div_(a.clamp(min=1e-30)[:, None]))"),
    ("NF4 whatever the code", "it need not be NF4", "(lambda q: torch.bucketize(scaled, (q[1:] + q[:-1]) / 2).to(torch.uint8))(__import__('labkit.codes').codes.levels())"),
    ("no axis for absmax", "so absmax[:, None]", "cut(v / a)"),
    ("int64", "return uint8", "right.long()"),
    ("flat", "keep the shape of `values`", "right.flatten()"),
)  # fmt: skip

PACK = _expressions(
    "def f(codes):\n"
    "    odd, n = len(codes) % 2, len(codes)\n"
    "    even = F.pad(codes, (0, odd), value=7)\n"
    "    a, b, h = even[::2], even[1::2], len(even) // 2",
    ("the wrong nibble order", "the other way round", "b << 4 | a"),
    ("the halves of the row", "neighbours share a byte", "even[:h] << 4 | even[h:]"),
    ("adds without a shift", "before you add", "a + b"),
    ("joins without a shift", "before you join them", "a | b"),
    ("loses the second", "the second code of each pair is lost", "a << 4"),
    ("and for or", "`&` keeps the bits that both have", "a << 4 & b"),
    ("base ten", "its base is 16", "a * 10 + b"),
    ("weighs by 15", "weighs 16, not 15", "a * 15 + b"),
    ("shifts by 8", "shift by 4, not by 8", "a.long() << 8 | b"),
    ("shifts by 2", "shift by 4, not by 2", "a << 2 | b"),
    ("fills up with code 0", "code 0 is the level -1", "pack(F.pad(codes, (0, odd)))"),
    ("fills up with the first level above", "code 8 is", "pack(F.pad(codes, (0, odd), value=8))"),
    ("drops the last code", "the last code is dropped", "pack(codes[: n - odd])"),
    ("asks for an even count", "the last code has no neighbour", "codes[::2] << 4 | codes[1::2]"),
    ("the last into the low half", "7 into the low half", "torch.cat([pack(codes[: n - odd]), codes[n - odd :]])"),
    ("fills up an even count", "an even count needs no filling", "pack(F.pad(codes, (0, 2 - odd), value=7))"),
    ("fills up at the front", "not at the front", "pack(F.pad(codes, (odd, 0), value=7))"),
    ("shifts down", "`>>` shifts down", "a >> 4 | b"),
    ("shifts out of the byte", "`<< 8` out of the byte", "a << 8 | b"),
    ("adds before it shifts", "`+` binds before", "a + b << 4"),
    ("shifts by the sum", "put the shift into brackets", "a << 4 + b"),
    ("one a byte", "that is one code a byte", "codes"),
    ("int64", "a packed pair fits in one byte", "a.long() << 4 | b"),
)  # fmt: skip

QUANTIZE_ABSMAX = _expressions(
    "def f(absmax, code, block=256):\n"
    "    go, mean = quantize_absmax, absmax.mean()\n"
    "    codes, second, _ = go(absmax, code, block)\n"
    "    zero, c = torch.tensor(0.0), absmax - mean\n"
    "    bare = block_absmax(absmax, block)\n"
    "    top = c.abs().amax()\n"
    "    def about(x, b=block, sign=1):\n"
    "        rows = in_blocks(sign * (absmax - x), b)\n"
    "        return nearest(rows, rows.abs().amax(1), code).flatten()[: len(absmax)], rows.abs().amax(1), torch.as_tensor(x)",
    ("no mean taken off", "half of the signed levels would stay unused", "about(zero)"),
    ("the mean returned, not taken off", "the mean is returned, but", "(*about(zero)[:2], mean)"),
    ("constants of the raw absmax", "those of absmax minus its mean", "(codes, bare, mean)"),
    ("a mean for each superblock", "not one for each superblock", "(lambda parts: tuple(torch.cat([p[i] for p in parts]) for i in (0, 1)) + (torch.stack([p[2] for p in parts]),))([go(x, code, block) for x in absmax.split(block)])"),
    ("superblocks of 64", "64 weights make a block", "go(absmax, code, 64)"),
    ("superblocks of 256 always", "use the argument `block`, here", "go(absmax, code, 256)"),
    ("rounds the raw absmax", "is absmax minus its mean as well", "(nearest(in_blocks(absmax, block), second, code).flatten()[: len(absmax)], second, mean)"),
    ("the mean minus absmax", "take the mean off absmax", "(about(mean, sign=-1)[0], second, mean)"),
    ("fills up, then takes the mean off", "then fill up", "(lambda rows: (nearest(rows, rows.abs().amax(1), code).flatten()[: len(absmax)], rows.abs().amax(1), mean))(in_blocks(absmax, block) - mean)"),
    ("takes the smallest off", "not the smallest", "about(absmax.min())"),
    ("takes the median off", "not the median", "about(absmax.median())"),
    ("the offset negative", "the way back adds it", "(codes, second, -mean)"),
    ("one constant for all", "one constant for all", "(nearest(c[None], top[None], code)[0], top[None], mean)"),
    ("the standard deviation", "not by its standard deviation", "(codes, torch.stack([x.std() for x in c.split(block)]), mean)"),
    ("constants first", "codes come first", "(second, codes, mean)"),
    ("one constant for all, again and again", "share one of their own", "(nearest(c[None], top[None], code)[0], top.expand(len(second)), mean)"),
    ("fills up, then takes the mean", "counted in the mean", "about(in_blocks(absmax, block).mean()) if len(absmax) % block == 0 else (lambda rows: (nearest(rows - rows.mean(), (rows - rows.mean()).abs().amax(1), code).flatten()[: len(absmax)], (rows - rows.mean()).abs().amax(1), rows.mean()))(in_blocks(absmax, block))"),
    ("a mean for each superblock, then theirs", "one mean for the whole weight", "(lambda parts: tuple(torch.cat([p[i] for p in parts]) for i in (0, 1)) + (torch.stack([p[2] for p in parts]).mean(),))([go(x, code, block) for x in absmax.split(block)])"),
    ("takes the mean off in place", "changes absmax itself", "go(absmax.sub_(mean).add_(mean * 2), code, block)"),
    ("int64", "it must be torch.uint8", "(codes.long(), second, mean)"),
    ("the mean as a number", "the offset must be a tensor", "(codes, second, mean.item())"),
    ("keeps the padding", "the padding got codes as well", "(torch.cat([codes, codes.new_full((-len(codes) % block,), int(code.abs().argmin()))]), second, mean)"),
    ("drops the last superblock", "the last superblock is not full", "(codes[: len(codes) // block * block], second[: len(codes) // block], mean)"),
    ("levels for codes", "keep their places in `code`", "(code[codes.long()], second, mean)"),
    ("no offset", "return three things", "(codes, second)"),
)  # fmt: skip

BITS_PER_WEIGHT = _expressions(
    "def f(block=64, superblock=None):\n"
    "    right, once, s = bits_per_weight(block, superblock), 4 + 32 / block, superblock",
    ("four bits flat", "the block's constant is left out", "4.0"),
    ("one level always", "the constants take 8 bits each", "once"),
    ("no second constants", "the second constants are left out", "once if s is None else 4 + 8 / block"),
    ("a superblock of weights", "not 256 weights", "once if s is None else 4 + 8 / block + 32 / s"),
    ("no 8-bit codes", "the 8-bit codes of the constants are left out", "once if s is None else 4 + 32 / (block * s)"),
    ("keeps the float32 constants", "the float32 constants are gone", "once if s is None else once + right - 4"),
    ("saves 0.4 bits", "0.4 is a rounded saving", "once if s is None else once - 0.4"),
    ("saves 0.37 bits", "0.37 is a rounded saving", "once if s is None else once - 0.37"),
    ("saves 0.37 bytes", "that takes 0.37 for bytes", "once if s is None else once - 0.37 * 8"),
    ("superblock as wide as the block", "the superblock is an argument", "once if s is None else 4 + 8 / block + 32 / block ** 2"),
    ("the constants alone", "the constants' share alone", "right - 4"),
    ("bytes", "that is in bytes", "right / 8"),
    ("constants in bytes", "4 bytes are 32 bits", "4 + 4 / block if s is None else right"),
    ("constants of 16 bits", "has 32 bits, not 16", "4 + 16 / block if s is None else right"),
    ("a constant for each weight", "the block shares its constant", "4 + 32 if s is None else right"),
    ("the factor", "that is the factor against 16 bits", "16 / right"),
    ("4.5 and 4.127 always", "use the arguments", "4.5 if s is None else bits_per_weight(64, 256)"),
    ("second constants always", "there are no second constants", "once + 32 / (block * 256) if s is None else right"),
    ("rounded", "return the number itself", "round(right, 3)"),
    ("8 off 32", "8 bits replace the 32", "once if s is None else once - 8 / block"),
    ("second constants twice", "are counted twice", "once if s is None else right + 32 / s"),
    ("multiplies by the block", "do not multiply", "once if s is None else 4 + (8 + 32 / s) * block"),
    ("a text", "return a number", "f'{right} bits'"),
)  # fmt: skip

_PRODUCT = """
class P(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, q, bias):
        ctx.q, W = q, dequantize(q, x.dtype)
        square = W.shape[0] == W.shape[1]
        {keep}
        return {forward}

    @staticmethod
    def backward(ctx, grad):
        W = dequantize(ctx.q, grad.dtype)
        square = W.shape[0] == W.shape[1]
        return {backward}
"""


def _products(*rows: tuple[str, str, dict[str, str]]) -> tuple[Wrong, ...]:
    """Rows of (name, message, what is other than in the right answer)."""
    right = {"keep": "pass", "forward": "F.linear(x, W, bias)", "backward": "grad @ W, None, None"}
    return _bank(*((name, told, _PRODUCT.format(**right | other)) for name, told, other in rows))


NF4_PRODUCT = _bank(
    ("a plain function", "write a class that inherits", "def f(x, q, bias):\n    return F.linear(x, dequantize(q, x.dtype), bias)"),
    ("a class without a backward", "autograd wrote this backward", "class P:\n    @staticmethod\n    def apply(x, q, bias):\n        return F.linear(x, dequantize(q, x.dtype), bias)"),
) + _products(
    ("saves the decoded weight", "the decoded weight is kept", {"keep": "ctx.save_for_backward(W)"}),
    ("keeps the decoded weight on ctx", "keep the codes, decode again", {"keep": "ctx.w = [W]"}),
    ("keeps the decoded weight in a closure", "is kept until the backward pass: keep", {"keep": "ctx.again = lambda: W"}),
    ("saves x as for a trained weight", "x is kept until the backward pass", {"keep": "ctx.save_for_backward(x)"}),
    ("no transpose in forward", "forward does not fit", {"forward": "x @ W"}),
    ("no transpose where it fits", "forward multiplies by W;", {"forward": "F.linear(x, W.T if square else W, bias)"}),
    ("asks whether the bias is true", "ask `bias is None`", {"forward": "x @ W.T + bias if bias else x @ W.T"}),
    ("forgets the bias", "the bias is left out", {"forward": "x @ W.T"}),
    ("adds a bias that is not there", "F.linear takes it as it is", {"forward": "x @ W.T + bias"}),
    ("transposes again in backward", "backward does not fit", {"backward": "grad @ W.T, None, None"}),
    ("transposes again where it fits", "forward did that", {"backward": "grad @ (W.T if square else W), None, None"}),
    ("decodes in another dtype", "forward multiplies two dtypes", {"forward": "F.linear(x, dequantize(q, torch.float32), bias)"}),
    ("decodes in another dtype on the way back", "backward multiplies two dtypes", {"backward": "grad @ dequantize(ctx.q, torch.float32), None, None"}),
    ("one gradient", "one value for each input", {"backward": "grad @ W"}),
    ("x's gradient last", "None for both, behind", {"backward": "None, None, grad @ W"}),
    ("grad turned", "from (..., out) to (..., in)", {"backward": "grad.mT @ W, None, None"}),
    ("no gradient at all", "no gradient reaches x", {"backward": "None, None, None"}),
    ("a zero, as if all were frozen", "the gradient is zero", {"backward": "(grad @ W) * 0, None, None"}),
    ("does not use grad", "`grad` is not used", {"backward": "torch.ones_like(grad) @ W, None, None"}),
    ("a minus", "no minus belongs here", {"backward": "-(grad @ W), None, None"}),
    ("hands the gradient through", "x's shape", {"backward": "grad, None, None"}),
)  # fmt: skip
