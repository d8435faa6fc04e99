"""Serving many adapters: merged rightly, gathered in one pass, kept by name, exported, priced."""

import hashlib
import json
import shutil

import pytest
import torch
from served import adapted, card, stock, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from labkit import adapters, data, evaluate, lora
from labkit.adapters import AdapterError
from labkit.interchange import load_adapter
from labkit.memory import ModelShape, SetupError, adapter_parameters, gpu
from labkit.nf4 import NF4Linear
from labkit.serve import economics, export, gather, merging, shelf
from labkit.serve.bank import Bank, read
from labkit.serve.shelf import UnknownAdapter, adapter_folder

RANKS = {"ada": 4, "bob": 8, "eve": 2}
ASKED = [e.prompt for e in data.examples("regression")[::80]]


@pytest.fixture(scope="module")
def base():
    return tiny()


@pytest.fixture(scope="module")
def stocked(tmp_path_factory, base):
    """(shelf's folder, the models that hold its adapters)."""
    root = tmp_path_factory.mktemp("shelf")
    return root, stock(root, base, **RANKS)


@pytest.fixture(scope="module")
def ids(base):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(base.model.config.vocab_size, (7, 5), generator=draw)


# The gather


def slots(dtype=torch.float64):
    """x (5, 3, in 6), A (4, 2, 6), B (4, out 7, 2), scales: drawn, none of them zero."""
    draw = torch.Generator().manual_seed(1)
    x, A, B = (
        torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)
        for shape in ((5, 3, 6), (4, 2, 6), (4, 7, 2))
    )
    return x, A, B, torch.tensor([2.0, 0.5, 3.0, 1.5])


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
def test_the_gather_is_one_dense_update_a_row(dtype, near):
    x, A, B, scales = slots(dtype)
    which = torch.tensor([3, 0, -1, 3, 1])
    out = gather.gathered(x, A, B, scales, which)
    assert out.dtype == dtype
    for row, slot in enumerate(which.tolist()):
        dense = scales[slot].double() * B[slot].double() @ A[slot].double()
        wanted = x[row].double() @ dense.T if slot >= 0 else torch.zeros(3, 7)
        assert (out[row].double() - wanted).norm() <= near * (1 + wanted.norm())
    torch.testing.assert_close(out, gather.looped(x, A, B, scales, which), rtol=near, atol=near)


def test_slots_may_be_of_another_dtype_than_the_batch():
    x, A, B, scales = slots(torch.float64)
    out = gather.gathered(x.bfloat16(), A, B, scales, torch.tensor([0, 1, 2, 3, -1]))
    assert out.dtype == torch.bfloat16


class Ops(TorchDispatchMode):
    """Counts operations and remembers the largest result."""

    def __init__(self):
        super().__init__()
        self.calls, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        self.largest = max(self.largest, out.numel())
        return out


def test_the_gather_takes_as_many_operations_for_64_adapters_as_for_one():
    counts = []
    for n in (1, 64):
        A, B = torch.randn(n, 2, 32), torch.randn(n, 48, 2)
        x, which = torch.randn(4, 1, 32), torch.arange(4) % n
        with Ops() as ops:
            gather.gathered(x, A, B, torch.ones(n), which)
        counts.append(ops.calls)
        assert ops.largest <= 4 * 48 * 2  # the rows' own factors, and no (out, in)
    assert counts[0] == counts[1]


# The bank


def bank_of(root, quantize=None, count=3, rank=8):
    bank = Bank(tiny(quantize).model, count, rank)
    for name in RANKS:
        bank.put(name, read(root / name))
    return bank


@torch.no_grad()
def test_a_mixed_batch_is_what_a_loop_over_the_adapters_gives(stocked, base, ids):
    root, alone = stocked
    names = ["bob", None, "ada", "eve", "ada", None, "bob"]
    with bank_of(root).chosen(names) as model:
        mixed = model(ids).logits
    for row, name in enumerate(names):
        model = alone[name].model if name else base.model
        torch.testing.assert_close(mixed[row], model(ids[[row]]).logits[0], rtol=1e-4, atol=1e-4)
    assert (mixed[2] - base.model(ids[[2]]).logits[0]).abs().max() > 0.1  # else no adapter acts


