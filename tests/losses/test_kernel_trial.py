from __future__ import annotations

import pytest
import torch

from edgekd.losses.kernel_trial import check_alike, why_not


def test_a_trial_that_fails_says_why_in_a_line() -> None:
    def broken(_device: torch.device) -> None:
        raise RuntimeError("no compiler here\nand a long explanation")

    assert why_not(broken, torch.device("cpu")) == "RuntimeError: no compiler here"
    assert why_not(lambda _device: None, torch.device("cpu")) == ""


def test_a_kernel_that_computes_something_else_is_refused() -> None:
    check_alike("resizing", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.00001]), 1e-5)
    for wrong in (torch.tensor([1.0, 2.1]), torch.tensor([1.0, torch.nan])):
        with pytest.raises(RuntimeError, match=r"resizing differs from PyTorch's by (0\.05|nan) of the largest value"):
            check_alike("resizing", wrong, torch.tensor([1.0, 2.0]), 1e-5)
