"""The closed form's terms as text, for a reader who wants to check a number by hand.

N, n, P    parameters of all, of the projections of all layers, of what trains
L, V       layers, vocabulary
s, c, p    bytes of a number of the residual stream, of computation, of the adapters
"""

from labkit.memory import kept
from labkit.memory.kept import Widths

MOMENTS = {
    "adamw": "2 moments, as wide as what trains: 2 p P",
    "adamw_8bit": "2 (1 + 4/256) P, but 8 bytes each in tensors below 4,096 numbers",
    "paged_adamw_32bit": "8 bytes each in tensors below 100,000 numbers; the others are paged",
    "sgd": "none",
}


def rules(w: Widths, phase: str) -> dict[str, str]:
    """A kind of bytes -> how the closed form counts it at the peak in `phase`."""
    setup, shape = w.setup, w.shape
    tables = "V h" if shape.tied else "2 V h"
    codes = f"n / 2 + {w.table} (norms, biases)"
    one = "n / 64 + 4 n / 16,384 + 2 KiB a map" if setup.double_quant else "4 n / 64"
    return {
        "weights": codes if setup.quantized else f"{w.base} (N - {tables})",
        "constants": one,
        "embeddings": f"{w.table} {tables}",
        "adapters": f"{w.adapter} P, P = L r sum(in + out)",
        "gradients": "as many bytes as what trains, once they are there",
        "optimizer": MOMENTS[setup.optimizer],
        "activations": activations(w, phase),
        "logits": logits(w),
        "dequantisation": "a weight unpacked or cast to 16 bits for one product",
        "workspace": "2 x 32 MiB for cuBLAS, 24 T for the batch, cos and sin",
    }


def logits(w: Widths) -> str:
    if w.setup.loss == "full_logits":
        return "12 V T: log-softmax, its gradient, the gradient of the logits, in float32"
    return "a tile of the logits: 32,768 columns" if w.setup.stack == "trl" else "tiles of 64 MiB"


def activations(w: Widths, phase: str) -> str:
    """What the layers keep, the tensors of one layer summed by their formulas."""
    if phase == "optimizer":
        return "what hangs on the loss: 2 s h T"
    layer = kept_text(w)
    if not w.setup.checkpointing:
        return f"L ({layer})"
    inputs = f"L {w.stream} h T, the input of each layer"
    return f"{inputs}; one layer whole: {layer}" if phase == "backward" else inputs


def kept_text(w: Widths) -> str:
    """The tensors that one layer keeps, as one sum; equal formulas are counted."""
    counted: dict[str, int] = {}
    for each in kept.layer(w.shape, w.setup):
        counted[each.formula] = counted.get(each.formula, 0) + 1
    return " + ".join(text if n == 1 else f"{n} ({text})" for text, n in counted.items())