@torch.no_grad()
def test_a_mixed_batch_on_a_base_in_4_bits_is_the_loop_on_it(stocked, ids):
    root, _ = stocked
    with bank_of(root, "nf4").chosen(["ada", "bob", "eve", None, "eve", "ada", None]) as model:
        mixed = model(ids).logits
    alone = load_adapter(tiny("nf4").model, root / "bob")
    torch.testing.assert_close(mixed[1], alone(ids[[1]]).logits[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_mixed_batch_of_peft_gives_the_same(stocked, ids):
    from peft import PeftModel

    root, _ = stocked
    names = ["ada", "bob", None, "eve", "ada", "eve", None]
    with bank_of(root).chosen(names) as model:
        ours = model(ids).logits
    peft = PeftModel.from_pretrained(tiny().model, root / "ada", adapter_name="ada").eval()
    for name in ("bob", "eve"):
        peft.load_adapter(root / name, adapter_name=name)
    theirs = peft(input_ids=ids, adapter_names=[name or "__base__" for name in names]).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_slot_is_as_large_as_the_largest_rank_allowed(stocked):
    root, _ = stocked
    bank = bank_of(root, count=4, rank=16)
    config = bank.model.config
    numbers = lora.parameter_count(config, "all-linear", 16)
    scales = 4 * len(bank.maps)
    assert bank.nbytes == 4 * (4 * numbers + scales)


@torch.no_grad()
def test_a_smaller_adapter_leaves_nothing_of_the_larger_one_before_it(stocked, ids):
    root, alone = stocked
    bank = Bank(tiny().model, 1, 8)
    bank.put("bob", read(root / "bob"))
    bank.put("eve", read(root / "eve"))
    assert bank.held == ["eve"]
    with bank.chosen(["eve"] * len(ids)) as model:
        torch.testing.assert_close(
            model(ids).logits, alone["eve"].model(ids).logits, rtol=1e-4, atol=1e-4
        )


@torch.no_grad()
def test_a_map_that_an_adapter_leaves_alone_keeps_nothing_of_the_one_before_it(stocked, ids):
    root, _ = stocked
    bank, whole = Bank(tiny().model, 1, 8), read(root / "bob")
    part = type(whole)(whole.rank, whole.scale, dict(list(whole.maps.items())[:3]))
    bank.put("bob", whole)
    bank.put("part", part)
    fresh = Bank(tiny().model, 1, 8)
    fresh.put("part", part)
    said = []
    for one in (bank, fresh):
        with one.chosen(["part"] * len(ids)) as model:
            said.append(model(ids).logits)
    torch.testing.assert_close(*said, rtol=0, atol=0)


def test_the_slot_used_longest_ago_is_taken_unless_it_is_kept(stocked):
    root, _ = stocked
    bank = Bank(tiny().model, 2, 8)
    bank.put("ada", read(root / "ada"))
    bank.put("bob", read(root / "bob"))
    with bank.chosen(["ada"]):
        pass
    bank.put("eve", read(root / "eve"))  # ada was used last
    assert bank.held == ["ada", "eve"]
    bank.put("bob", read(root / "bob"), keep=["ada"])
    assert bank.held == ["ada", "bob"]
    with pytest.raises(AdapterError, match="all 2 slots are in use"):
        bank.put("eve", read(root / "eve"), keep=["ada", "bob"])
    bank.drop("ada")
    bank.put("eve", read(root / "eve"), keep=["bob"])
    assert bank.held == ["bob", "eve"]


def test_outside_of_a_choice_the_base_answers_alone(stocked, base, ids):
    root, _ = stocked
    bank = bank_of(root)
    with pytest.raises(ZeroDivisionError), bank.chosen(["ada"]):
        raise ZeroDivisionError
    torch.testing.assert_close(bank.model(ids).logits, base.model(ids).logits)


def test_a_bank_refuses_what_does_not_fit(stocked, ids):
    root, _ = stocked
    bob = read(root / "bob")
    with pytest.raises(AdapterError, match=r"rank 8, a slot takes 4: .*rank=8"):
        Bank(tiny().model, 1, 4).put("bob", bob)
    with pytest.raises(AdapterError, match=r"adapts .*, which has no slots in this bank"):
        Bank(tiny().model, 1, 8, ["q_proj"]).put("bob", bob)
    name, (A, B) = next(iter(bob.maps.items()))
    with pytest.raises(AdapterError, match="belongs to another base"):
        Bank(tiny().model, 1, 8).put("x", type(bob)(8, 1.0, {name: (A[:, :-1], B)}))
    with pytest.raises(ValueError, match="slots=0"):
        Bank(tiny().model, 0, 8)
    bank = bank_of(root)
    with (
        pytest.raises(AdapterError, match="'zed' is in no slot; there are: ada, bob, eve"),
        bank.chosen(["zed"]),
    ):
        pass
    with pytest.raises(ValueError, match="chosen for 2 rows"), bank.chosen(["ada", None]):
        bank.model(ids)


# The card


def test_an_adapter_of_another_base_is_refused_unless_one_insists(stocked, base, tmp_path):
    root, _ = stocked
    folder = shutil.copytree(root / "ada", tmp_path / "ada")
    said = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(said | {"base_sha256": "0" * 64}))
    with pytest.raises(AdapterError, match=r"trained on tiny with weights 000000000000\.\."):
        read(folder, base)
    with pytest.raises(AdapterError, match="other_base=True"):
        shelf.Shelf(tmp_path, base).read("ada")
    assert shelf.Shelf(tmp_path, base, other_base=True).read("ada").rank == 4
    (folder / "card.json").unlink()
    with pytest.raises(AdapterError, match=r"no readable card\.json"):
        read(folder, base)


def test_a_saved_adapter_has_its_card_whoever_made_the_layers(base, tmp_path):
    from labkit.train import attach

    peft = attach(tiny().model, rank=4, alpha=12)
    for name, model in (("ours", adapted(tiny(), 4, 0).model), ("peft", peft)):
        shelf.save(model, tmp_path / name, card(base))
        assert adapters.read_card(tmp_path / name) == card(base)
        assert read(tmp_path / name, base).scale == 3
    assert shelf.Shelf(tmp_path, base).names == ["ours", "peft"]
    with pytest.raises(AdapterError, match="'My adapter' could not be asked for"):
        shelf.save(peft, tmp_path / "My adapter", card(base))


def test_dora_has_no_slot(stocked, tmp_path):
    from labkit.dora import inject_dora
    from labkit.interchange import save_adapter

    save_adapter(inject_dora(tiny().model, rank=2), tmp_path / "dora")
    with pytest.raises(AdapterError, match="DoRA, whose magnitude has no slot: merge it"):
        read(tmp_path / "dora")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../ada", "ada/../ada", "/ada", "ada/", "ADA", "ada\n", "ada\0", "-ada",
     "a" * 65, "ada%2f", "äda", "..\\ada", "link", "bare", "zed"],
)  # fmt: skip
def test_no_name_leads_out_of_the_shelf(stocked, tmp_path, name):
    root, _ = stocked
    shelf_ = tmp_path / "shelf"
    shutil.copytree(root / "ada", shelf_ / "ada")
    (shelf_ / "link").symlink_to(root / "bob")
    (shelf_ / "bare").mkdir()
    assert adapter_folder(shelf_, "ada") == shelf_ / "ada"
    with pytest.raises(UnknownAdapter):
        adapter_folder(shelf_, name)


