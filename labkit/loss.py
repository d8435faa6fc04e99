"""The next-token loss, plainly and without the table of logits.

    loss = mean over learnt t of  -log softmax(W h_{t-1})[label_t]

    symbol   shape             in code   meaning
    h        (tokens, hidden)  hidden    last hidden states
    W        (vocab, hidden)   weight    output embedding, frozen in LoRA
    label    (tokens,)         labels    token ids; IGNORE is not learnt

The plain form holds (tokens, vocab) logits several times over in float32: with Llama-3.2's 128,256
tokens they outweigh the whole 4-bit model. Here a chunk of rows makes its logits, its share of the
loss and at once its gradient, softmax - one-hot, and forgets the logits. Backward then only scales.

Source: Wijmans et al. 2024, Cut Your Losses, section 4, https://arxiv.org/abs/2411.09009 (idea).
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.data import IGNORE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_BYTES = 64 * 2**20  # of float32 logits that exist at one time: 130 rows of Llama 3's


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of the next token, over the labels that are not IGNORE.

    Args:
        logits: (batch, length, vocab); position t guesses token t + 1.
        labels: (batch, length), each under its own token.
    """
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int) -> Tensor:  # noqa: ANN401
        learnt = (labels != IGNORE).float()  # (tokens,)
        total = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden)
        train_weight = ctx.needs_input_grad[1]
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if train_weight else None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = (hidden[part] @ weight.T).float()
            target = labels[part].clamp(min=0).unsqueeze(1)
            norm = logits.logsumexp(dim=1, keepdim=True)
            total += (learnt[part] * (norm - logits.gather(1, target)).squeeze(1)).sum()
            slope = logits.sub_(norm).exp_()  # in place: softmax, then minus one-hot
            slope.scatter_add_(1, target, slope.new_full((), -1.0).expand_as(target))
            slope = slope.mul_(learnt[part].unsqueeze(1)).to(hidden.dtype)
            grad_hidden[part] = slope @ weight
            if grad_weight is not None:
                grad_weight += slope.T @ hidden[part]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype, ctx.learnt = weight.dtype, learnt.sum().clamp(min=1)
        return total / ctx.learnt

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        grad_hidden, grad_weight = ctx.saved_tensors
        # The mean is taken here: divided in the forward, float16 gradients of a long batch would
        # sink below its smallest numbers before a loss scale could lift them.
        factor = upstream / ctx.learnt
        if grad_weight is not None:
            grad_weight = (grad_weight * factor).to(ctx.weight_dtype)
        return grad_hidden * factor, grad_weight, None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int | None = None
) -> Tensor:
    """Mean cross entropy of `hidden @ weight.T` against `labels`; holds no (tokens, vocab) table.

    Args:
        hidden: (tokens, hidden_size).
        weight: (vocab, hidden_size).
        labels: (tokens,), already shifted: the token that each row guesses. IGNORE is left out;
            if every label is IGNORE the loss is 0.
        chunk: rows whose logits exist at one time; None: as many as fill CHUNK_BYTES.

    Raises:
        ValueError: if rows and labels differ in number, or `chunk` is below 1.
    """
    if hidden.shape[:1] != labels.shape:
        raise ValueError(f"{len(hidden)} hidden states, labels {tuple(labels.shape)}: one each")
    if chunk is None:
        chunk = max(1, CHUNK_BYTES // (torch.float32.itemsize * len(weight)))
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1 row")
    return _LinearCrossEntropy.apply(hidden, weight, labels, chunk)


def causal_loss(model: nn.Module, batch: dict[str, Tensor], select: bool = True) -> Tensor:
    """The next-token loss of a causal model on a right-padded batch.

    No attention mask is given: padding stands behind every real token, and a causal model looks
    back only. Its labels are IGNORE, so what it computes there is never used.

    Args:
        model: a causal language model, plain, 4-bit or wrapped by PEFT.
        batch: "input_ids" and "labels", each (batch, length).
        select: leave rows out that are not learnt before the head; it makes shapes depend on the
            data, which a recorded CUDA graph cannot follow.
    """
    base: PreTrainedModel = getattr(model, "get_base_model", lambda: model)()
    head = base.get_output_embeddings()
    if not isinstance(head, nn.Linear):  # PEFT has wrapped it: let the model make its logits
        return next_token_loss(model(batch["input_ids"], use_cache=False).logits, batch["labels"])
    states = base.get_decoder()(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    hidden, labels = states[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    if select:
        learnt = labels != IGNORE
        hidden, labels = hidden[learnt], labels[learnt]
    return linear_cross_entropy(hidden, head.weight, labels)
