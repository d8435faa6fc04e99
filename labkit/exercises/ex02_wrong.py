"""The bank of notebook 02: wrong answers as code, each with words of the message it must get.

Many are what published calculators do: keys at the query width, embeddings counted twice, half a
byte for every parameter, 34 bytes a token and hidden number, one table of logits or none, moments
in float32 whatever trains.
"""

from labkit.exercises.exercise import Wrong


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return tuple(Wrong(name, f"{head}\n    return {code}", message) for name, message, code in rows)


PARAMETERS = _expressions(
    "def f(s):\n"
    "    h, i, layers, table = s.hidden, s.intermediate, s.layers, s.vocab * s.hidden\n"
    "    q, kv, d = s.heads * s.head_dim, s.kv_heads * s.head_dim, s.hidden // s.heads\n"
    "    right, linear, tables = parameters(s), s.linear, table * (2 - s.tied)\n"
    "    norms = (2 * layers + 1) * h\n"
    "    wide = lambda q, k: layers * (2 * h * q + 2 * h * k + 3 * h * i) + norms + tables",
    ("keys and values at the query width", "not the query heads", "wide(q, q)"),
    ("two tables, tied or not", "count it once", "right + table if s.tied else right"),
    ("one table, tied or not", "it is a second table", "right if s.tied else right - table"),
    ("no embedding", "the embedding is missing", "right - tables"),
    ("two maps in the MLP", "gate, up and down", "right - layers * h * i"),
    ("no norms", "the norms are missing", "right - norms"),
    ("no last norm", "one norm is missing", "right - h"),
    ("the last norm alone", "the layers have norms too", "right - 2 * layers * h"),
    ("one norm a layer", "each layer has two norms", "right - layers * h"),
    ("one layer", "that is one layer", "right - (layers - 1) * (linear // layers + 2 * h)"),
    ("linear maps alone", "those are the linear maps alone", "linear"),
    ("guesses the head's width", "how wide a head is", "wide(s.heads * d, s.kv_heads * d)"),
    ("both widths from the hidden size", "comes from head_dim", "wide(h, s.kv_heads * d)"),
    ("o_proj reads the keys", "not the key-value heads", "right - layers * h * (q - kv)"),
    ("queries as wide as the hidden size", "that need not be hidden", "wide(h, kv)"),
    ("biases", "has a bias", "right + layers * (q + 2 * kv)"),
    ("a rule for GPT", "counts a GPT", "12 * layers * h * h"),
    ("learnt positions", "no table of positions", "right + s.max_length * h"),
    ("norms with a bias", "a scale and no bias", "right + norms"),
    ("bytes in 16 bits", "their bytes come later", "2 * right"),
    ("bytes in float32", "not bytes in float32", "4 * right"),
    ("a float", "must be a whole number (int), not float", "right / 1"),
)

WEIGHT_BYTES = _expressions(
    "def f(s, double=True, prepared=False):\n"
    "    right, linear = weight_bytes(s, double, prepared), s.linear\n"
    "    sizes = [out * wide for out, wide in s.projections.values()] * s.layers\n"
    "    blocks = sum(math.ceil(n / 64) for n in sizes)\n"
    "    rest, dtype = s.parameters - linear, 4 if prepared else 2\n"
    "    quantised = right - dtype * rest\n"
    "    scales = quantised - linear // 2",
    ("half a byte for everything", "half a byte for everything", "s.parameters // 2"),
    ("everything packed", "only the seven maps are packed", "s.parameters // 2 + (math.ceil(s.parameters / 64) + 4 * math.ceil(math.ceil(s.parameters / 64) / 256) if double else 4 * math.ceil(s.parameters / 64))"),
    ("embeddings in 4 bits", "are not quantised", "quantised + rest // 2"),
    ("no scales", "the scales are missing", "right - scales"),
    ("double quantisation ignored", "the scales take one byte each", "weight_bytes(s, False, prepared)"),
    ("always double", "the scales are float32", "weight_bytes(s, True, prepared)"),
    ("scales without scales", "the scales have scales", "right - scales + blocks if double else right"),
    ("prepare ignored", "takes 4 bytes after prepare", "quantised + 2 * rest"),
    ("always prepared", "takes 2 bytes before prepare", "quantised + 4 * rest"),
    ("4.127 bits for everything", "hold for the projections", "int(s.parameters * 4.126953125 / 8)"),
    ("scales in 16 bits", "no scale takes 16 bits", "right - scales + 2 * blocks"),
    ("blocks rounded down", "round up", "right - scales + sum(n // 64 + 4 * (n // 64 // 256) if double else n // 64 * 4 for n in sizes)"),
    ("all maps as one", "packed on its own", "right - scales + (math.ceil(linear / 64) + 4 * math.ceil(math.ceil(linear / 64) / 256) if double else 4 * math.ceil(linear / 64))"),
    ("codes beside the weights", "not beside them", "right + 2 * linear"),
    ("projections alone", "embedding and norms stand beside them", "quantised"),
    ("a byte a weight", "4 bits are half a byte", "right + linear // 2"),
    ("16 bits", "that is the model in 16 bits", "2 * s.parameters"),
    ("one layer", "that is one layer", "quantised // s.layers + dtype * rest"),
    ("a float", "must be a whole number (int), not float", "right / 1"),
)  # fmt: skip

