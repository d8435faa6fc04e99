"""One training step by hand, the same for fake tensors on a CPU and for real ones on a GPU.

Zero, forward under autocast where the setup says so, backward, clip, optimizer: what Trainer does,
without its bookkeeping. `mark` is called with a phase's name as it ends: "forward" where the last
norm has its output, "loss" where the gradient has come back to it, then "backward", "optimizer".
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from labkit.data import IGNORE
from labkit.loss import linear_cross_entropy
from labkit.memory.setup import TrainingSetup
from labkit.memory.shapes import ModelShape

PADS = 8  # tokens that the last row of a padded batch is short of


def batch_of(shape: ModelShape, setup: TrainingSetup, device: str) -> dict[str, Tensor]:
    """Random ids, every one learnt but those that pad; an attention mask where there are any."""
    ids = torch.randint(shape.vocab, (setup.batch, setup.seq_len), device=device)
    batch = {"input_ids": ids, "labels": ids.clone()}
    if setup.padded:
        pads = min(PADS, setup.seq_len - 1)
        batch["attention_mask"] = torch.ones_like(ids)
        batch["attention_mask"][-1, -pads:] = 0
        batch["labels"][-1, -pads:] = IGNORE
    return batch


def loss_of(model: nn.Module, batch: dict[str, Tensor], setup: TrainingSetup) -> Tensor:
    """The loss by the path that the setup names."""
    if setup.loss == "full_logits":
        return model(**batch, use_cache=False).loss
    if setup.stack == "trl":
        return model(**batch, use_cache=False, fused_lm_head=True).loss
    base = getattr(model, "get_base_model", lambda: model)()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if setup.stack == "labkit":  # causal_loss gives no mask: padding stands behind the real tokens
        inputs.pop("attention_mask", None)
    states = base.get_decoder()(**inputs, use_cache=False).last_hidden_state
    hidden, labels = states[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    return linear_cross_entropy(hidden, base.get_output_embeddings().weight, labels)


def phased(model: nn.Module, mark: Callable[[str], None]) -> None:
    """Let `mark` know when the layers end and when the gradient comes back to them."""
    base = getattr(model, "get_base_model", lambda: model)()

    def ended(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401
        mark("forward")
        if output.requires_grad:
            output.register_hook(lambda grad: mark("loss"))

    base.get_decoder().norm.register_forward_hook(ended)


def optimizer_of(model: nn.Module, setup: TrainingSetup) -> torch.optim.Optimizer:
    """The optimizer over what trains; in 8 bits embeddings keep wide moments, as Trainer has it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if setup.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=1e-4, fused=True)
    if setup.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1e-4)
    import bitsandbytes as bnb

    if setup.optimizer == "paged_adamw_32bit":
        return bnb.optim.PagedAdamW32bit(trained, lr=1e-4)
    manager = bnb.optim.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
    return bnb.optim.AdamW8bit(trained, lr=1e-4)


def step(
    model: nn.Module,
    optimizer: Any,  # noqa: ANN401
    batches: list[dict[str, Tensor]],
    setup: TrainingSetup,
    mark: Callable[[str], None],
) -> None:
    """One optimizer step over `setup.accumulation` micro-batches."""
    device = batches[0]["input_ids"].device.type
    for batch in batches:
        with torch.autocast(device, torch.bfloat16) if setup.autocast else nullcontext():
            loss = loss_of(model, batch, setup) / setup.accumulation
        loss.backward()
        mark("backward")
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    mark("optimizer")
    optimizer.zero_grad(set_to_none=True)
