"""The judges of notebook 04: each compares with the right answer, then names the slip.

A slip is named by simulation: what would the published mistake give on this very input? The first
mistake that gives what the learner's code gave is the one that is told.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from labkit.data import IGNORE
from labkit.exercises.compare import count_slip, tensor_slip

NONE = "your code returned None: is a `return` missing?"

# --- 04.1 count the trainable parameters ------------------------------------------------------

NAMES = (
    "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip
CONFIGS = {
    "Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64),
    "a model whose heads are wider than its hidden size": (96, 200, 5, 4, 1, 32),
}
RANKS = (8, 3)  # neither is a number of layers: a forgotten rank is then no forgotten layer


def _widths(c: SimpleNamespace, **other: int) -> dict[str, tuple[int, int]]:
    """(out, in) of the seven projections; `other` puts a wrong width in: q, kv or o."""
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    h, i = c.hidden_size, c.intermediate_size
    q, kv, o = other.get("q", q), other.get("kv", kv), other.get("o", q)
    attention = {"q": (q, h), "k": (kv, h), "v": (kv, h), "o": (h, o)}
    return attention | {"gate": (i, h), "up": (i, h), "down": (h, i)}


def _count_slips(c: SimpleNamespace, rank: int) -> list[tuple[int, str]]:
    layers, h, heads = c.num_hidden_layers, c.hidden_size, c.num_attention_heads
    right, q = _widths(c), heads * c.head_dim
    one = sum(map(sum, right.values()))

    def total(shapes: dict[str, tuple[int, int]], names: str = "q k v o gate up down") -> int:
        return layers * rank * sum(sum(shapes[name]) for name in names.split())

    guessed = {"q": h, "kv": c.num_key_value_heads * (h // heads), "o": h}
    product = sum(out * into for out, into in right.values())
    at_queries = sum(out * into for out, into in _widths(c, kv=q).values())
    no_product = "A and B stand side by side: add their sizes, they do not multiply"
    wide = "q_proj puts out heads * head_dim, and o_proj takes it in; that need not be hidden_size"
    mlp = h + c.intermediate_size
    return [
        (total(_widths(c, kv=q)), "k_proj and v_proj are as wide as the key-value heads, not the query heads"),
        (rank * one, "that is one layer; the model has more"),
        (layers * one, "where is the rank? A has that many rows, B that many columns"),
        (one, "that is one layer at rank 1: where are the layers, and where is the rank?"),
        (total(right, "q v"), "that is q_proj and v_proj; the exercise adapts all seven maps"),
        (total(right, "q k v o"), "that is attention; the three maps of the MLP have pairs too"),
        (total(right, "gate up down"), "that is the MLP; the four maps of attention have pairs too"),
        *((layers * n, no_product) for n in (rank * product, rank * at_queries, rank * rank * product)),
        (layers * product, "those are the frozen weights; count A and B"),
        (layers * rank * sum(into for _, into in right.values()), "that is A alone; B trains too"),
        (layers * rank * sum(out for out, _ in right.values()), "that is B alone; A trains too"),
        (layers * rank * mlp, "each projection has a pair of its own: seven a layer"),
        (total(right) - layers * rank * mlp, "one of the three MLP projections is missing"),
        (total(_widths(c, **guessed)), "the config says how wide a head is; hidden_size / heads need not be it"),
        (total(_widths(c, q=h, o=h)), wide),
        (total(_widths(c, q=h, o=q)), wide),
    ]  # fmt: skip


def judge_lora_parameters(answer: Callable[[Any, int], int]) -> str | None:
    """seven pairs a layer, each at the width of its own projection"""
    for name, values in CONFIGS.items():
        config = SimpleNamespace(**dict(zip(NAMES, values, strict=True)))
        for rank in RANKS:
            got = answer(config, rank)
            # by an independent route: the shape of every A and every B, written out
            pairs = [rank * into + out * rank for out, into in _widths(config).values()]
            slip = count_slip(got)
            if slip is None and got != config.num_hidden_layers * sum(pairs):
                named = (told for count, told in _count_slips(config, rank) if count == got)
                slip = next(named, "write the seven (out, in) shapes down")
            if slip:
                return f"{name} at rank {rank}: {slip}"
    return None


# --- 04.2 mask the prompt ---------------------------------------------------------------------

CHATS = (  # prompt, what follows it
    ([0, 9, 8, 7], [21, 22, 4]),
    ([6], [5, 0, 5, 4]),
    ([0, 21, 4, 9], [9, 21, 22, 4]),  # tokens of the answer that the prompt holds as well
    ([3, 4, 4], [4]),
)


def _mask_slips(prompt: list[int], tail: list[int]) -> list[tuple[list[int], str]]:
    """The labels that published mistakes give, each with the slip behind it."""
    p, whole = len(prompt), prompt + tail
    right = [IGNORE] * p + tail
    by_value = [IGNORE if token in prompt else token for token in whole]
    shifted = "the labels are shifted; the loss shifts them, and twice is once too often"
    return [
        (whole, "nothing is masked: the model would learn to write prompts"),
        ([IGNORE] * len(whole), "everything is masked: nothing is left to learn"),
        (prompt + [IGNORE] * len(tail), "the mask is the wrong way round: it hides the answer"),
        ([IGNORE] * (p - 1) + whole[p - 1 :], "one token too few is masked: the prompt's last one is read, not learnt"),
        ([IGNORE] * (p + 1) + tail[1:], "one token too many is masked: the answer's first one is learnt"),
        ([IGNORE, *right[:-1]], shifted),
        ([*right[1:], IGNORE], shifted),
        (right[1:] + right[:1], shifted),
        (right[1:] + right[-1:], shifted),
        (by_value, "an answer token may also occur in the prompt: mask by position, the first len(prompt)"),
    ]  # fmt: skip


def judge_mask_prompt(answer: Callable[[list[int], list[int]], list[int]]) -> str | None:
    """the prompt is masked; the answer and its end-of-turn token are learnt"""
    for prompt, tail in CHATS:
        whole, right = prompt + tail, [IGNORE] * len(prompt) + tail
        read, given = list(prompt), list(whole)
        got = answer(read, given)
        if got is None:
            return NONE
        if (read, given) != (prompt, whole):
            return (
                "your code changes the tokens it was given; the model reads them: make a new list"
            )
        if not isinstance(got, list) or not all(isinstance(x, int) for x in got):
            return "labels must be a list of whole numbers"
        if len(got) != len(whole):
            return f"{len(whole)} tokens need {len(whole)} labels; yours are {len(got)}"
        if got == right:
            continue
        named = next((told for labels, told in _mask_slips(prompt, tail) if labels == got), None)
        if named:
            return named
        if got[-1] == IGNORE:
            return "the end-of-turn token is masked: the model would never learn to stop"
        if got[: len(prompt)] != right[: len(prompt)]:
            return f"each prompt token needs the label {IGNORE}, which the loss leaves out"
        return "behind the prompt each label is the token itself"
    return None


# --- 04.3 the next-token loss -----------------------------------------------------------------

VOCAB = 11
LABELS = (  # a first label that is learnt, a label 0 that is learnt, one that is masked at the end
    (IGNORE, IGNORE, IGNORE, IGNORE, 3, 7),
    (5, 2, 0, 8, 1, 4),
    (IGNORE, IGNORE, 6, 9, 10, IGNORE),
)
FLAT = "flatten to (tokens, vocab) and (tokens,), both after the shift"


def _loss_by_hand(logits: Tensor, labels: Tensor) -> Tensor:
    logs = logits.double().log_softmax(-1)
    places = [(b, t) for b, row in enumerate(labels) for t in range(1, len(row))]
    each = [-logs[b, t - 1, labels[b, t]] for b, t in places if labels[b, t] != IGNORE]
    return torch.stack(each).mean().float()


def judge_next_token_loss(answer: Callable[..., Any]) -> str | None:
    """each position predicts the next token; masked labels do not count"""
    torch.manual_seed(0)
    other = torch.randn(1, 4, 7), torch.tensor([[IGNORE, 2, 0, 6]])  # another size: no 11 or 3
    for logits, labels in ((torch.randn(3, 6, VOCAB), torch.tensor(LABELS)), other):
        want = _loss_by_hand(logits, labels)
        try:
            got = answer(logits.clone().requires_grad_(), labels.clone())
        except NotImplementedError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            slip = _size_slip(str(error).lower())
            if slip is None:
                raise
            return slip
        slip = tensor_slip(got, want, "the loss", 1e-4)
        if slip is None and not got.requires_grad:
            return "no gradient can flow back: leave out detach, item and no_grad"
        if slip:
            named = isinstance(got, Tensor) and got.shape == want.shape
            return (_loss_slip(float(got.detach()), logits, labels) if named else None) or slip
    return None


def _size_slip(error: str) -> str | None:
    """What torch found wrong with the sizes, or None where it complained of something else."""
    if "out of bounds" in error:
        return f"the label {IGNORE} is no token: leave it out (cross_entropy does so by itself)"
    if "view size is not compatible" in error:
        return "a slice is not contiguous, so view cannot take it: use flatten or reshape"
    if "target" in error or "size" in error:
        return f"the sizes do not fit: {FLAT}"
    return None


def _loss_slips(logits: Tensor, labels: Tensor) -> list[tuple[Tensor, str]]:
    """The losses that published mistakes give, each with the slip behind it."""

    def mean(guesses: Tensor, targets: Tensor, **how: Any) -> Tensor:  # noqa: ANN401
        return F.cross_entropy(guesses.reshape(-1, logits.shape[-1]), targets.reshape(-1), **how)

    cut, shifted = logits[:, :-1], labels[:, 1:]
    right, n = mean(cut, shifted), (shifted != IGNORE).sum()
    learnt = shifted != IGNORE
    taken = cut[learnt].gather(1, shifted[learnt][:, None])  # the logit of each right token
    chance = cut[learnt].softmax(-1).gather(1, shifted[learnt][:, None])
    rows = torch.stack([mean(a, b) for a, b in zip(cut, shifted, strict=True)])
    flat, run = logits.flatten(0, 1), labels.flatten()
    no_shift = "a position predicts the NEXT token: compare logits[:, :-1] with labels[:, 1:]"
    too_many = "divide by the number of labels that count, not by all of them"
    zero = f"token 0 is a token like any other: the label to leave out is {IGNORE}"
    return [
        (mean(logits, labels), no_shift),
        (mean(logits[:, 1:], labels[:, :-1]), "the shift goes the wrong way: drop the LAST logits and the FIRST labels"),
        (mean(logits[:, :-2], labels[:, 2:]), "that shifts by two: the labels come unshifted, so shift once"),
        (mean(flat[:-1], run[1:]), "shift inside each row, then flatten: here a row's end guesses the next row's start"),
        (mean(cut.softmax(-1), shifted), "cross_entropy takes the logits as they are: it does the softmax itself"),
        (-right, "the minus is missing: the loss is the negative log probability"),
        (right.exp(), "that is the perplexity, exp(loss); return the loss"),
        (right / math.log(2), "that is in bits (log2); the loss is in nats, with the natural logarithm"),
        (right * n / len(logits), "that is divided by the batch size; divide by the learnt tokens"),
        (right * n, "that is the sum; the loss is the mean over the learnt tokens"),
        (right * n / labels.numel(), too_many),
        (right * n / shifted.numel(), too_many),
        (right * n / (labels != IGNORE).sum(), "count the labels after the shift: a row's first label is never guessed"),
        (rows.mean(), "average over all learnt tokens at once; a mean of row means weighs short answers more"),
        (mean(cut, shifted.clamp(min=0), ignore_index=0), zero),
        (mean(cut, shifted.clamp(min=0)), "the masked labels count as token 0 here; leave them out"),
        (mean(cut, shifted.clamp(min=0), reduction="none")[learnt.flatten()].sum() / learnt.numel(), too_many),
        (-taken.mean(), "the logits are not log probabilities yet: log_softmax comes first"),
        (-chance.mean(), "take the logarithm of the probability"),
        (1 - chance.mean(), "take the logarithm of the probability"),
    ]  # fmt: skip


def _loss_slip(got: float, logits: Tensor, labels: Tensor) -> str | None:
    near = (told for loss, told in _loss_slips(logits, labels) if abs(got - float(loss)) < 1e-4)
    return next(near, None)


# --- 04.4 one training step -------------------------------------------------------------------

CLIP, RATE = 0.5, 0.1
# Two batches that pull in different directions: a gradient that stays behind then shows. The third
# pulls so little that nothing may be clipped.
BATCHES = ([[4.0, -3.0, 2.0]], [[-1.0, 5.0, 3.0]], [[0.2, 0.1, -0.3]])
Step = Callable[..., Any]


class _Watched(nn.Linear):
    """A model that writes down when its parameters are asked for."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.log: list[str] = []
        for p in super().parameters():
            p.register_hook(lambda grad: self.log.append("backward"))

    def parameters(self, recurse: bool = True) -> Any:  # noqa: ANN401
        self.log.append("parameters")
        return super().parameters(recurse)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in super().parameters():
            p.grad = None if set_to_none or p.grad is None else torch.zeros_like(p)

    def numbers(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in super().parameters()])

    def gradients(self) -> Tensor:
        """All gradients in one row, zeros where there is none."""
        there = [torch.zeros_like(p) if p.grad is None else p.grad for p in super().parameters()]
        return torch.cat([g.flatten() for g in there])


