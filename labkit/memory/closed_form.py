"""The closed form: every phase of one training step by arithmetic, in under a millisecond.

    peak = max over phases of (what always stands there + what the phase holds)

    phase       what it holds beside the weights, the adapters and the moments
    forward     what each layer keeps (with checkpointing: its input), and one layer at work
    loss        all of that, and the logits with their gradients, or a tile of them
    backward    what is still kept, one layer whole, the gradients so far; the fuller of its ends
    optimizer   all gradients

The second step and every later one: Adam has made its moments in the first. Sources of the terms
stand where the terms are: parts.py, kept.py, working.py.
"""

import functools
import math

from labkit.memory import formulas, kept, working
from labkit.memory.breakdown import KINDS, Breakdown
from labkit.memory.kept import Kept, Widths
from labkit.memory.parts import optimizer_bytes, peak
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape, SetupError

CUBLAS = 2 * 32 * 2**20  # one workspace each for the forward and the backward thread (sm_90)
CONTEXT = 500 * 2**20
SPARE, SPARE_CHECKPOINTED, SPARE_KEPT = 1.03, 1.17, 1.10  # of 54 rows on an H100, 4 in 5 below
TABLES = 512 + 512 + 1024  # of a 4-bit map: NF4 codes, offset, codes of the constants


def reserved_of(top: int, shape: ModelShape, setup: TrainingSetup) -> int:
    """Bytes that PyTorch takes from the driver for a peak of `top` bytes, on the safe side.

    What is freed comes back as blocks that the next tensor may not fit. The rows that calibrate
    lie 1% to 42% over their peak. With full logits the room of one table more is what is lost, in
    most of them; else a share, larger where checkpointing frees and takes all the time.
    """
    if setup.loss == "full_logits":
        return round(SPARE * top) + 4 * shape.vocab * setup.tokens
    return round((SPARE_CHECKPOINTED if setup.checkpointing else SPARE_KEPT) * top)


def smi_of(reserved: int) -> int:
    """What nvidia-smi shows for it: reserved bytes and the CUDA context."""
    return reserved + CONTEXT


def check(shape: ModelShape, setup: TrainingSetup) -> None:
    """Refuse a setup that this model cannot run."""
    if setup.seq_len > shape.max_length:
        raise SetupError(f"seq_len={setup.seq_len}: 2 to {shape.max_length} for {shape.name}")


def estimate(shape: ModelShape, setup: TrainingSetup) -> Breakdown:
    """Bytes by kind at the peak of a training step, by arithmetic alone.

    Raises:
        SetupError: a sequence longer than the model's positions.
    """
    found = phases(shape, setup)
    phase, top = peak(found)
    reserved = reserved_of(top, shape, setup)
    return Breakdown(
        kinds=found[phase],
        phase=phase,
        reserved=reserved,
        smi=smi_of(reserved),
        engine="closed form",
        phases=found,
        rules=functools.partial(formulas.rules, Widths(shape, setup), phase),
    )


def phases(shape: ModelShape, setup: TrainingSetup) -> dict[str, dict[str, int]]:
    """Bytes by kind at the fullest moment of each phase of the second step."""
    check(shape, setup)
    step = Step(Widths(shape, setup), kept.layer(shape, setup))
    return {
        "forward": step.forward(),
        "loss": step.loss(),
        "backward": max(step.backward(), key=lambda kinds: sum(kinds.values())),
        "optimizer": step.holding(gradients=step.gradients, activations=step.left),
    }


