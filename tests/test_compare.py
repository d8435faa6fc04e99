"""Each way in which an answer can differ is named, the first slip first."""

import pytest
import torch

from labkit.exercises.compare import count_slip, tensor_slip

WANT = torch.tensor([[1.0, 2.0], [3.0, 400.0]])


@pytest.mark.parametrize(
    ("got", "slip"),
    [
        (None, "your code returned None: is a `return` missing?"),
        ([1.0], "the output must be a tensor, not list"),
        (WANT[0], "the output has shape (2,); it must be (2, 2)"),
        (WANT.half(), "the output has dtype torch.float16; it must be torch.float32"),
        (WANT / 0, "the output holds NaN or infinity"),
        (WANT * float("nan"), "the output holds NaN or infinity"),
        (WANT + 0.5, "the output is off by up to 0.5"),
        (WANT + 0.01, "the output is off by up to 0.01"),  # 1e-5 of 400 is 0.004
        (WANT + 0.001, None),
        (WANT.clone().requires_grad_(), None),
    ],
)
def test_a_tensor_that_differs_is_told_how(got, slip):
    assert tensor_slip(got, WANT, "the output") == slip


def test_two_empty_tensors_are_equal():
    assert tensor_slip(torch.zeros(0, 2), torch.zeros(0, 2)) is None


@pytest.mark.parametrize(
    ("got", "slip"),
    [
        (None, "your code returned None: is a `return` missing?"),
        (2.0, "the count must be a whole number (int), not float 2.0"),
        (True, "the count must be a whole number (int), not bool True"),
        (torch.tensor(2), "the count must be a whole number (int), not Tensor tensor(2)"),
        (2, None),
    ],
)
def test_what_is_no_count_is_told_why(got, slip):
    assert count_slip(got) == slip
