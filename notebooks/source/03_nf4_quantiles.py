# %% [markdown]
# # Where would you place sixteen marks on a ruler?
#
# <!-- badges -->
#
# - **You will** derive the sixteen levels of NF4, quantise real weights and their constants, count
#   every bit, find each of them equal to bitsandbytes, and build QLoRA out of two classes.
# - **You need** notebook 01's `LoRALinear` and an idea of the normal distribution. No GPU.
# - **Time:** 90 minutes for you. The cells themselves take <!-- minutes -->.

# %%
# bootstrap

# %%
import math
from statistics import NormalDist, median
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import codes, data, evaluate, fitted, models, outliers, paged, train, usage, weights
from labkit.blocks import in_blocks
from labkit.exercises import check, quiz, use
from labkit.explore import Explorer, Menu, Real
from labkit.figures import nf4 as draw
from labkit.lora import LoRALinear, linear_maps
from labkit.nf4 import NF4Linear, Quantized, dequantize, quantize
from labkit.project import quick
from labkit.rounding import in_code, perplexity
from labkit.table import Table

# %% [markdown]
# ## 1. Sixteen marks on a ruler
#
# **Claim:** a format of four bits is a table of sixteen numbers. All its art is where they stand.
#
# Weights come in blocks of 64, each divided by its largest magnitude, so that they lie in −1 to 1;
# section 2 explains why. Sixteen even marks are the first idea.
#
# **Predict first:** the weights are normal. What share of them lands on the inner eight marks?

# %%
drawn = usage.draws("normal", 2**16 if quick() else 2**20)
even = torch.linspace(-1, 1, 16)
shares = usage.usage(drawn, even, 64)
print(f"the inner eight marks take {shares[4:12].sum():.1%} of the weights,")
print(f"the outer four {shares[[0, 1, -2, -1]].sum():.1%}; a mark at zero: {0 in even}")

# %% [markdown]
# Four weights in five share half of the marks. Weights that are zero, as padding and pruning make
# them, come back as something else.
#
# The second idea is *quantiles*: the quantile of a probability $p$ is the value with the share $p$
# below it. Marks at even steps of probability crowd where weights do.
#
# <!-- exercise: 03.1 -->
#
# Give `n` quantiles of the standard normal distribution. Their probabilities fall in even steps
# from `outermost` towards 1/2, which is left out.
#
# In: `n`, and a probability between 1/2 and 1. Out: a list of floats, the largest first.

# %%
# exercise: 03.1

# %% tags=["nbval-check-output"]
check("03.1", half)

# %% [markdown]
# <!-- hints: 03.1 -->
#
# Lessons write down other quantiles. We put three of their recipes beside the table that
# bitsandbytes ships.

# %%
half = use("03.1", half)
table = bnb.functional.get_4bit_type("nf4", device="cpu")


def z(p: float) -> float:
    return NormalDist().inv_cdf(p) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)


NAIVE = {
    "middles of 16 equal cells": [z((i + 0.5) / 16) for i in range(16)],
    "borders of 16 equal cells": [z(i / 16) for i in range(17)],
    "the paper's equation 4": [(z(i / 17) + z((i + 1) / 17)) / 2 for i in range(16)],
}
rows = []
for name, marks in NAIVE.items():
    finite = torch.tensor([m for m in marks if math.isfinite(m)])
    off = f"{(finite / finite.max() - table).abs().max():.3f}" if len(finite) == 16 else "-"
    zero = "yes" if (finite.abs() < 1e-6).any() else "no"
    rows.append((name, f"{len(finite)}", f"{len(marks) - len(finite)}", zero, off))
Table(("recipe", "finite levels", "infinite", "a zero", "farthest from NF4"), rows)

# %% [markdown]
# The middles have no zero. The borders have two infinite ends, and 15 levels remain: one code in
# sixteen is lost. The formula that the QLoRA paper prints is infinite at its first index as well.
#
# <!-- exercise: 03.2 -->
#
# Build the table from two halves around a zero: seven quantiles below, eight above. Both halves
# begin at one probability, half-way between $29/30$ and $31/32$: with 15 and with 16 equal cells,
# these are the middles of the last one. Divide by the largest.
#
# The rule: `half` and no pasted level. Out: a float32 tensor of 16, ascending, from −1 to 1.

# %%
# exercise: 03.2

# %% tags=["nbval-check-output"]
check("03.2", levels)