# Merging


@pytest.fixture(scope="module")
def qlora(tmp_path_factory, base):
    """(folder, model): an adapter that belongs to tiny in 4 bits."""
    folder = tmp_path_factory.mktemp("merge") / "qlora"
    model = adapted(tiny("nf4"), 4, 5, strength=0.1)
    shelf.save(model.model, folder, card(base))
    return folder, model


@pytest.fixture(scope="module")
def losses(qlora):
    return merging.merges(qlora[0], "tiny", data.examples("test")[:4]).losses


def test_only_the_dequantised_base_keeps_the_loss(losses):
    trained = losses[merging.AS_TRAINED]
    off = {way: abs(loss - trained) for way, loss in losses.items()}
    assert off[merging.RIGHT] < 1e-5 * trained
    for way in (merging.WRONG, merging.AGAIN, merging.HALF):
        assert off[way] > 20 * off[merging.RIGHT], way
    assert off[merging.HALF] < off[merging.WRONG]


@pytest.fixture(scope="module")
def merged(qlora):
    return merging.merged_into(merging.dequantised(tiny("nf4")), qlora[0])


def test_the_merged_folder_answers_in_plain_transformers_as_the_adapter_did(
    qlora, merged, base, tmp_path
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, model = qlora
    out = merging.write_merged(merged, folder, tmp_path / "merged", torch.float32)
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    said = evaluate.answers(plain, tokenizer, ASKED, max_new_tokens=8)
    before = evaluate.answers(model.model, base.tokenizer, ASKED, max_new_tokens=8)
    assert before != evaluate.answers(base.model, base.tokenizer, ASKED, max_new_tokens=8)
    assert said == before
    note = json.loads((out / "merged.json").read_text())
    assert note["base_sha256"] == base.weights_sha256
    weights = (folder / "adapter_model.safetensors").read_bytes()
    assert note["adapter_sha256"] == hashlib.sha256(weights).hexdigest()
    with pytest.raises(AdapterError, match="merged is not empty"):
        merging.write_merged(merged, folder, out, torch.float32)


def test_a_merged_folder_in_bfloat16_is_half_as_large_and_off_by_its_rounding(
    qlora, merged, ids, tmp_path
):
    from transformers import AutoModelForCausalLM

    out = merging.write_merged(merged, qlora[0], tmp_path / "merged", torch.bfloat16)
    size = (out / "model.safetensors").stat().st_size
    assert size == pytest.approx(2 * merged.model.num_parameters(), rel=0.01)
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.dtype == torch.bfloat16
    assert merged.model.dtype == torch.float32  # what is written is a copy
    logits = merged.model(ids).logits
    off = (plain.float()(ids).logits - logits).norm() / logits.norm()
    assert 1e-4 < off < 2e-2


def test_the_loss_in_bfloat16_is_that_of_the_folder_in_bfloat16(
    qlora, merged, losses, base, tmp_path
):
    from transformers import AutoModelForCausalLM

    asked = data.examples("test")[:4]
    out = merging.write_merged(merged, qlora[0], tmp_path / "merged", torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert losses[merging.HALF] == pytest.approx(
        evaluate.forced_score(loaded, base.tokenizer, asked).loss, 1e-6
    )


def test_a_merge_checks_the_card(qlora, tmp_path, base):
    folder = shutil.copytree(qlora[0], tmp_path / "other")
    said = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(said | {"base_sha256": "0" * 64}))
    with pytest.raises(AdapterError, match="load the base it names"):
        merging.merged_into(tiny(), folder)


def test_the_dequantised_base_is_what_transformers_dequantises():
    ours = merging.dequantised(tiny("nf4")).model.state_dict()
    theirs = tiny("nf4").model.dequantize().state_dict()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=0)


