# %% [markdown]
# # Can a laptop fine-tune a 4-bit Llama?
#
# <!-- badges -->
#
# **You will** load a Llama in 4 bits, attach LoRA, mask the prompt, write the training step, score
# the result on letters it has never seen, and save an adapter that loads anywhere.
# **You need** notebook 00. A GPU is optional: the cells are the same with Llama-3.2-1B.
# **Time:** 75 minutes for you. The cells themselves take <!-- minutes -->.

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

from labkit import adapters, data, evaluate, measure, models, prepare, project, train
from labkit.adapters import FLOAT32
from labkit.data import IGNORE
from labkit.exercises import check, quiz, use
from labkit.table import Table
from labkit.train import Loss, Settings, Step
from labkit.watch import watch

STEPS, SHORT, SAMPLE = (10, 4, 8) if project.quick() else (100, 25, 40)

# %% [markdown]
# ## 1. The frozen weights rest in 4 bits
#
# **Claim:** NF4 stores each weight of a linear map as a 4-bit code, plus a share of two constants.
# Double quantisation stores the constants of the blocks in 8 bits too.
#
# We load the model twice, as it is and in NF4, and count bytes.

# %%
whole, base = models.load(quantize=None), models.load()
tokenizer, before, after = base.tokenizer, models.bytes_of(whole.model), models.bytes_of(base.model)
packed = [p.quant_state.shape for p in base.model.parameters() if hasattr(p, "quant_state")]
bits = after.quantised * 8 / sum(shape.numel() for shape in packed)
print(f"{bits:.2f} bits a weight in {len(packed)} linear maps")
print(f"the whole model takes {after.total / before.total:.0%} of the bytes it took")
assert 4 < bits < 4.5
del whole
mib = [
    (kind, f"{b / 2**20:.2f}", f"{a / 2**20:.2f}")
    for (kind, b), a in zip(vars(before).items(), vars(after).values(), strict=True)
]
Table(("kind of parameter", "as it is, MiB", "NF4, MiB"), mib, base.description)

# %% [markdown]
# Slightly more than four bits a weight, constants included. The embeddings and the norms stay as
# they were, and in a small model they weigh a lot: there the whole shrinks by less.
#
# **Where this stops:** these are bytes at rest. Notebook 02 adds gradients, activations and logits.
#
# Before any training, we ask for the record of a letter.

# %%
test, questions = data.examples("test"), data.examples("regression")
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
# It casts what is not quantised and stands in half precision to float32, freezes everything, and
# switches gradient checkpointing on. The table shows which of these had something to change here.
#
# **Folklore: "skip it and the loss turns NaN".** We train both for a few steps and compare.

# %%
items = [data.encode(tokenizer, example) for example in data.examples("train")]


def short_run(model: nn.Module, steps: int, **options: Any) -> tuple[int, tuple[float, ...]]:
    torch.manual_seed(0)
    adapted = train.attach(model, **options)
    history = train.fit(adapted, items, Settings(steps=steps))
    return train.count(adapted).trainable, history.losses


_, with_it = short_run(other.model, 4)
_, without = short_run(models.load().model, 4)
print("with prepare:   ", [round(x, 3) for x in with_it])
print("without prepare:", [round(x, 3) for x in without])
assert all(map(torch.isfinite, torch.tensor(without)))

# %% [markdown]
# **Verdict:** no NaN, and nearly the same losses. The function buys stability in float16 and memory
# in long batches, and it pays with speed. The last section shows its price on a 1B model.

# %% [markdown]
# ## 2. Two thin matrices beside each frozen map
#
# **Claim:** the number of trained parameters follows from the config alone, weights or no weights.
#
# A layer of a Llama holds seven linear maps. With $d$ the hidden size, $f$ the inner size,
# $q$ and $k$ the widths of queries and of keys:
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
# The wrapper holds the frozen 4-bit map, `A` and `B`. At the start `B` is zero, so nothing changes.
#
# **Where this stops:** the share that trains looks large on `tiny`, since tiny is small.

# %%
# quiz: 04.q1 04.q4