ADAPTER_PARAMETERS = _expressions(
    "def f(s, rank, targets='all-linear', dora=False):\n"
    "    right, pairs = (adapter_parameters(s, rank, targets, d) for d in (dora, False))\n"
    "    names = s.projections if targets == 'all-linear' else targets\n"
    "    shapes = [s.projections[name] for name in names]\n"
    "    outs, ins = sum(o for o, _ in shapes), sum(i for _, i in shapes)\n"
    "    extra, layers = right - pairs, s.layers",
    ("targets ignored", "not all seven maps", "adapter_parameters(s, rank, 'all-linear', dora)"),
    ("no magnitude", "DoRA trains a magnitude too", "pairs"),
    ("a magnitude an input", "not for each input", "pairs + layers * ins * dora"),
    ("DoRA doubles", "DoRA does not double LoRA", "pairs * (2 if dora else 1)"),
    ("one magnitude a map", "the magnitude is a vector", "pairs + layers * len(shapes) * dora"),
    ("a magnitude a rank", "does not depend on the rank", "pairs + layers * rank * outs * dora"),
    ("always DoRA", "belongs to DoRA alone", "pairs + layers * outs"),
    ("one layer", "that is one layer", "right // layers"),
    (
        "every map square",
        "as if every map were hidden x hidden",
        "2 * layers * rank * s.hidden * len(shapes)",
    ),
    ("multiplies", "they do not multiply", "layers * rank * sum(o * i for o, i in shapes) + extra"),
    ("no rank", "where is the rank?", "pairs // rank + extra"),
    ("A alone", "that is A alone", "layers * rank * ins + extra"),
    ("B alone", "that is B alone", "layers * rank * outs + extra"),
    ("the head too", "the head is no target", "right + rank * (s.hidden + s.vocab)"),
    ("bytes", "their bytes come later", "4 * right"),
)

