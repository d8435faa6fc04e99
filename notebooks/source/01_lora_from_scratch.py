# %% [markdown]
# # Why can two thin matrices change a large model?
#
# <!-- badges -->
#
# - **You will** write LoRA from nothing: its start, its layer, its gradients, its count and its
#   merge. Then you train it in a real Llama, and find it equal to PEFT's.
# - **You need** notebook 00, matrix products, and a first idea of a gradient. No GPU.
# - **Time:** 100 minutes for you. The cells themselves take <!-- minutes -->.

# %%
# bootstrap

# %%
import copy
import itertools
import json
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import data, evaluate, lowrank, models, project, train
from labkit.exercises import check, quiz, use
from labkit.explore import Explorer, Whole
from labkit.figures import lora as draw
from labkit.fused import FusedLoRALinear
from labkit.linears import dense
from labkit.lora import Targets, adapted, linear_maps, matches, projections
from labkit.table import Table

# %% [markdown]
# ## 1. Why can a low-rank update be enough?
#
# **Claim:** the update that full fine-tuning makes is not of low rank, and yet a few of its
# directions do the work.
#
# A matrix is a sum of *directions*: each takes one pattern of the input, and writes one pattern of
# the output, with a size called its *singular value*. The *rank* is how many there are.
#
# We fine-tune every linear map of a small Llama on the workbook's task, letters that become JSON
# records, and keep what changed. This notebook always uses `tiny`, whose full fine-tune fits
# anywhere.

# %%
base = models.load("tiny", quantize=None, dtype=torch.float32)
model, tokenizer = base.model, base.tokenizer
letters = data.examples("test")[: 10 if project.quick() else 40]
items = [data.encode(tokenizer, example) for example in data.examples("train")]
batch = data.collate(items[:8], tokenizer.pad_token_id)
batch = {name: value.to(model.device) for name, value in batch.items()}
W0 = {name: m.weight.detach().clone() for name, m in linear_maps(model).items()}

tuned = copy.deepcopy(model).requires_grad_(False)
for name in W0:
    tuned.get_submodule(name).requires_grad_(True)
print("before:", evaluate.forced_score(model, tokenizer, letters))
history = train.fit(tuned, items, train.Settings(steps=3 if project.quick() else 10))
full = evaluate.forced_score(tuned, tokenizer, letters)
print("after: ", full)
updates = {name: tuned.get_submodule(name).weight.detach() - W for name, W in W0.items()}
history

# %% [markdown]
# Ten steps teach the task. (The score asks whether greedy decoding would write the right record:
# it would exactly if the right token is the likeliest at every place.) Each of the 42 maps has an
# update now, and we ask how much of it is needed.
#
# <!-- exercise: 01.1 -->
#
# Cut a matrix down to the nearest matrix of a given rank: keep its largest directions. Two lines;
# `torch.linalg.svd` finds the directions.
#
# In: a matrix (out, in) and a rank. Out: a matrix of the same shape and dtype.

# %%
# exercise: 01.1

# %% tags=["nbval-check-output"]
check("01.1", nearest)

# %% [markdown]
# <!-- hints: 01.1 -->
#
# **Predict first:** we put the truncated updates back into the base and score it. At which rank
# will nine letters in ten be right: 1, 8, 64, or the whole 256? *Energy* is the share of the sum of
# squares that is kept.

# %%
nearest = use("01.1", nearest)
RANKS, cut = (1, 2, 4, 8, 32), copy.deepcopy(model)
energy, right, rows = [], [], []
total = sum(float(D.square().sum()) for D in updates.values())
for rank in RANKS:
    kept = {name: nearest(D, rank) for name, D in updates.items()}
    for name, D in kept.items():
        cut.get_submodule(name).weight.data = W0[name] + D
    score = evaluate.forced_score(cut, tokenizer, letters)
    energy.append(sum(float(D.square().sum()) for D in kept.values()) / total)
    right.append(score.exact_match)
    rows.append((f"{rank}", f"{energy[-1]:.0%}", f"{right[-1]:.1%}", f"{score.loss:.4f}"))
rows.append(("as it is", "100%", f"{full.exact_match:.1%}", f"{full.loss:.4f}"))
assert project.quick() or (energy[3] < 0.7 and right[3] >= 0.95)
print(Table(("rank of the update", "energy kept", "letters right", "loss, nats a token"), rows))
draw.truncations(RANKS, energy, right)