# %% [markdown]
# ## 3. What is learnt, and what is only read
#
# **Claim:** the model learns to write the answer and to stop; the prompt it merely reads.
#
# A label of −100 leaves a token out of the loss. Each label stands under its own token; the loss
# shifts them by one.
#
# <!-- exercise: 04.2 -->
#
# Give the labels of a chat: masked over the prompt, the tokens themselves behind it.
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
chat = data.chat(tokenizer, test[0].prompt, test[0].answer)
whole = tokenizer(chat, add_special_tokens=False).input_ids
prompt = tokenizer(data.chat(tokenizer, test[0].prompt), add_special_tokens=False).input_ids
labels = mask_prompt(prompt, whole)
print(f"{labels.count(IGNORE)} tokens are read, {len(labels) - labels.count(IGNORE)} are learnt:")
print(tokenizer.decode([label for label in labels if label != IGNORE]))
assert labels[-1] == whole[-1] != tokenizer.pad_token_id

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
# Both agree to rounding. **Where this stops:** this form holds a table of logits, batch × length ×
# vocabulary. On a 1B model the table outweighs the model, and `causal_loss` in labkit never builds
# it.

# %%
# quiz: 04.q2 04.q3

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
# Your step now trains the model, with your loss. The rate rises for a few steps and falls to zero.
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

low = next((step.number for step in history if step.loss < 0.1), None)
last = sum(step.loss for step in history[-5:]) / 5
assert last < history[0].loss
print(f"loss {history[0].loss:.2f} at first, {last:.4f} at last; below 0.1 from step {low}")

# %% [markdown]
# On `tiny` the loss falls below 0.1 within the first quarter of the run. Most of what follows
# teaches little, and section 5 shows what it costs.
#
# ### When a run breaks off
#
# `train.fit` is your loop with a checkpoint. We interrupt it as the stop button would, go on from
# its file, and compare with a run that nobody interrupted.

# %%
short = Settings(steps=8, checkpoint=project.runs() / "interrupted.safetensors")


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
never_stopped = train.fit(fresh(), items, Settings(steps=8)).losses
print("resumed:      ", [round(x, 4) for x in resumed])
print("never stopped:", [round(x, 4) for x in never_stopped])
assert resumed == never_stopped or device.type == "cuda"
try:
    train.fit(fresh(), items, short, loss=lambda model, batch: loss_of(model, batch) * torch.nan)
except train.TrainingStopped as stopped:
    print(stopped)

# %% [markdown]
# On a CPU the two are equal to the last bit. A GPU sums in another order and may differ there.
#
# A loss that is no number ends the same way: with advice, and with the last whole step on disk.

# %% [markdown]
# ### The same with TRL
#
# `SFTTrainer` takes the model, the LoRA config and conversations of prompt and completion.
# In today's API the tokenizer is `processing_class`, the limit is `max_length`, and the prompt is
# masked on its own. We check that last point on its data.

# %%
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model
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
_ = trainer.train()

# %% [markdown]
# The trainer reads the same tokens and learns the same labels as we do, the end of turn included.
# It adds logging, evaluation and several GPUs. It hides the step that you wrote.
#
# **Where this stops:** these few steps show that it runs. Speed is compared in section 6.

# %% [markdown]
# ## 5. A low loss is no score
#
# **Claim:** only graded answers on unseen letters tell what was learnt, and only a second set of
# questions tells what was lost.
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
Table(("before", "after", "right"), pairs[:4])

# %% [markdown]
# On `tiny` the task goes from nothing to at least nine letters in ten. Some old skills are gone:
# the model now writes a record where it used to refuse, or to build other objects.
# That is forgetting, and the loss curve showed none of it.
#
# **Where this stops:** 200 letters of one kind. Notebook 08 adds intervals and a gate.

# %% [markdown]
# ### Folklore: "q and v are enough", "rank 256 to be safe"
#
# Three short runs from the same start. Which one ends lowest, and what does each train?

# %%
ROWS = {
    "seven projections, rank 16": {},
    "q and v, rank 16": {"targets": ["q_proj", "v_proj"]},
    "seven projections, rank 256": {"rank": 256, "alpha": 512},
}
rows = []
for name, options in ROWS.items():
    trains, losses = short_run(models.load().model, SHORT, **options)
    rows.append((name, f"{trains:,}", f"{sum(losses[-5:]) / len(losses[-5:]):.4f}"))