OPTIMIZER_BYTES = _expressions(
    "def f(sizes, optimizer, itemsize):\n"
    "    right, n = optimizer_bytes(sizes, optimizer, itemsize), sum(sizes)\n"
    "    own = lambda name, value: value if optimizer == name else right\n"
    "    scales = sum(8 * math.ceil(s / 256) for s in sizes if s >= 4096)\n"
    "    small = sum(s for s in sizes if s < 4096)",
    ("float32 moments", "not in float32", "own('adamw', 8 * n)"),
    ("bfloat16 moments", "here 4 bytes a number", "own('adamw', 4 * n)"),
    ("one moment", "two moments for each number", "own('adamw', itemsize * n)"),
    ("the gradient too", "no part of the optimizer", "own('adamw', 3 * itemsize * n)"),
    ("a master copy", "no float32 master copy", "own('adamw', 12 * n)"),
    ("8 bits for all", "small tensors keep float32", "own('adamw_8bit', 2 * n)"),
    ("8 bits for small tensors", "below 4,096 numbers", "own('adamw_8bit', sum(2 * s + 8 * math.ceil(s / 256) for s in sizes))"),
    ("8 bits without scales", "scale for every 256 numbers", "own('adamw_8bit', right - scales)"),
    ("one set of scales", "each of the two moments", "own('adamw_8bit', right - scales // 2)"),
    ("small tensors forgotten", "small tensors have moments too", "own('adamw_8bit', right - 8 * small)"),
    ("an older block", "2,048 is an older block", "own('adamw_8bit', sum(2 * s + 8 * math.ceil(s / 2048) if s >= 4096 else 8 * s for s in sizes))"),
    ("8 bits only above the limit", "4,096 numbers is large enough", "own('adamw_8bit', sum(optimizer_bytes([s - (s == 4096)], optimizer, itemsize) + 8 * (s == 4096) for s in sizes))"),
    ("small tensors as wide as the parameter", "whatever the parameter is", "own('adamw_8bit', right - (8 - 2 * itemsize) * small)"),
    ("one byte a number", "one byte each", "own('adamw_8bit', n)"),
    ("8-bit is AdamW", "in 8 bits a moment takes a byte", "own('adamw_8bit', 2 * itemsize * n)"),
    ("8-bit is float32", "a moment takes one byte", "own('adamw_8bit', 8 * n)"),
    ("paged saves nothing", "live outside PyTorch's allocator", "own('paged_adamw_32bit', 8 * n)"),
    ("paged saves all", "is not paged", "own('paged_adamw_32bit', 0)"),
    ("pages only above the limit", "100,000 numbers is large enough", "own('paged_adamw_32bit', right + 8 * sum(s for s in sizes if s == 100_000))"),
    ("pages as wide as the parameter", "float32 whatever the parameter is", "own('paged_adamw_32bit', right * itemsize // 4)"),
    ("one paged moment", "two moments as well", "own('paged_adamw_32bit', right // 2)"),
    ("pages the small ones", "the large tensors are the paged ones", "own('paged_adamw_32bit', 8 * n - right)"),
    ("SGD with a moment", "SGD without momentum keeps nothing", "own('sgd', 4 * n)"),
    ("SGD with Adam's moments", "those are Adam's moments", "own('sgd', 8 * n)"),
    ("a float", "must be a whole number (int), not float", "right / 1"),
)  # fmt: skip

SAVED_PER_TOKEN = _expressions(
    "def f(s, rank):\n"
    "    right, h, i = saved_per_token(s, rank), s.hidden, s.intermediate\n"
    "    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim",
    ("nothing but the adapters", "a frozen map keeps no input", "14 * rank"),
    ("34 bytes", "counts another model", "34 * h"),
    ("keys at the query width", "the width of their own heads", "right + 4 * (q - kv)"),
    ("norms in 16 bits", "its input in float32", "right - 4 * h"),
    ("the maps' inputs forgotten", "and its output in 2", "right - 4 * h"),
    ("one norm", "there are two norms", "right - 6 * h - 4"),
    ("keys without values", "keys and values are two tensors", "right - 2 * kv"),
    ("one sum a token", "not one a token", "right - 4 * s.heads + 4"),
    ("each row once", "holds more than one tensor", "6 * h + 4 + 2 * q + 2 * kv + 4 * s.heads + 2 * i + 14 * rank"),
    ("the table's numbers", "count bytes", "4 * h + 2 + 2 * q + 2 * kv + s.heads + 4 * i + 7 * rank"),
    ("no deviations", "one float32 number a token", "right - 8"),
    ("no norms", "the two norms keep their inputs", "right - 8 * h - 8"),
    ("no sums", "attention keeps one float32 sum", "right - 4 * s.heads"),
    ("sums in 16 bits", "the sums of the softmax are float32", "right - 2 * s.heads"),
    ("attention without its output", "attention keeps its output too", "right - 2 * q"),
    ("no attention", "attention keeps queries, keys", "right - 4 * q - 4 * kv - 4 * s.heads"),
    ("three tensors in the MLP", "the MLP keeps four tensors: gate, its silu, up and their product", "right - 2 * i"),
    ("two tensors in the MLP", "and their product, not two", "right - 4 * i"),
    ("an input for each map", "count each once", "right + 6 * h + 2 * q"),
    ("one adapter", "rank numbers each", "right - 12 * rank"),
    ("no inner results", "for B's gradient", "right - 14 * rank"),
    ("adapters in float32", "the adapters work in bfloat16 here", "right + 14 * rank"),
    ("queries and keys twice", "after the rotation", "right + 2 * q + 2 * kv"),
    ("the input of o_proj again", "o_proj reads attention's output", "right + 2 * q"),
    ("the input of down_proj again", "down_proj reads the product", "right + 2 * i"),
    ("all layers", "that is every layer", "right * s.layers"),
    ("numbers", "count bytes, not numbers", "right // 2"),
)  # fmt: skip