# %% [markdown]
# The energy lies spread over many directions: even rank 32 leaves some of it out. The task needs
# few of them. At rank 8 less than two thirds of the energy is left, and nearly every letter is
# right.
#
# Move the slider: it cuts the update of one map, whose directions are drawn by size.

# %%
one = "model.layers.3.mlp.up_proj"
values = torch.linalg.svdvals(updates[one]).tolist()
Explorer([Whole("rank", "rank", 1, 64, 8)], draw.cut(values))

# %% [markdown]
# **Where this stops:** one small model, one narrow task, ten steps. Biderman et al. (2024) find
# updates of 10 to 100 times the usual LoRA ranks in long runs on code and mathematics, and there
# LoRA learns less than full fine-tuning.
#
# ### Intrinsic dimension is not intrinsic rank
#
# Lessons quote Aghajanyan et al. (2020) for the low rank. That paper is about *dimension*: how many
# numbers one must choose to solve a task, in a random subspace of all parameters; on one task 200
# reached 90% of the full score. Rank is another thing, as two matrices show.

# %%
width = model.config.hidden_size
scaled, outer = 3.0 * torch.eye(width), torch.outer(torch.randn(width), torch.randn(width))
for name, numbers, M in (("c I", 1, scaled), ("b a^T", 2 * width - 1, outer)):
    print(f"{name:6} {numbers:4} numbers to choose, rank {int(torch.linalg.matrix_rank(M))}")

# %% [markdown]
# One number can make a matrix of full rank, and a matrix of rank 1 may need hundreds. That updates
# are of low rank is a hypothesis of Hu et al. (2021), *inspired by* the finding on dimension.

# %% [markdown]
# ## 2. Two thin factors beside a frozen map
#
# **Claim:** a layer can start at its base, bit for bit, and still be able to leave it.
#
# $$y = Wx + b + \frac{\alpha}{r} B A x$$
#
# | symbol | shape | at the start |
# |---|---|---|
# | $W$ | (out, in) | pretrained, frozen |
# | $A$ | (rank, in) | random |
# | $B$ | (out, rank) | zero |
#
# Some lessons give A as d × r and B as r × d, and still write $BA$: that product is r × r.

# %% [markdown]
# <!-- exercise: 01.2 -->
#
# Make the two factors. A is uniform between $-1/\sqrt{in}$ and $1/\sqrt{in}$, as in Microsoft's
# loralib and in PEFT; the paper says "Gaussian". B is zero.
#
# In: `out`, `in`, the rank, and a tensor of the base, which tells device and dtype. Out: A and B as
# parameters, in float32 unless the base is wider.

# %%
# exercise: 01.2

# %% tags=["nbval-check-output"]
check("01.2", factors)

# %% [markdown]
# <!-- hints: 01.2 -->

# %%
factors = use("01.2", factors)
A, B = factors(704, 256, 8, W0[one])
spread = 1 / math.sqrt(3 * 256)  # of a uniform number within 1 / sqrt(256)
print(f"A: {tuple(A.shape)}, spread {A.std():.4f}, expected {spread:.4f}")
print(f"B: {tuple(B.shape)}, largest {B.abs().max():g}; B A: {tuple((B @ A).shape)}")

# %% [markdown]
# <!-- exercise: 01.3 -->
#
# Write the layer. Never form $BA$: multiply by A, then by B. Call the base, do not read its weight,
# since it may be stored in 4 bits, and in buffers instead of parameters.
#
# In: `x` (..., in). Out: (..., out), in the dtype of `x`. Keep `base`, `rank`, `alpha`, `scale`,
# `in_features`, `out_features` and `dropout` as attributes; `delta()` gives the dense update.
# `extra_repr` gives the text that `print` shows, if you want one; else leave it out.

# %%
# exercise: 01.3

# %% tags=["nbval-check-output"]
check("01.3", LoRALinear)

# %% [markdown]
# <!-- hints: 01.3 -->
#
# **Predict first:** at the very first step, which factor receives a gradient: A, B, or both?
#
# The loss depends on $W' = W + s B A$, with the scale $s = \alpha / r$. Call $G$ the gradient with
# respect to $W'$, which full fine-tuning would follow. A and B see it through each other.
#
# <!-- exercise: 01.4 -->
#
# Give the gradients of A and of B, by hand. One line.
#
# In: $G$ (out, in), A, B and the scale. Out: two tensors, of the shapes of A and of B.

