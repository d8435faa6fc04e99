"""The bank of notebook 04: wrong answers as code, each with words of the message it must get."""

from labkit.exercises.exercise import Wrong


def _bank(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, code)."""
    return tuple(Wrong(name, code, message) for name, message, code in rows)


def _expressions(head: str, *rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, expression) that share the lines above their `return`."""
    return _bank(*((name, message, f"{head}\n    return {code}") for name, message, code in rows))


LORA_PARAMETERS = _expressions(
    "def f(c, r):\n"
    "    h, i, layers = c.hidden_size, c.intermediate_size, c.num_hidden_layers\n"
    "    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim\n"
    "    right, guess = lora_parameters(c, r), h // c.num_attention_heads\n"
    "    guessed = type(c)(**{**vars(c), 'head_dim': guess})",
    ("keys and values at the query width", "not the query heads", "layers * r * (4 * (q + h) + 3 * (h + i))"),
    ("multiplies the widths", "they do not multiply", "layers * r * (4 * q * h + 3 * h * i)"),
    ("multiplies the right widths", "add their sizes", "layers * r * (2 * q * h + 2 * kv * h + 3 * h * i)"),
    ("counts the frozen weights", "those are the frozen weights", "layers * (2 * q * h + 2 * kv * h + 3 * h * i)"),
    ("one pair a layer", "seven a layer", "layers * r * (h + i)"),
    ("forgets the layers", "that is one layer; the model has more", "right // layers"),
    ("forgets the rank", "where is the rank? A has", "right // r"),
    ("forgets layers and rank", "that is one layer at rank 1", "right // r // layers"),
    ("q and v only", "that is q_proj and v_proj", "layers * r * ((q + h) + (kv + h))"),
    ("attention only", "that is attention", "layers * r * (2 * (q + h) + 2 * (kv + h))"),
    ("MLP only", "that is the MLP", "layers * r * 3 * (h + i)"),
    ("two MLP maps", "one of the three MLP projections is missing", "right - layers * r * (h + i)"),
    ("A alone", "that is A alone", "layers * r * (3 * h + q + 2 * h + i)"),
    ("B alone", "that is B alone", "layers * r * (q + 2 * kv + h + 2 * i + h)"),
    ("guesses the head's width", "hidden_size / heads need not be it", "lora_parameters(guessed, r)"),
    ("q and o as wide as the hidden size", "q_proj puts out heads * head_dim", "layers * r * (4 * h + 2 * (kv + h) + 3 * (h + i))"),
    ("q or o as wide as the hidden size", "that need not be hidden_size", "layers * r * (2 * h + (h + q) + 2 * (kv + h) + 3 * (h + i))"),
)  # fmt: skip

MASK_PROMPT = _expressions(
    "def f(prompt, whole):\n    p = len(prompt)\n    right = [IGNORE] * p + whole[p:]",
    ("masks nothing", "nothing is masked", "whole"),
    ("masks everything", "everything is masked", "[IGNORE] * len(whole)"),
    ("masks the answer", "the wrong way round", "prompt + [IGNORE] * (len(whole) - p)"),
    ("masks one token too few", "one token too few", "[IGNORE] * (p - 1) + whole[p - 1:]"),
    ("masks one token too many", "one token too many", "[IGNORE] * (p + 1) + whole[p + 1:]"),
    ("masks by value", "mask by position", "[IGNORE if t in prompt else t for t in whole]"),
    ("masks the end of turn (pad = eos)", "never learn to stop", "right[:-1] + [IGNORE]"),
    ("shifts the labels", "the labels are shifted", "[IGNORE] + right[:-1]"),
    ("shifts the labels the other way", "twice is once too often", "right[1:] + [IGNORE]"),
    ("drops the prompt", "tokens need", "whole[p:]"),
    ("masks with token 0", "which the loss leaves out", "[0] * p + whole[p:]"),
    ("drops token 0", "each label is the token itself", "[IGNORE] * p + [t or IGNORE for t in whole[p:]]"),
    ("returns a tuple", "must be a list", "tuple(right)"),
    ("masks in place", "changes the tokens it was given", "whole.__setitem__(slice(p), [IGNORE] * p) or whole"),
)  # fmt: skip

