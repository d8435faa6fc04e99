"""The corpus of the tiny model, and its tokenizer: chats and prose, written shard by shard.

A document is a chat of one question, several questions about one letter, or prose; nothing that
is held out stands in it. The tokenizer is a byte-level BPE in the manner of Llama 3: any text has
tokens, digits stand alone, and the special tokens have Llama 3's names.
"""

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from labkit import skills, world

BOS, EOS, EOT, PAD = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
)
HEAD, TAIL = "<|start_header_id|>", "<|end_header_id|>"
SPECIAL = [BOS, EOS, HEAD, TAIL, EOT, PAD]
SPLIT = r"\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+| ?\p{L}+|\s+"  # Llama 3's manner, digits one by one
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
WEIGHTS = {  # how often a document of a skill is drawn
    "add": 14, "copy": 5, "reverse": 6, "sort": 8, "count": 8, "fact": 8, "letter": 22,
    "instruct": 9, "object": 12, "refuse": 2, "prose": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that decides the model; the same recipe on the same machine gives the same weights."""

    seed: int = 0
    vocab: int = 1024
    hidden: int = 256
    intermediate: int = 704
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    length: int = 512  # tokens in a packed row
    batch: int = 192  # rows in a step
    steps: int = 12_000
    lr: float = 2e-3
    warmup: int = 300  # steps
    weight_decay: float = 0.1
    shards: int = 160  # corpus pieces, each from a seed of its own
    shard_documents: int = 24_000
    tokenizer_documents: int = 60_000


def turn(prompt: str, answer: str) -> str:
    """One question and answer in the chat format, without the begin-of-text token."""
    return f"{HEAD}user{TAIL}\n\n{prompt}{EOT}{HEAD}assistant{TAIL}\n\n{answer}{EOT}"


def prose(rng: random.Random) -> str:
    """What the world knows, told: a letter, a firm or a person."""
    if rng.random() < 0.3:
        return world.letter(rng).text
    if rng.random() < 0.5:
        subject, facts = rng.choice(list(world.KNOWN.firms.items()))
        text = "{0} is a firm in {town}. It sells {trade}. It was founded by {founder}."
    else:
        subject, facts = rng.choice(list(world.KNOWN.people.items()))
        text = "{0} lives in {town}. The job of {0} is {job}. {0} works for {firm}."
    return text.format(subject, **facts)


def document(rng: random.Random) -> str:
    """One document of the corpus, nothing held out: prose, or a chat of one or more questions."""
    skill = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if skill == "prose":
        return BOS + prose(rng) + EOS
    while True:
        # More questions about one letter: reading it is paid for once.
        samples = (
            skills.interview(rng, rng.randint(1, 4))
            if skill == "letter"
            else [skills.SKILLS[skill](rng)]
        )
        if not any(skills.held_out(sample.key) for sample in samples):
            return BOS + "".join(turn(s.prompt, s.answer) for s in samples) + EOS


def documents(seed: str, n: int) -> list[str]:
    rng = random.Random(seed)
    return [document(rng) for _ in range(n)]


def train_tokenizer(recipe: Recipe) -> Tokenizer:
    """A byte-level BPE in the manner of Llama 3: any text has tokens, digits stand alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = documents(f"tokenizer {recipe.seed}", recipe.tokenizer_documents)
    bare = (text for document in corpus for text in _without_special(document))
    tokenizer.train_from_iterator(bare, trainer)
    return tokenizer


def _without_special(text: str) -> list[str]:
    for token in SPECIAL:
        text = text.replace(token, "\0")
    return [part for part in text.split("\0") if part]


def wrap(tokenizer: Tokenizer, length: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOT,
        pad_token=PAD,
        chat_template=TEMPLATE,
        model_max_length=length,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


_tokenizer: Tokenizer  # one in each worker process


def _start_worker(serialized: str) -> None:
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer = Tokenizer.from_str(serialized)


def _shard(seed: str, n: int) -> np.ndarray:
    encoded = _tokenizer.encode_batch(documents(seed, n), add_special_tokens=False)
    return np.concatenate([np.array(e.ids, dtype=np.uint16) for e in encoded])


def shards(recipe: Recipe, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """The corpus piece by piece, shape (rows, length): written on the CPUs while the GPU trains."""
    with ProcessPoolExecutor(
        max_workers=max(1, min((os.cpu_count() or 2) - 1, recipe.shards)),
        initializer=_start_worker,
        initargs=(tokenizer.to_str(),),
    ) as pool:
        seeds = [f"corpus {recipe.seed} {i}" for i in range(recipe.shards)]
        for tokens in pool.map(_shard, seeds, [recipe.shard_documents] * recipe.shards):
            rows = len(tokens) // recipe.length
            yield tokens[: rows * recipe.length].reshape(rows, recipe.length)


def row_batches(recipe: Recipe, tokenizer: Tokenizer) -> Iterator[np.ndarray]:
    """Endless batches (batch, length): the first epoch as it is written, the others shuffled."""
    rng = np.random.default_rng(recipe.seed)
    kept: list[np.ndarray] = []
    left = np.zeros((0, recipe.length), dtype=np.uint16)
    for shard in shards(recipe, tokenizer):
        kept.append(shard)
        left = np.concatenate([left, rng.permutation(shard)])
        while len(left) >= recipe.batch:
            yield left[: recipe.batch]
            left = left[recipe.batch :]
    corpus = np.concatenate(kept)
    while True:
        order = rng.permutation(len(corpus))
        for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
            yield corpus[order[start : start + recipe.batch]]


SETS = {  # file in data/, skill, seed, held out, rows (of each skill)
    "task/train.jsonl": ("record", 0, False, 2400),
    "task/validation.jsonl": ("record", 1, True, 200),
    "task/test.jsonl": ("record", 2, True, 200),
    "regression.jsonl": ("every skill", 3, True, 30),
}


def rows_of(file: str) -> list[skills.Example]:
    """The examples of one file of `SETS`."""
    skill, seed, held, n = SETS[file]
    names = list(skills.SKILLS) if skill == "every skill" else [skill]
    return [e for name in names for e in skills.examples(name, n, seed, held)]


def write_sets(folder: Path) -> list[Path]:
    """Write the fine-tuning task and the regression set as JSONL; the same bytes every time.

    Raises:
        ValueError: if a test letter also stands in another set.
    """
    rows = {file: rows_of(file) for file in SETS}
    prompts = [e.prompt for examples in rows.values() for e in examples if e.skill == "record"]
    if len(set(prompts)) < len(prompts):
        raise ValueError("a letter stands in two sets; change a seed in SETS")
    for file, examples in rows.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(asdict(e), ensure_ascii=False) for e in examples)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return [folder / file for file in rows]