# %%
# exercise: 01.4

# %% tags=["nbval-check-output"]
check("01.4", factor_gradients)

# %% [markdown]
# <!-- hints: 01.4 -->
#
# Now your layer over a real map of the model, and your formula against autograd.

# %%
LoRALinear, factor_gradients = use("01.3", LoRALinear), use("01.4", factor_gradients)
frozen = copy.deepcopy(model.get_submodule(one)).cpu()
layer, x = LoRALinear(frozen, rank=4, alpha=16), torch.randn(2, 10, 256)
assert torch.equal(layer(x), frozen(x))
sgd, rows = torch.optim.SGD([layer.A, layer.B], lr=0.1), []
for step in range(3):
    sgd.zero_grad()
    y = layer(x)
    y.square().mean().backward()
    G = torch.einsum("bto,bti->oi", 2 * y.detach() / y.numel(), x)
    mine = factor_gradients(G, layer.A.detach(), layer.B.detach(), layer.scale)
    pairs = list(zip(mine, (layer.A.grad, layer.B.grad), strict=True))
    off = max(float((a - b).abs().max() / G.abs().max()) for a, b in pairs)
    rows.append((f"{step}", *(f"{float(g.norm()):.2e}" for _, g in pairs), f"{off:.0e}"))
    assert off < 1e-5 and (step > 0) == bool(pairs[0][1].any())
    sgd.step()
Table(("step", "gradient of A, norm", "gradient of B, norm", "formula and autograd differ"), rows)

# %% [markdown]
# At step 0 the layer is its base, bit for bit: the assertion holds. A's gradient is exactly zero,
# since it passes through $B = 0$; B moves, and from step 1 on A moves too.
#
# Were both zero, both gradients would be zero for ever. A widely quoted excerpt of loralib leaves
# out the line that fills A, and as printed it never trains.
#
# **Where this stops:** with B random and A zero the start is the same. Hayou et al. (2024) find
# that the usual way round bears a larger rate.

# %% [markdown]
# ## 3. Counting numbers and bytes
#
# **Claim:** a config tells what trains. What memory needs is another count.
#
# The lessons' challenge asks for one matrix: $r(d + k)$ numbers. A model has seven shapes a layer,
# and few of them are square.
#
# <!-- exercise: 01.5 -->
#
# Count what LoRA trains in a whole Llama. `projections(config)` gives the seven shapes of one
# layer, each as (out, in).
#
# In: a config; targets, either `"all-linear"`, one name, or a list of names; a rank. Out: a whole
# number, or a ValueError that names an unknown target.

# %%
# exercise: 01.5

# %% tags=["nbval-check-output"]
check("01.5", parameter_count)

# %% [markdown]
# <!-- hints: 01.5 -->

# %%
from transformers import LlamaConfig

from labkit.memory import ModelShape

parameter_count = use("01.5", parameter_count)
known = json.loads(project.data("model_shapes.json").read_text(encoding="utf-8"))["models"]
print(f"one 4096 x 4096 matrix: {4096**2:,} numbers, at rank 16 {16 * (4096 + 4096):,} train")
counted, rows = {}, []
for name in ("llama-3.2-1b", "llama-2-7b", "llama-2-70b"):
    config, total = LlamaConfig(**known[name]["config"]), ModelShape.preset(name).parameters
    seven = parameter_count(config, "all-linear", 16)
    two = parameter_count(config, ["q_proj", "v_proj"], 16)
    counted[name] = total, seven
    rows.append((name, f"{total:,}", f"{seven:,}", f"{seven / total:.2%}", f"{two:,}"))
assert counted["llama-2-7b"][1] == 39_976_960
Table(("rank 16", "all parameters", "seven projections train", "share", "q and v train"), rows)

# %% [markdown]
# Popular lessons say "about 10M" for the seven projections of a 7B model at rank 16; it is four
# times that. The share falls as models grow, because a matrix grows with the product of its sides
# and its pair with their sum.
#
# <!-- exercise: 01.6 -->
#
# Count the bytes that training holds beside activations. Frozen numbers rest in bfloat16. Trained
# ones are float32, and so are their gradients and Adam's two moments (running means of the gradient
# and of its square).
#
# In: how many numbers are frozen, how many train. Out: bytes of weights, of gradients, of moments.

