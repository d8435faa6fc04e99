"""One training loop: what trains, how a step goes, what happened, and what to do when it fails.

    attach(model, rank, alpha)            LoRA on all seven projections, by PEFT
    fit(model, items, Settings(...))      trains in place, returns its History

Every step: clear the gradients, loss, backward, clip, AdamW. The learning rate rises linearly over
the warm-up and falls linearly to zero. A run is the same for the same seed, and goes on bit for bit
from its checkpoint (on a CPU; a GPU's sums may differ in their last bit).
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from labkit import checkpoint
from labkit.data import IGNORE, Encoded, batches
from labkit.history import History, Settings, Step, TrainingStopped, advice, ran_out
from labkit.loss import causal_loss

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Count:
    """Parameters that train, of all of them; a 4-bit weight counts by its values."""

    trainable: int
    total: int

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} train ({self.trainable / self.total:.2%})"

    __repr__ = __str__


def count(model: nn.Module) -> Count:
    """What trains in `model`, with packed 4-bit weights counted by the values they stand for."""
    sizes = [
        (math.prod(p.quant_state.shape) if getattr(p, "quant_state", None) else p.numel(), p)
        for p in model.parameters()
    ]
    return Count(sum(n for n, p in sizes if p.requires_grad), sum(n for n, _ in sizes))


def lora_parameters(config: Any, rank: int) -> int:  # noqa: ANN401
    """Parameters of LoRA at `rank` on the seven projections of a Llama, from its config alone."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention = 2 * (hidden + queries) + 2 * (hidden + keys)  # q and o, k and v: in + out
    mlp = 3 * (hidden + inner)  # gate, up, down
    return config.num_hidden_layers * rank * (attention + mlp)


def on_meta(
    config: "PretrainedConfig", rank: int, targets: str | Sequence[str] = "all-linear"
) -> "PeftModel":
    """A model of this config with LoRA on it, as shapes without any numbers."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return attach(AutoModelForCausalLM.from_config(config), rank, targets=targets)


def count_for_config(
    config: "PretrainedConfig", rank: int, targets: str | Sequence[str] = "all-linear"
) -> Count:
    """What LoRA would train in a model of this config, whose weights need not be here."""
    return count(on_meta(config, rank, targets))


def attach(
    model: nn.Module,
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "all-linear",
) -> "PeftModel":
    """LoRA on `model` by PEFT; everything else is frozen. A and B are float32.

    Raises:
        ValueError: from PEFT, if a target matches nothing.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def learning_rate(step: int, settings: Settings) -> float:
    """The rate of step 0, 1, ..: up over the warm-up, then down to zero behind the last step."""
    rise = max(1, round(settings.warmup * settings.steps))
    fall = max(1, settings.steps - rise)
    return settings.lr * min((step + 1) / rise, (settings.steps - step) / fall, 1.0)


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Any,  # noqa: ANN401
    loss_of: Loss,
    clip: float,
) -> float:
    """Clear, loss, backward, clip, step; the loss before the step."""
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def _learnt(batch: dict[str, Tensor]) -> int:
    return int((batch["labels"][:, 1:] != IGNORE).sum())


def accumulated(loss_of: Loss) -> Loss:
    """`loss_of` over several micro-batches: the mean over all their learnt tokens at once.

    All but the last micro-batch go backward here, so that their activations are freed.
    """

    def total(model: nn.Module, parts: Sequence[dict[str, Tensor]]) -> Tensor:
        shares = [_learnt(part) for part in parts]
        if not sum(shares):
            raise ValueError(
                f"no token is learnt in {sum(len(p['labels']) for p in parts)} examples: "
                "every label is masked; was the answer cut off, or its role named wrongly?"
            )
        known = 0.0
        for part, share in zip(parts[:-1], shares[:-1], strict=True):
            loss = loss_of(model, part) * (share / sum(shares))
            loss.backward()
            known += loss.item()
        return loss_of(model, parts[-1]) * (shares[-1] / sum(shares)) + known

    return total


def finite(loss_of: Loss) -> Loss:
    """`loss_of` that stops the run before a loss that is no number spoils the weights."""

    def checked(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401
        loss = loss_of(model, batch)
        if not torch.isfinite(loss):
            raise NotFinite(f"the loss is {loss.item()}")
        return loss

    return checked


class NotFinite(ArithmeticError):
    """A loss or a gradient that is no number."""


def _refuse_broken_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """A finite loss can have a gradient that is not: one step with it would spoil every weight."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
    if not torch.isfinite(norm):
        raise NotFinite("the gradient is not finite")


@contextmanager
def _between_steps() -> Iterator[Callable[[], bool]]:
    """Within it an interrupt waits for the step to end; what is yielded says whether one came."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _all_of(
    groups: Sequence[dict[str, Any]], trained: Sequence[nn.Parameter]
) -> Sequence[dict[str, Any]]:
    """The groups themselves, once it is sure that they hold all that trains and nothing else."""
    held = {id(p) for group in groups for p in group["params"]}
    if held != {id(p) for p in trained}:
        raise ValueError(
            f"the groups hold {len(held)} parameters and {len(trained)} train: give each that "
            "trains a group, and no other"
        )
    return groups


