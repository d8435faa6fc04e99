"""What a frozen linear map applies, whatever stores its weight.

    dense(base)     W, shape (out, in), of

    nn.Linear       its weight, as it is: no copy
    NF4Linear       labkit's own; its codes, decoded
    Linear4bit      bitsandbytes'; its codes, decoded by bitsandbytes

Left out on purpose: 8-bit maps, and maps whose weight is spread over several machines.
"""

from torch import Tensor, nn


def dense(base: nn.Module) -> Tensor:
    """The weight that `base` applies, shape (out, in), in the dtype it computes with.

    Raises:
        TypeError: if `base` is no linear map that this knows.
    """
    if hasattr(base, "dense"):
        return base.dense()
    weight = getattr(base, "weight", None)
    if getattr(weight, "quant_state", None) is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state)
    if isinstance(weight, Tensor) and weight.is_floating_point() and weight.ndim == 2:
        return weight
    raise TypeError(
        f"{type(base).__name__} has no weight of shape (out, in) in floating point: "
        "nn.Linear, NF4Linear and bitsandbytes' Linear4bit have one"
    )