def _loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) ** 2).sum() * batch.abs().mean()


def _run(step: Step) -> list[SimpleNamespace]:
    """What a step does with each batch: what it returns, where the weights go, and when."""
    torch.manual_seed(0)
    model = _Watched()
    optimizer = torch.optim.SGD(nn.Module.parameters(model), lr=RATE)
    optimizer.register_step_pre_hook(lambda *_: model.log.append("step"))
    turns = []
    for rows in BATCHES:
        batch, before = torch.tensor([rows]), model.numbers()
        with torch.no_grad():
            loss = float(_loss_of(model, batch))
        model.log.clear()
        got = step(model, optimizer, batch.clone(), _loss_of, CLIP)
        events = list(model.log)
        with torch.no_grad():
            later = float(_loss_of(model, batch))
        turns.append(
            SimpleNamespace(
                got=got, loss=loss, later=later, before=before, events=events,
                weights=model.numbers(), gradients=model.gradients(),
            )
        )  # fmt: skip
    return turns


def _step(
    shorten: Callable[[_Watched, float], object] | None = None, steps: int = 1, clear: bool = True
) -> Step:
    """A training step of a given making; `shorten` works on the gradients."""

    def step(model: _Watched, optimizer: Any, batch: Tensor, loss_of: Step, clip: float) -> None:  # noqa: ANN401
        if clear:
            optimizer.zero_grad()
        loss_of(model, batch).backward()
        if shorten:
            shorten(model, clip)
        for _ in range(steps):
            optimizer.step()

    return step