class _Run:
    """The state of one call of `fit`."""

    def __init__(
        self, model: nn.Module, settings: Settings, groups: Sequence[dict[str, Any]] | None
    ) -> None:
        self.model, self.settings = model, settings
        trained = list(checkpoint.trained(model).values())
        if not trained:
            raise ValueError("nothing trains: attach adapters first, or unfreeze the model")
        self.device = trained[0].device
        self.optimizer = torch.optim.AdamW(
            _all_of(groups, trained) if groups else trained,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.optimizer.register_step_pre_hook(_refuse_broken_gradients)
        self.shares = [group["lr"] / settings.lr for group in self.optimizer.param_groups]
        self.steps: list[Step] = []
        self.random = checkpoint.random_state()
        if settings.checkpoint:
            checkpoint.make_room(settings.checkpoint)

    def save(self) -> str:
        if self.settings.checkpoint is None:
            return "nothing is kept on disk, since Settings(checkpoint=...) named no file"
        said = {"steps": [asdict(step) for step in self.steps], "seed": self.settings.seed}
        checkpoint.save(self.settings.checkpoint, self.model, self.optimizer, said)
        return f"step {len(self.steps)} is kept in {self.settings.checkpoint.name}"

    def resume(self) -> None:
        if self.settings.checkpoint is None:
            raise ValueError("resume needs Settings.checkpoint, the file to go on from")
        said = checkpoint.load(self.settings.checkpoint, self.model, self.optimizer)
        self.steps = [Step(**step) for step in said["steps"]]

    def rescue(self, error: BaseException) -> "TrainingStopped":
        """Back to the end of the last whole step, kept on disk; what to tell the learner."""
        self.optimizer.zero_grad()
        checkpoint.set_random_state(self.random)
        try:
            kept = self.save()
        except checkpoint.CheckpointError as no_room:
            kept = f"and {no_room}"
        return TrainingStopped(advice(error, self.settings, len(self.steps) + 1, kept))

    def step(self, parts: list[dict[str, Tensor]], loss_of: Loss) -> Step:
        begin, number = time.perf_counter(), len(self.steps)
        self.random = checkpoint.random_state()  # a broken step gives it back
        rate = learning_rate(number, self.settings)
        for group, share in zip(self.optimizer.param_groups, self.shares, strict=True):
            group["lr"] = share * rate
        moved = [{k: v.to(self.device) for k, v in part.items()} for part in parts]
        loss = training_step(self.model, self.optimizer, moved, loss_of, self.settings.clip)
        tokens = sum(part["input_ids"].numel() for part in parts)
        seconds = time.perf_counter() - begin
        return Step(number + 1, self.settings.steps, loss, rate, tokens, seconds)


def fit(
    model: nn.Module,
    items: Sequence[Encoded],
    settings: Settings,
    on_step: Callable[[Step], None] | None = None,
    loss: Loss = causal_loss,
    resume: bool = False,
    groups: Sequence[dict[str, Any]] | None = None,
) -> History:
    """Train what trains in `model`, in place.

    Args:
        items: encoded examples; a step takes `batch * accumulate` of them.
        on_step: called after each step, for a progress bar or a curve.
        resume: go on from `settings.checkpoint`.
        groups: of the optimizer, as `variants.lora_plus` makes them: the rate of each keeps its
            ratio to `settings.lr` over all steps. None: what trains, in one group.

    Raises:
        TrainingStopped: the loss is no number, memory ran out, the run was interrupted or the
            checkpoint could not be written; the message says what to change and what is kept.
        ValueError: if nothing trains, the groups are not what trains, or a batch is larger than
            the data.
    """
    torch.manual_seed(settings.seed)
    run = _Run(model, settings, groups)
    if resume:
        run.resume()
    was_training = model.training
    model.train()
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    try:
        with _between_steps() as interrupted:
            _steps(run, items, finite(accumulated(loss)), on_step, interrupted)
    finally:
        model.train(was_training)
    cuda = run.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(run.device) if cuda else None
    return History(tuple(run.steps), peak)


def _steps(
    run: _Run,
    items: Sequence[Encoded],
    loss_of: Loss,
    on_step: Callable[[Step], None] | None,
    interrupted: Callable[[], bool],
) -> None:
    settings, parts = run.settings, []
    start, total = len(run.steps) * settings.accumulate, settings.steps * settings.accumulate
    for part in batches(items, settings.batch, total, 0, settings.seed, start):
        parts.append(part)
        if len(parts) < settings.accumulate:
            continue
        try:
            run.steps.append(run.step(parts, loss_of))
            run.random = checkpoint.random_state()
            if on_step:
                on_step(run.steps[-1])
            if interrupted():
                raise KeyboardInterrupt
            if settings.checkpoint_every and len(run.steps) % settings.checkpoint_every == 0:
                run.save()
        except (NotFinite, KeyboardInterrupt) as error:
            raise run.rescue(error) from error
        except (RuntimeError, MemoryError) as error:
            if ran_out(error):
                raise run.rescue(error) from error
            raise
        except checkpoint.CheckpointError as error:
            raise TrainingStopped(f"stopped after step {len(run.steps)}: {error}") from error
        parts = []