# %% [markdown]
# <!-- hints: 03.2 -->

# %%
levels = use("03.2", levels)
outermost = (29 / 30 + 31 / 32) / 2
print(f"largest difference from bitsandbytes' table: {(levels() - table).abs().max():.1e}")
assert (levels() - table).abs().max() < 1e-6
alt = "the normal density over sixteen marks: seven below zero, zero, eight above, closest at zero"
draw.picture(alt, lambda ax: draw.bell(ax, levels().tolist(), outermost))

# %% [markdown]
# The table is yours, and no digit of it was pasted. Fifteen levels over two sides cannot be even,
# so the side below zero has wider steps.
#
# **Where this stops:** 29/30 and 31/32 reproduce the table, and bitsandbytes calls the value it
# holds, 0.9677083, "empirically optimized". We found no account of how. The next sections ask how
# good the table is.

# %% [markdown]
# ## 2. One scale for every block
#
# **Claim:** a weight is stored as a code, and its block of 64 as one *absmax*, the largest
# magnitude. The size of the block decides how the codes are used.
#
# <!-- exercise: 03.3 -->
#
# Give the absmax of each run of `block` values. The weight counts row by row, whatever its shape,
# and a short last block counts too.
#
# In: a weight of any shape and floating dtype, and the block size. Out: float32, shape (blocks,).

# %%
# exercise: 03.3

# %% tags=["nbval-check-output"]
check("03.3", block_absmax)

# %% [markdown]
# <!-- hints: 03.3 -->
#
# NF4's own largest mark is a quantile, 1.848 standard deviations. Where is the largest weight of a
# block, on average?

# %%
block_absmax = use("03.3", block_absmax)
BLOCKS = (16, 32, 64, 128, 256, 4096)
seen = {block: block_absmax(drawn, block).mean().item() for block in BLOCKS}
rows = [(f"{b}", f"{usage.expected_absmax(b):.3f}", f"{top:.3f}") for b, top in seen.items()]
print(f"NF4's outermost quantile: {z(outermost):.3f}")
Table(("block", "E[absmax], exact", "mean over our blocks"), rows)

# %% [markdown]
# Only the smallest blocks come near 1.848. At 64 the largest weight stands at 2.6 standard
# deviations, so the marks are stretched and the outer ones lie where few weights are.
#
# <!-- exercise: 03.4 -->
#
# Find the code of each value: the place of the level nearest to value / absmax. Of two equally near
# levels take the lower one; a block of zeros takes the level zero.
#
# In: `values` (blocks, block), `absmax` (blocks,), `code` ascending. Out: uint8, as `values`.

# %%
# exercise: 03.4

# %% tags=["nbval-check-output"]
check("03.4", nearest)

# %% [markdown]
# <!-- hints: 03.4 -->
#
# **Predict first:** bitsandbytes' default block is 64. How many of the four bits does a code carry
# there? The *entropy* $-\sum p \log_2 p$ says so; it is 4 when all sixteen codes are used alike.

# %%
nearest = use("03.4", nearest)


def counted(block: int) -> Tensor:
    found = nearest(in_blocks(drawn, block), block_absmax(drawn, block), levels())
    return torch.bincount(found.flatten().long(), minlength=16) / found.numel()


def exact(block: int) -> Tensor:
    below = fitted.scaled_normal(block).share((levels()[1:] + levels()[:-1]).double() / 2)
    return F.pad(F.pad(below, (1, 0)), (0, 1), value=1.0).diff()


both = [(usage.entropy(exact(b)), usage.entropy(counted(b))) for b in BLOCKS]
rows = [(f"{b}", f"{e:.3f}", f"{c:.3f}") for b, (e, c) in zip(BLOCKS, both, strict=True)]
assert round(usage.entropy(exact(64)), 3) == 3.885 and abs(both[2][0] - both[2][1]) < 0.02
alt = "bars of code use at block 64: few weights at the ends, most in the middle"
display(draw.picture(alt, lambda ax: draw.used(ax, levels().tolist(), exact(64).tolist())))
Table(("block", "bits, exact", "bits, by your codes"), rows)

# %% [markdown]
# ### Folklore: "NF4 is information-theoretically optimal"
#
# The reasoning is that equal use of all codes wastes no bit. At block 64 use is not equal. So we
# build the code that *is* used equally there, from the quantiles of w / absmax, and also two codes
# made for least error: Lloyd-Max for the squared one, AF4 for the absolute one.