def test_one_map_is_merged_into_what_its_4_bits_stand_for():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 48, bias=False)
    packed = NF4Linear(linear)
    A, B = torch.randn(3, 64), 0.1 * torch.randn(48, 3)
    merged, off = merging.merge_qlora(linear.weight.detach(), packed, A, B, scale=1.5)
    assert merged.dtype == torch.float32
    x = torch.randn(5, 64)
    torch.testing.assert_close(x @ merged.T, packed(x) + 1.5 * x @ A.T @ B.T)
    error = (linear.weight - packed.dense()).norm() / (1.5 * B @ A).norm()
    assert off == pytest.approx(error.item(), rel=1e-5)
    assert 0.01 < off < 1


def test_what_rounding_loses_follows_from_the_spacing_of_numbers():
    torch.manual_seed(0)
    W, delta = torch.randn(256, 256), torch.randn(256, 256)
    found = {(r.dtype, r.size): r for r in merging.rounding(W, delta)}
    for size, share in ((1e-1, 0.017), (1e-2, 0.166), (1e-3, 0.798), (1e-4, 0.981)):
        one = found["bfloat16", size]
        assert one.lost == pytest.approx(share, abs=0.03)
        assert one.lost == pytest.approx(one.unchanged, abs=0.2)
    # 8 bits of bfloat16 and 11 of float16: the error is 8 times smaller where it is not the update
    assert found["bfloat16", 0.1].lost / found["float16", 0.1].lost == pytest.approx(8, rel=0.05)
    assert found["float32", 1e-4].lost < 1e-3
    assert merging.lost_share(W.bfloat16(), torch.full_like(W, 1e-9), torch.bfloat16) == 1


# Export


def config(**more):
    return {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "down_proj"]} | more


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"r": 17}, "r"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "target_modules"),
        ({"target_modules": "embed_tokens"}, "target_modules"),
        ({"target_modules": ["model.layers.0.self_attn.q_norm"]}, "target_modules"),
    ],
)
def test_each_thing_that_vllm_cannot_serve_is_named_by_its_field(more, field):
    assert list(export.vllm_problems(config(**more), 16)) == [field]


@pytest.mark.parametrize(
    "more",
    [{}, {"use_rslora": True}, {"bias": "none", "modules_to_save": None, "rank_pattern": {}},
     {"target_modules": "all-linear"}, {"target_modules": ["model.layers.0.mlp.up_proj"]}],
)  # fmt: skip
def test_what_vllm_serves_has_no_problem(more):
    assert export.vllm_problems(config(**more), 16) == {}


def test_the_limit_is_the_next_that_vllm_allows():
    limits = [export.rank_limit(r) for r in (1, 4, 8, 9, 65, 300, 512)]
    assert limits == [1, 8, 8, 16, 128, 320, 512]
    with pytest.raises(AdapterError, match="513 is above vLLM's largest limit, 512"):
        export.rank_limit(513)


