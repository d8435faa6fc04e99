# %% [markdown]
# # Can a laptop fine-tune a 4-bit Llama?
#
# <!-- badges -->
#
# - **You will** load a Llama in 4 bits, attach LoRA, mask the prompt, write the training step,
#   score the result on letters it has never seen, and save an adapter that loads anywhere.
# - **You need** notebook 00 and a first idea of what a token is. A GPU is optional: the cells are
#   the same with Llama-3.2-1B.
# - **Time:** 75 minutes for you. The cells themselves take <!-- minutes -->.

# %%
# bootstrap

# %%
import json
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import adapters, data, evaluate, measure, models, prepare, project, sizes, train
from labkit.adapters import FLOAT32
from labkit.data import IGNORE
from labkit.exercises import check, quiz, use
from labkit.table import Table
from labkit.train import Loss, Settings, Step
from labkit.watch import watch

STEPS, SHORT, SAMPLE, EVERY = (6, 2, 4, 10) if project.quick() else (100, 25, 20, 1)

# %% [markdown]
# ## 1. The frozen weights rest in 4 bits
#
# **Claim:** NF4, a 4-bit number format, stores each weight of a linear map as one of 16 levels.
# Every 64 weights share a scale. Double quantisation stores these scales in 8 bits, and 256 of them
# share one more. A frozen model in 4 bits with LoRA on top is what QLoRA means.
#
# We load the model twice, as it is and in NF4, and count bytes.

# %%
whole, base = models.load(quantize=None), models.load()
tokenizer, before, after = base.tokenizer, sizes.bytes_of(whole.model), sizes.bytes_of(base.model)
bits = 8 * after.linear / before.linear * whole.model.dtype.itemsize
print(base.description)
print(f"{bits:.2f} bits a weight; the whole takes {after.total / before.total:.0%} of its bytes")
del whole
assert 4 < bits < 4.5
sizes.compared(before, after)

# %% [markdown]
# Slightly more than four bits a weight, scales included. Embeddings and norms stay as they were,
# and in a small model they weigh much, so the whole shrinks by less than its linear maps.
#
# **Where this stops:** these are bytes at rest, before gradients, activations and logits.
#
# Before any training, we ask for the record of a letter.

# %%
test, questions = data.examples("test")[::EVERY], data.examples("regression")[::EVERY]
print(test[0].prompt, "\n\nthe right answer:", test[0].answer)
print("the base model:  ", *evaluate.answers(base.model, tokenizer, [test[0].prompt]))

# %% [markdown]
# ### What does `prepare_model_for_kbit_training` prepare?
#
# Lessons call it between loading and LoRA, and few say what it does. We look at a second copy.

# %%
other = models.load()
prepare.prepare(other.model)

# %% [markdown]
# It casts what is not quantised (norms, embeddings, head) to float32, which costs memory, and
# freezes everything. It also switches on *gradient checkpointing*: activations are thrown away and
# computed again in the backward pass, which saves memory and costs time. The row "4-bit" counts the
# codes without their scales.
#
# **Folklore: "skip it and the loss turns NaN".** We train both for a few steps and compare.

# %%
items = [data.encode(tokenizer, example) for example in data.examples("train")]


def short_run(model: nn.Module, steps: int, **options: Any) -> tuple[nn.Module, tuple[float, ...]]:
    torch.manual_seed(0)
    adapted = train.attach(model, **options)
    return adapted, train.fit(adapted, items, Settings(steps=steps)).losses


_, with_it = short_run(other.model, 4)
_, without = short_run(models.load().model, 4)
print("with prepare:   ", [round(x, 3) for x in with_it])
print("without prepare:", [round(x, 3) for x in without])
assert all(map(torch.isfinite, torch.tensor(without)))

# %% [markdown]
# **Verdict:** no NaN, and nearly the same losses. Section 6 shows what it costs at the size of a 1B
# model, in the rows `hand-eager` and `hand-prepare`.
#
# **Where this stops:** four steps here, a hundred below, in float32 or bfloat16. In float16 keep
# the trained numbers in float32, as PEFT does by default.