# %%
scaled = (in_blocks(drawn, 64) / block_absmax(drawn, 64)[:, None]).flatten()
places = (2 * torch.arange(16) + 1) / 32
RIVALS = {
    "NF4": levels(),
    "used equally": scaled[: 2**20].quantile(places),
    "Lloyd-Max, free": fitted.lloyd_max(pinned=()),
    "Lloyd-Max with -1, 0, 1": fitted.lloyd_max(),
    "AF4 as published": fitted.af4(),
    "AF4 corrected": fitted.af4_corrected(),
}
found = {name: usage.error(drawn, code) for name, code in RIVALS.items()}
bits = {name: usage.entropy(usage.usage(drawn, code)) for name, code in RIVALS.items()}
rows = [(n, f"{bits[n]:.3f}", f"{e.mse:.5f}", f"{e.l1:.4f}") for n, e in found.items()]
print(f"the bound of information theory at 4.5 bits: {2 ** (-2 * 4.5):.5f}")
assert found["used equally"].mse > 1.9 * found["NF4"].mse
Table(("code", "entropy, bits", "squared error / variance", "absolute error / std"), rows)

# %% [markdown]
# **Verdict: no.** The equally used code carries all 4 bits, and its squared error is twice NF4's.
# Lloyd-Max saves 5% of NF4's error, or 10% where it may give up −1, 0 and 1. Information theory's
# own bound for normal weights, $2^{-2b}$ at $b$ bits, is more than four times lower.
#
# What is true: the code made for least absolute error gains less than one percent on NF4. The
# published AF4 loses to NF4, since two of its cells end at zero instead of half-way to zero.
#
# **Where this stops:** normal weights, blocks of 64.

# %% [markdown]
# ## 3. Are weights normal?
#
# **Claim:** within a block nearly so; as whole matrices they are not.
#
# *Excess kurtosis* measures tails and is 0 for a normal distribution. We take it of each whole
# matrix, and within its blocks. `tiny` is here. A real model read out of 4-bit codes and an encoder
# in true float32 are measured where their files are on this disk, else shown as recorded.

# %%
surveys, maps = weights.surveys(), weights.linear_weights("tiny")
print(*(f"{found.model} ({found.label}): {said}" for found, said in surveys), sep="\n")
level = [usage.excess_kurtosis(w / w.std(dim=1, keepdim=True)) for w in maps.values()]
print(f"tiny with every row at one spread: median {median(level):.2f}")
display(draw.kurtosis(surveys[0][0].whole, surveys[0][0].in_blocks, "tiny"))
Table(weights.HEAD, [found.row() for found, _ in surveys])

# %% [markdown]
# The middle matrix is not far from normal, the worst are nowhere near it, and within blocks most of
# the excess is gone. A matrix mixes rows of many spreads, while a block lies in one row: with every
# row at one spread, the excess of `tiny` goes as well. The last columns are squared errors, for
# which normal weights give 0.0085, 0.0116 and 0.0149.
#
# **Verdict on "weights are normal":** in blocks, about; as matrices, no.
#
# **Where this stops:** smollm2's row is a second rounding, of weights that had at most 16 values in
# each 32.

# %% [markdown]
# How much does the choice of code depend on the tails? We draw weights of known distributions and
# round them with four codes: NF4, bitsandbytes' FP4, INT4 from −7 to 7, and AF4 as published.

# %%
FOUR = {"NF4": levels(), "FP4": codes.fp4(), "INT4": codes.int4(), "AF4": fitted.af4()}
TAILS = ("uniform", "normal", "t10", "laplace", "t5", "t3")


def mse(kind: str, block: int, count: int = 2**17) -> dict[str, float]:
    sample = usage.draws(kind, count)
    return {name: usage.error(sample, code, block).mse for name, code in FOUR.items()}


every = [mse("normal", b) for b in BLOCKS], [mse(kind, 64) for kind in TAILS]
lines, marks = ({n: [row[n] for row in rows] for n in FOUR} for rows in every)
assert marks["INT4"][0] < marks["NF4"][0] and marks["INT4"][-1] > 1.9 * marks["NF4"][-1]
left, right = lambda ax: draw.errors(ax, BLOCKS, lines), lambda ax: draw.tails(ax, TAILS, marks)
display(
    draw.picture("error of four codes, by block size and by tail weight", left, right, width=9.5)
)
kinds = Menu("kind", "weights", [(kind, kind) for kind in TAILS], "t5")
sizes = Menu("block", "block", [(f"{b}", b) for b in BLOCKS], 256)
Explorer([kinds, sizes], lambda kind, block: draw.bars(mse(kind, block, 2**14), kind, block))