# %%
# exercise: 01.6

# %% tags=["nbval-check-output"]
check("01.6", held_bytes)

# %% [markdown]
# <!-- hints: 01.6 -->
#
# **Folklore: "100 times fewer parameters, 100 times less memory".** We compare full fine-tuning, in
# which everything trains, with LoRA.

# %%
held_bytes = use("01.6", held_bytes)
rows, ratios = [], {}
for name, (total, trains) in counted.items():
    kinds = {"full": held_bytes(0, total), "LoRA": held_bytes(total, trains)}
    for how, parts in kinds.items():
        cells = (f"{n / 1e9:,.2f}" for n in (*parts, sum(parts)))
        rows.append((f"{name}, {how}", *cells))
    ratios[name] = total / trains, sum(kinds["full"]) / sum(kinds["LoRA"]), kinds
for name, (fewer, less, _) in ratios.items():
    print(f"{name}: {fewer:.0f} times fewer parameters train, in {less:.1f} times fewer bytes")
assert all(less < 9 < fewer for fewer, less, _ in ratios.values())
Table(("GB, activations apart", "weights", "gradients", "moments", "all"), rows)

# %% [markdown]
# **Verdict:** gradients and moments shrink with the parameters, a hundredfold and more. The frozen
# weights stay, 2 bytes each, and they are now nearly all there is: the whole shrinks less than
# eightfold. To shrink the weights is another idea, 4 bits, and notebook 04 uses it.
#
# The lessons' "56 GB becomes 80 MB" of optimizer state for 7B counts 10M parameters of 8 bytes.
# With the true count the moments take four times that.
#
# **Where this stops:** activations are not in the table, and section 5 measures them.

# %% [markdown]
# ## 4. What alpha / rank keeps constant
#
# **Claim:** no rule for alpha keeps everything constant; which one keeps the first step's effect
# depends on the optimizer.
#
# LoRA scales by $\alpha / r$, rsLoRA by $\alpha / \sqrt r$; a common tip is $\alpha = 2r$, a scale
# of 2 at every rank. We look at the one step that can be worked out: the first.
#
# <!-- exercise: 01.7 -->
#
# By how much does $W' = W + s B A$ move in the first step? Only B moves: by its gradient times the
# rate under SGD, by the *sign* of its gradient times the rate under Adam.
#
# In: $G$ (out, in), A (rank, in), scale, rate, and "sgd" or "adam". Out: (out, in).

# %%
# exercise: 01.7

# %% tags=["nbval-check-output"]
check("01.7", first_step)

# %% [markdown]
# <!-- hints: 01.7 -->
#
# **Folklore: "alpha / rank makes the update independent of the rank".** We take a real gradient
# of `tiny`, and ask for two things at rank 16 and 256, as multiples of rank 1: how much loss the
# step takes away to first order, $-\langle G, \Delta W \rangle$, and how long it is.

# %%
first_step = use("01.7", first_step)
weight = model.get_submodule(one).weight
(G,) = torch.autograd.grad(model(**batch).loss, weight)
growth = lowrank.scaling(G.cpu(), (16, 256), first_step)
lowrank.scaling_table(growth)

# %% [markdown]
# **Verdict:** it depends on the optimizer and on what is to stay. Under Adam,
# $\alpha / r$ keeps the loss that the first step takes away, while the step itself gets shorter.
# Under SGD it keeps nothing: the effect falls as $1/r$, the collapse that rsLoRA mends with
# $\alpha / \sqrt r$. With $\alpha = 2r$ the effect grows with the rank under either, so a higher
# rank is also a higher rate.
#
# The reason is in your code: B's gradient carries the scale once, and Adam's sign forgets it; the
# product carries it again. So the effect goes as $s^2 r$ under SGD and as $s r$ under Adam.
#
# **Where this stops:** one step. Later ones move A too.

# %% [markdown]
# ## 5. Into a real Llama
#
# **Claim:** on this task the learning rate decides, and the rank hardly.
#
# <!-- exercise: 01.8 -->
#
# Freeze the model, then put a LoRALinear over each map that the targets name. `matches(model,
# targets)` gives their full names, and raises where a target matches nothing. It compares whole
# names and never gives the head.
#
# In: a model, targets, rank, alpha, dropout. Out: the same model, changed; each new layer is in the
# mode of the model, training or evaluation.

