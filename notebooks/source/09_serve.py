# %% [markdown]
# # What does the thousandth customer cost?
#
# <!-- badges -->
#
# - **You will** merge a QLoRA adapter into the right weight, answer a batch in which each row has
#   an adapter of its own, run a server for both, and compute what a customer costs.
# - **You need** notebook 04. No GPU; the speeds of a GPU come from a record.
# - **Time:** 80 minutes for you. The cells themselves take <!-- minutes -->.

# %%
# bootstrap

# %%
import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor

from labkit import adapters, data, evaluate, models, project
from labkit.exercises import check, quiz, use
from labkit.linears import dense
from labkit.nf4 import NF4Linear
from labkit.serve import bank, export, gather, merging, tenants
from labkit.serve.export import REFUSED, SEVEN
from labkit.serve.shelf import UnknownAdapter
from labkit.table import Table
from labkit.train import Settings

# %% [markdown]
# ## 1. Into which weight do we merge?
#
# **Claim:** an adapter is a difference to the weight it was trained beside, and to no other.
#
# Two customers want the same letters in two forms. `acme` takes a JSON record, `bolt` one line.
# Each gets an adapter of rank 8 on the NF4 copy of `tiny`, trained here, and a card beside it.

# %%
base, quick = models.load("tiny", dtype=torch.float32), project.quick()
tokenizer, SHELF = base.tokenizer, project.runs() / "shelf"
letters, unseen = data.examples("train")[:80], data.examples("test")[: 4 if quick else 12]
settings = Settings(steps=2 if quick else 12, batch=4, lr=3e-3)
acme, bolt = (tenants.trained(SHELF / n, letters, unseen, settings) for n in tenants.TENANTS)
print(acme, bolt, sep="\n")

# %% [markdown]
# <!-- exercise: 09.1 -->
#
# Two weights are at hand: `original`, from the checkpoint, and `packed`, its NF4 copy, beside which
# the adapter was trained. `dense(packed)` decodes the codes. Merge, and say how far off the other
# choice would be. Change nothing that you are given; no 4-bit rounding after the sum.

# %%
# exercise: 09.1

# %% tags=["nbval-check-output"]
check("09.1", merge_qlora)

# %% [markdown]
# <!-- hints: 09.1 -->
#
# We apply it to the seven maps of the first layer, with the factors of `acme` from the disk.

# %%
merge_qlora = use("09.1", merge_qlora)
read, plain = bank.read(acme.folder), models.load("tiny", None, torch.float32).model.cpu()
rows = []
for name, (A, B) in list(read.maps.items())[:7]:
    linear = plain.get_submodule(name)
    weight, mismatch = merge_qlora(linear.weight, NF4Linear(linear), A, B, read.scale)
    update, size = read.scale * B @ A, linear.weight.norm()
    linear.weight.data = weight  # and now in 4 bits again, the update with it
    moved = dense(NF4Linear(linear)) - (weight - update)
    kept = (moved * update).sum() / update.square().sum()
    numbers = f"{update.norm() / size:.3f}", f"{mismatch:.2f}", f"{kept:.0%}"
    rows.append((name.split(".")[-1], *numbers))
Table(("map", "|update| / |W|", "|4-bit error| / |update|", "kept if quantised again"), rows)

# %% [markdown]
# The 4-bit error is as large as the update, or several times larger. It is spread over all
# directions by chance, and the update points where the task is, so a model may bear the one and
# need the other.
#
# The last column quantises the merged weight again. A decoded weight lies on a level of the code,
# and many steps of an update are too small to reach the next one: there the weight returns to its
# level. How much of the update is left differs from map to map, as the column shows.
#
# **Predict first:** `acme` is merged in four ways. Which of them keeps its answers, and which
# loses them?

# %%
merges = merging.merges(acme.folder, "tiny", unseen)
merges

