# %% [markdown]
# # How many directions does an update use?
#
# <!-- badges -->
#
# - **You will** read the singular values of an adapter from its two thin factors, and test what is
#   said of them: low rank, sharp drops, shared subspaces, intruders, amplification.
# - **You need** notebook 01, and a singular value decomposition met once. No GPU.
# - **Time:** 90 minutes for you. The cells themselves take <!-- minutes -->.

# %%
# bootstrap

# %%
import copy
import statistics

import torch
from torch import Tensor, nn

from labkit import data, evaluate, models, project, readings, train
from labkit.adapter_files import Adapter, adapter_of, read_adapter
from labkit.bench.timing import seconds
from labkit.browse import overlap_explorer, spectrum_explorer
from labkit.exercises import check, quiz, use
from labkit.figures import readings as show
from labkit.linears import dense
from labkit.lora import inject, linear_maps, projections
from labkit.spectra import energy, spectrum
from labkit.sweep import spectra as sweep
from labkit.table import Table

# %% [markdown]
# ## 1. Sixteen numbers instead of a matrix
#
# **Claim:** the singular values of $sBA$ are those of a matrix of rank × rank.
#
# A singular value decomposition writes a matrix as $U \,\mathrm{diag}(\sigma)\, V^\top$: it reads
# along a column of $V$ (in), stretches by $\sigma$ and writes along a column of $U$ (out). An
# update of rank 16 has sixteen values. To form $BA$ first costs a matrix as large as W.
#
# <!-- exercise: 06.1 -->
#
# Find the values from the factors. The rule of the game: no tensor as large as W. In: A (rank,
# in), B (out, rank), the scale. Out: the values, largest first, in float64.

# %%
# exercise: 06.1

# %% tags=["nbval-check-output"]
check("06.1", singular_values)

# %% [markdown]
# <!-- hints: 06.1 -->
#
# We train two adapters of rank 16 on `tiny`. One learns the letters of notebook 04; the other gets
# the same letters with their answers shuffled. There it can learn the form of an answer and
# nothing of the letter. It is our first control: what it shows, too, says nothing of the task.

# %%
singular_values = use("06.1", singular_values)
base = models.load("tiny", quantize=None, dtype=torch.float32)
_ = base.model.requires_grad_(False)
LETTERS = {"letters": data.examples("train"), "shuffled": sweep.examples("shuffled")}
STEPS = 4 if project.quick() else 20


