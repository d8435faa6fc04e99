"""What PEFT's prepare_model_for_kbit_training changes, as a table.

It freezes every parameter, casts what is not quantised and stands in half precision to float32
(norms, embeddings, head), lets gradients flow out of the embedding, and switches gradient
checkpointing on. It touches no dropout, and a run without it does not turn into NaN.

Source: peft/utils/other.py, prepare_model_for_kbit_training, PEFT 0.21.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.table import Table

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class State:
    """A model as training meets it: bytes of its parameters by dtype, and its switches."""

    bytes_by_dtype: dict[str, int]  # "4-bit" holds the packed codes, without their constants
    trainable: int  # parameters that require a gradient, packed ones counted as stored
    checkpointing: bool

    @property
    def rows(self) -> dict[str, str]:
        sizes = {f"{d}, MiB": f"{n / 2**20:,.2f}" for d, n in sorted(self.bytes_by_dtype.items())}
        return sizes | {
            "parameters that require a gradient": f"{self.trainable:,}",
            "gradient checkpointing": "on" if self.checkpointing else "off",
        }


@dataclass(frozen=True)
class Prepared:
    """The state before and after; shows itself as a table of three columns."""

    before: State
    after: State

    @property
    def table(self) -> Table:
        before, after = self.before.rows, self.after.rows
        names = dict.fromkeys([*before, *after])  # in order, each once
        rows = [(name, before.get(name, "0.00"), after.get(name, "0.00")) for name in names]
        return Table(("", "before", "after"), rows)

    def __str__(self) -> str:
        return str(self.table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def state(model: "PreTrainedModel") -> State:
    """Bytes by dtype, what requires a gradient, and whether checkpointing is on."""
    sizes: dict[str, int] = {}
    for p in model.parameters():
        packed = getattr(p, "quant_state", None) is not None
        kind = "4-bit" if packed else str(p.dtype).removeprefix("torch.")
        sizes[kind] = sizes.get(kind, 0) + p.numel() * p.element_size()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    checkpointing = any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    return State(sizes, trainable, checkpointing)


def prepare(model: "PreTrainedModel", checkpointing: bool = True) -> Prepared:
    """Run PEFT's prepare_model_for_kbit_training on `model`, in place; returns what it changed.

    Args:
        checkpointing: recompute each layer in the backward pass instead of keeping its
            activations: slower, and far smaller where a batch holds thousands of tokens.
    """
    from peft import prepare_model_for_kbit_training

    before = state(model)
    prepare_model_for_kbit_training(
        model,
        use_gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    return Prepared(before, state(model))