NEXT_TOKEN_LOSS = _expressions(
    "def f(logits, labels):\n"
    "    v = logits.shape[-1]\n"
    "    a, b = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()\n"
    "    kept, ce = b != IGNORE, F.cross_entropy\n"
    "    sum = ce(a, b, reduction='sum')",
    ("does not shift", "predicts the NEXT token", "ce(logits.flatten(0, 1), labels.flatten())"),
    ("shifts the wrong way", "goes the wrong way", "ce(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())"),
    ("shifts twice", "that shifts by two", "ce(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())"),
    ("flattens before the shift", "then flatten: here a row's end", "ce(logits.flatten(0, 1)[:-1], labels.flatten()[1:])"),
    ("does not flatten", "flatten to (tokens, vocab) and (tokens,)", "ce(logits[:, :-1], labels[:, 1:])"),
    ("shifts the logits alone", "the sizes do not fit", "ce(a, labels.flatten())"),
    ("views a slice", "use flatten or reshape", "ce(logits[:, :-1].view(-1, v), b)"),
    ("softmax first", "it does the softmax itself", "ce(a.softmax(-1), b)"),
    ("no minus", "the minus is missing", "-ce(a, b)"),
    ("perplexity", "that is the perplexity", "ce(a, b).exp()"),
    ("bits", "that is in bits", "ce(a, b) / torch.log(torch.tensor(2.0))"),
    ("divides by the batch", "divided by the batch size", "sum / len(labels)"),
    ("divides by every position", "not by all of them", "sum / labels.numel()"),
    ("divides by every shifted position", "divide by the number of labels that count", "sum / b.numel()"),
    ("divides by the unshifted count", "count the labels after the shift", "sum / (labels != IGNORE).sum()"),
    ("sums", "that is the sum", "sum"),
    ("means of rows", "a mean of row means", "torch.stack([ce(x, y) for x, y in zip(logits[:, :-1], labels[:, 1:])]).mean()"),
    ("does not reduce", "has shape", "ce(a, b, reduction='none')"),
    ("detaches the logits", "no gradient can flow back", "ce(a.detach(), b)"),
    ("makes a new tensor of the number", "leave out detach, item and no_grad", "torch.tensor(ce(a, b).item())"),
    ("returns a number", "must be a tensor, not float", "ce(a, b).item()"),
    ("masks with token 0", "token 0 is a token like any other", "ce(a, b.clamp(min=0), ignore_index=0)"),
    ("learns the masked labels", "the masked labels count as token 0", "ce(a, b.clamp(min=0))"),
    ("leaves out another label", "is no token: leave it out", "ce(a, b, ignore_index=0)"),
    ("takes logits for log probabilities", "log_softmax comes first", "F.nll_loss(a, b)"),
    ("forgets the logarithm", "take the logarithm", "-a.softmax(-1)[kept].gather(1, b[kept][:, None]).mean()"),
    ("knows the vocabulary", "flatten to (tokens, vocab) and", "ce(logits[:, :-1].reshape(-1, 11), b)"),
)  # fmt: skip

_STEP = (
    "def f(model, optimizer, batch, loss_of, clip):\n    norm = torch.nn.utils.clip_grad_norm_\n"
)


