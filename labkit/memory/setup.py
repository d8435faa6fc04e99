"""What a run is: every choice that moves the memory of one training step.

    TrainingSetup(method="qlora", rank=16, batch=4, seq_len=1024)
    TrainingSetup(stack="trl", batch=4)         as TRL's SFTTrainer does it

The same words, "QLoRA of a 1B model", stand for runs whose memory differs fivefold. What differs is
what libraries do on their own: a cast of the embedding to float32, adapters in one precision or the
other, the whole table of logits or a tile of it. So each of these is a field. A field that a
library decides is None until it is asked for: then it is what the `stack` does, and without a stack
what USUAL says. A value of your own wins over both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from labkit.memory.shapes import PROJECTIONS, SetupError

METHODS = ("full", "lora", "qlora", "dora", "qdora")
DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_32bit", "sgd")
CHOICES = {
    "method": METHODS,
    "adapter_dtype": tuple(DTYPES),
    "base_dtype": tuple(DTYPES),
    "optimizer": OPTIMIZERS,
    "attention": ("sdpa", "eager"),
    "loss": ("full_logits", "fused"),
}
LIMITS = {"rank": 1, "batch": 1, "seq_len": 2, "accumulation": 1}  # smallest values
SWITCHES = ("double_quant", "prepared", "autocast", "padded", "checkpointing")
USUAL = {
    "adapter_dtype": "float32",
    "dropout": 0.05,
    "prepared": True,
    "autocast": True,
    "checkpointing": True,
    "loss": "full_logits",
}
STACKS: dict[str, dict[str, Any]] = {
    # Trainer(bf16=True) on get_peft_model(prepare_model_for_kbit_training(model)).
    "transformers+peft": USUAL,
    # SFTTrainer(model, peft_config=...): no prepare, 4-bit models get bfloat16 adapters.
    "trl": USUAL | {"prepared": False, "dropout": 0.0, "loss": "fused"},
    # labkit.train.attach and fit: no autocast, float32 adapters, labkit.loss.
    "labkit": USUAL
    | {
        "prepared": False,
        "autocast": False,
        "dropout": 0.0,
        "checkpointing": False,
        "loss": "fused",
    },
}


@dataclass(frozen=True)
class TrainingSetup:
    """One way to train; every field moves the memory of a step.

    Args:
        method: "full", "lora", "qlora", "dora" or "qdora"; the two with a q freeze 4-bit weights.
        rank: of the adapters; without effect in "full".
        targets: "all-linear" or names of projections that get an adapter.
        adapter_dtype: precision of A and B.
        dropout: of the adapters' input, 0 to below 1.
        base_dtype: what the model is loaded in: the weights, or in 4 bits all that is not packed.
        double_quant: quantise the 4-bit constants too.
        prepared: prepare_model_for_kbit_training ran; acts on the 4-bit methods alone.
        autocast: the forward pass runs under torch.autocast in bfloat16.
        optimizer: moments follow the parameter's dtype in torch ("adamw", "sgd" keeps none).
        batch, seq_len: rows of a micro-batch and tokens of a row.
        padded: some row is shorter, so an attention mask is needed.
        accumulation: micro-batches a step; from two on, gradients live through the forward pass.
        checkpointing: keep the input of each layer and compute the rest again.
        attention: "sdpa" or "eager".
        loss: "full_logits", or "fused": the table of logits is never held whole.
        stack: None, "transformers+peft", "trl" or "labkit".

    Raises:
        SetupError: names the field, the value and the range.
    """

    method: str = "qlora"
    rank: int = 16
    targets: str | Sequence[str] = "all-linear"
    adapter_dtype: str | None = None
    dropout: float | None = None
    base_dtype: str = "bfloat16"
    double_quant: bool = True
    prepared: bool | None = None
    autocast: bool | None = None
    optimizer: str = "adamw"
    batch: int = 4
    seq_len: int = 1024
    padded: bool = False
    accumulation: int = 1
    checkpointing: bool | None = None
    attention: str = "sdpa"
    loss: str | None = None
    stack: str | None = None

    def __post_init__(self) -> None:
        if self.stack is not None and self.stack not in STACKS:
            raise SetupError(f"stack={self.stack!r}: None or one of {', '.join(STACKS)}")
        for name, value in _usual(self.stack, self.method).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if not isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(self.targets))
        for check in (_choices, _numbers, _targets, _together):
            check(self)

    @property
    def quantized(self) -> bool:
        """Whether the frozen projections are packed in 4 bits."""
        return self.method in ("qlora", "qdora")

    @property
    def trainer(self) -> bool:
        """Whether the loop is a Trainer's."""
        return self.stack in ("trl", "transformers+peft")

    @property
    def adapted(self) -> bool:
        """Whether adapters train, and not the model itself."""
        return self.method != "full"

    @property
    def magnitudes(self) -> bool:
        """Whether each adapter has DoRA's magnitude vector."""
        return self.method in ("dora", "qdora")

    @property
    def target_names(self) -> tuple[str, ...]:
        """The projections that get an adapter; none in "full"."""
        if not self.adapted:
            return ()
        return PROJECTIONS if self.targets == "all-linear" else tuple(self.targets)

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.batch * self.seq_len

    def with_stack(self, stack: str | None) -> "TrainingSetup":
        """The same run on another stack, which decides anew what a stack decides."""
        return replace(self, **dict.fromkeys(USUAL), stack=stack)