# %% [markdown]
# Into the dequantised weights the loss stays what it was, to the digits shown. Quantised again, no
# answer is right. The checkpoint, into which lessons merge, gives another model: here its loss is
# higher by a little, and at most a letter or two are lost.
#
# **Where this stops:** `tiny` bears its own 4-bit error well, and so the checkpoint bears the
# adapter. Nobody can tell that for another model before it is scored.

# %% [markdown]
# ### Is merging lossless?
#
# A merged model is saved in 16 bits. bfloat16 keeps 8 significant bits, so a weight moves only if
# its update exceeds 1/512 to 1/256 of it, by where it lies.
#
# <!-- exercise: 09.2 -->
#
# Compute the share of an update that such a store loses. In: W (out, in), which `dtype` holds
# exactly, the update (out, in), and the dtype. Out: |rounded sum − W − update| / |update|.

# %%
# exercise: 09.2

# %% tags=["nbval-check-output"]
check("09.2", lost_share)

# %% [markdown]
# <!-- hints: 09.2 -->
#
# **Folklore: "merging is lossless".** **Predict first:** an update is a hundredth as large as its
# weight. Which share of it does a merge in bfloat16 lose?

# %%
lost_share = use("09.2", lost_share)
W, (A, B) = plain.get_submodule(name).weight.bfloat16().float(), read.maps[name]
rows = []
for size in (1e-1, 1e-2, 1e-3, 1e-4):
    update = read.scale * B @ A
    update *= size * W.norm() / update.norm()
    lost = [lost_share(W, update, kind) for kind in (torch.bfloat16, torch.float16, torch.float32)]
    rows.append((f"{size:g}", *(f"{share:.1%}" for share in lost)))
Table(("|update| / |W|", "bfloat16", "float16", "float32"), rows)

# %% [markdown]
# **Verdict:** it depends on the size of the update. At a tenth of the weight bfloat16 loses little;
# at a hundredth it loses a sixth, and at a ten-thousandth nearly all. The update of
# `acme` is a few hundredths of its weights, so its row "in bfloat16" above looks well. Merge in
# float32, round once, and score.
#
# A merged folder is a plain model. Plain transformers loads it, without PEFT, and it answers as the
# adapter did.

# %%
import shutil

from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
folder, asked = project.runs() / "acme-merged", [e.prompt for e in unseen[:4]]
shutil.rmtree(folder, ignore_errors=True)
whole = merging.merged_into(merging.dequantised(base), acme.folder)
merging.write_merged(whole, acme.folder, folder, torch.float32)
theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
adapted = adapters.load(acme.folder, models.load("tiny", dtype=torch.float32))
said, plainly = (evaluate.answers(m, tokenizer, asked) for m in (adapted, theirs))
assert said == plainly
print(f"{len(asked)} answers, token for token the same; the first:", said[0])

# %%
# quiz: 09.q1 09.q2

# %% [markdown]
# ## 2. Many adapters on one base
#
# **Claim:** the base is the same for every row of a batch, so compute it once, and add to each row
# the thin product of its own adapter.
#
# The other way is to swap: one adapter at a time, and every request of another customer waits.
#
# **Folklore: "a swap is sub-millisecond, it only changes a pointer".** We time what PEFT offers,
# and what the server of section 4 does, in turns.

# %%
from peft import PeftModel

from labkit.bench.timing import alternating
from labkit.serve import recorded, swapping

served = merging.dequantised(base)  # every server below answers from these weights
two = [copy.deepcopy(served.model) for _ in "ab"]
steps = swapping.ways((acme.folder, bolt.folder), *two, rank=8)
times = alternating(steps, rounds=6, warm=1)
large = recorded.changes(recorded.rows("llama-3.2-1b"))
rows = [(w, f"{1e3 * sorted(s)[3]:.2f}", f"{1e3 * large[w]:.2f}") for w, s in times.items()]
Table(("way", "tiny, here, ms", "shapes of Llama-3.2-1B, H100, ms"), rows)

# %% [markdown]
# **Verdict:** PEFT's `set_adapter` walks through every adapted layer in Python, and that takes
# milliseconds, here and at the shapes of Llama-3.2-1B. Whatever touches the disk takes more. Only a
# choice by index, the last row, is free of it: the adapters lie side by side, nothing is swapped.