# %% [markdown]
# ## 2. Two thin matrices beside each frozen map
#
# **Claim:** config, rank and targets tell how many parameters train; no weights are needed.
#
# A layer of a Llama holds seven linear maps, called projections. With $d$ the hidden size, $f$ the
# inner size, $q$ = heads x head size, and $k$ = key-value heads x head size:
#
# | map | out | in |
# |---|---|---|
# | q_proj | $q$ | $d$ |
# | k_proj, v_proj | $k$ | $d$ |
# | o_proj | $d$ | $q$ |
# | gate_proj, up_proj | $f$ | $d$ |
# | down_proj | $d$ | $f$ |

# %% [markdown]
# <!-- exercise: 04.1 -->
#
# Count what LoRA trains at a rank, on all seven maps of every layer. Build no model.
#
# In: a config with `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`,
# `num_key_value_heads` and `head_dim`; the rank. Out: a whole number.

# %%
# exercise: 04.1

# %% tags=["nbval-check-output"]
check("04.1", lora_parameters)

# %% [markdown]
# <!-- hints: 04.1 -->
#
# **Predict first:** how many parameters does LoRA train in Llama-3.2-1B at rank 16?
# The cell computes it from the config, and then builds the model as shapes without any numbers.

# %%
from transformers import LlamaConfig

lora_parameters = use("04.1", lora_parameters)
llama = LlamaConfig(**measure.LLAMA_1B)
counted = train.count_for_config(llama, rank=16)
assert lora_parameters(llama, 16) == counted.trainable
print("Llama-3.2-1B, rank 16, seven projections:", counted)

torch.manual_seed(0)
model = train.attach(base.model, rank=16, alpha=32)
assert train.count(model).trainable == lora_parameters(base.model.config, 16)
print(f"{base.tier}, rank 16: {train.count(model)}")

# %% [markdown]
# Your formula and PEFT's own model agree. Now the model that you train here gets its adapters.
#
# `get_peft_model` walked the modules and put a wrapper around each linear map it was told to adapt.
# It computes $Wx + \frac{\alpha}{r} BAx$: the frozen map, plus the two factors scaled by alpha /
# rank, here 32 / 16. At the start `B` is zero, so nothing changes.
#
# Alpha sets how far one step moves the model. Raise the rank and alpha with it, and the steps grow.
#
# **Where this stops:** the share that trains looks large on `tiny`, since its maps are narrow.

# %%
# quiz: 04.q1

# %% [markdown]
# ## 3. What is learnt, and what is only read
#
# **Claim:** the model learns to write the answer and to stop; the prompt it merely reads.
#
# A label of −100, in code `IGNORE`, leaves a token out of the loss. Each label stands under its own
# token; the loss shifts them by one.
#
# <!-- exercise: 04.2 -->
#
# Give the labels of a chat: `IGNORE` for every token of the prompt, and behind it the tokens
# themselves, up to the end of turn.
#
# In: the prompt's tokens, and all tokens, which begin with them. Out: a list as long as the latter.

# %%
# exercise: 04.2

# %% tags=["nbval-check-output"]
check("04.2", mask_prompt)

# %% [markdown]
# <!-- hints: 04.2 -->

# %%
mask_prompt = use("04.2", mask_prompt)
whole = data.encode(tokenizer, test[0]).input_ids
prompt = tokenizer(data.chat(tokenizer, test[0].prompt), add_special_tokens=False).input_ids
learnt = [label for label in mask_prompt(prompt, whole) if label != IGNORE]
print(f"{len(prompt)} tokens are read, {len(learnt)} learnt:", tokenizer.decode(learnt), sep="\n")
assert learnt == whole[len(prompt) :] and learnt[-1] != tokenizer.pad_token_id

# %% [markdown]
# The decoded labels end with the end-of-turn token. Look at yours before each fine-tune: a masked
# end of turn gives a model that never stops, and no loss curve shows it.
#
# <!-- exercise: 04.3 -->
#
# Write the loss that training minimises: the mean cross entropy of the next token, over the labels
# that are not −100.
#
# In: `logits` (batch, length, vocab) and `labels` (batch, length). Out: a scalar tensor.

# %%
# exercise: 04.3

# %% tags=["nbval-check-output"]
check("04.3", next_token_loss)

# %% [markdown]
# <!-- hints: 04.3 -->

# %%
next_token_loss = use("04.3", next_token_loss)
device = next(model.parameters()).device