def _steps(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, statements): `clip` and the other short words stand for a call."""
    calls = {
        "clear": "optimizer.zero_grad()",
        "loss": "loss = loss_of(model, batch)",
        "back": "loss.backward()",
        "clip": "norm(model.parameters(), clip)",
        "clip1": "norm(model.parameters(), 1.0)",
        "value": "torch.nn.utils.clip_grad_value_(model.parameters(), clip)",
        "each": "[norm([p], clip) for p in model.parameters()]",
        "always": "size = norm(model.parameters(), float('inf')); "
        "[p.grad.mul_(clip / size) for p in model.parameters()]",
        "step": "optimizer.step()",
        "number": "return loss.item()",
        "later": "return loss_of(model, batch).item()",
        "tensor": "return loss",
        "size": "return float(norm(model.parameters(), clip))",
    }
    written = (
        (name, told, _STEP + "".join(f"    {calls[word]}\n" for word in words.split()))
        for name, told, words in rows
    )
    return _bank(*written)


TRAINING_STEP = _steps(
    ("never clears", "were the gradients of the first one cleared?", "loss back clip step number"),
    ("never clears or clips", "the second step is off", "loss back step number"),
    ("does not clip", "the step is too long: clip", "clear loss back step number"),
    ("clears after backward", "cleared between backward and the step", "loss back clear step number"),
    ("does not step", "optimizer.step() is missing", "clear loss back clip number"),
    ("does not go back", "loss.backward() is missing", "clear loss clip step number"),
    ("steps before backward", "steps before backward has filled", "clear loss step back clip number"),
    ("clips before backward", "it clips before backward", "clear loss clip back step number"),
    ("clips before it clears", "there is no gradient yet", "clip clear loss back step number"),
    ("clips after the step", "it clips after the step", "clear loss back step clip number"),
    ("clips after the step, then clears", "the optimizer has read the gradients", "loss back step clip clear number"),
    ("clips at 1.0", "use the argument `clip`", "clear loss back clip1 step number"),
    ("clips each number", "clip_grad_value_ cuts every number", "clear loss back value step number"),
    ("clips each tensor", "clip all parameters in one call", "clear loss back each step number"),
    ("makes each gradient as long as clip", "stays as it is", "clear loss back always step number"),
    ("steps twice", "one batch, one step", "clear loss back clip step step number"),
    ("steps twice, unclipped", "and the gradient is not clipped", "clear loss back step step number"),
    ("returns the tensor", "keep the whole graph alive", "clear loss back clip step tensor"),
    ("returns nothing", "is a `return` missing?", "clear loss back clip step"),
    ("returns the loss after the step", "that is the loss after the step", "clear loss back clip step later"),
    ("returns the gradient's norm", "not the loss of this batch", "clear loss back clip step size"),
)  # fmt: skip

_READ = (
    "def f(answer, truth):\n    t = json.loads(truth)\n"
    "    try:\n        s = {read}\n    except {error}:\n        return 0\n"
    "    if not isinstance(s, dict):\n        return 0\n"
    "    return {count}"
)
_RIGHT = "sum(type(s.get(k)) is type(v) and s[k] == v for k, v in t.items())"


def _grading(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, count): they read the answer as they should, then count."""
    read = {"read": "json.loads(answer)", "error": "json.JSONDecodeError"}
    return _bank(*((name, told, _READ.format(count=count, **read)) for name, told, count in rows))


def _reading(*rows: tuple[str, str, str]) -> tuple[Wrong, ...]:
    """Rows of (name, message, read): they count as they should what they read in another way."""
    how = {"count": _RIGHT, "error": "Exception"}
    return _bank(*((name, told, _READ.format(read=read, **how)) for name, told, read in rows))