def _by_hand(model: _Watched, clip: float, always: bool = False) -> None:
    """The right clipping, without torch's function: the whole gradient, no longer than `clip`."""
    share = clip / float(model.gradients().norm())
    for p in model.parameters():
        p.grad *= share if always else min(1.0, share)


def _each(model: _Watched, clip: float) -> None:
    for p in model.parameters():
        clip_grad_norm_([p], clip)


def _norm(model: _Watched, clip: float) -> None:
    clip_grad_norm_(model.parameters(), clip)


STALE = "the second step is off: were the gradients of the first one cleared?"
UNCLIPPED = "the step is too long: clip the gradient's norm before the optimizer steps"
STEP_SLIPS = (  # how a published mistake steps, and its slip
    (_step(_norm, clear=False), STALE),
    (_step(clear=False), STALE),
    (_step(lambda m, clip: _norm(m, 1.0)), "use the argument `clip`, not a norm of your own (1.0)"),
    (_step(_norm, steps=2), "optimizer.step() runs twice: one batch, one step"),
    (_step(steps=2), "optimizer.step() runs twice, and the gradient is not clipped"),
    (_step(lambda m, clip: clip_grad_value_(m.parameters(), clip)), "clip_grad_value_ cuts every number by itself and bends the step; clip_grad_norm_ shortens the gradient as a whole"),
    (_step(_each), "clip all parameters in one call: the norm is that of the whole gradient"),
    (_step(lambda m, clip: _by_hand(m, clip, always=True)), "a gradient shorter than `clip` stays as it is"),
)  # fmt: skip