LOGITS_BYTES = _expressions(
    "def f(tokens, vocab):",
    ("one table in bfloat16", "that is the table in bfloat16", "2 * tokens * vocab"),
    ("one table", "one float32 table", "4 * tokens * vocab"),
    ("three tables in bfloat16", "three tables, and each is float32", "6 * tokens * vocab"),
    ("two tables", "two float32 tables", "8 * tokens * vocab"),
    ("a gradient in bfloat16", "the gradients in float32 come first", "10 * tokens * vocab"),
    ("the bfloat16 table too", "nobody holds the bfloat16 logits", "14 * tokens * vocab"),
    ("four tables", "the float32 copy of the logits is gone", "16 * tokens * vocab"),
    ("8/3 tables", "count the tables", "32 * tokens * vocab // 3"),
    ("one token", "where are the tokens?", "12 * vocab"),
    ("no vocabulary", "a row is as long as the vocabulary", "12 * tokens"),
    ("adds", "rows times columns", "12 * (tokens + vocab)"),
    ("numbers", "count bytes, not numbers", "3 * tokens * vocab"),
    ("a float", "must be a whole number (int), not float", "12.0 * tokens * vocab"),
)

DEQUANTISED_BYTES = _expressions(
    "def f(s):\n"
    "    right = dequantised_bytes(s)\n"
    "    sizes = [out * wide for out, wide in s.projections.values()]\n"
    "    large, one = max(sizes), lambda n: 2 * n + 4 * math.ceil(n / 64)",
    ("no scales", "the float32 scales are unpacked too", "2 * large"),
    ("scales of one byte", "the scales are unpacked to float32", "2 * large + math.ceil(large / 64)"),
    ("the whole model", "not the whole model", "s.layers * sum(map(one, sizes))"),
    ("the whole model without scales", "as if all layers were unpacked", "2 * s.layers * sum(sizes)"),
    ("the largest of every layer", "of every layer", "right * s.layers"),
    ("the embedding", "the embedding is not packed", "one(s.vocab * s.hidden)"),
    ("a whole layer", "not a whole layer with its scales", "sum(map(one, sizes))"),
    ("still 4 bits", "takes 16 bits, not 4", "right - 2 * large + large // 2"),
    ("float32", "takes 16 bits, not 32", "right + 2 * large"),
    ("a byte a weight", "two bytes", "right - large"),
    ("q_proj", "q_proj is not the largest map", "one(sizes[0])"),
    ("the smallest map", "not the smallest", "one(min(sizes))"),
    ("forward and backward", "backward unpacks the map again", "2 * right"),
    ("the codes too", "the packed codes are counted", "right + large // 2"),
)  # fmt: skip

PEAK = _expressions(
    "def f(phases):\n"
    "    name, total = peak(phases)\n"
    "    sums = {p: sum(kinds.values()) for p, kinds in phases.items()}\n"
    "    names = {kind for kinds in phases.values() for kind in kinds}\n"
    "    piece = max(phases, key=lambda p: max(phases[p].values()))",
    ("adds the maxima", "do not meet in one moment", "name, sum(max(k.get(x, 0) for k in phases.values()) for x in names)"),
    ("adds the phases", "phases follow each other", "name, sum(sums.values())"),
    ("the largest piece", "add up what a phase holds", "piece, max(phases[piece].values())"),
    ("the phase of the largest piece", "not their largest piece", "piece, sums[piece]"),
    ("the last phase", "the last phase need not", "list(sums.items())[-1]"),
    ("the first phase", "the first phase need not", "list(sums.items())[0]"),
    ("bytes alone", "return the phase and its bytes", "total"),
    ("the other way round", "the other way round", "total, name"),
    ("a list", "return a pair (phase, bytes), not list", "[name, total]"),
)  # fmt: skip