# %% [markdown]
# <!-- exercise: 09.3 -->
#
# Write that choice. All A are stacked in one tensor and all B in another; `which` says, for each
# row, whose it is, and −1 stands for the base alone.
#
# In: x (batch, length, in), A (slots, rank, in), B (slots, out, rank), scales (slots,), which
# (batch,). Out: the update (batch, length, out). No loop, and no `B @ A`.

# %%
# exercise: 09.3

# %% tags=["nbval-check-output"]
check("09.3", gathered)

# %% [markdown]
# <!-- hints: 09.3 -->
#
# Your function goes into every linear map of the model. `Bank` stacks the adapters, and `chosen`
# says whose row is whose. One batch holds the same letter three times.

# %%
gathered = gather.gathered = use("09.3", gathered)
slots = bank.Bank(copy.deepcopy(served.model), slots=2, rank=8)
for one in (acme, bolt):
    slots.put(one.folder.name, bank.read(one.folder, base))
rows, text = (None, "acme", "bolt"), data.chat(tokenizer, asked[0])
with slots.chosen(rows) as model:
    ids = tokenizer([text] * 3, add_special_tokens=False, return_tensors="pt").input_ids
    ids = ids.to(model.device)
    written = model.generate(ids, max_new_tokens=64, pad_token_id=tokenizer.pad_token_id)
    together = model(ids).logits
print(asked[0], "\n")
for name, row in zip(rows, written[:, ids.shape[1] :], strict=True):
    with slots.chosen([name]) as model:
        off = (model(ids[:1]).logits - together[rows.index(name)]).abs().max()
    print(f"{name or 'the base'} ({off:.0e}): {tokenizer.decode(row, skip_special_tokens=True)}")
    assert off < 1e-3
peft = PeftModel.from_pretrained(copy.deepcopy(served.model), acme.folder, "acme").eval()
_ = peft.load_adapter(bolt.folder, "bolt")
off = (peft(ids, adapter_names=["__base__", "acme", "bolt"]).logits - together).abs().max()
print(f"PEFT's mixed batch: {off:.0e}")

# %% [markdown]
# Three rows, three answers, one pass of the base for each token. In brackets: how far the logits of
# the row are from those it has alone. Now the time of one token, for 8 rows
# that belong to 1 to 8 adapters: your gather, against a loop that runs the base once for each.

# %%
wide, rows = tenants.crowd(served, SHELF, slots=8), []
for n in (1, 8) if quick else (1, 2, 8):
    times = alternating(tenants.ways(wide, n), rounds=6, warm=1)
    rows.append((f"{n}", *(f"{1e3 * min(seconds):.1f}" for seconds in times.values())))
Table(("adapters in 8 rows", "gather, ms a token", "loop, ms a token"), rows)

# %% [markdown]
# The gather takes about the same time however many adapters there are; the loop grows with them.
# PEFT's own mixed batch, whose logits the cell before compared, runs the base once and loops over
# the adapters for the thin products.
#
# A record compares all ways in batches of 64 rows, one token each: `tiny` on a CPU, and the shapes
# of Llama-3.2-1B on an H100. *merged* runs a merged copy for each adapter; *swap* copies the
# factors into one model before each pass.

# %%
from labkit.figures import serve as draw

MODELS = {"tiny, CPU": "tiny", "1B shapes, H100": "llama-3.2-1b"}
by = {what: recorded.beside_base(recorded.rows(model)) for what, model in MODELS.items()}
draw.throughput_picture(by, "share of the base's speed")

# %% [markdown]
# The gather's line is flat, and the others fall with each adapter. It is not free: it runs at about
# a third of the base's speed on both. One adapter is faster merged. From eight adapters on the
# gather is ahead of all on the CPU, and from four on the H100.
#
# On the GPU Python's many small calls take the time. Recorded once as a CUDA graph and replayed
# (*gather-graph*), the gather beats the plain base, and takes a bit over twice as long as the base
# replayed likewise.