def judge_training_step(answer: Step) -> str | None:
    """clears, goes back, clips, steps, and returns the loss as a number"""
    theirs, right = _run(answer), _run(_step(_by_hand))
    first = theirs[0]
    if first.got is None:
        return NONE
    if any(not isinstance(turn.got, float) for turn in theirs):
        return "return a plain number (loss.item()): a tensor would keep the whole graph alive"
    if torch.equal(first.weights, first.before):
        return _still_slip(first)
    if not _same(theirs, right):
        named = next((told for step, told in STEP_SLIPS if _same(theirs, _run(step))), None)
        if named is None and _same(theirs, _run(_step())):
            return _clip_slip(first.events)
        if named is None and _same(theirs[:1], right[:1]):
            return STALE
        return named or _lost_slip(first)
    for turn in theirs:
        if not math.isclose(turn.got, turn.loss, rel_tol=1e-4):
            after = math.isclose(turn.got, turn.later, rel_tol=1e-4)
            told = "that is the loss after the step: compute it once, before the step"
            return told if after else "that is not the loss of this batch"
    return None


def _same(a: list[SimpleNamespace], b: list[SimpleNamespace]) -> bool:
    return all(
        torch.allclose(x.weights, y.weights, rtol=1e-4, atol=1e-5)
        for x, y in zip(a, b, strict=True)
    )