# %% [markdown]
# Doubling the block costs every code some error, and INT4 the most. On uniform weights even marks
# win. The heavier the tails, the further INT4 falls behind; on t3 the published AF4 beats NF4.
#
# A heavy tail means outliers: single weights far outside. What does one do to its block? We put it
# in the first place of 64 normal weights and look at the other 63.


# %%
def block_with(size: float) -> object:
    return draw.block(outliers.with_outlier(size, levels()), levels().tolist())


display(block_with(10.0))
Explorer([Real("size", "outlier, std", 0.0, 20.0, 4.0, step=0.5)], block_with)

# %% [markdown]
# The outlier itself comes back exactly: it is the absmax. Its neighbours pay, because the marks are
# stretched to reach it and most weights fall to the few in the middle. Other blocks notice nothing.
#
# **Where this stops:** LLM.int8 and SpQR keep outliers apart, in 16 bits; NF4 does not.

# %%
# quiz: 03.q1 03.q2 03.q3

# %% [markdown]
# ## 4. Every bit counted
#
# **Claim:** an NF4 weight takes 4.5 bits, or 4.127 with double quantisation; each of these bits is
# bitsandbytes' own.
#
# <!-- exercise: 03.5 -->
#
# Put two codes into a byte, the first into its high half. An odd count is filled up with 7, which
# stands for zero.
#
# In: uint8 codes from 0 to 15, shape (n,). Out: uint8, shape ((n + 1) // 2,).

# %%
# exercise: 03.5

# %% tags=["nbval-check-output"]
check("03.5", pack)

# %% [markdown]
# <!-- hints: 03.5 -->
#
# Now every linear map of `tiny`, by your four functions and by bitsandbytes.

# %%
pack = use("03.5", pack)
theirs, unequal = bnb.functional.quantize_4bit, 0
for weight in maps.values():
    absmax = block_absmax(weight, 64)
    packed = pack(nearest(in_blocks(weight, 64), absmax, table).flatten())
    codes_there, state = theirs(weight, quant_type="nf4", compress_statistics=False)
    assert torch.equal(absmax, state.absmax)
    unequal += int((packed != codes_there.flatten()).sum())
total = sum(weight.numel() for weight in maps.values()) // 2
print(f"{len(maps)} matrices: {unequal} of {total:,} bytes differ from bitsandbytes'")
assert unequal <= 1e-5 * total  # w / a and w * (1 / a) may round apart at a midpoint

# %% [markdown]
# The constants weigh too: a float32 for every 64 weights is half a bit each. *Double quantisation*
# stores them in 8 bits. All are positive, so their mean comes off first; then they are rounded as
# weights are, 256 to a superblock, onto 256 levels.
#
# <!-- exercise: 03.6 -->
#
# Quantise the constants: take off their mean, give each superblock its absmax, each constant its
# code.
#
# In: `absmax` (blocks,), the 8-bit `code`, the superblock's size. Out: codes, scales, the mean.

# %%
# exercise: 03.6

# %% tags=["nbval-check-output"]
check("03.6", quantize_absmax)

# %% [markdown]
# <!-- hints: 03.6 -->

# %%
quantize_absmax = use("03.6", quantize_absmax)
differ, same = [], True
for weight in maps.values():
    yours, scales, mean = quantize_absmax(block_absmax(weight, 64), codes.dynamic8(), 256)
    packed, state = theirs(weight, quant_type="nf4", compress_statistics=True)
    q = quantize(weight, double=True)
    assert torch.allclose(scales, state.state2.absmax) and torch.isclose(mean, state.offset)
    differ.append((yours != state.absmax).float().mean().item())
    same &= torch.equal(q.packed, packed.flatten()) and torch.equal(q.absmax, state.absmax)
    same &= torch.equal(dequantize(q), bnb.functional.dequantize_4bit(packed, state))
print(f"your 8-bit codes: {sum(differ) / len(differ):.2%} differ; labkit.nf4: all equal, {same}")
assert same and max(differ) < 0.02
q