# %%
# exercise: 01.8

# %% tags=["nbval-check-output"]
check("01.8", inject)

# %% [markdown]
# <!-- hints: 01.8 -->
#
# Now we train your layers, as one run of a recorded sweep did: the same rank, rate, steps and
# seed.

# %%
from labkit.intervals import by_rank, chosen

inject = use("01.8", inject)
ROWS = data.read_jsonl(project.data("measurements", "lora_ranks.jsonl"), ())
told = chosen(ROWS, method="lora", rank=8, steps=20, seed=0)[0]
torch.manual_seed(told["seed"])
student = inject(copy.deepcopy(model), "all-linear", told["rank"], told["alpha"])
assert torch.equal(student(**batch).logits, model(**batch).logits)
print(train.count(student))
TRAINED = train.Settings(steps=3 if project.quick() else told["steps"], lr=told["lr"])
run = train.fit(student, items, TRAINED)
live = evaluate.forced_score(student, tokenizer, data.examples("test")[: 2 * len(letters)])
print(f"here: {live}; recorded: {told['task']:.1%}, loss {told['task_loss']:.4f}")
run

# %% [markdown]
# Before the first step the logits are those of the base, bit for bit.
#
# Now the recorded runs. Each rank, and full fine-tuning of the same maps, had its learning rate
# tuned on the validation letters, on the left (on a GPU). At that rate five further seeds were
# scored on the test letters (on a CPU; each row names its machine). Bands are 95% intervals of the
# mean over the seeds; the diamond is your run.

# %%
recorded = by_rank(ROWS, "task", method="lora", steps=told["steps"])[told["rank"]]
assert project.quick() or recorded.holds(live.exact_match, wider=0.05)
print(f"rank {told['rank']}: recorded {recorded}, here {live.exact_match:.3g}")
draw.sweep(ROWS, told["steps"], told["rank"], live.exact_match)

# %% [markdown]
# The best rate is the same at every rank, as section 4 foretold of $\alpha / r$ under Adam, and
# about ten times that of full fine-tuning. Near full's own rate, at 0.0005, LoRA has no letter
# right at any rank: judged at that one rate it would seem useless.
#
# Rank 1 gets the letters right, at a few times the loss of full fine-tuning. Yet the full update
# *cut down* to rank 1 failed in section 1: training finds an update that fits its rank, and
# truncation does not.
#
# **Where this stops:** one skill and one small model. Facts that have nothing in common, long runs
# and large data need rank (Biderman et al. 2024).

# %% [markdown]
# ### One matrix for q, k and v
#
# Some models hold the three in one. Adapted as a whole, one A would have to serve them all; loralib
# gives each part a pair of its own, and so does the fused layer.

# %%
qkv, parts = nn.Linear(256, 512), {"q": 256, "k": 128, "v": 128}
both = FusedLoRALinear(qkv, parts, adapt=("q", "v"), rank=4, alpha=8)
_ = [nn.init.normal_(B) for B in both.B.values()]
q, k, v = (both(x) != qkv(x)).split([256, 128, 128], dim=-1)
print(f"moved: q {bool(q.any())}, k {bool(k.any())}, v {bool(v.any())}")
assert q.any() and v.any() and not k.any()

# %% [markdown]
# q and v have moved; k is the base's own, bit for bit.
#
# **Folklore: "the frozen base keeps no activations".** A frozen map needs no input for a gradient
# of its own. But the gradient must pass through it on its way down, and A needs that very input. We
# count what PyTorch keeps for the backward pass of one batch.

# %%
from labkit.saved import saved

KINDS = {
    "LoRA on one map of the last layer": {"targets": "model.layers.5.mlp.down_proj"},
    "LoRA on one map of the first layer": {"targets": "model.layers.0.mlp.down_proj"},
    "LoRA on q and v": {"targets": ["q_proj", "v_proj"]},
    "LoRA on all seven": {},
    "LoRA on all seven, dropout 0.05": {"dropout": 0.05},
}


def kept(model: nn.Module) -> float:
    with saved(model.train()) as found:
        _ = model(**batch).loss
    return found().activations / 2**20


mib = {"full fine-tuning": kept(copy.deepcopy(model))}
mib |= {name: kept(inject(copy.deepcopy(model), **how)) for name, how in KINDS.items()}
draw.activations(mib)