# %% [markdown]
# ### The idea of Punica and S-LoRA, and what it leaves
#
# Your `A[which]` copies the factors of each row before it multiplies. Punica (Chen et al. 2023)
# reads them where they lie, in one kernel for the whole batch. S-LoRA (Sheng et al. 2023) keeps
# thousands of adapters in host memory and moves those of the running batch into one pool with the
# cache of keys and values.
#
# Both save work, and neither makes the update free. Each token reads its own factors, and at large
# batches the base is no longer bound by memory, so the saving shrinks. A pull request of vLLM
# reports a third fewer requests a second with LoRA on (Llama-2-7B on one A100, 11.45 to 7.60).

# %%
# quiz: 09.q3 09.q6

# %% [markdown]
# ## 3. Whose adapter, and on which base?
#
# **Claim:** a folder says what it is, or it is not served.
#
# Beside A and B lies a card: the base and the hash of its weights, a hash of the data, settings,
# versions, scores. Shapes fit every model of that family, so without the hash an adapter loads on
# the next version of its base without a word. We make such a version, in which one number is 1%
# larger, and ask for `acme` on it.

# %%
from safetensors.torch import load_file, save_file

print(adapters.read_card(acme.folder))
newer = project.runs() / "tiny-1.1"
shutil.copytree(base.folder, newer, dirs_exist_ok=True)
weights = load_file(newer / "model.safetensors")
weights["model.layers.0.self_attn.q_proj.weight"][0, 0] *= 1.01
save_file(weights, newer / "model.safetensors", metadata={"format": "pt"})
try:
    bank.read(acme.folder, models.load(newer))
except adapters.AdapterError as error:
    print("\n", error, sep="")

# %% [markdown]
# The hash differs, so it is refused, and the sentence names the way round it.
#
# ### A name is not a path
#
# A request names its adapter, and the text comes from a stranger. `root / "../secret"` is a folder
# too, and `root / "/etc"` forgets the root.
#
# <!-- exercise: 09.4 -->
#
# Find the folder of an adapter by its name. A name is 1 to 64 of a-z, 0-9, `_` and `-`, and begins
# with a letter or a digit. The folder lies in `root` itself, links followed, and holds a
# `card.json`. Everything else is an `UnknownAdapter`.

# %%
# exercise: 09.4

# %% tags=["nbval-check-output"]
check("09.4", adapter_folder)

# %% [markdown]
# <!-- hints: 09.4 -->

# %%
adapter_folder = use("09.4", adapter_folder)
for name in ("acme", "../shelf/acme", "/etc", "acme\n", "nobody"):
    try:
        print(repr(name), "->", adapter_folder(SHELF, name).name)
    except UnknownAdapter as error:
        print(repr(name), "->", error)

# %% [markdown]
# ## 4. Two doors
#
# **Claim:** vLLM serves the folder as PEFT wrote it, if the folder asks for nothing else than thin
# products; and a server of our own is short.
#
# <!-- exercise: 09.5 -->
#
# Tell what vLLM would refuse. `REFUSED` names the fields that must not be set, with a reason each.
# Besides: a rank above the server's limit, trained biases, and targets outside the seven
# projections.
#
# In: the content of adapter_config.json, the limit. Out: a dict, field to reason; empty when fine.

# %%
# exercise: 09.5

# %% tags=["nbval-check-output"]
check("09.5", vllm_problems)

# %% [markdown]
# <!-- hints: 09.5 -->
#
# We export both adapters, ask for the command, and see what becomes of a DoRA folder.

# %%
vllm_problems = use("09.5", vllm_problems)
config = json.loads((acme.folder / "adapter_config.json").read_text())
for said in (config, config | {"use_dora": True, "r": 64}):
    print(list(vllm_problems(said, 16).values()) or "nothing to refuse")
out = {n: export.export(SHELF / n, project.runs() / "vllm" / n) for n in tenants.TENANTS}
print(export.command("my-llama", out).replace(str(project.runs()), "runs"))

