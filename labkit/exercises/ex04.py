"""Notebook 04: the fine-tune, six exercises and four questions.

Each bank holds mistakes that published lessons ship: key and value projections counted at the
query width, labels shifted twice, the real end-of-turn token masked, gradients never cleared,
an adapter file sized by its optimizer.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from labkit.adapters import training_bytes
from labkit.data import IGNORE, mask_prompt
from labkit.evaluate import fields_right
from labkit.exercises.compare import count_slip, tensor_slip
from labkit.exercises.exercise import Exercise, Wrong
from labkit.exercises.questions import Choice, Question
from labkit.loss import next_token_loss
from labkit.train import lora_parameters, training_step

TITLE = "QLoRA fine-tune"
CONFIGS = {
    "Llama-3.2-1B": (2048, 8192, 16, 32, 8, 64),
    "a model whose heads are wider than its hidden size": (96, 200, 3, 4, 1, 32),
}
NAMES = (
    "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim",
)  # fmt: skip


def _by_shapes(c: SimpleNamespace, rank: int, kv_heads: int) -> int:
    """The count by an independent route: the shape of every A and every B, written out."""
    q, kv = c.num_attention_heads * c.head_dim, kv_heads * c.head_dim
    h, i = c.hidden_size, c.intermediate_size
    shapes = [(q, h), (kv, h), (kv, h), (h, q), (i, h), (i, h), (h, i)]
    return c.num_hidden_layers * sum(rank * into + out * rank for out, into in shapes)


def _count_slips(c: SimpleNamespace, rank: int) -> dict[int, str]:
    right = _by_shapes(c, rank, c.num_key_value_heads)
    h, i, q = c.hidden_size, c.intermediate_size, c.num_attention_heads * c.head_dim
    return {
        _by_shapes(c, rank, c.num_attention_heads): (
            "k_proj and v_proj are as wide as the key-value heads, not the query heads"
        ),
        right // c.num_hidden_layers: "that is one layer; the model has more",
        c.num_hidden_layers * rank * (4 * q * h + 3 * h * i): "A and B add, they do not multiply",
        c.num_hidden_layers
        * rank
        * (h + i): "each projection has a pair of its own: seven a layer",
        right - c.num_hidden_layers * rank * (h + i): "one of the three MLP projections is missing",
        _by_shapes(
            SimpleNamespace(**{**vars(c), "head_dim": h // c.num_attention_heads}),
            rank,
            c.num_key_value_heads,
        ): "the config says how wide a head is; hidden_size / heads need not be it",
    }


def judge_lora_parameters(answer: Callable[[Any, int], int]) -> str | None:
    """seven pairs a layer, each at the width of its own projection"""
    for name, values in CONFIGS.items():
        config = SimpleNamespace(**dict(zip(NAMES, values, strict=True)))
        for rank in (16, 3):
            got, want = answer(config, rank), _by_shapes(config, rank, config.num_key_value_heads)
            slip = count_slip(got)
            if slip is None and got != want:
                slip = _count_slips(config, rank).get(got, "write the seven (out, in) shapes down")
            if slip:
                return f"{name} at rank {rank}: {slip}"
    return None


def judge_mask_prompt(answer: Callable[[list[int], list[int]], list[int]]) -> str | None:
    """the prompt is masked; the answer and its end-of-turn token are learnt"""
    for prompt, tail in (([0, 9, 8, 7], [21, 22, 4]), ([0], [5, 5, 4]), ([3, 4, 4], [4])):
        whole = prompt + tail
        got = answer(prompt, whole)
        if got is None:
            return "your code returned None: is a `return` missing?"
        if not isinstance(got, list) or not all(isinstance(x, int) for x in got):
            return "labels must be a list of whole numbers"
        if len(got) != len(whole):
            return f"{len(whole)} tokens need {len(whole)} labels; yours are {len(got)}"
        if got == whole:
            return "nothing is masked: the model would learn to write prompts"
        right = [IGNORE] * len(prompt) + tail
        if got != right and (got[1:] == right[:-1] or got[:-1] == right[1:]):
            return "the labels are shifted; the loss shifts them, and twice is once too often"
        if got[-1] == IGNORE and tail[-1] != IGNORE:
            return "the end-of-turn token is masked: the model would never learn to stop"
        if got[: len(prompt)] != [IGNORE] * len(prompt):
            return f"each prompt token needs the label {IGNORE}, which the loss leaves out"
        if got != right:
            return "behind the prompt each label is the token itself"
    return None


def judge_next_token_loss(answer: Callable[..., Any]) -> str | None:
    """each position predicts the next token; masked labels do not count"""
    import torch

    torch.manual_seed(0)
    logits = torch.randn(3, 6, 11)
    labels = torch.randint(0, 11, (3, 6))
    labels[0, :4] = labels[1, :1] = labels[2, :2] = IGNORE
    logs = logits.double().log_softmax(-1)
    places = [(b, t) for b in range(3) for t in range(1, 6) if labels[b, t] != IGNORE]
    each = {(b, t): -logs[b, t - 1, labels[b, t]] for b, t in places}
    want = torch.stack(list(each.values())).mean().float()
    got = answer(logits, labels)
    slip = tensor_slip(got, want, "the loss", 1e-4)
    if slip is None or not isinstance(got, torch.Tensor) or got.shape != want.shape:
        return slip
    return _loss_slip(float(got), float(want), logs, labels, each) or slip


def _loss_slip(got: float, want: float, logs: Any, labels: Any, each: dict) -> str | None:  # noqa: ANN401
    import torch

    kept = labels != IGNORE
    same = -logs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    rows = [torch.stack([v for (b, _), v in each.items() if b == row]).mean() for row in range(3)]
    named = {
        "a position predicts the NEXT token: compare logits[:, :-1] with labels[:, 1:]": [
            float(same[kept].mean())
        ],
        "divide by the number of labels that count, not by all of them": [
            want * len(each) / n for n in (labels.numel(), labels[:, 1:].numel())
        ],
        "average over all learnt tokens at once; a mean of row means weighs short answers more": [
            float(torch.stack(rows).mean())
        ],
        "that is the sum; the loss is the mean over the learnt tokens": [want * len(each)],
    }
    return next((s for s, vs in named.items() if any(abs(got - v) < 1e-4 for v in vs)), None)


def judge_training_step(answer: Callable[..., float]) -> str | None:
    """clears, goes back, clips, steps, and returns the loss as a number"""
    import torch

    def fresh() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    # Two batches that pull in different directions: a gradient that stays behind then shows.
    batches, clip = torch.tensor([[[4.0, -3.0, 2.0]], [[-1.0, 5.0, 3.0]]]), 0.5

    def loss_of(model: Any, batch: Any) -> Any:  # noqa: ANN401
        return (model(batch) ** 2).sum()

    (mine, ours), (model, optimizer) = fresh(), fresh()
    for turn, x in enumerate(batches, 1):
        want = loss_of(mine, x)
        ours.zero_grad()
        want.backward()
        size = torch.cat([p.grad.flatten() for p in mine.parameters()]).norm()
        before = [p.detach().clone() for p in mine.parameters()]
        with torch.no_grad():
            for p in mine.parameters():
                p -= 0.1 * p.grad * min(1.0, clip / float(size))
        got = answer(model, optimizer, x, loss_of, clip)
        slip = _step_slip(got, float(want), model, mine, before, turn)
        if slip:
            return slip
    return None


def _step_slip(
    got: object,
    want: float,
    model: Any,  # noqa: ANN401
    right: Any,  # noqa: ANN401
    before: list[Any],
    turn: int,
) -> str | None:
    import torch

    theirs, ours = list(model.parameters()), list(right.parameters())
    if got is None:
        return "return the loss"
    if not isinstance(got, float):
        return "return a plain number (loss.item()): a tensor would keep the whole graph alive"
    if turn == 1 and all(torch.equal(p, b) for p, b in zip(theirs, before, strict=True)):
        return "nothing moved: backward first fills the gradients, then the optimizer steps"
    if all(torch.allclose(p, q, atol=1e-5) for p, q in zip(theirs, ours, strict=True)):
        return None if abs(got - want) < 1e-4 * abs(want) else "that is not the loss of this batch"
    if turn == 2:
        return "the second step is off: were the gradients of the first one cleared?"
    moved = torch.cat([(p - b).flatten() for p, b in zip(theirs, before, strict=True)]).norm()
    if float(moved) > 0.1 * 0.5 * 1.5:
        return "the step is too long: clip the gradient's norm before the optimizer steps"
    return "the step goes elsewhere: clear, backward, clip, step, in this order"


TRUTH = (
    '{"kind": "invoice", "firm": "Brank & Sons", "person": "Odo Vance", '
    '"amount": 420, "due": "9 May"}'
)
GRADED = (  # answer, fields right, what a wrong count means
    (TRUTH, 5, "the right answer has all five fields right"),
    (TRUTH.replace("420", "42"), 4, "one wrong field leaves four right; compare field by field"),
    (TRUTH.replace("420", '"420"'), 4, 'the amount is a number: "420" in quotes is another value'),
    (TRUTH[:-1], 0, "an answer that is not JSON has no field right"),
    ("Brank & Sons, Odo Vance, 420, 9 May, invoice", 0, "words that occur are not fields"),
    ("[1, 2]", 0, "JSON that is no object has no field"),
    ('{"kind": "invoice", "note": "420"}', 1, "a missing field is a wrong one, not an error"),
)


def judge_fields_right(answer: Callable[[str, str], int]) -> str | None:
    """counts right fields, and none in what is no JSON object"""
    for text, want, why in GRADED:
        try:
            got = answer(text, TRUTH)
        except NotImplementedError:
            raise
        except Exception as error:  # the learner's code: any error is an answer
            return f"your code raised {type(error).__name__} on {text[:30]!r}: {why}"
        slip = count_slip(got)
        if slip or got != want:
            return slip or f"{got} fields right in {text[:48]!r}: {why}"
    return None


def judge_training_bytes(answer: Callable[[int], tuple[int, int]]) -> str | None:
    """the file holds the weights; training also holds gradients and two moments"""
    for n in (11_272_192, 448_512):
        got = answer(n)
        if got is None:
            return "your code returned None: is a `return` missing?"
        if not isinstance(got, tuple) or len(got) != 2:
            return "return two numbers: bytes in the file, bytes in training"
        file, held = got
        if file == 2 * n:
            return "PEFT trains and saves the adapter in float32: 4 bytes a number"
        if file in (16 * n, 12 * n):
            return "the file holds A and B only; the optimizer stays behind"
        if file != 4 * n:
            return f"the file holds {n:,} numbers of 4 bytes"
        short = {
            8 * n: "gradients and both of Adam's moments are held as well",
            12 * n: "Adam keeps two moments a number, and the gradient is held beside them",
            4 * n: "training holds more than the weights",
        }
        if held != 16 * n:
            return short.get(held, "weights, gradients and two moments, each of 4 bytes")
    return None


def _wrong(source: str, name: str, message: str) -> Wrong:
    return Wrong(name, source, message)


EXERCISES = [
    Exercise(
        id="04.1",
        title="count the trainable parameters",
        minutes=8,
        difficulty=2,
        judge=judge_lora_parameters,
        solution=lora_parameters,
        stub="lora_parameters",
        hints=(
            "Which seven linear maps does a Llama layer hold, and what goes in and out of each?",
            r"$\text{layers} \cdot r \cdot \sum_{7}(\text{in} + \text{out})$, where k_proj and "
            r"v_proj put out $\text{kv heads} \cdot \text{head dim}$",
            "Query and output projections are heads * head_dim wide, key and value projections "
            "kv_heads * head_dim; the widths come from the config, so any Llama can be counted.",
        ),
        wrong=[
            _wrong(
                "def f(c, rank):\n"
                "    q, h, i = c.num_attention_heads * c.head_dim, c.hidden_size, c.intermediate_size\n"
                "    return c.num_hidden_layers * rank * (4 * (q + h) + 3 * (h + i))",
                "keys and values at the query width",
                "not the query heads",
            ),
            _wrong(
                "def f(c, rank):\n"
                "    q, h, i = c.num_attention_heads * c.head_dim, c.hidden_size, c.intermediate_size\n"
                "    return c.num_hidden_layers * rank * (4 * q * h + 3 * h * i)",
                "multiplies the widths",
                "they do not multiply",
            ),
            _wrong(
                "def f(c, rank):\n"
                "    return c.num_hidden_layers * rank * (c.hidden_size + c.intermediate_size)",
                "one pair a layer",
                "seven a layer",
            ),
            _wrong(
                "def f(c, rank):\n    return lora_parameters(c, rank) // c.num_hidden_layers",
                "forgets the layers",
                "that is one layer",
            ),
            _wrong(
                "def f(c, rank):\n"
                "    c = type(c)(**{**vars(c), 'head_dim': c.hidden_size // c.num_attention_heads})\n"
                "    return lora_parameters(c, rank)",
                "guesses the head's width",
                "hidden_size / heads need not be it",
            ),
        ],
    ),
    Exercise(
        id="04.2",
        title="mask the prompt",
        minutes=5,
        difficulty=1,
        judge=judge_mask_prompt,
        solution=mask_prompt,
        stub="mask_prompt",
        hints=(
            "Which tokens of the chat should the model learn to write, and which only to read?",
            f"labels = {IGNORE} for each prompt token, then the tokens that follow it unchanged",
            "The labels stay under their own tokens, because the loss shifts them by one. The "
            "end-of-turn token is the last label: without it the model never stops.",
        ),
        wrong=[
            _wrong("def f(prompt, whole):\n    return whole", "masks nothing", "nothing is masked"),
            _wrong(
                f"def f(prompt, whole):\n    return [{IGNORE}] * len(prompt) + whole[len(prompt):-1]"
                f" + [{IGNORE}]",
                "masks the end of turn (pad = eos)",
                "never learn to stop",
            ),
            _wrong(
                f"def f(prompt, whole):\n"
                f"    labels = [{IGNORE}] * len(prompt) + whole[len(prompt):]\n"
                f"    return [{IGNORE}] + labels[:-1]",
                "shifts the labels",
                "twice is once too often",
            ),
            _wrong(
                "def f(prompt, whole):\n    return whole[len(prompt):]",
                "drops the prompt",
                "tokens need",
            ),
            _wrong(
                "def f(prompt, whole):\n    return [0] * len(prompt) + whole[len(prompt):]",
                "masks with token 0",
                "which the loss leaves out",
            ),
        ],
    ),
    Exercise(
        id="04.3",
        title="the next-token loss",
        minutes=8,
        difficulty=3,
        judge=judge_next_token_loss,
        solution=next_token_loss,
        stub="next_token_loss",
        hints=(
            "The logits at position t are a guess. Of which token?",
            r"$-\frac{1}{n}\sum_t \log p_{t-1}(\text{label}_t)$ over the $n$ labels that are not "
            f"{IGNORE}",
            "Dropping the last guess and the first label lines both up. cross_entropy leaves "
            f"{IGNORE} out and divides by the labels that count.",
        ),
        wrong=[
            _wrong(
                "def f(logits, labels):\n    return F.cross_entropy(logits.flatten(0, 1), "
                "labels.flatten())",
                "does not shift",
                "predicts the NEXT token",
            ),
            _wrong(
                "def f(logits, labels):\n"
                "    rows = [F.cross_entropy(a, b) for a, b in zip(logits[:, :-1], labels[:, 1:])]\n"
                "    return torch.stack(rows).mean()",
                "means of rows",
                "a mean of row means",
            ),
            _wrong(
                "def f(logits, labels):\n    return F.cross_entropy(logits[:, :-1].flatten(0, 1), "
                "labels[:, 1:].flatten(), reduction='sum') / labels.numel()",
                "divides by every position",
                "not by all of them",
            ),
            _wrong(
                "def f(logits, labels):\n    return F.cross_entropy(logits[:, :-1].flatten(0, 1), "
                "labels[:, 1:].flatten(), reduction='sum')",
                "sums",
                "that is the sum",
            ),
            _wrong(
                "def f(logits, labels):\n    return F.cross_entropy(logits[:, :-1].flatten(0, 1), "
                "labels[:, 1:].flatten(), reduction='none')",
                "does not reduce",
                "has shape",
            ),
        ],
    ),
    Exercise(
        id="04.4",
        title="one training step",
        minutes=8,
        difficulty=2,
        judge=judge_training_step,
        solution=training_step,
        stub="training_step",
        copies=False,
        hints=(
            "A gradient adds to what is already there. What must happen before the second step?",
            "clear, loss, backward, clip, step; return loss.item()",
            "clip_grad_norm_ stands between backward and step, since it changes the gradients "
            "that the optimizer reads. item() lets the graph go.",
        ),
        wrong=[
            _wrong(
                "def f(model, optimizer, batch, loss_of, clip):\n"
                "    loss = loss_of(model, batch)\n    loss.backward()\n"
                "    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)\n"
                "    optimizer.step()\n    return loss.item()",
                "never clears",
                "were the gradients of the first one cleared?",
            ),
            _wrong(
                "def f(model, optimizer, batch, loss_of, clip):\n"
                "    optimizer.zero_grad()\n    loss = loss_of(model, batch)\n    loss.backward()\n"
                "    optimizer.step()\n    return loss.item()",
                "does not clip",
                "the step is too long",
            ),
            _wrong(
                "def f(model, optimizer, batch, loss_of, clip):\n"
                "    loss = loss_of(model, batch)\n    loss.backward()\n    optimizer.zero_grad()\n"
                "    optimizer.step()\n    return loss.item()",
                "clears after backward",
                "nothing moved",
            ),
            _wrong(
                "def f(model, optimizer, batch, loss_of, clip):\n"
                "    optimizer.zero_grad()\n    loss = loss_of(model, batch)\n    loss.backward()\n"
                "    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)\n"
                "    optimizer.step()\n    return loss",
                "returns the tensor",
                "keep the whole graph alive",
            ),
        ],
    ),
    Exercise(
        id="04.5",
        title="grade an answer",
        minutes=8,
        difficulty=2,
        judge=judge_fields_right,
        solution=fields_right,
        stub="fields_right",
        hints=(
            "What does json.loads do with an answer that was cut off?",
            "right fields = number of keys of the truth whose value the answer gives unchanged",
            "Only json.JSONDecodeError is caught, since only a broken answer is expected. get() "
            "makes a missing field a wrong one.",
        ),
        wrong=[
            _wrong(
                "def f(answer, truth):\n    a, t = json.loads(answer), json.loads(truth)\n"
                "    return sum(a[k] == t[k] for k in t)",
                "crashes on broken JSON",
                "your code raised",
            ),
            _wrong(
                "def f(answer, truth):\n    t = json.loads(truth)\n"
                "    return sum(str(v) in answer for v in t.values())",
                "looks for the words",
                "fields right in",
            ),
            _wrong(
                "def f(answer, truth):\n    return 5 if answer == truth else 0",
                "all or nothing",
                "one wrong field leaves four right",
            ),
            _wrong(
                "def f(answer, truth):\n"
                "    try:\n        a = json.loads(answer)\n"
                "    except json.JSONDecodeError:\n        return 0\n"
                "    if not isinstance(a, dict):\n        return 0\n"
                "    return sum(str(a.get(k)) == str(v) for k, v in json.loads(truth).items())",
                "compares as text",
                "the amount is a number",
            ),
        ],
    ),
    Exercise(
        id="04.6",
        title="predict the adapter's bytes",
        minutes=5,
        difficulty=1,
        judge=judge_training_bytes,
        solution=training_bytes,
        stub="training_bytes",
        hints=(
            "In which dtype does PEFT keep A and B, and what does Adam add to each number?",
            r"file: $4n$ bytes; training: $4n \cdot (1 + 1 + 2)$ bytes",
            "Weight, gradient and two moments are float32 here. Only the weight is saved.",
        ),
        wrong=[
            _wrong("def f(n):\n    return 2 * n, 8 * n", "counts in bfloat16", "in float32"),
            _wrong("def f(n):\n    return 16 * n, 16 * n", "saves the optimizer", "stays behind"),
            _wrong("def f(n):\n    return 4 * n, 12 * n", "one moment", "two moments a number"),
            _wrong("def f(n):\n    return 4 * n, 8 * n", "no moments", "both of Adam's moments"),
        ],
    ),
]

QUESTIONS = [
    Question(
        "04.q1",
        "What happens if prepare_model_for_kbit_training is left out?",
        [
            Choice(
                "The loss turns NaN at once",
                "The cell above trains without it: every loss is finite, and near the other run.",
            ),
            Choice(
                "Training works; norms and embeddings keep their own dtype",
                "The function casts what is not 4-bit to float32 and switches checkpointing on. "
                "That costs memory and buys little.",
                right=True,
            ),
            Choice(
                "Dropout stays on in the frozen layers",
                "The function has nothing to do with dropout.",
            ),
        ],
    ),
    Question(
        "04.q2",
        "The tokenizer has no pad token, so a lesson sets pad = eos. What may go wrong?",
        [
            Choice(
                "A collator that masks padding masks the real end of turn too",
                "Every eos label becomes -100, so the model never learns to stop.",
                right=True,
            ),
            Choice(
                "Padding is attended to",
                "Right padding stands behind every real token, and a causal model looks back only.",
            ),
            Choice("Nothing", "It depends on the collator: look at the labels before you train."),
        ],
    ),
    Question(
        "04.q3",
        "Run one masks the prompt and ends at loss 0.9. Run two does not and ends at 0.6. "
        "Which is better?",
        [
            Choice("Run two", "Its mean is over other tokens, most of them easy prompt text."),
            Choice("Run one", "A higher loss is no merit: the two numbers measure other things."),
            Choice(
                "The losses cannot be compared",
                "They average over different tokens. Score both on the same test answers.",
                right=True,
            ),
        ],
    ),
    Question(
        "04.q4",
        "Which learning rate would you try first when you change full fine-tuning for LoRA?",
        [
            Choice("The same", "LoRA then learns slowly: its best rate is about ten times higher."),
            Choice(
                "About ten times higher",
                "Over 14 models the fitted factor was 9.8 (Thinking Machines, LoRA Without Regret).",
                right=True,
            ),
            Choice(
                "Ten times lower, since B starts at zero",
                "B = 0 makes the first update zero, not fragile.",
            ),
        ],
    ),
]