def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return next_token_loss(logits.float(), batch["labels"])


batch = {k: v.to(device) for k, v in data.collate(items[:8], tokenizer.pad_token_id).items()}
with torch.no_grad():
    yours, theirs = loss_of(model, batch), model(**batch).loss
print(f"yours {yours:.4f}, transformers' {theirs:.4f} nats a learnt token")
assert abs(yours - theirs) < 0.02 * theirs

# %% [markdown]
# Both agree to rounding (in nats, the natural logarithm's unit). **Where this stops:** this form
# holds a table of logits, batch × length × vocabulary. On a 1B model the table outweighs the model,
# and `causal_loss` in labkit makes a few rows at a time and keeps none.

# %%
# quiz: 04.q2 04.q3 04.q4

# %% [markdown]
# ## 4. Train, by hand and by trainer
#
# **Claim:** a fine-tune is one step, repeated. Everything else is bookkeeping.
#
# <!-- exercise: 04.4 -->
#
# Write the step: clear the gradients, compute the loss, go backward, clip, let the optimizer move.
#
# In: the model, its optimizer, a batch, `loss_of(model, batch)`, and the largest norm of the
# gradient. Out: the loss before the step, as a float.

# %%
# exercise: 04.4

# %% tags=["nbval-check-output"]
check("04.4", training_step)

# %% [markdown]
# <!-- hints: 04.4 -->
#
# Your step now trains the model, with your loss. Around it stands bookkeeping: an optimizer over
# what trains, a rate that rises for a few steps and falls to zero, and a curve to watch.
#
# **Predict first:** the loss starts near 1.5 nats a token. How many steps until it is below 0.1?

# %%
training_step = use("04.4", training_step)
settings = Settings(steps=STEPS)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
_ = model.train()
with watch(STEPS) as on_step:
    source = data.batches(items, settings.batch, STEPS, tokenizer.pad_token_id, seed=0)
    history = []
    for number, batch in enumerate(source):
        begin, rate = time.perf_counter(), train.learning_rate(number, settings)
        batch = {name: value.to(device) for name, value in batch.items()}
        optimizer.param_groups[0]["lr"] = rate
        loss = training_step(model, optimizer, batch, loss_of, settings.clip)
        tokens, seconds = batch["input_ids"].numel(), time.perf_counter() - begin
        history.append(Step(number + 1, STEPS, loss, rate, tokens, seconds))
        on_step(history[-1])

low = next((step.number for step in history if step.loss < 0.1), "never")
last = sum(step.loss for step in history[-5:]) / 5
assert last < history[0].loss
print(f"loss {history[0].loss:.2f} at first, {last:.4f} at last; below 0.1 from step {low}")

# %% [markdown]
# On `tiny` the loss falls below 0.1 within the first quarter of the run. Does the rest teach
# anything? The loss cannot tell; section 5 asks the answers.
#
# ### When a run breaks off
#
# `train.fit` is your loop with a checkpoint. We interrupt it as the stop button would, go on from
# its file, and compare with a run that nobody interrupted. Then we break a loss on purpose.

# %%
short = Settings(steps=5, checkpoint=project.runs() / "interrupted.safetensors")


def stop_at_three(step: Step) -> None:
    if step.number == 3:
        raise KeyboardInterrupt


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return train.attach(models.load().model)


try:
    train.fit(fresh(), items, short, stop_at_three)
except train.TrainingStopped as stopped:
    print(stopped)

# %%
resumed = train.fit(fresh(), items, short, resume=True).losses
assert resumed == train.fit(fresh(), items, Settings(steps=5)).losses or device.type == "cuda"
try:
    train.fit(fresh(), items, short, loss=lambda model, batch: loss_of(model, batch) / 0)
except train.TrainingStopped as stopped:
    print(stopped)

# %% [markdown]
# The assertion holds: on a CPU both runs are equal to the last bit. A GPU sums in another order and
# may differ there.
#
# A loss that is no number, or memory that runs out, ends the same way: with advice, and with the
# last whole step on disk. Here no step was whole yet.

# %% [markdown]
# ### The same with TRL
#
# `SFTTrainer` takes the model, the LoRA config and conversations of prompt and completion.
# In today's API the tokenizer is `processing_class`, the limit is `max_length`, and the prompt is
# masked on its own. We check that last point on its data.