# %% [markdown]
# ### Our own, on this machine
#
# The engine takes requests in, makes small batches of them, and answers each with its adapter. Its
# base is `served`: dequantised, as section 1 asks for. The HTTP around it is Starlette's. We send
# one good request, and several that a stranger might.

# %%
from labkit.serve import engine, shelf
from labkit.serve.app import BODY, serving

stage = engine.Engine(shelf.Shelf(SHELF, served), slots)
SENT = {
    "a letter for bolt": {"prompt": asked[0], "adapter": "bolt"},
    "no such adapter": {"prompt": "hello", "adapter": "nobody"},
    "a path for a name": {"prompt": "hello", "adapter": "../shelf/acme"},
    "half a JSON": '{"prompt": ',
    "a body too large": {"prompt": "x" * (BODY + 1)},
}
with serving(stage, seconds=120) as url, httpx.Client(base_url=url, trust_env=False) as client:
    bodies = {k: sent if isinstance(sent, str) else json.dumps(sent) for k, sent in SENT.items()}
    back = {what: client.post("/generate", content=body) for what, body in bodies.items()}
rows = [(k, f"{b.status_code}", b.json().get("text") or b.json()["error"]) for k, b in back.items()]
assert [status for _, status, _ in rows] == ["200", "404", "404", "400", "413"]
Table(("sent", "status", "answer"), rows)

# %% [markdown]
# Each failure is an answer with a sentence, and none is a traceback. At the end of the block the
# server takes nothing more in, finishes what it has, and is gone.
#
# Now many at once, over loopback: every third request for the base, for `acme` and for `bolt`.

# %%
from labkit.serve.load import load_test

prompts = [e.prompt for e in data.examples("test")[: 9 if quick else 24]]
who = [None, "acme", "bolt"] * len(prompts)
requests = [{"prompt": p, "adapter": a} for p, a in zip(prompts, who, strict=False)]
stage = engine.Engine(shelf.Shelf(SHELF, served), slots)
with serving(stage, seconds=120) as url:
    load = load_test(url, requests, at_once=12)
assert load.lost == 0 and load.statuses == {200: len(prompts)}
load

# %% [markdown]
# Nothing is lost, and the slowest answer waited for its turn, not for its adapter: rows of three
# kinds share each batch. Half of the requests were answered within p50, all but one in a hundred
# within p99.
#
# **Where this stops:** a row that ends early waits for the longest of its batch. vLLM puts the next
# request in its place. Loopback has no network, and these clients wait for an answer before they
# ask again.

# %% [markdown]
# ## 5. What does a tenant cost?
#
# **Claim:** the base is paid once; each further tenant adds an adapter.
#
# <!-- exercise: 09.6 -->
#
# Compute the share of one tenant, in GiB. In: the bytes of the base, the numbers of one adapter,
# the tenants, and the bytes of a number (`width`). Out: a float.

# %%
# exercise: 09.6

# %% tags=["nbval-check-output"]
check("09.6", tenant_gib)

# %% [markdown]
# <!-- hints: 09.6 -->
#
# **Folklore: "a LoRA adapter is 50 MB, so 1000 customers take 50 GB, not 14 TB".** We compute it
# for four models: rank 16, seven projections, MB of 10**6 bytes as lessons count.

# %%
from labkit.memory import ModelShape
from labkit.memory.parts import adapter_parameters

tenant_gib, rows = use("09.6", tenant_gib), []
for name in ("llama-3.2-1b", "llama-2-7b", "llama-3-8b", "llama-3-70b"):
    shape = ModelShape.from_config(name)
    whole, numbers = 2 * shape.parameters, adapter_parameters(shape, 16, "all-linear")
    files = [f"{width * numbers / 1e6:.1f}" for width in (4, 2)]
    many = f"{2 * numbers / 1e6:,.0f}", f"{whole / 1e9:,.0f}"
    share = [f"{tenant_gib(whole, numbers, n):.2f}" for n in (50, 1000)]
    rows.append((name, *files, *many, *share))
