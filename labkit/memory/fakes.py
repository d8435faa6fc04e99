"""What a CPU does otherwise than a GPU, done as the GPU does it, for tensors without values.

A dry run executes the model's code on a CPU with fake tensors. Left alone it would count what CPU
kernels keep. So, while `gpu_manners` holds:

    attention   fused: keeps q, k, v, the output and a log-sum-exp; with a mask also the mask as
                numbers (flash and memory-efficient kernels)
    softmax     on its way back holds the product of gradient and output beside both
    logsumexp   holds a difference as large as its input
    dropout     keeps one byte a number, not noise as wide as the input
    autocast    torch.is_autocast_enabled() answers for the CPU
    TRL's tile  is folded by a kernel that needs nothing beside it
    Linear4bit  is a map whose unpacked weight is seen (`Packed`)
    optimizers  of bitsandbytes hold the state that they would hold on a GPU (`Held`)

Source: aten/src/ATen/native/transformers/cuda/attention.cu and attention_backward.cu, SoftMax.cu,
Dropout.cpp; bitsandbytes 0.50, autograd/_functions.py and backends/cuda/ops.py.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from labkit.memory.parts import optimizer_bytes
from labkit.memory.setup import TrainingSetup

FUSED_ROWS = 512  # more rows than this unpack a large 4-bit map also in the forward pass (sm_90)
LARGE = 4 * 2**20  # values of a map that counts as large there


class _Attention(torch.autograd.Function):
    """Fused attention by its sizes: (batch, heads, length, head_dim) in and out."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ANN401
        batch, heads, length, width = q.shape
        out = q.new_empty(batch, length, heads, width).transpose(1, 2)
        sums = q.new_empty(batch, heads, length, dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums, mask)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q, k, v, *_ = ctx.saved_tensors
        gathered = torch.empty_like(q, dtype=torch.float32)  # dq is summed in float32
        grads = [torch.empty_like(q)]
        if k.shape[1] < q.shape[1]:  # keys and values of a group: one gradient for each query head
            wide = [torch.empty_like(q), torch.empty_like(q)]
            grads += [torch.empty_like(k), torch.empty_like(v)]
            del wide
        else:
            grads += [torch.empty_like(k), torch.empty_like(v)]
        del gathered
        return (*grads, None)


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)
    return _Attention.apply(query, key, value, attn_mask)