def test_an_exported_folder_has_what_vllm_reads_and_peft_loads_it(stocked, ids, tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file

    root, alone = stocked
    out = export.export(root / "ada", tmp_path / "ada")
    said = json.loads((out / "adapter_config.json").read_text())
    assert {"r", "lora_alpha", "target_modules"} <= set(said)  # PEFTHelper has no default for them
    assert said["peft_type"] == "LORA"
    assert adapters.read_card(out) == adapters.read_card(root / "ada")
    for name, tensor in load_file(out / "adapter_model.safetensors").items():
        *module, kind, weight = name.removeprefix("base_model.model.").split(".")
        assert (kind in ("lora_A", "lora_B"), weight) == (True, "weight")
        assert module[-1] in said["target_modules"]
        assert tensor.shape[kind == "lora_B"] == said["r"]
    peft = PeftModel.from_pretrained(tiny().model, out).eval()
    torch.testing.assert_close(
        peft(ids).logits, alone["ada"].model(ids).logits, rtol=1e-4, atol=1e-4
    )


def test_the_command_names_every_adapter_and_a_limit_that_takes_all(stocked):
    root, _ = stocked
    said = export.command("me/base", {"ada": root / "ada", "bob": root / "bob"})
    assert said == (
        f"vllm serve me/base --enable-lora --lora-modules ada={root / 'ada'} bob={root / 'bob'} "
        "--max-lora-rank 8 --max-loras 2"
    )
    assert export.command("b", {"ada": root / "ada"}, max_loras=4).endswith("--max-loras 4")
    with pytest.raises(AdapterError, match="no adapters"):
        export.command("me/base", {})


def test_what_cannot_be_served_is_not_exported(stocked, tmp_path):
    root, _ = stocked
    folder = shutil.copytree(root / "ada", tmp_path / "ada")
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(said | {"use_dora": True}))
    with pytest.raises(AdapterError, match="cannot serve ada: vLLM has no DoRA"):
        export.export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for more, why in (
        ({"layer_replication": [[0, 2]]}, "vLLM drops layer_replication"),
        ({"init_lora_weights": "pissa"}, "the start of A and B moved the base"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(said | more))
        with pytest.raises(AdapterError, match=why):
            export.check(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match="no readable adapter"):
        export.check(folder)
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(AdapterError, match="no readable adapter"):
        export.check(folder)


def test_a_tensor_that_vllm_does_not_know_is_named(stocked, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(stocked[0] / "ada", tmp_path / "ada")
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {"base_model.model.lm_head.weight": torch.ones(2)}, path)
    with pytest.raises(AdapterError, match=r"lm_head\.weight is no lora_A or lora_B"):
        export.check(folder)


# Economics


def test_a_tenant_is_a_share_of_the_base_and_an_adapter():
    shape = ModelShape.from_config("llama-3.2-1b")
    numbers = adapter_parameters(shape, 16)
    assert numbers == 11_272_192
    assert (round(4 * numbers / 1e6, 1), round(2 * numbers / 1e6, 1)) == (45.1, 22.5)
    base = 2 * shape.parameters
    for tenants in (50, 1000):
        wanted = (base + 2 * numbers * tenants) / tenants / 2**30
        assert economics.tenant_gib(base, numbers, tenants) == pytest.approx(wanted)
        many = economics.tenancy("llama-3.2-1b", tenants)
        assert many.adapter == 2 * numbers
        assert many.shared.bytes == base + 2 * numbers * tenants
        assert many.merged.bytes == base * tenants
    wide = economics.tenant_gib(base, numbers, 50, width=4)
    assert wide - economics.tenant_gib(base, numbers, 50) == pytest.approx(2 * numbers / 2**30)


def test_a_merged_model_lies_on_one_card_and_each_card_has_its_base():
    card_, shape = gpu("A100 80GB"), ModelShape.from_config("llama-3-8b")
    room, base = int(0.8 * card_.usable), 2 * shape.parameters
    many = economics.tenancy("llama-3-8b", 1000)
    assert room // base == 4
    assert many.merged.cards == 250
    assert many.shared.cards == 2
    assert many.shared.bytes == 2 * base + 1000 * many.adapter
    assert many.shared.monthly == pytest.approx(2 * card_.dollars * 730 / 1000)
    assert "250" in str(many)
    assert card_.priced in str(many)


def test_a_card_without_a_price_or_room_is_refused():
    with pytest.raises(SetupError, match="no dated price"):
        economics.tenancy("llama-3.2-1b", 50, card="L40S")
    with pytest.raises(SetupError, match="needs more"):
        economics.tenancy("llama-3-8b", 50, card="RTX 3090", share=0.5)
    with pytest.raises(SetupError, match="share=0"):
        economics.tenancy("llama-3.2-1b", 50, share=0)