class Step:
    """One training step: what stands there, and what each phase adds."""

    def __init__(self, widths: Widths, layer: tuple[Kept, ...]) -> None:
        self.w, self.layer = widths, layer
        shape, setup = widths.shape, widths.setup
        self.standing = resident(widths)
        self.gradients = trained_bytes(widths)
        self.so_far = self.gradients if setup.accumulation > 1 else 0
        self.edge = widths.stream * shape.hidden * setup.tokens  # the residual stream, once
        self.mask = working.mask_bytes(widths)
        whole = sum(each.bytes for each in layer)
        if setup.checkpointing:
            self.through = shape.layers * self.edge
            # A float32 stream is kept by the first norm as it is: the layer's input, counted.
            self.whole = whole - (self.edge if widths.stream == 4 else 0)
        else:
            # The embedding is frozen, so nothing goes back through the first norm of all.
            first = (4 * shape.hidden + 4) * setup.tokens if setup.adapted else 0
            self.through, self.whole = shape.layers * whole - first, whole
        # The embedding's output and its gradient hang on the loss as long as it has a name.
        hangs = setup.checkpointing and setup.adapted and not setup.trainer
        self.left = 2 * self.edge if hangs else 0

    def holding(self, **more: int) -> dict[str, int]:
        """What stands there, with the bytes of these kinds beside it."""
        return self.standing | more

    def forward(self) -> dict[str, int]:
        work, opened = working.forward(self.w, self.layer)
        before = self.left if self.so_far else 0  # of the micro-batch before
        return self.holding(
            gradients=self.so_far,
            activations=self.through + self.edge + self.mask + before + work,
            dequantisation=opened + working.cached(self.w),
        )

    def loss(self) -> dict[str, int]:
        work, opened, logits = working.loss(self.w)
        setup, h = self.w.setup, self.w.shape.hidden
        mask = self.mask if setup.checkpointing else 0
        before = self.left if self.so_far and setup.loss == "fused" else 0
        norm = (4 * h + 4) * setup.tokens  # the last one
        return self.holding(
            gradients=self.so_far,
            activations=self.through + norm + mask + before + work,
            dequantisation=opened,
            logits=logits,
        )

    def before_first(self) -> int:
        """Gradients that are there when the way back comes to the first layer."""
        one = sum(n * size for n, size in sizes(self.w))
        table = 0 if self.w.shape.tied else head_gradient(self.w)  # the embedding's comes last
        return self.gradients - one - table

    def backward(self) -> list[dict[str, int]]:
        """At the last layer, where all is kept; at the first, with all gradients; behind it."""
        shape, setup = self.w.shape, self.w.setup
        work, opened = working.backward(self.w, self.layer)
        table = head_gradient(self.w)
        waiting = table if self.so_far and shape.tied else 0  # for the embedding's share
        mask, one = (self.mask, self.whole) if setup.checkpointing else (0, 0)
        return [
            self.holding(
                gradients=(self.so_far or table) + waiting,
                activations=self.through + one + mask + work,
                dequantisation=opened,
            ),
            self.holding(
                gradients=self.so_far + waiting or self.before_first(),
                activations=self.edge + self.whole + mask + work,
                dequantisation=opened,
            ),
            self.holding(
                gradients=self.gradients + waiting + tied_gradients(self.w),
                activations=self.edge,
            ),
        ]


def resident(w: Widths) -> dict[str, int]:
    """What stands there through the whole step: weights, adapters, moments, workspaces."""
    shape, setup = w.shape, w.setup
    tables = shape.vocab * shape.hidden * (1 if shape.tied else 2)
    rest = shape.parameters - shape.linear - tables
    kinds = dict.fromkeys(KINDS, 0)
    kinds["embeddings"] = w.table * tables
    kinds["weights"] = w.table * rest + (w.base * shape.linear if not setup.quantized else 0)
    if setup.quantized:
        kinds["weights"] += shape.linear // 2
        kinds["constants"] = shape.layers * sum(
            _constants(out * wide, setup.double_quant) for out, wide in shape.projections.values()
        )
    if setup.adapted:
        kinds["adapters"] = trained_bytes(w)
    kinds["optimizer"] = moments(w)
    kinds["workspace"] = CUBLAS + 24 * setup.tokens + 2 * w.table * shape.head_dim * setup.seq_len
    return kinds


def _constants(values: int, double: bool) -> int:
    blocks = math.ceil(values / 64)
    return blocks + 4 * math.ceil(blocks / 256) + TABLES if double else 4 * blocks + 512


def sizes(w: Widths) -> list[tuple[int, int]]:
    """(numbers, bytes of each) of every trained tensor of one layer."""
    shape, setup = w.shape, w.setup
    found = []
    for name in setup.target_names:
        out, wide = shape.projections[name]
        found += [(setup.rank * wide, w.adapter), (setup.rank * out, w.adapter)]
        if setup.magnitudes:
            found.append((out, 4))
    if not setup.adapted:
        found += [(out * wide, w.base) for out, wide in shape.projections.values()]
        found += [(shape.projections[name][0], w.base) for name in shape.biased]
        found += [(shape.hidden, w.base)] * 2
        found += [(shape.head_dim, w.base)] * (2 * shape.qk_norm)
    return found


def moments(w: Widths) -> int:
    """Bytes of the optimizer's state; a full fine-tune's embeddings keep wide moments in 8 bits."""
    shape, setup = w.shape, w.setup
    total = shape.layers * sum(optimizer_bytes([n], setup.optimizer, e) for n, e in sizes(w))
    if not setup.adapted:
        table, norm = shape.vocab * shape.hidden, shape.hidden
        total += optimizer_bytes([norm], setup.optimizer, w.base)
        kind = "adamw" if setup.optimizer == "adamw_8bit" else setup.optimizer
        total += optimizer_bytes([table], kind, 4 if kind != setup.optimizer else w.base)
        if not shape.tied:
            total += optimizer_bytes([table], setup.optimizer, w.base)
    return total


def head_gradient(w: Widths) -> int:
    """Of a head that trains: there from the loss to the end of the backward pass."""
    return 0 if w.setup.adapted else w.base * w.shape.vocab * w.shape.hidden


def tied_gradients(w: Widths) -> int:
    """A tied table gets two gradients, as head and as embedding, and a third as their sum; the
    fused loss hands over one that the other is added to in place."""
    if w.setup.adapted or not w.shape.tied:
        return 0
    return head_gradient(w) * (2 if w.setup.loss == "full_logits" else 1)


def trained_bytes(w: Widths) -> int:
    """Bytes of all that trains, and of its gradients."""
    if w.setup.adapted:
        return w.shape.layers * sum(n * size for n, size in sizes(w))
    return w.base * w.shape.parameters