def _usual(stack: str | None, method: str) -> dict[str, Any]:
    """What a stack decides; TRL casts the adapters of 4-bit models alone to bfloat16."""
    found = STACKS[stack] if stack else USUAL
    if stack == "trl" and method in ("qlora", "qdora"):
        return found | {"adapter_dtype": "bfloat16"}
    return found


def _choices(setup: TrainingSetup) -> None:
    for name, choices in CHOICES.items():
        if getattr(setup, name) not in choices:
            raise SetupError(f"{name}={getattr(setup, name)!r}: one of {', '.join(choices)}")
    for name in SWITCHES:
        if not isinstance(getattr(setup, name), bool):
            raise SetupError(f"{name}={getattr(setup, name)!r}: True or False")


def _numbers(setup: TrainingSetup) -> None:
    for name, least in LIMITS.items():
        value = getattr(setup, name)
        if type(value) is not int or value < least:
            raise SetupError(f"{name}={value!r}: a whole number, at least {least}")
    number = isinstance(setup.dropout, int | float) and not isinstance(setup.dropout, bool)
    if not number or not 0 <= setup.dropout < 1:
        raise SetupError(f"dropout={setup.dropout!r}: a number from 0 to below 1")


def _targets(setup: TrainingSetup) -> None:
    if setup.targets == "all-linear":
        return
    names = setup.targets
    if isinstance(names, str) or not names or set(names) - set(PROJECTIONS):
        raise SetupError(f'targets={names!r}: "all-linear" or some of {", ".join(PROJECTIONS)}')
    if len(set(names)) < len(names):
        raise SetupError(f"targets={names!r}: each projection at most once")


def _together(setup: TrainingSetup) -> None:
    """Refuse what no library runs."""
    if setup.autocast and setup.base_dtype == "float16":
        raise SetupError(
            'base_dtype="float16": "bfloat16" or "float32" with autocast=True, which computes in '
            "bfloat16"
        )
    if not setup.adapted and setup.base_dtype == "float16":
        raise SetupError(
            'base_dtype="float16": "bfloat16" or "float32" with method="full", since float16 is '
            "too narrow for the moments of Adam"
        )
    if setup.adapted and setup.adapter_dtype == "float16" and setup.base_dtype != "float16":
        raise SetupError(
            f'adapter_dtype="float16": "float32" or "bfloat16" with base_dtype='
            f'"{setup.base_dtype}", which has a wider range'
        )


def differences(setup: TrainingSetup, other: TrainingSetup) -> dict[str, tuple[Any, Any]]:
    """The fields in which two setups differ, each with both values."""
    pairs = {f.name: (getattr(setup, f.name), getattr(other, f.name)) for f in fields(setup)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