def _still_slip(turn: SimpleNamespace) -> str:
    if "step" not in turn.events:
        return "nothing moved: optimizer.step() is missing"
    if "backward" not in turn.events:
        return "nothing moved: loss.backward() is missing, so there is no gradient"
    if turn.events.index("step") < turn.events.index("backward"):
        return "nothing moved: the optimizer steps before backward has filled the gradients"
    return "nothing moved: the gradients are cleared between backward and the step"


def _clip_slip(events: list[str]) -> str:
    """Unclipped steps look alike; when the parameters were asked for tells them apart."""
    if "parameters" not in events:
        return UNCLIPPED
    if events.index("parameters") > events.index("step"):
        return "it clips after the step: too late, the optimizer has read the gradients"
    if events.index("parameters") < events.index("backward"):
        return "it clips before backward: there is no gradient yet, so the step is too long"
    return UNCLIPPED


def _lost_slip(turn: SimpleNamespace) -> str:
    if float((turn.weights - turn.before).norm()) > RATE * CLIP * 1.5:
        return UNCLIPPED
    return "the step goes elsewhere: clear, backward, clip, step, in this order"


# --- 04.5 grade an answer ---------------------------------------------------------------------

TRUTH = (
    '{"kind": "invoice", "firm": "Brank & Sons", "person": "Odo Vance", '
    '"amount": 420, "due": "9 May"}'
)
SWAPPED = (
    '{"kind": "invoice", "firm": "Odo Vance", "person": "Brank & Sons", '
    '"amount": 420, "due": "9 May"}'
)
REORDERED = (
    '{"due": "9 May", "amount": 420, "person": "Odo Vance", "firm": "Brank & Sons", '
    '"kind": "invoice"}'
)
EMPTY = '{"open": false, "note": "", "rate": 0, "copies": 1, "paid": true, "firm": "Brank & Sons"}'
SHOWN = 130  # characters of an answer that a message shows: all of those below
TYPES = "compare the type as well as the value"
GRADED = (  # answer, truth, fields right, what a wrong count means
    (TRUTH, TRUTH, 5, "the right answer has all five fields right"),
    ("Brank & Sons, Odo Vance, 420, 9 May, invoice", TRUTH, 0, "words that occur are not fields, and this is no JSON"),
    (TRUTH[:-1], TRUTH, 0, "an answer that is not JSON has no field right"),
    (TRUTH.replace("420", "42"), TRUTH, 4, "one wrong field leaves four right; compare field by field"),
    (SWAPPED, TRUTH, 3, "a value in another field is not right there"),
    (REORDERED, TRUTH, 5, "the order of the fields is free: look each one up by its name"),
    ('{"due": "9 May", "amount": 420}', TRUTH, 2, "a missing field is a wrong one; it is no error, and the others still count"),
    (TRUTH[:-1] + ', "note": "urgent"}', TRUTH, 5, "an extra field must not spoil the right ones: go through the truth's fields"),
    (TRUTH.replace("420", '"420"'), TRUTH, 4, 'the amount is a number: "420" in quotes is another value'),
    (TRUTH.replace("420", "420.0"), TRUTH, 4, f"420.0 is a float, 420 an int, and == takes them for equal: {TYPES}"),
    (TRUTH.replace('"invoice"', '"INVOICE"'), TRUTH, 4, "capitals count: a field is right when its value is unchanged"),
    (TRUTH.replace("9 May", " 9 May "), TRUTH, 4, "spaces inside a value count: a field is right when its value is unchanged"),
    (TRUTH.replace('"', "'"), TRUTH, 0, "single quotes are Python, not JSON: read it with json.loads"),
    (f"Here it is: {TRUTH}", TRUTH, 0, "text around the object makes it no JSON: take the answer as it is"),
    (f"{TRUTH} Done.", TRUTH, 0, "text behind the object makes it no JSON: take the answer as it is"),
    (f" {TRUTH}\n", TRUTH, 5, "white space around the object is JSON; json.loads takes it"),
    ("[1, 2]", TRUTH, 0, "JSON that is no object has no field"),
    ('"kind"', TRUTH, 0, "a JSON text is no object and has no field"),
    ("null", TRUTH, 0, "null is no object and has no field"),
    ("{}", TRUTH, 0, "an empty object has no field right"),
    (EMPTY, EMPTY, 6, 'false, "" and 0 are values too: do not ask whether a value is true'),
    (EMPTY.replace("1", "true"), EMPTY, 5, f"true is not 1, though Python's == takes them for equal: {TYPES}"),
    (EMPTY.replace("false", "0"), EMPTY, 5, f"0 is not false, though Python's == takes them for equal: {TYPES}"),
    ('{"firm": "Brank & Sons", "paid": true}', EMPTY, 2, "a field that is missing is wrong, whatever the truth holds there"),
    ('{"kind": "invoice"}', '{"kind": "invoice", "note": null}', 1, "a missing field is not null, though get() returns None for it"),
)  # fmt: skip