Table(("run", "trains", "loss over the last five steps"), rows)

# %% [markdown]
# On `tiny`, query and value alone learn more slowly at the same rate and number of steps.
# Rank 256 falls fastest here, and it trains and holds sixteen times as much. The run of section 4
# reached a full score with rank 16 and a few more steps.
# **Verdict:** adapt every projection, start at rank 16, and raise it when a score asks for it.
#
# **Where this stops:** one seed, one task, one rate. Notebook 01 repeats it with intervals.

# %% [markdown]
# ### A trap: a token that was never written
#
# Let each answer begin with a euro sign. Its three byte tokens never occurred while `tiny` was
# pretrained, so its tied output embedding never learnt to produce them. LoRA leaves it frozen.
# PEFT has two cures: train those rows alone, or train the whole embedding.


# %%
marked = [data.Example(e.prompt, f"€{e.answer}", e.skill) for e in data.examples("train")]
sign = models.load("tiny").tokenizer("€", add_special_tokens=False).input_ids


def trapped(**cure: Any) -> tuple[int, int, str]:
    loaded = models.load("tiny")
    torch.manual_seed(0)
    adapted = get_peft_model(loaded.model, LoraConfig(**LORA, **cure))
    coded = [data.encode(loaded.tokenizer, example) for example in marked]
    train.fit(adapted, coded, Settings(steps=SHORT + 5, lr=3e-3))
    said = evaluate.answers(adapted, loaded.tokenizer, prompts[:SAMPLE])
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
# LoRA alone writes the record and never the sign. Both cures write it.
# Three rows of the embedding cost a few hundred numbers, the whole of it far more.
#
# **What to do:** before you fine-tune, look for tokens in your answers that the base never writes.

# %% [markdown]
# ## 6. Save it, load it anywhere, and the real size
#
# **Claim:** an adapter is its two factors, and its file's size follows from their count.
#
# <!-- exercise: 04.6 -->
#
# PEFT trains and saves `A` and `B` in float32, and Adam keeps two moments of each number.
#
# In: the number of parameters. Out: two numbers, the bytes in the file and the bytes that training
# holds for weights, gradients and moments.

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
# The card names the base by its hash, since an adapter on another base is noise with confidence.
# Lessons speak of "about 50 MB" for Llama-3.2-1B at rank 16. The config tells:
#
# Now a new process loads it with plain PEFT, without labkit, and answers a letter.

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

# %%
by = {row["name"]: row for row in measure.rows_on_disk()}
speed = by["hand"]["tokens_per_second"] / by["trl"]["tokens_per_second"]
peak = by["hand"]["peak_allocated_bytes"] / by["trl"]["peak_allocated_bytes"]
price = by["plain"]["peak_allocated_bytes"] / by["hand"]["peak_allocated_bytes"]
print(f"by hand: {speed:.2f} times TRL's tokens/s at {peak:.3f} of its peak")
print(f"prepare and full logits: {price:.1f} times the peak of the loop by hand")
assert speed >= 1.3 and peak <= 1 and by["t4"]["peak_reserved_bytes"] < 15 * 2**30
measure.measured()

# %% [markdown]
# `hand-eager` is your loop as it stands; `hand` records its kernels once and replays them, so
# Python no longer slows the GPU. `plain` calls prepare and keeps every logit. `t4` computes in
# float16 within 15 GiB, as Colab's free GPU would.
#
# **Folklore: "QLoRA of 1B takes 6 GB".** It takes what the loss and the checkpoints make it take.

# %% [markdown]
# ## What to carry away
#
# - NF4 with double quantisation stores a weight in a little more than 4 bits, constants included.
# - LoRA at rank 16 trains 11,272,192 of 1,247,086,592 parameters of Llama-3.2-1B; its file holds
#   4 bytes for each in float32.
# - A run is judged by graded answers: the task above was learnt within 100 steps, at the cost of
#   some skills that nobody had asked about.
#
# **Sources:** Dettmers et al. 2023, *QLoRA*, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314);
# Hu et al. 2021, *LoRA*, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685); Thinking Machines
# 2025, *LoRA Without Regret*; PEFT 0.21 and TRL 1.16, their own source.
#
# **Next:** on a terminal, `make finetune` does all of this without a browser.