HEAD = ("model", "MB, float32", "MB, bfloat16", "1000 of them, GB", "1000 merged, TB")
Table((*HEAD, "GiB a tenant of 50", "of 1000"), rows)

# %% [markdown]
# **Verdict:** 45 MB is the file of a 1B model in float32, which is how PEFT saves it; in bfloat16
# it is half. Beside the 7B model of the lesson an adapter takes 80 MB, or 160 in float32. The
# order of magnitude stands, the number does not.
#
# Fifty customers of Llama-3-8B, and a thousand, on one kind of card:

# %%
from labkit.figures import picture
from labkit.serve import economics

for n in (50, 1000):
    print(economics.tenancy("llama-3-8b", n, card="A100 80GB"), "\n")
llama = ModelShape.from_config("llama-3-8b")
bytes_, numbers = 2 * llama.parameters, adapter_parameters(llama, 16, "all-linear")
told = [f"{tenant_gib(bytes_, numbers, n):.2f} GiB among {n}" for n in (1, 50, 1000)]
picture(f"A tenant takes {', '.join(told)}", lambda ax: draw.tenants(ax, bytes_, numbers))

# %% [markdown]
# In the second table each card holds a base of its own, so a tenant's part is larger than yours.
# Nobody buys 250 cards for a thousand merged models: they would be loaded by turns, and their
# customers would wait.
#
# A thousand adapters need not lie on the GPU together either. A slot costs as much as the largest
# rank allowed, whatever lies in it, and the cache of keys and values wants the rest.

# %%
# quiz: 09.q4 09.q5 09.q7

# %% [markdown]
# ## 6. Before it ships
#
# **Claim:** a line of a checklist is worth what it is checked by.
#
# Popular lessons close with lists for production. We walk through them with the run of this
# notebook. The code behind each line is in `labkit/serve/walk.py`. First, what is to be done before
# `acme` ships.

# %%
from labkit.serve import walk

skills = data.examples("regression")[:: 40 if quick else 12]
run = walk.Run(base, adapted, acme, folder, merges, letters, unseen, skills)
walk.checklist(run)

# %% [markdown]
# One line fails: a few steps at a high rate have cost `acme` more than a twentieth of what the base
# knew. By its own checklist it does not ship. Train it at a smaller rate, or show that its customer
# asks for nothing else; notebook 08 sets such gates before the training.
#
# Now the failures that lessons warn of.

# %%
walk.failures(run)

# %% [markdown]
# The first three are remedies, and they are in place. The last five are warnings that do not hold
# here. Padding is harmless once the mask covers it. `eval()` switches dropout off.
# `prepare_model_for_kbit_training` is no cure for NaN. A pad that equals the end of turn teaches a
# model never to stop. Checkpointing trades time for memory; use it when memory is short.
#
# Another line says that a GPU below 80% of its use wants more accumulation. Accumulation repeats
# small batches; a larger batch fills a GPU.
#
# **Where this stops:** no code here checks safety. Ask your red-team prompts after every fine-tune.

# %% [markdown]
# ## What to carry away
#
# - Merge a QLoRA adapter into its dequantised base, and round once. Quantised again, it kept no
#   answer.
# - Gather the adapters of a batch by index: the base runs once, whoever the rows belong to.
# - Among a thousand, a tenant of Llama-3-8B takes 0.09 GiB beside a shared base, and 15 GiB merged.
#
# **Sources:** Dettmers et al. 2023, *QLoRA*, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314);
# Chen et al. 2023, *Punica*, [arXiv:2310.18547](https://arxiv.org/abs/2310.18547); Sheng et al.
# 2023, *S-LoRA*, [arXiv:2311.03285](https://arxiv.org/abs/2311.03285); vLLM's `peft_helper.py` and
# `config/lora.py`, its pull request 11267 for the cost; PEFT 0.21, its own source.
#
# **Next:** notebook 10 spreads one model over several GPUs.