class _Softmax(torch.autograd.Function):
    """Softmax of float32 scores; its way back multiplies gradient and output first."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:  # noqa: ANN401
        out = torch.empty_like(scores)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        both = torch.empty_like(grad)
        back = torch.empty_like(grad)
        del both
        return back


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(input, p, True)[0] if training and p else input


class _Product(torch.autograd.Function):
    """x W^T with a 4-bit W, which is unpacked for each product and never kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:  # noqa: ANN401
        ctx.layer = layer
        rows = x.numel() // x.shape[-1]
        large = layer.out_features * layer.in_features >= LARGE
        if rows > 1536 or (large and rows > FUSED_ROWS):
            constants = layer.unpacked_constants(), layer.unpacked_constants()
            weight = x.new_empty(layer.out_features, layer.in_features)
            out = x.new_empty(*x.shape[:-1], layer.out_features)
            del constants, weight
            return out
        return x.new_empty(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        weight = ctx.layer.dense().to(grad.dtype)
        return torch.matmul(grad, weight), None


def packed_class() -> type[nn.Module]:
    """The stand-in for bitsandbytes' map; a class of its own so that PEFT knows it."""
    import bitsandbytes as bnb

    class Packed(bnb.nn.Linear4bit):
        """A 4-bit map by its sizes: codes, constants, and what unpacking them takes."""

        def __init__(self, layer: nn.Linear, setup: TrainingSetup, device: str) -> None:
            nn.Module.__init__(self)
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.wide = getattr(torch, setup.base_dtype)
            half = setup.base_dtype == "float16"
            self.compute_dtype = torch.float16 if half else torch.bfloat16
            n = self.in_features * self.out_features
            blocks = math.ceil(n / 64)
            self.blocks = blocks if setup.double_quant else 0
            codes = torch.empty(math.ceil(n / 2), 1, dtype=torch.uint8, device=device)
            self.weight = nn.Parameter(codes, requires_grad=False)
            self.weight.compress_statistics = setup.double_quant
            self.weight.quant_type = "nf4"
            sizes = [blocks, 4 * math.ceil(blocks / 256), 4, 64, 1024]
            if not setup.double_quant:
                sizes = [4 * blocks, 64]
            self.constants = [torch.empty(s, dtype=torch.uint8, device=device) for s in sizes]
            self.bias = None
            if layer.bias is not None:
                bias = torch.empty(self.out_features, dtype=self.wide, device=device)
                self.bias = nn.Parameter(bias)

        def unpacked_constants(self) -> Tensor:
            return torch.empty(self.blocks, dtype=torch.float32)

        def dense(self) -> Tensor:
            constants = self.unpacked_constants()
            weight = torch.empty(self.out_features, self.in_features, dtype=self.wide)
            del constants
            return weight

        def forward(self, x: Tensor) -> Tensor:
            out = _Product.apply(x.to(self.compute_dtype), self)
            if self.bias is not None:
                out = out + self.bias.to(self.compute_dtype)
            return out.to(x.dtype)

    return Packed


class Held:
    """An optimizer of bitsandbytes by the state that it holds on the GPU."""

    def __init__(self, trained: list[nn.Parameter], wide: set[int], kind: str) -> None:
        self.trained, self.wide, self.kind = trained, wide, kind
        self.state: list[Tensor] = []

    def step(self) -> None:
        if self.state:
            return
        for p in self.trained:
            kind = "adamw" if id(p) in self.wide else self.kind
            size = optimizer_bytes([p.numel()], kind, 4)
            self.state += [torch.empty(size // 2, dtype=torch.uint8) for _ in range(2) if size]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.trained:
            p.grad = None


_logsumexp_of = torch.Tensor.logsumexp


def _logsumexp(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """Its kernels work on x less its largest, which is as large as x (ReduceOps.cpp)."""
    less = torch.empty_like(x)
    out = _logsumexp_of(x, dim, keepdim)
    del less
    return out


def _module_to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:  # noqa: ANN401
    """Module.to for fake parameters, which cannot be swapped in place; there is one device."""
    _, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            if dtype is not None and p.is_floating_point() and p.dtype is not dtype:
                wide = nn.Parameter(p.detach().to(dtype), requires_grad=p.requires_grad)
                setattr(part, name, wide)
    return module


@contextmanager
def gpu_manners() -> Iterator[None]:
    """Within it PyTorch, PEFT and TRL keep what they keep on a GPU."""
    from peft.tuners.lora import dora
    from transformers import masking_utils

    functional = torch.nn.functional
    enabled = torch.is_autocast_enabled

    def softmax(x: Tensor, dim: int = -1, _stacklevel: int = 3, dtype: Any = None) -> Tensor:  # noqa: ANN401
        return _Softmax.apply(x.to(dtype or x.dtype))

    def dense(module: nn.Module) -> Tensor:
        return module.dense() if hasattr(module, "dense") else module.weight

    patches = [
        mock.patch.object(functional, "scaled_dot_product_attention", _sdpa),
        mock.patch.object(functional, "softmax", softmax),
        mock.patch.object(functional, "dropout", _dropout),
        mock.patch.object(torch, "is_autocast_enabled", lambda kind="cpu": enabled(kind)),
        mock.patch.object(masking_utils, "find_packed_sequence_indices", lambda *_, **__: None),
        mock.patch.object(nn.Module, "to", _module_to),
        mock.patch.object(torch.Tensor, "logsumexp", _logsumexp),
        mock.patch.object(dora, "dequantize_module_weight", dense),
    ]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


@contextmanager
def trl_manners() -> Iterator[None]:
    """Within it TRL's fused head folds its tiles as its kernels do, beside nothing."""
    from trl.kernels import chunked_logprob

    names = ("_forward_tile", "_backward_tile", "_addmm_fp32")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(chunked_logprob, name, lambda *_, **__: None))
        yield