# %% [markdown]
# **Verdict:** a single pair in the first layer already keeps more than half of what full
# fine-tuning keeps, for the gradient has to come down to it. Pairs on all seven maps save a tenth,
# and dropout turns the saving round: each of the 42 maps keeps a masked copy of its input, and the
# mask.
#
# **Where this stops:** a short batch on a small model. Gradient checkpointing, which notebook 04
# switches on, throws nearly all of this away and computes it again.

# %% [markdown]
# ## 6. Merge, and compare with PEFT
#
# **Claim:** a merged model computes the same at no extra cost, up to rounding; in bfloat16 the
# rounding can be all there is.
#
# <!-- exercise: 01.9 -->
#
# Give a plain linear map that computes what a layer computes. `dense(layer.base)` reads the frozen
# weight, however it is stored.
#
# In: a LoRALinear, and a dtype or None for that of the base. Out: a new `nn.Linear`, frozen; the
# layer stays as it is.

# %%
# exercise: 01.9

# %% tags=["nbval-check-output"]
check("01.9", merged)

# %% [markdown]
# <!-- hints: 01.9 -->
#
# We merge your trained model in two dtypes. Then we shrink an update step by step, and look at how
# much of it a bfloat16 weight takes up.

# %%
merged = use("01.9", merged)
logits, rows = student(**batch).logits.detach(), []
for dtype in (torch.float32, torch.bfloat16):
    plain = copy.deepcopy(student)
    for name, layer in adapted(student).items():
        plain.set_submodule(name, merged(layer, dtype).float())
    off = (plain(**batch).logits.detach() - logits).norm() / logits.norm()
    score = evaluate.forced_score(plain, tokenizer, letters)
    rows.append((f"{dtype}".removeprefix("torch."), f"{off:.0e}", f"{score.exact_match:.1%}"))
print(Table(("merged in", "logits off by", "letters right"), rows))

lowrank.rounding(W0[one].cpu())

# %% [markdown]
# bfloat16 keeps 8 bits of a number. An update of a tenth of the weight survives the sum, one of a
# thousandth mostly does not. Subtracting a large update restores most weights and not all, so
# nothing here "unmerges": your layer was never changed.
#
# **What to do:** add in float32 and round once, score the merged model, and keep the adapter.
#
# **Where this stops:** a QLoRA adapter must be merged into the dequantised base that it was trained
# on, a matter of another notebook.
#
# ### Equal to PEFT
#
# Last, PEFT. We save your adapter as a folder in its format and let it load that.

# %%
from peft import PeftModel

from labkit.interchange import save_adapter

folder = project.runs() / "lora_from_scratch"
save_adapter(student, folder)
theirs = PeftModel.from_pretrained(copy.deepcopy(model), folder)
off = (theirs(**batch).logits - student(**batch).logits).detach().abs().max().item()
print(f"{len(adapted(student))} maps; the logits differ by {off:.1e} at most")
assert off < 1e-4

# %% [markdown]
# Yours and PEFT's are the same function. What `get_peft_model` adds is names, several adapters on
# one model, and a folder to save to.

# %%
# quiz: 01.q1 01.q2 01.q3 01.q4 01.q5

# %% [markdown]
# ## What to carry away
#
# - An update of full fine-tuning is not of low rank, yet rank 8 of it, 60% of its energy, does this
#   task; trained at rank 1, LoRA does it too.
# - LoRA at rank 16 trains 39,976,960 numbers for Llama-2-7B, 169 times fewer than all, in 7.6 times
#   fewer bytes, activations apart.
# - Under Adam, alpha / rank keeps the effect of the first step; alpha = 2 rank multiplies it.
#
# **Sources:** Hu et al. 2021, *LoRA*, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685);
# Aghajanyan et al. 2020, [arXiv:2012.13255](https://arxiv.org/abs/2012.13255); Biderman et al.
# 2024, [arXiv:2405.09673](https://arxiv.org/abs/2405.09673); Kalajdzievski 2023,
# [arXiv:2312.03732](https://arxiv.org/abs/2312.03732); Hayou et al. 2024,
# [arXiv:2406.08447](https://arxiv.org/abs/2406.08447); microsoft/LoRA and PEFT 0.21, their own
# source.
#
# **Next:** [02_where_memory_goes](02_where_memory_goes.ipynb) predicts what such a run needs.
