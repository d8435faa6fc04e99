"""A batch in which each row has its own adapter: two thin products instead of one weight a row.

    y_i = W x_i + s_k B_k A_k x_i           k = which[i]; -1: the base alone

    symbol   shape                   in code    meaning
    x        (batch, length, in)     x          one sequence a row
    k        (batch,)                which      the slot of each row's adapter, -1 for none
    A        (slots, rank, in)       A          of every adapter, one behind another
    B        (slots, out, rank)      B          the same; a smaller rank is filled up with zeros
    s        (slots,)                scales     alpha / rank of each

W x is one product for the whole batch, whoever the rows belong to. A loop over the adapters reads W
once for each of them; a token at a time, reading W is what takes the time.

Source: Chen et al. 2023, Punica, https://arxiv.org/abs/2310.18547, whose kernel reads A and B where
they lie. A[which] here copies the factors of each row first, so rows of one adapter copy it twice.
Left out on purpose: rows of different length without padding, and gradients.
"""

import torch
from torch import Tensor, nn


def gathered(x: Tensor, A: Tensor, B: Tensor, scales: Tensor, which: Tensor) -> Tensor:
    """What each row's adapter adds: (batch, length, out), zero where a row has none.

    Two batched products, whatever the number of adapters; no `B @ A` is formed.

    Args:
        x: (batch, length, in), one sequence a row.
        A, B: (slots, rank, in) and (slots, out, rank).
        scales: (slots,), alpha / rank of each adapter.
        which: (batch,), the slot of each row's adapter; -1: none.
    """
    slot = which.clamp(min=0)
    scale = torch.where(which < 0, 0, scales[slot]).to(x.dtype)
    thin = x @ A[slot].mT.to(x.dtype)  # (batch, length, rank)
    return (scale[:, None, None] * thin) @ B[slot].mT.to(x.dtype)


def looped(x: Tensor, A: Tensor, B: Tensor, scales: Tensor, which: Tensor) -> Tensor:
    """The same by a loop over the adapters: one pair of products for each that has a row."""
    out = x.new_zeros(*x.shape[:-1], B.shape[1])
    for slot in which.unique().tolist():
        if slot >= 0:
            rows = which == slot
            update = scales[slot].to(x.dtype) * (x[rows] @ A[slot].T.to(x.dtype))
            out[rows] = update @ B[slot].T.to(x.dtype)
    return out


class Rows:
    """Whose row is whose: the one thing that all maps of a model read at each forward pass."""

    def __init__(self) -> None:
        self.which: Tensor | None = None  # (batch,), or None: every row is the base's


class GatherLinear(nn.Module):
    """A frozen linear map with slots for updates; each row of a batch takes the one of its slot.

    Args:
        base: any module that maps (..., in) to (..., out) and has in_features and out_features.
        slots: how many adapters it holds.
        rank: the largest that a slot takes.
        rows: says which row takes which slot; shared by all maps of a model.
        like: its dtype and device are those of the slots.
    """

    def __init__(self, base: nn.Module, slots: int, rank: int, rows: Rows, like: Tensor) -> None:
        super().__init__()
        self.base, self.rows = base.requires_grad_(False), rows
        self.in_features, self.out_features = base.in_features, base.out_features
        kind = {"device": like.device, "dtype": like.dtype}
        self.register_buffer("A", torch.zeros(slots, rank, base.in_features, **kind))
        self.register_buffer("B", torch.zeros(slots, base.out_features, rank, **kind))
        self.register_buffer("scales", torch.zeros(slots, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, in) to (batch, length, out).

        Raises:
            ValueError: if the batch has not as many rows as were given adapters.
        """
        which = self.rows.which
        if which is None:
            return self.base(x)
        if x.ndim != 3 or len(x) != len(which):
            raise ValueError(
                f"x is {tuple(x.shape)}, adapters were chosen for {len(which)} rows: "
                "x has to be (rows, length, in)"
            )
        return self.base(x) + gathered(x, self.A, self.B, self.scales, which)

    @torch.no_grad()
    def put(self, slot: int, A: Tensor, B: Tensor, scale: float) -> None:
        """Write an update into a slot: A (r, in), B (out, r), r at most the rank of the slots."""
        rank = len(A)
        self.A[slot].zero_()
        self.B[slot].zero_()
        self.A[slot, :rank].copy_(A)
        self.B[slot, :, :rank].copy_(B)
        self.scales[slot] = scale

    def extra_repr(self) -> str:
        slots, rank, _ = self.A.shape
        return f"slots={slots}, rank={rank}"