# %% [markdown]
# Codes, constants and decoded weights of `labkit.nf4` equal bitsandbytes' to the bit. Yours may
# differ in a few 8-bit codes, by one step: on a CPU bitsandbytes looks the level up on a grid of
# 65,536 places, and near a midpoint that is the other neighbour.
#
# <!-- exercise: 03.7 -->
#
# Count what a weight costs: its code and its share of the constants.
#
# In: the block, and the superblock or `None` for constants in float32. Out: bits, a float.

# %%
# exercise: 03.7

# %% tags=["nbval-check-output"]
check("03.7", bits_per_weight)

# %% [markdown]
# <!-- hints: 03.7 -->
#
# Three numbers from lessons wait for your formula: "7x smaller than bf16", "0.4 bits saved", and
# "0.37 bytes saved".

# %%
bits_per_weight = use("03.7", bits_per_weight)
saved = bits_per_weight(64) - bits_per_weight(64, 256)
print(f"saved: {saved:.3f} bits ({saved / 4.5:.1%} of 4.5), {65 * saved / 8:.2f} GB at 65 billion")
both = {b: (bits_per_weight(b), bits_per_weight(b, 256)) for b in BLOCKS}
rows = [(f"{b}", *(f"{n:.3f}, {16 / n:.2f} x" for n in pair)) for b, pair in both.items()]
Table(("block", "bits, times smaller than 16", "with double quantisation"), rows)

# %% [markdown]
# **Verdict on "7x smaller":** 3.56 times, or 3.88 with double quantisation; seven would take less
# than 2.3 bits. **On "0.4 bits":** 0.373. **On "0.37 bytes":** bits, for a weight has 0.56 bytes in
# all.
#
# **Where this stops:** these are linear maps. Embeddings, head and norms stay in 16 bits, and a
# whole model shrinks by less.

# %% [markdown]
# ## 5. QLoRA in one line
#
# **Claim:** `LoRALinear(NF4Linear(fc))` is QLoRA; it trains as PEFT over bitsandbytes does.
#
# <!-- exercise: 03.8 -->
#
# Write the product $y = xW^\top + b$ with $W$ in NF4, and its way back. Between the two passes
# nothing dense may be kept: no $W$, and no $x$, which a frozen weight does not need.
#
# `ctx` carries what `backward` needs; `dequantize(q, dtype)` decodes. `q` and `bias` are frozen.

# %%
# exercise: 03.8

# %% tags=["nbval-check-output"]
check("03.8", NF4Product)

# %% [markdown]
# <!-- hints: 03.8 -->
#
# We hold your product beside bitsandbytes' `Linear4bit`, on a map of `tiny`.

# %%
NF4Product = use("03.8", NF4Product)
plain, packed = models.load("tiny", quantize=None).model, models.load("tiny").model
name = "model.layers.0.mlp.up_proj"
ours, bnbs = NF4Linear(plain.get_submodule(name)), packed.get_submodule(name)
torch.manual_seed(0)
x = torch.randn(4, ours.in_features, dtype=plain.dtype, device=plain.device)
mine, its = x.clone().requires_grad_(), x.clone().requires_grad_()
y, there = NF4Product.apply(mine, ours.quantized, None), bnbs.train()(its)
(y.square().sum() + there.square().sum()).backward()
off = [(a - b).abs().max() / b.abs().max() for a, b in ((y, there), (mine.grad, its.grad))]
print(f"relative differences: output {off[0]:.1e}, gradient of x {off[1]:.1e}")
assert max(off) < (1e-5 if x.dtype == torch.float32 else 2e-2)

# %% [markdown]
# Now the whole model. Both runs start from the same `A`, read the same letters in the same order,
# and differ in the code that stores and multiplies.

# %%
STEPS = 3 if quick() else 6
peft = train.attach(models.load("tiny").model, rank=16, alpha=32)
plain.requires_grad_(False)
for name, fc in linear_maps(plain).items():
    layer = LoRALinear(NF4Linear(fc), rank=16, alpha=32)
    layer.A.data.copy_(peft.get_submodule(f"base_model.model.{name}.lora_A.default").weight)
    plain.set_submodule(name, layer)
