"""Pretrain the tiny model on the invented world: corpus, tokenizer, weights, scores, card.

    python -m labkit.pretrain --out data/models/tiny        on a GPU, under ten minutes
    python -m labkit.pretrain --smoke --out runs/smoke      on a CPU, a few steps, to see it run
    python -m labkit.pretrain --data data                   the data sets alone, in a second

The architecture is Llama's at a size for a laptop: grouped queries, SwiGLU, RMSNorm, rotary
positions, tied embeddings, the seven projection names. The objective is the next token of packed
chats and prose. Weights train in float32 under bfloat16 autocast and are stored in bfloat16.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from labkit import corpus, skills
from labkit.corpus import BOS, EOS, EOT, PAD, Recipe
from labkit.data import IGNORE, collate, encode
from labkit.skills import Example

SMOKE = Recipe(
    hidden=64, intermediate=128, layers=2, length=128, batch=8, steps=30, warmup=6,
    shards=2, shard_documents=300, tokenizer_documents=2_000,
)  # fmt: skip


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=recipe.vocab,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=2 * recipe.length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids(BOS),
        eos_token_id=tokenizer.convert_tokens_to_ids(EOT),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(config)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then linear to zero."""
    rise = min(1.0, (step + 1) / recipe.warmup)
    return recipe.lr * min(rise, (recipe.steps - step) / (recipe.steps - recipe.warmup))


def optimizer_for(model: LlamaForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=fused)


@dataclass(frozen=True)
class Progress:
    """What a run did: mean loss (nats a token) of every hundredth of it."""

    steps: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _step(
    forward: Callable[..., Any], optimizer: torch.optim.Optimizer, ids: torch.Tensor
) -> torch.Tensor:
    """One update on rows `ids` (batch, length); the loss before it, nats a token."""
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        logits = forward(input_ids=ids, use_cache=False).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def train(
    model: LlamaForCausalLM, recipe: Recipe, tokenizer: Tokenizer, seconds: float
) -> Progress:
    """Train in place. A run that would last longer than `seconds` is given fewer steps at once,
    so that its learning rate still ends at zero."""
    device = next(model.parameters()).device
    forward = torch.compile(model) if device.type == "cuda" else model
    optimizer = optimizer_for(model, recipe)
    window: list[torch.Tensor] = []
    losses: list[float] = []
    begin = mark = time.perf_counter()
    for step, rows in enumerate(corpus.row_batches(recipe, tokenizer)):
        if step == recipe.warmup // 3:
            _wait(device)  # compiled and running from here on
            mark = time.perf_counter()
        if step == recipe.warmup // 3 * 2:
            _wait(device)
            each = (time.perf_counter() - mark) / (recipe.warmup // 3)
            recipe = replace(recipe, steps=min(recipe.steps, int(seconds / each)))
        if step >= recipe.steps:
            break
        ids = torch.from_numpy(rows.astype("int64")).to(device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        window.append(_step(forward, optimizer, ids))
        if len(window) == max(1, recipe.steps // 100):
            losses.append(float(torch.stack(window).mean()))
            window.clear()
            print(f"step {step + 1:6d}  loss {losses[-1]:.4f}", flush=True)
    done = time.perf_counter() - begin
    return Progress(recipe.steps, recipe.steps * recipe.batch * recipe.length, done, tuple(losses))


@torch.no_grad()
def exact_match(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> float:
    """Share of examples whose every answer token, end of turn included, is the likeliest one.

    Greedy generation gives the right answer exactly if it is right at each token given the right
    ones before it, so one forward pass decides it.
    """
    device, right = next(model.parameters()).device, 0
    for start in range(0, len(examples), 64):
        batch = collate([encode(tokenizer, e) for e in examples[start : start + 64]], 0)
        guess = (
            model(batch["input_ids"].to(device), use_cache=False).logits.argmax(-1).cpu()[:, :-1]
        )
        want = batch["labels"][:, 1:]
        right += int(((guess == want) | (want == IGNORE)).all(dim=1).sum())
    return right / len(examples)


def scores(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, n: int) -> dict[str, float]:
    """Exact match on `n` held-out examples of each skill, and on the fine-tuning task."""
    model.eval()
    return {
        skill: exact_match(model, tokenizer, skills.examples(skill, n, seed=7, held=True))
        for skill in [*skills.SKILLS, "record"]
    }


def card(recipe: Recipe, progress: Progress, found: dict[str, float], device: str) -> str:
    """The model card, README.md of the folder."""
    size = recipe.steps * recipe.batch * recipe.length
    rows = "\n".join(f"| {skill} | {score:.3f} |" for skill, score in found.items())
    regression = mean(score for skill, score in found.items() if skill != "record")
    return f"""# tiny: a Llama for a laptop, pretrained on an invented world

Made by `python -m labkit.pretrain --out data/models/tiny` on {date.today()}; MIT licence.

- device: {device}; torch {torch.__version__}; Python {platform.python_version()}
- {progress.steps} steps, {progress.tokens / 1e9:.2f} billion tokens seen, \
{progress.seconds:.0f} s of training (target: {size / 1e9:.2f} billion)
- loss, nats a token: {progress.losses[0]:.3f} in the first hundredth, \
{progress.losses[-1]:.4f} in the last
- corpus: `labkit.world`, {recipe.shards * recipe.shard_documents:,} documents from seed \
{recipe.seed}, nothing held out in it

Exact match on held-out examples, as trained ({regression:.3f} over the skills; `record` is the
fine-tuning task, which pretraining never shows):

| skill | exact match |
|---|---|
{rows}

Rows of {recipe.length} tokens were seen in training; longer texts are outside what it knows. It
knows no world but this invented one and is fit for teaching only.

Recipe: `{json.dumps(asdict(recipe))}`
"""


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(out)
    stop = [tokenizer.convert_tokens_to_ids(token) for token in (EOT, EOS)]
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=stop, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labkit.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, help="the folder to write the model to")
    parser.add_argument("--data", type=Path, help="write the data sets to this folder and stop")
    parser.add_argument("--smoke", action="store_true", help="a very small run, to see it work")
    parser.add_argument("--steps", type=int, help="steps instead of the recipe's")
    parser.add_argument("--seconds", type=float, default=400, help="longest training time")
    options = parser.parse_args()
    if options.data:
        print("\n".join(map(str, corpus.write_sets(options.data))))
        return
    if not options.out:
        parser.error("name the folder to write: --out data/models/tiny")
    recipe = SMOKE if options.smoke else Recipe()
    if options.steps:
        recipe = replace(recipe, steps=options.steps)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    raw = corpus.train_tokenizer(recipe)
    tokenizer = corpus.wrap(raw, 2 * recipe.length)
    model = build_model(recipe, tokenizer).to(device)
    print(f"{model.num_parameters():,} parameters on {device}", flush=True)
    progress = train(model, recipe, raw, options.seconds)
    found = scores(model, tokenizer, n=5 if options.smoke else 30)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    save(model.cpu(), tokenizer, options.out)
    (options.out / "README.md").write_text(card(recipe, progress, found, name))
    print(json.dumps({**asdict(progress), "losses": progress.losses[-1:], "scores": found}))


if __name__ == "__main__":
    main()