# %%
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

disable_progress_bars()
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def turns(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


rows = [
    {"prompt": turns("user", e.prompt), "completion": turns("assistant", e.answer)}
    for e in data.examples("train")[:400]
]

# %%
arguments = SFTConfig(
    output_dir=str(project.runs() / "trl"),
    max_steps=SHORT // 2,
    per_device_train_batch_size=8,
    learning_rate=5e-4,
    max_length=512,
    logging_steps=max(1, SHORT // 8),
    report_to="none",
    save_strategy="no",
    use_cpu=device.type == "cpu",
    bf16=False,
    disable_tqdm=True,
)
trainer = SFTTrainer(
    model=models.load().model,
    processing_class=tokenizer,
    args=arguments,
    train_dataset=Dataset.from_list(rows),
    peft_config=LoraConfig(**LORA),
)

# %%
seen = trainer.train_dataset[0]
assert seen["input_ids"] == items[0].input_ids and seen["labels"] == items[0].labels
trainer.remove_callback(PrinterCallback)
_ = trainer.train()
logs = [(log["step"], log["loss"]) for log in trainer.state.log_history if "loss" in log]
Table(("step", "loss, nats a learnt token"), [(f"{n}", f"{loss:.3f}") for n, loss in logs])

# %% [markdown]
# The trainer reads the same tokens and learns the same labels as we do, the end of turn included.
# It adds logging, evaluation and several GPUs. On a 4-bit model it trains the adapters in bfloat16,
# where PEFT alone keeps float32, and it does not call prepare.
#
# **Where this stops:** these few steps show that it runs. Section 6 compares speed.

# %% [markdown]
# ## 5. A low loss is no score
#
# **Claim:** only graded answers on unseen letters tell what was learnt. Only questions that the
# base model could answer, here called the regression set, tell what was lost.
#
# <!-- exercise: 04.5 -->
#
# Grade one answer: how many fields of the true record does it give, with the right value and type?
#
# In: the answer and the truth, both texts; the truth is a JSON object. Out: a whole number. An
# answer that is no JSON object has none right.

# %%
# exercise: 04.5

# %% tags=["nbval-check-output"]
check("04.5", fields_right)

# %% [markdown]
# <!-- hints: 04.5 -->

# %%
fields_right = use("04.5", fields_right)
prompts = [e.prompt for e in test]
with model.disable_adapter():
    old = evaluate.answers(model, tokenizer, prompts)
    skills_before = evaluate.score_regression(model, tokenizer, questions)
new = evaluate.answers(model, tokenizer, prompts)
skills_after = evaluate.score_regression(model, tokenizer, questions)
pairs = [(o, n, e.answer) for o, n, e in zip(old, new, test, strict=True)]
task_before, task_after = evaluate.grade_task(old, test), evaluate.grade_task(new, test)
right = sum(fields_right(said, truth) for _, said, truth in pairs)
fields = right / sum(len(json.loads(truth)) for *_, truth in pairs)
print("before:", task_before, skills_before, "after:", task_after, skills_after, sep="\n")
assert abs(fields - task_after.field_accuracy) < 1e-9
if base.tier == "tiny" and not project.quick():
    assert task_before.exact_match < 0.05 and task_after.exact_match >= 0.9
    assert skills_before.exact_match >= 0.9 and skills_after.exact_match >= 0.8
Table(("before", "after", "right"), pairs[:2] + pairs[-2:])

# %% [markdown]
# On `tiny` the task goes from nothing to at least nine letters in ten. The bracket names the old
# skills that fell below 100%: the model writes a record where it used to refuse, or to build other
# objects. That is forgetting, and the loss curve showed none of it.
#
# **Where this stops:** 200 letters of one task, without intervals.

# %% [markdown]
# ### Folklore: "q and v are enough", "rank 256 to be safe"
#
# Five short runs from the same start, each scored on the same letters. The lessons raise alpha with
# the rank; so we change one of them at a time as well.

# %%
ROWS = {
    "seven projections, rank 16, alpha 32": {},
    "q and v, rank 16, alpha 32": {"targets": ["q_proj", "v_proj"]},
    "seven projections, rank 64, alpha 128": {"rank": 64, "alpha": 128},
    "seven projections, rank 64, alpha 32": {"rank": 64},
    "seven projections, rank 16, alpha 128": {"alpha": 128},
}
rows = []
for name, options in ROWS.items():
    adapted, ended = short_run(models.load().model, SHORT, **options)
    said = evaluate.answers(adapted, tokenizer, prompts[:SAMPLE])
    exact = sum(s == e.answer for s, e in zip(said, test, strict=False))
    loss, trains = sum(ended[-3:]) / 3, f"{train.count(adapted).trainable:,}"
    rows.append((name, trains, f"{loss:.4f}", f"{exact} of {SAMPLE}"))
Table(("run", "trains", "loss at last", "exactly right"), rows)

# %% [markdown]
# Look at the first row: a loss far below 0.1, and many letters still wrong. On `tiny`, query and
# value alone learn more slowly. The larger rank looks better only while alpha grows with it: with
# alpha 128 rank 16 does as well, and with alpha 32 rank 64 does no better.
#
# **Verdict:** adapt every projection, start at rank 16, tune the step before the rank.
#
# **Where this stops:** one seed, one task, one rate, few steps.

# %% [markdown]
# ### A trap: a token that was never written
#
# Let each answer begin with a euro sign. The tokenizer spells it as three tokens, one for each
# byte, and `tiny` never had to write them while it was pretrained. Its output embedding, which is
# also its input embedding ("tied"), never learnt to produce them, and LoRA leaves it frozen.
#
# PEFT has two cures: train those rows alone, or train the whole embedding.

# %%
tiny = models.load("tiny").tokenizer
sign = tiny("€", add_special_tokens=False).input_ids
marked = [data.Example(e.prompt, f"€{e.answer}", e.skill) for e in data.examples("train")[:400]]
coded = [data.encode(tiny, example) for example in marked]


def trapped(**cure: Any) -> tuple[int, int, str]:
    base = models.load("tiny").model
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(**LORA, **cure))
    train.fit(adapted, coded, Settings(steps=SHORT + SHORT // 5, lr=3e-3))
    said = evaluate.answers(adapted, tiny, prompts[:SAMPLE])
    right = sum(s == f"€{e.answer}" for s, e in zip(said, test, strict=False))
    return train.count(adapted).trainable, right, said[0][:24]


# %%
CURES = {
    "LoRA alone": {},
    "and three rows of the embedding": {"trainable_token_indices": sign},
    "and the whole embedding": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}
found = {name: trapped(**cure) for name, cure in CURES.items()}
rows = [(name, f"{n:,}", f"{k} of {SAMPLE}", begin) for name, (n, k, begin) in found.items()]
alone, three, whole = (right for _, right, _ in found.values())
assert alone == 0 and (project.quick() or min(three, whole) >= 0.9 * SAMPLE)
Table(("what trains", "parameters", "exactly right", "an answer begins"), rows)

# %% [markdown]
# LoRA alone writes the record behind some other sign, never behind the right one. Both cures write
# it. Three rows of the embedding cost a few hundred numbers, the whole of it far more.
#
# **What to do:** before you fine-tune, look for tokens in your answers that the base never writes.
# **Where this stops:** a tokenizer of 1,024 entries has such tokens at hand; large ones hide them.

# %% [markdown]
# ## 6. Save it, load it anywhere, and the real size
#
# **Claim:** an adapter is its two factors, and its file's size follows from their count.
#
# <!-- exercise: 04.6 -->
#
# By default PEFT trains and saves `A` and `B` in float32. Beside each number stand its gradient and
# Adam's two moments, the running means of the gradient and of its square.
#
# In: the number of parameters. Out: two whole numbers, the bytes in the file without its header,
# and the bytes that training holds for weights, gradients and moments.

# %%
# exercise: 04.6

# %% tags=["nbval-check-output"]
check("04.6", training_bytes)

# %% [markdown]
# <!-- hints: 04.6 -->

# %%
training_bytes = use("04.6", training_bytes)
scores = {"task": task_after.exact_match, "regression": skills_after.exact_match}
said = adapters.card(model, base, data.examples("train"), settings, scores)
folder = project.runs() / "adapter"
saved, predicted = adapters.save(model, folder, said), adapters.file_bytes(model)
saved = saved.stat().st_size
numbers, held = training_bytes(train.count(model).trainable)
print(f"{numbers:,} bytes of numbers and {saved - numbers:,} of header in the file")
print(f"predicted {predicted:,}, saved {saved:,}; training held {held:,}")
assert saved == predicted
real = adapters.predicted_bytes(llama, rank=16)
print(f"Llama-3.2-1B, rank 16: {real:,} bytes, {real / 1e6:.1f} MB in float32")
print(f"in bfloat16 half of it, {training_bytes(counted.trainable)[0] / 2e6:.1f} MB")
said

# %% [markdown]
# The card names the base by its hash, since on another base an adapter gives confident nonsense.
# Lessons speak of "about 50 MB" for Llama-3.2-1B at rank 16; the cell computes it from the config.
#
# Now a new process loads the adapter with plain PEFT. The program in the text imports no labkit.

# %%
PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from peft import PeftModel

base, adapter, prompt = sys.argv[1:]
nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
config, where = BitsAndBytesConfig(**nf4), {"": "cuda" if torch.cuda.is_available() else "cpu"}
model = AutoModelForCausalLM.from_pretrained(base, quantization_config=config, device_map=where)
model, tokenizer = PeftModel.from_pretrained(model, adapter), AutoTokenizer.from_pretrained(base)
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)
tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0]
print(tokenizer.decode(tokens[inputs.input_ids.shape[1] :], skip_special_tokens=True))
"""
command = [sys.executable, "-c", PLAIN, base.folder, folder, data.chat(tokenizer, test[0].prompt)]
there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
print("there:", there, "\nhere: ", new[0])
assert there == new[0] or base.tier != "tiny"

# %% [markdown]
# ### Llama-3.2-1B on a GPU, measured
#
# Four rows of 1,024 tokens, accumulated four times, rank 16 on seven projections. The weights are
# random with the exact shapes: memory and speed are those of the real model, learning is not.
#
# - `trl`: SFTTrainer as shipped
# - `hand-eager`: your loop, with checkpointing and a loss that keeps no logits
# - `hand-prepare`: the same after prepare, its adapters in float32
# - `hand`: as `hand-eager`, its GPU work recorded once and replayed (a CUDA graph)
# - `hand-liger`: with fused kernels; `hand-no-checkpointing`: activations kept
# - `plain`: prepare, and all logits kept; `t4`: float16 within 15 GiB

# %%
by = {row["name"]: row for row in measure.rows_on_disk()}
for name in ("hand-eager", "hand"):
    speed, peak = (by[name][key] / by["trl"][key] for key in measure.BARS)
    print(f"{name}: {speed:.2f} times TRL's tokens/s at {peak:.3f} of its allocated peak")
assert speed >= 1.3 and peak <= 1 and by["t4"]["peak_reserved_bytes"] < 15 * 2**30
measure.measured()

# %% [markdown]
# A GPU waits for Python between small kernels; the record removes the wait. What is *allocated* was
# asked for, what is *reserved* includes the allocator's spare room, and a card must hold the
# latter. The `t4` row ran on the same large GPU with a cap: its memory carries over to a T4, its
# speed not.
#
# **Folklore: "QLoRA of 1B takes 6 GB".** It takes 2 or 9 of them, as the table shows: checkpointing
# and the loss decide, more than the weights do.

# %% [markdown]
# ## What to carry away
#
# - NF4 with double quantisation stores a weight in a little more than 4 bits, constants included.
# - LoRA at rank 16 adds 11,272,192 trained parameters to Llama-3.2-1B, 1,247,086,592 in all; its
#   file holds 4 bytes for each in float32.
# - Yes, a laptop can: the task above was learnt within 100 steps. Graded answers show it, and they
#   show the old skills that it cost.
#
# **Sources:** Dettmers et al. 2023, *QLoRA*, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314);
# Hu et al. 2021, *LoRA*, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685); Thinking Machines
# 2025, *LoRA Without Regret*; PEFT 0.21 and TRL 1.16, their own source.
#
# **Next:** [05_dora](05_dora.ipynb) asks what DoRA adds. On a terminal, `make finetune` loads,
# trains, scores and saves without a browser.