tokenizer = models.load("tiny").tokenizer
items = [data.encode(tokenizer, example) for example in data.examples("train")[:200]]
runs = [train.fit(model, items, train.Settings(steps=STEPS)).losses for model in (plain, peft)]
steps = enumerate(zip(*runs, strict=True), 1)
rows = [(f"{i}", f"{a:.5f}", f"{b:.5f}", f"{abs(a - b):.0e}") for i, (a, b) in steps]
assert all(abs(a - b) < 0.02 for a, b in zip(*runs, strict=True)) and runs[0][-1] < runs[0][0]
Table(("step", "LoRALinear(NF4Linear)", "PEFT + bitsandbytes", "apart"), rows)

# %% [markdown]
# The losses agree. Nothing is left of QLoRA that you have not built, except for its third part.
#
# ### The paged optimizer
#
# When memory runs short, CUDA can move *pages* of a tensor to the host. bitsandbytes allocates an
# optimizer's states that way if they are large. We ask its own `get_state_buffer`, with the shapes
# of every A and B on Llama-2-7B and no data behind them.

# %%
assert not paged.pages((1, 99_999)) and paged.pages((1, 100_000))
found = [paged.lora_states(paged.LLAMA_2_7B, rank) for rank in (8, 16, 64)]
Table(paged.HEAD, [states.row() for states in found])

# %% [markdown]
# The rule is 100,000 elements a tensor. At rank 8 nothing pages, whatever the setting is called; at
# rank 64 everything does. Pages move only when memory runs out; until then nothing is saved.
#
# **Where this stops:** on a CPU bitsandbytes falls back to ordinary states, with a warning.

# %%
# quiz: 03.q4 03.q5

# %% [markdown]
# ## 6. From the layer to the model
#
# **Claim:** a squared error of one percent in each layer need not show in the model. The error of
# one scale for a whole matrix does.
#
# We round all linear maps of `tiny` with three codes and four block sizes. *Perplexity* is exp of
# the mean loss a token, over whole chats; the score is the share of questions answered exactly.

# %%
FEW = 12 if quick() else 30
questions = data.examples("regression")[:: 300 // FEW][:FEW]
SIZES = {"64": 64, "256": 256, "4096": 4096, "whole matrix": 2**18}
plain = models.load("tiny", quantize=None, dtype=torch.float32).model


def measured(code: Tensor, block: int) -> tuple[float, float]:
    with in_code(plain, code, block) as model:
        score = evaluate.score_regression(model, tokenizer, questions).exact_match
        return perplexity(model, tokenizer, questions), score


before = perplexity(plain, tokenizer, questions)
cost = {n: [measured(FOUR[n], b) for b in SIZES.values()] for n in ("NF4", "FP4", "INT4")}
curves = {name: [loss for loss, _ in found] for name, found in cost.items()}
alt = f"perplexity by block size for three codes, {before:.3f} without rounding"
display(draw.picture(alt, lambda ax: draw.harm(ax, list(SIZES), curves, before)))
rows = [(n, *(f"{p:.3f}, {s:.0%}" for p, s in found)) for n, found in cost.items()]
Table(("perplexity, score", *SIZES), rows, caption=f"as it is: perplexity {before:.3f}")

# %% [markdown]
# At block 64 no code moves the perplexity by one percent, and none loses a question. The order of
# the codes, clear in each layer, is noise here. With one absmax for a whole matrix the harm shows,
# and NF4 loses least.
#
# **Where this stops:** a small model with trained-in answers. The QLoRA paper measures larger ones:
# a mean perplexity of 27.41 for NF4 with double quantisation, 34.34 for INT4 (Table 2).

# %% [markdown]
# ## What to carry away
#
# - NF4's table is seven and eight normal quantiles around a zero, and its codes carry 3.885 of 4
#   bits at block 64; a code used equally would err twice as much.
# - A weight takes 4.5 bits, or 4.127 with double quantisation: 3.88 times fewer than 16, in linear
#   maps alone.
# - `LoRALinear(NF4Linear(fc))` is QLoRA, and it trains as PEFT over bitsandbytes does.
#
# **Sources:** Dettmers et al. 2023, *QLoRA*, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314);
# Yoshida 2023, *NF4 Isn't Information Theoretically Optimal (and that's Good)*,
# [arXiv:2306.06965](https://arxiv.org/abs/2306.06965); bitsandbytes 0.50, its own source.
#
# **Next:** [notebook 04](04_qlora_finetune.ipynb) fine-tunes a model in this format.