def trained(learns: str, rank: int = 16, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = inject(copy.deepcopy(base.model), "all-linear", rank, alpha=16)
    items = [data.encode(base.tokenizer, example) for example in LETTERS[learns][: 8 * STEPS]]
    history = train.fit(model, items, train.Settings(steps=STEPS, lr=4e-3, seed=seed))
    print(f"{learns}: loss {history.losses[0]:.2f} to {history.losses[-1]:.2f}")
    return model


# %%
model, control = trained("letters"), trained("shuffled")
adapter, shuffled = adapter_of(model), adapter_of(control)
one = adapter.at(2, "v_proj")
thin = singular_values(one.A, one.B, one.scale)
whole = torch.linalg.svdvals(one.scale * one.B.double() @ one.A.double())
print(one, f"largest four: {', '.join(f'{v:.3f}' for v in thin[:4])}", sep="\n")
print(f"off the dense route by {(thin - whole[: one.rank]).abs().max():.0e}")
assert torch.allclose(thin, whole[: one.rank])
A, B = torch.randn(16, 1024), torch.randn(1024, 16)
slow = seconds(lambda: torch.linalg.svdvals(B.double() @ A.double()))
fast = min(seconds(lambda: singular_values(A, B)) for _ in range(5))
print(f"at 1024 x 1024: dense {1e3 * slow:.0f} ms, thin {1e3 * fast:.1f} ms")

# %% [markdown]
# Both routes agree to rounding, and the dense one takes hundreds of times as long at 1024 × 1024.
# Its work grows with the cube of the width.
#
# **Where this stops:** DoRA also changes the length of each row, and that change needs W. A full
# update has no thin factors, so its spectrum takes the dense route.

# %% [markdown]
# ## 2. How many directions?
#
# **Claim:** "how many" has several answers, and each needs something to be compared with.
#
# The *effective rank* (Roy and Vetterli 2007) asks how many equal values would be as spread out as
# these: the exponential of the entropy of their shares. Sixteen equal values give 16, a single one
# gives 1.
#
# <!-- exercise: 06.2 -->
#
# In: the values (r,). Out: a number from 1 to r; 0 for an update of zeros.

# %%
# exercise: 06.2

# %% tags=["nbval-check-output"]
check("06.2", effective_rank)

# %% [markdown]
# <!-- hints: 06.2 -->
#
# The other count asks how many directions hold 90% of the *energy*, the sum of the squared values.
# Squares favour the large values, so we expect a lower count.
#
# <!-- exercise: 06.3 -->
#
# In: the values, largest first, and a share. Out: the fewest directions that hold it; 0 for an
# update of zeros.

# %%
# exercise: 06.3

# %% tags=["nbval-check-output"]
check("06.3", energy_rank)

# %% [markdown]
# <!-- hints: 06.3 -->
#
# We count both ways, by projection, as means over the six layers. Beside the letters stand two
# controls: the shuffled answers, and factors that were never trained, all drawn at random.

# %%
effective_rank, energy_rank = use("06.2", effective_rank), use("06.3", energy_rank)
drawn = copy.deepcopy(model)
for parameter in (p for p in drawn.parameters() if p.requires_grad):
    _ = nn.init.normal_(parameter, std=0.02)
THREE = {"letters": adapter, "shuffled": shuffled, "random": adapter_of(drawn)}


def counts(of: Adapter, projection: str) -> tuple[float, float]:
    values = [of.at(layer, projection).spectrum().values for layer in of.layers]
    both = [(effective_rank(v), energy_rank(v, 0.9)) for v in values]
    return tuple(sum(column) / len(both) for column in zip(*both, strict=True))


rows = []
for projection in adapter.projections:
    found = [counts(of, projection) for of in THREE.values()]
    rows.append((projection, *(f"{e:.1f} / {n:.1f}" for e, n in found)))
Table(("", *THREE), rows, "rank 16: effective rank / directions for 90% of the energy")

# %% [markdown]
# On trained factors the two counts differ by a factor of about two. Trained factors use
# fewer directions than random ones, so training concentrates. But it concentrates as much where
# the answers were shuffled: a low count is a mark of training, and no mark of what was learnt.

# %%
RUNS, PAIRS = readings.runs(), readings.pairs()
show.by_layer(RUNS)

# %% [markdown]
# In a longer run, 100 steps and the mean of five seeds, the last layer uses fewer directions than
# the first in six of seven projections. The fewest stand in its o_proj, the most in the first MLP.
#
# **Where this stops:** an effective rank is a number between 1 and the rank that was chosen. It
# says how an update is spread out, and nothing of how much of it is needed.

# %% [markdown]
# ### Folklore: "updates are low rank"
#
# **Predict first:** the queries of `tiny` are 256 × 256. How many directions hold 90% of the
# energy of *full* fine-tuning's update?

# %%
print(show.directions(RUNS, projections(base.model.config)))
show.values(RUNS, "2.v_proj")

# %% [markdown]
# Full fine-tuning takes 18 to 52 directions for what rank 16 packs in 4 to 7. They are a twelfth
# to a fifth of all there are: far from all, and far more than LoRA's. Shuffled answers give much
# the same counts. In the figure the line of full fine-tuning falls slowest.
#
# **Verdict:** "updates are low rank" tells of the method. LoRA packs 90% into a handful of
# directions, even where it allows sixty-four, and full fine-tuning of the same task does not. So
# the count belongs to the way of training and not to the task alone. Biderman et al. (2024) find
# the same of larger models: full fine-tuning's updates have 10 to 100 times the usual ranks.

# %% [markdown]
# ## 3. Does a sharp drop mean that the rank was too high?
#
# **Claim:** the rule can be tested: read the drop, then look at what smaller and larger ranks
# score.
#
# **Folklore:** popular lessons read the rank off the spectrum. A sharp fall after the first four
# values means that it was too high, a flat line that it was too low. We test it on the letters,
# where even small ranks are enough.

# %%
print(*show.tables(RUNS), sep="\n\n")
show.ranks(RUNS)

# %% [markdown]
# The values of rank 4 are as flat as they come (effective rank 3.7 of 4), which the rule reads as
# "too low"; yet rank 4 answers all but one in a thousand. At ranks 16 and 64 four directions hold
# 87% and 93%, "too high", and so they are. But the drop is the same with shuffled answers, 90% and
# 94%, where no rank answers a letter.
#
# **Verdict:** a drop is what training makes of a rank, whatever it learns. The score says which
# rank is enough.
#
# **Where this stops:** on the 500 codes of notebook 05 rank 4 answers none in a hundred and full
# fine-tuning half. There the rank is too low, and no spectrum was recorded.

# %% [markdown]
# <!-- exercise: 06.4 -->
#
# There is a direct question: what does the adapter lose when it is cut? Write the cut. In: A, B,
# the scale and a smaller rank. Out: a new pair, A (rank, in) and B (out, rank), in the dtype of
# the old one and for the same scale, whose update is the nearest there is.

# %%
# exercise: 06.4

# %% tags=["nbval-check-output"]
check("06.4", truncated)

# %% [markdown]
# <!-- hints: 06.4 -->
#
# We cut our adapter and let it answer letters that it has not seen. Beside the cut by singular
# values stands the naive one, the first rows of A with the first columns of B.

# %%
truncated, layers = use("06.4", truncated), linear_maps(model)
TEST = data.examples("test")[: 4 if project.quick() else 16]


@torch.no_grad()
def scored(pairs: dict[str, tuple[Tensor, Tensor]]) -> str:
    sweep.put(layers, pairs)
    found = evaluate.forced_score(model, base.tokenizer, TEST)
    return f"{found.exact_match:.0%}, {found.loss:.4f}"


rows, updates = [], adapter.updates.items()
for rank in (16, 8, 4, 1):
    best = {n: truncated(u.A, u.B, u.scale, rank) for n, u in updates}
    first = {n: (u.A[:rank], u.B[:, :rank]) for n, u in updates}
    kept = statistics.mean(energy(u.spectrum().values, rank) for _, u in updates)
    rows.append((f"{rank}", f"{kept:.0%}", scored(best), scored(first)))
Table(("rank", "energy kept", "best cut: right, loss", "first rows: right, loss"), rows)

# %% [markdown]
# The naive cut to four of sixteen loses every answer. The best cut to *one* direction in each map
# keeps less than half of the energy and still answers all sixteen letters; its loss alone says
# that something went.
#
# The recorded adapters of rank 64, longer trained, are cut in the same way:

# %%
show.cuts(RUNS)

# %% [markdown]
# On the letters one direction in each map still answers 99.7%, and it gives back what training had
# cost: the old skills rise from 68% to 84%. What was cut off held next to no letter, though the
# loss rises tenfold, and it did harm.
#
# **Where this stops:** a cut adapter was trained with more directions than it keeps. One that is
# trained at the small rank from the start may find others. Rank 64 ran at its own best rate, twice
# that of rank 16, and forgot more.

# %%
# quiz: 06.q1 06.q2

# %% [markdown]
# ## 4. Do two runs find the same subspace?
#
# **Claim:** an overlap of subspaces means something beside what chance gives, and beside a run
# that learnt something else.
#
# The LoRA paper (7.2) compares the first $i$ directions of one update with the first $j$ of
# another by $\phi$: the mean squared cosine with which the smaller subspace lies in the larger
# one. Two random subspaces give $\max(i, j) / n$, not 0.
#
# <!-- exercise: 06.5 -->
#
# In: two matrices with orthonormal columns, (n, i) and (n, j). Out: $\phi$, from 0 to 1.

# %%
# exercise: 06.5

# %% tags=["nbval-check-output"]
check("06.5", overlap)

# %% [markdown]
# <!-- hints: 06.5 -->
#
# First our two live adapters: one task is real, the other shuffled. Both began from the same seed
# and so from the same A.

# %%
overlap, K = use("06.5", overlap), 4
torch.manual_seed(0)
start = adapter_of(inject(copy.deepcopy(base.model), "all-linear", 16, alpha=16))


def shared(layer: int, projection: str) -> list[float]:
    one, other, begun = (of.at(layer, projection) for of in (adapter, shuffled, start))
    a, b, A0 = one.spectrum(), other.spectrum(), torch.linalg.qr(begun.A.double().T).Q
    pairs = ((a.left, b.left[:, :K]), (a.right, b.right[:, :K]), (a.right, A0))
    return [overlap(U[:, :K], V) for U, V in pairs] + [K / len(a.left), K / len(a.right)]


rows = []
for projection in adapter.projections:
    found = [shared(layer, projection) for layer in adapter.layers]
    left, right, begun, *chance = torch.tensor(found).mean(0).tolist()
    sides = (f"{left:.2f} ({chance[0]:.2f})", f"{right:.2f} ({chance[1]:.2f})", f"{begun:.2f}")
    rows.append((projection, *sides))
head = ("", "written", "read", "read, with A at the start")
Table(head, rows, f"overlap of the first {K}, letters and shuffled; by chance in brackets")

# %% [markdown]
# The two learnt different things and share a third of what they write, and half of what they read.
# The last column says why they read alike: three quarters of the leading directions lie in the 16
# rows of A as it was drawn. Both runs drew the same ones.
#
# So we take runs of different seeds. `seeds` compares two runs of one task at rank 16, `ranks`
# rank 4 with rank 64, `full` two runs of full fine-tuning, and `labels` the letters with the
# shuffled answers; "one seed" and "one A" are pairs with the same start.

# %%
print(show.pair_table(PAIRS))
show.pairs(PAIRS)

# %% [markdown]
# Two runs of full fine-tuning find nearly the same directions. Two of LoRA share half of what they
# write, and a fifth of what they read: each reads through its own A. Letters and shuffled answers
# of different seeds share a quarter of what is written. So about half of what two LoRA runs write
# alike needs no letter. With one A the same pair shares half of what it reads, not a tenth.
#
# **Verdict:** LoRA runs do share a subspace, far above chance; half of it is not the task's own.
# An overlap counts beside a run that learnt something else.

# %% [markdown]
# ## 5. Intruders
#
# **Claim:** a count of intruder dimensions says something when it stands beside random updates of
# the same size.
#
# Shuttleworth et al. (2024) look at the tuned weight $W + sBA$. A leading singular vector that
# resembles none of W's is an *intruder dimension*. They find them after LoRA and hardly after full
# fine-tuning, and tie them to forgetting.
#
# <!-- exercise: 06.6 -->
#
# In: W and the tuned weight (out, in), how many leading vectors to look at, and a threshold. Out:
# the places of those whose absolute cosine with *every* left singular vector of W is below it.

# %%
# exercise: 06.6

# %% tags=["nbval-check-output"]
check("06.6", intruder_dimensions)

# %% [markdown]
# <!-- hints: 06.6 -->
#
# Any update that is large enough brings in directions of its own. So we need a control that has
# the size of the update and nothing of what it learnt.
#
# <!-- exercise: 06.7 -->
#
# Keep the singular values and draw both sets of directions at random. In: the values (k,), the
# shape, a generator to draw from. Out: an update (out, in) in float64.

# %%
# exercise: 06.7

# %% tags=["nbval-check-output"]
check("06.7", scrambled)

# %% [markdown]
# <!-- hints: 06.7 -->
#
# **Predict first:** does the trained update bring in more intruders than the scrambled one, fewer,
# or as many?

# %%
intruder_dimensions, scrambled = use("06.6", intruder_dimensions), use("06.7", scrambled)
dice = torch.Generator().manual_seed(0)
rows = []
for factor in (1, 4, 16):
    line = torch.zeros(3)
    for layer in adapter.layers:
        update = adapter.at(layer, "o_proj")
        W, D = (
            dense(base.model.get_submodule(update.name)),
            factor * update.scale * update.B @ update.A,
        )
        noise = torch.randn(D.shape, generator=dice)
        control = scrambled(factor * update.spectrum().values, *D.shape, dice)
        for place, change in enumerate((D, control, noise * D.norm() / noise.norm())):
            line[place] += len(intruder_dimensions(W, W + change, 10, 0.5))
    rows.append((f"{factor} times the update", *(f"{n:.0f}" for n in line.tolist())))
Table(("intruders in 60 vectors", "trained", "scrambled", "dense noise"), rows)

# %% [markdown]
# At its own size the update brings in none. Grown four or sixteen times, it brings in about as
# many as the scrambled one, which has learnt nothing. Here the count measures the size of an
# update relative to W. Dense noise of the same norm brings in far fewer: its largest value is
# small, so it is too soft a control.
#
# ### The trap of equal values
#
# Where two singular values are nearly equal, their vectors are arbitrary: a little noise turns one
# into the other. A random matrix has many such pairs near the top.

# %%
n, rows = 256, []
left, right = (torch.linalg.qr(torch.randn(n, n, generator=dice)).Q for _ in range(2))
BASES = {
    "values that fall as 1 / i": (left / torch.arange(1, n + 1)) @ right.T,
    "keys of layer 2 of tiny": dense(base.model.get_submodule(adapter.at(2, "k_proj").name)),
    "random numbers": torch.randn(n, n, generator=dice),
}
for told, W in BASES.items():
    noise = torch.randn(W.shape, generator=dice)
    noise *= W.norm() / noise.norm()
    found = [len(intruder_dimensions(W, W + size * noise, 10, 0.5)) for size in (0.25, 0.5, 1)]
    rows.append((told, *map(str, found)))
Table(("W", "noise of 1/4 of its norm", "of 1/2", "of 1"), rows, "intruders among the first 10")

# %% [markdown]
# At noise of W's own norm all leading vectors of the random matrix are intruders, and some of
# `tiny`'s and of the falling values. Nothing was learnt in any of them. A model that was never
# trained can show from none to all ten, and a trained one needs the control as well.
#
# ### Do they go with forgetting?
#
# The recorded runs: trained on the letters for 100 steps at the tuned rate, and *hot*, at four
# times that rate. Each bar is a count over 42 maps.

# %%
show.counted(RUNS)

# %% [markdown]
# At its tuned rate an adapter brings in a handful of intruders or none, and the scrambled update
# of the same values about as many. At four times the rate there are 54 to 160, and 52 to 140 in
# the scrambled. Full fine-tuning has none at either rate: its largest value stays small. The size
# of an update explains the count.

# %%
print(show.links(RUNS))
show.forgetting(RUNS)

# %% [markdown]
# The correlation is there: runs with more intruders forgot more. But the *scrambled* updates,
# which never saw a letter, "go with" the forgetting of the real ones as well as the real count
# does. The largest singular value of the update over W's does better. And full fine-tuning at four
# times its rate answers a fifth fewer of the old skills, without one intruder.
#
# **Verdict:** here intruders and forgetting both go with the size of the update. Size is not all:
# the cut of section 3 left the largest values as they were, and old skills came back. The paper
# shows more: it shrinks the intruders of larger models and forgets less.

# %% [markdown]
# **Where this stops:** one small model, whose W has many values that are nearly equal. Runs of one
# setting are no independent points, so take the coefficients for a description.

# %% [markdown]
# ## 6. Amplification
#
# **Claim:** an update writes where W writes little, and so does any update.
#
# The LoRA paper (7.3) projects W onto the update's directions and compares the norms: $\lVert
# \Delta \rVert_F / \lVert U^\top W V \rVert_F$. It reports 21.5 for rank 4 and about 2 for rank 64
# in GPT-3, and reads it as task directions that were there and not emphasised.
#
# <!-- exercise: 06.8 -->
#
# In: W (out, in), A, B, the scale, and how many directions. Out: the factor.
# Above and below the line only the first k directions count.

# %%
# exercise: 06.8

# %% tags=["nbval-check-output"]
check("06.8", amplification)

# %% [markdown]
# <!-- hints: 06.8 -->
#
# The control is a random pair, scaled to the norm of the trained update.

# %%
amplification = use("06.8", amplification)
rows = []
for projection in adapter.projections:
    line = []
    for layer in adapter.layers:
        trained_, random_ = (of.at(layer, projection) for of in (adapter, THREE["random"]))
        W = dense(base.model.get_submodule(trained_.name))
        norms = [u.spectrum().values[:K].norm() for u in (trained_, random_)]
        grown = random_.scale * float(norms[0] / norms[1])
        line.append([amplification(W, trained_.A, trained_.B, trained_.scale, K),
                     amplification(W, random_.A, random_.B, grown, K)])  # fmt: skip
    means = torch.tensor(line).mean(0).tolist()
    rows.append((projection, *(f"{factor:.1f}" for factor in means)))
print(Table(("", "trained", "random"), rows, f"first {K} directions, mean of six layers"))
for rank in (4, 16, 64):
    found = readings.mean(RUNS, "amplified_all", method="lora", rank=rank, **show.LETTERS)
    print(f"rank {rank}, 100 steps, all directions: {found}")

# %% [markdown]
# The random pair is amplified more in every projection. An update that fell anywhere would
# "amplify what W neglects", as W is small along most pairs of directions. The trained update lies
# nearer to what W does already. The paper has this control too: 6.91 / 0.02 for random directions
# of GPT-3.
#
# The fall with the rank is there as well, from above 4 to below 1. More directions take in more of
# W, so the factor of rank 64 is smaller whatever was learnt.
#
# **Where this stops:** 20 steps and one seed in the table. The factor falls with the norm of the
# update, so two adapters compare only at one norm.

# %% [markdown]
# ### Your own adapter
#
# Notebook 04 writes an adapter to `runs/adapter`. Put the path of any PEFT folder in its place, or
# of a `.safetensors` file with its `alpha=`; nothing but A, B and the scale is read. Without one
# we show an adapter that travels with the workbook: the letters, 100 steps. The menus choose its
# map and the axis; the second picture lays its directions over those of our letters.

# %%
mine = project.runs() / "adapter"
yours = read_adapter(mine if mine.exists() else project.data("adapters", "rank16-seed1"))
print(yours)
display(spectrum_explorer(THREE | {"yours": yours}))
overlap_explorer(adapter, yours)

# %%
# quiz: 06.q3 06.q4

# %% [markdown]
# ## What to carry away
#
# - At equal scores the update of full fine-tuning has an effective rank of 114, that of rank 64
#   one of 21, and shuffled answers about that.
# - Cut to one direction in each map, rank 64 keeps 99.7% of the letters and regains 15 points of
#   old skills: cut it and score it.
# - Random directions with the same values bring in nearly as many intruders, 140
#   against 160.
#
# **Sources:** Hu et al. 2021, *LoRA*, section 7,
# [arXiv:2106.09685](https://arxiv.org/abs/2106.09685); Roy and Vetterli 2007, *The effective
# rank*; Shuttleworth et al. 2024, *LoRA vs Full Fine-tuning*,
# [arXiv:2410.21228](https://arxiv.org/abs/2410.21228); Biderman et al. 2024,
# [arXiv:2405.09673](https://arxiv.org/abs/2405.09673).
#
# **Next:** notebook 07 puts the variants of LoRA to the same tests.
