"""The configurations that the survey measures, and the rule that splits them.

    anchors   one change at a time around the lessons' setting, and each stack as it comes
    drawn     setups drawn by a seeded generator over all fields, so that fields meet that no one
              thought of together

A row belongs to the report, and not to the calibration, if the CRC-32 of its shape and setup
written as JSON is odd. The rule was written before the first row was measured.
"""

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace

from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape

GIB = 2**30
DRAWN, LARGEST = 72, 30 * GIB  # setups drawn; none above this bound
SHAPES = ("llama-3.2-1b", "smollm2-135m", "qwen2.5-0.5b", "llama-3.2-3b", "llama-3.1-8b")
SIZES = ((1, 512), (2, 512), (4, 512), (1, 1024), (2, 1024), (4, 1024), (1, 2048), (8, 1024))
Pair = tuple[ModelShape, TrainingSetup]


def key(shape: ModelShape, setup: TrainingSetup) -> str:
    """A configuration as text: the name that rows, splits and processes know it by."""
    return json.dumps({"shape": shape.name, **asdict(setup)}, sort_keys=True)


def reported(shape: ModelShape, setup: TrainingSetup) -> bool:
    """Whether a row is kept for the report: it must not have been looked at in calibration."""
    return zlib.crc32(key(shape, setup).encode()) % 2 == 1


def anchors() -> Iterator[Pair]:
    """The lessons' setting with one change at a time; the other shapes; each stack as it comes."""
    one = ModelShape.preset("llama-3.2-1b")
    first = TrainingSetup()
    for method in ("qlora", "lora", "qdora", "dora"):
        for loss in ("full_logits", "fused"):
            yield one, replace(first, method=method, loss=loss)
    yield one, TrainingSetup(method="full", batch=1)
    yield one, TrainingSetup(method="full", batch=2, autocast=False, loss="fused")
    yield one, TrainingSetup(method="full", batch=1, base_dtype="float32", loss="fused")
    changes = (
        {"checkpointing": False},
        {"dropout": 0.0, "checkpointing": False},
        {"prepared": False},
        {"padded": True},
        {"attention": "eager"},
        {"optimizer": "adamw_8bit"},
        {"optimizer": "paged_adamw_32bit", "batch": 1, "seq_len": 512},
        {"rank": 64, "loss": "fused"},
        {"batch": 8, "seq_len": 2048, "loss": "fused"},
        {"targets": ("q_proj", "v_proj"), "loss": "fused"},
        {"double_quant": False, "loss": "fused", "batch": 1},
        {"prepared": False, "adapter_dtype": "bfloat16", "dropout": 0.0, "loss": "fused"},
    )
    for change in changes:
        yield one, replace(first, **change)
    for name in SHAPES[1:]:
        shape = ModelShape.preset(name)
        yield shape, replace(first, batch=1, loss="fused")
        yield shape, replace(first, method="lora", batch=1, dropout=0.0)
    yield ModelShape.preset("smollm2-135m"), TrainingSetup(method="full", batch=2)
    for stack in ("trl", "transformers+peft"):
        for method in ("qlora", "lora", "full"):
            yield one, TrainingSetup(method=method, stack=stack, batch=2)
        small = ModelShape.preset("smollm2-135m")
        yield small, TrainingSetup(stack=stack, padded=True)
        yield small, TrainingSetup(method="qdora", stack=stack, checkpointing=False)
    yield one, TrainingSetup(stack="labkit", batch=2)
    yield one, TrainingSetup(stack="labkit", checkpointing=True, padded=True)


def bound(shape: ModelShape, setup: TrainingSetup) -> int:
    """Bytes that a run stays below, coarsely: what decides how many may share a GPU.

    It is no estimate, and it stands still when the estimate learns, so the list stands still too.
    """
    each = {"full": 16, "lora": 2.2, "dora": 2.2}.get(setup.method, 1.0)
    scores = 6 * shape.heads * setup.seq_len if setup.attention == "eager" else 0
    layer = setup.tokens * (24 * (shape.hidden + shape.intermediate) + scores)
    layers = 2 if setup.checkpointing else shape.layers
    table = 12 * shape.vocab * setup.tokens if setup.loss == "full_logits" else 0
    tables = 4 * shape.vocab * shape.hidden if setup.quantized else 0
    return round(each * shape.parameters + tables + layers * layer + table + GIB)


def drawn(count: int = DRAWN, seed: int = 0) -> Iterator[Pair]:
    """Setups drawn at random over all fields, none too large for several to share a GPU."""
    generator = random.Random(seed)
    while count:
        shape = ModelShape.preset(generator.choices(SHAPES, (8, 2, 2, 2, 2))[0])
        setup = _draw(generator)
        if bound(shape, setup) < LARGEST:
            count -= 1
            yield shape, setup


def _draw(generator: random.Random) -> TrainingSetup:
    pick = generator.choice
    batch, length = pick(SIZES)
    prepared = pick((True, False))
    return TrainingSetup(
        method=generator.choices(("qlora", "lora", "qdora", "dora", "full"), (4, 3, 2, 2, 1))[0],
        rank=pick((8, 16, 32, 64)),
        targets=pick(("all-linear", "all-linear", ("q_proj", "v_proj"))),
        adapter_dtype=pick(("float32", "float32", "bfloat16")),
        dropout=pick((0.0, 0.05)),
        double_quant=pick((True, True, False)),
        prepared=prepared,
        autocast=prepared or pick((True, True, False)),
        optimizer=generator.choices(("adamw", "adamw_8bit", "sgd"), (4, 2, 1))[0],
        batch=batch,
        seq_len=length,
        padded=pick((False, False, True)),
        accumulation=pick((1, 1, 2)),
        checkpointing=pick((True, False)),
        attention=pick(("sdpa", "sdpa", "eager")),
        loss=pick(("full_logits", "fused")),
    )


def survey() -> list[Pair]:
    """All configurations, each once, in an order whose every beginning is a useful spread."""
    found = {key(shape, setup): (shape, setup) for shape, setup in (*anchors(), *drawn())}
    pairs = list(found.values())
    random.Random(1).shuffle(pairs)
    return pairs


def speeds() -> list[Pair]:
    """One change at a time around TRL's way at 4 x 1024, to be timed alone on a GPU."""
    one = ModelShape.preset("llama-3.2-1b")
    base = TrainingSetup(
        adapter_dtype="bfloat16", dropout=0.0, prepared=False, loss="fused", autocast=False
    )
    changes = (
        {},
        {"checkpointing": False},
        {"loss": "full_logits"},
        {"prepared": True, "adapter_dtype": "float32", "autocast": True},
        {"adapter_dtype": "float32", "autocast": True},
        {"dropout": 0.05},
        {"padded": True},
        {"attention": "eager"},
        {"optimizer": "adamw_8bit"},
        {"rank": 64},
        {"targets": ("q_proj", "v_proj")},
        {"method": "lora"},
        {"method": "qdora"},
        {"double_quant": False},
        {"batch": 2, "accumulation": 2},
        {"batch": 1, "accumulation": 4},
    )
    return [(one, replace(base, **change)) for change in changes]