def judge_fields_right(answer: Callable[[str, str], int]) -> str | None:
    """counts right fields, and none in what is no JSON object"""
    for text, truth, want, why in GRADED:
        shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
        try:
            got = answer(text, truth)
        except NotImplementedError:
            raise
        except Exception as error:  # the learner's code: any error is an answer
            return f"your code raised {type(error).__name__} on {shown}: {why}"
        slip = count_slip(got)
        if slip or got != want:
            return slip or f"you count {got} field{'s' * (got != 1)}, not {want}, in {shown}: {why}"
    return None


# --- 04.6 predict the adapter's bytes ---------------------------------------------------------


def judge_training_bytes(answer: Callable[[int], tuple[int, int]]) -> str | None:
    """the file holds the weights; training also holds gradients and two moments"""
    for n in (11_272_192, 448_512):
        got = answer(n)
        if got is None:
            return NONE
        if not isinstance(got, tuple) or len(got) != 2:
            return "return two numbers: bytes in the file, bytes in training"
        file, held = got
        slip = count_slip(file, "bytes in the file") or count_slip(held, "bytes in training")
        if slip:
            return slip
        if (file, held) == (16 * n, 4 * n):
            return "the other way round: first the file, then training"
        if file == 2 * n:
            return "PEFT trains and saves the adapter in float32: 4 bytes a number"
        if file in (16 * n, 12 * n):
            return "the file holds A and B only; the optimizer stays behind"
        if file == 32 * n:
            return "count bytes, not bits: float32 is 4 bytes a number"
        if file != 4 * n:
            return f"the file holds {n:,} numbers of 4 bytes, counted without its header"
        short = {
            8 * n: "gradients and both of Adam's moments are held as well",
            12 * n: "Adam keeps two moments a number, and the gradient is held beside them",
            4 * n: "training holds more than the weights",
        }
        if held != 16 * n:
            return short.get(held, "weights, gradients and two moments, each of 4 bytes")
    return None