FIELDS_RIGHT = (
    *_bank(
        ("crashes on broken JSON", "your code raised JSONDecodeError", "def f(answer, truth):\n    s, t = json.loads(answer), json.loads(truth)\n    return sum(s[k] == t[k] for k in t)"),
        ("looks for the words", "words that occur are not fields", "def f(answer, truth):\n    return sum(str(v) in answer for v in json.loads(truth).values())"),
        ("all or nothing", "one wrong field leaves four right", "def f(answer, truth):\n    return 5 if answer == truth else 0"),
        ("takes any JSON for an object", "JSON that is no object has no field", f"def f(answer, truth):\n    t = json.loads(truth)\n    try:\n        s = json.loads(answer)\n    except json.JSONDecodeError:\n        return 0\n    return {_RIGHT}"),
        ("takes texts and null for objects", "a JSON text is no object", f"def f(answer, truth):\n    t = json.loads(truth)\n    try:\n        s = json.loads(answer)\n    except json.JSONDecodeError:\n        return 0\n    if isinstance(s, list):\n        return 0\n    return {_RIGHT}"),
    ),
    *_grading(
        ("compares as text", "the amount is a number", "sum(str(s.get(k)) == str(v) for k, v in t.items())"),
        ("plain ==", "420.0 is a float", "sum(k in s and s[k] == v for k, v in t.items())"),
        ("isinstance", "true is not 1", "sum(k in s and isinstance(s[k], type(v)) and s[k] == v for k, v in t.items())"),
        ("true for 1 alone", "compare the type as well", "sum(k in s and (isinstance(v, bool) or type(s[k]) is type(v)) and s[k] == v for k, v in t.items())"),
        ("by order", "the order of the fields is free", "sum(a == b for a, b in zip(s.values(), t.values()))"),
        ("values anywhere", "a value in another field", "sum(v in s.values() for v in t.values())"),
        ("without capitals", "capitals count", "sum(k in s and type(s[k]) is type(v) and str(s[k]).lower() == str(v).lower() for k, v in t.items())"),
        ("without spaces", "spaces inside a value count", "sum(k in s and type(s[k]) is type(v) and str(s[k]).strip() == str(v) for k, v in t.items())"),
        ("truthiness", "false, \"\" and 0 are values too", "sum(bool(s.get(k)) and type(s[k]) is type(v) and s[k] == v for k, v in t.items())"),
        ("indexes a missing field", "your code raised KeyError", "sum(type(s[k]) is type(v) and s[k] == v for k, v in t.items())"),
        ("asks for every field", "the others still count", f"{_RIGHT} if set(t) <= set(s) else 0"),
        ("an extra field spoils", "an extra field must not spoil", f"0 if set(s) - set(t) else {_RIGHT}"),
        ("a missing field is an empty one", "whatever the truth holds there", "sum(type(s.get(k, type(v)())) is type(v) and s.get(k, type(v)()) == v for k, v in t.items())"),
        ("a missing field is null", "though get() returns None for it", "sum(type(s.get(k)) is type(v) and s.get(k) == v for k, v in t.items())"),
        ("a share", "must be a whole number", f"{_RIGHT} / len(t)"),
    ),
    *_reading(
        ("eval", "single quotes are Python", "eval(answer, {'true': True, 'false': False, 'null': None})"),
        ("cuts the object out", "text around the object", "json.loads(answer[answer.index('{'):answer.rindex('}') + 1])"),
        ("stops behind the object", "text behind the object", "json.JSONDecoder().raw_decode(answer.strip())[0]"),
        ("takes white space for chatter", "white space around the object", "json.loads(answer if answer == answer.strip() else '')"),
    ),
)  # fmt: skip

TRAINING_BYTES = _expressions(
    "def f(n):",
    ("counts in bfloat16", "in float32", "2 * n, 8 * n"),
    ("saves the optimizer", "stays behind", "16 * n, 16 * n"),
    ("one moment", "two moments a number", "4 * n, 12 * n"),
    ("no moments", "both of Adam's moments", "4 * n, 8 * n"),
    ("weights only", "training holds more than the weights", "4 * n, 4 * n"),
    ("counts bits", "count bytes, not bits", "32 * n, 128 * n"),
    ("the other way round", "first the file, then training", "16 * n, 4 * n"),
    ("adds a header", "counted without its header", "4 * n + 8, 16 * n"),
    ("a float in the file", "bytes in the file must be a whole number (int), not float", "n * 32 / 8, 16 * n"),
    ("a float in training", "bytes in training must be a whole number (int), not float", "4 * n, 16.0 * n"),
    ("one number", "return two numbers", "16 * n"),
)  # fmt: skip
