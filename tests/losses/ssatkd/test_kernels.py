"""The kernels of the texture terms against PyTorch's operators: on a GPU, or by Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgekd.losses.ssatkd import kernels, transport
from edgekd.losses.ssatkd.banded import Named, along, band_of, matrix_of, resized
from edgekd.losses.ssatkd.kernels import in_kernels, use_kernels, uses_kernels, without_kernels
from edgekd.losses.ssatkd.statistical import StatisticalTexture, statistical_loss
from edgekd.losses.ssatkd.structural import StructuralTexture
from edgekd.losses.ssatkd.transport import transport_cost

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")


def _missing() -> str:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return "" if DEVICE.type == "cuda" or INTERPRETED else "no GPU, and Triton does not interpret here"


computed = pytest.mark.skipif(bool(_missing()), reason=_missing() or "-")


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """`on()` has kernels compute on `DEVICE`, to the end of the test."""
    monkeypatch.setattr(kernels, "_on", set())
    yield lambda: kernels._on.add(DEVICE.type)


@pytest.mark.skipif(not _missing().startswith("no GPU"), reason="computed here as it is, or not at all")
def test_the_kernels_as_triton_interprets_them() -> None:
    files = ("losses/ssatkd/test_kernels.py", "training/test_narrow_convolutions.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-k", "kernel", "-rs"]
    command += [Path(__file__).parents[2] / file for file in files]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Triton" not in done.stdout, done.stdout  # no kernel was left out


@computed
@pytest.mark.parametrize(("n", "m"), [(9, 5), (16, 16)])
def test_a_kernel_transports_as_the_operators_do(n: int, m: int, on: Callable[[], None]) -> None:
    torch.manual_seed(n)
    a, b = torch.rand(3, n).softmax(1), (4 * torch.randn(3, m)).softmax(1)
    a[:, 0] = 0
    a, b = (each.to(DEVICE).requires_grad_() for each in (a / a.sum(1, keepdim=True), b))
    cost = torch.cdist(torch.rand(3, n, 2), torch.rand(3, m, 2)).to(DEVICE).requires_grad_()
    found = []
    for prepare in (lambda: None, on):
        prepare()
        value = transport_cost(a, b, cost)
        found.append((value, *torch.autograd.grad(value.sum(), (a, b, cost))))
    for expected, values in zip(*found, strict=True):
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-7)


def test_more_bins_than_a_kernel_holds_are_left_to_the_operators(
    on: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on()
    taken = []
    monkeypatch.setattr(transport, "transport_plan", lambda a, b, cost: taken.append(cost.shape) or (a, b, cost))
    for bins in (transport.KERNEL_BINS, transport.KERNEL_BINS + 1):
        shares = torch.full((1, bins), 1 / bins, device=DEVICE)
        transport_cost(shares, shares, torch.ones(1, bins, bins, device=DEVICE))
    assert taken == [(1, 64, 64)]


@computed
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_kernel_multiplies_by_banded_matrices(turned: bool, channels_last: bool) -> None:
    torch.manual_seed(0)
    for height, width in (
        (Named("down", (13, 2, 0), turned), Named("down", (9, 2, 0), turned)),
        (Named("up", (13, 2, 1), turned), Named("sum", (9, 2, 1), turned)),
        (Named("difference", (40, 3, 3), turned), Named("resize", (7, 3), turned)),
    ):
        matrices = [matrix_of(each.name, *each.numbers) for each in (height, width)]
        matrices = [(matrix.mT if turned else matrix).float().to(DEVICE).contiguous() for matrix in matrices]
        maps = torch.randn(2, 3, matrices[0].shape[1], matrices[1].shape[1], device=DEVICE, requires_grad=True)
        if channels_last:
            maps = maps.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        expected, values = matrices[0] @ maps @ matrices[1].mT, along(height, width, maps)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
        weight = torch.randn_like(values)
        gradients = [torch.autograd.grad((each * weight).sum(), maps)[0] for each in (values, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
        numbers = ([*height.numbers], width.name, [*width.numbers], [turned, turned], torch.float32)
        torch.library.opcheck(
            torch.ops.edgekd.banded_product.default,
            (maps.detach().permute(0, 2, 3, 1), height.name, *numbers),
            test_utils="test_faketensor",
        )


def test_rows_of_zeros_do_not_widen_a_band() -> None:
    """A map that is padded far has many, and a kernel's loops are as long as its band is wide."""
    for numbers in ((250, 3, 0), (1, 5, 0), (32, 3, 1)):
        for turned in (False, True):
            assert len(band_of("down", numbers, turned, torch.device("cpu")).shares) <= 6
    assert len(band_of("resize", (501, 250), True, torch.device("cpu")).shares) <= 2


@computed
@pytest.mark.parametrize(("shape", "levels"), [((2, 3, 13, 18), 3), ((1, 2, 24, 1), 2)])
def test_textures_are_the_same_in_kernels(shape: tuple[int, ...], levels: int, on: Callable[[], None]) -> None:
    def terms(student: Tensor, teacher: Tensor) -> Tensor:
        structural = StructuralTexture(levels).distance(student, teacher)
        statistical = statistical_loss(*(StatisticalTexture(3, "relative")(each) for each in (student, teacher)))
        return torch.stack((structural, statistical, resized(student, shape[2] // 2 + 1, shape[3]).square().mean()))

    torch.manual_seed(0)
    maps = [torch.randn(shape, device=DEVICE, requires_grad=True) for _ in range(2)]
    found = []
    for prepare in (lambda: None, on):
        prepare()
        values = terms(*maps)
        found.append((values, *torch.autograd.grad(values.sum(), maps)))
    for expected, values in zip(*found, strict=True):
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6)


@computed
def test_a_compiler_takes_a_pyramid_in_kernels_whole(on: Callable[[], None]) -> None:
    def distance(student: Tensor, teacher: Tensor) -> Tensor:
        return StructuralTexture(2).distance(resized(student, 12, 9), teacher)

    torch.manual_seed(0)
    student = torch.randn(2, 3, 25, 9, device=DEVICE, requires_grad=True)
    teacher, found = torch.randn(2, 3, 12, 9, device=DEVICE), []
    on()
    for run in (distance, torch.compile(distance, backend="aot_eager", fullgraph=True)):
        value = run(student, teacher)
        found.append((value, *torch.autograd.grad(value, student)))
    for expected, values in zip(*found, strict=True):
        torch.testing.assert_close(values, expected)


def test_only_a_device_whose_kernels_compute_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_on", set())
    assert use_kernels(torch.device("cpu")) == ""
    assert not uses_kernels(torch.device("cpu")) and not in_kernels(torch.zeros(1))

    def broken(_device: torch.device) -> None:
        raise RuntimeError("no compiler here\nand a long explanation")

    monkeypatch.setattr(kernels, "_try", broken)
    assert use_kernels(torch.device("cuda")) == "RuntimeError: no compiler here"
    assert not uses_kernels(torch.device("cuda"))
    monkeypatch.setattr(kernels, "_try", lambda _device: None)
    assert use_kernels(torch.device("cuda")) == ""
    assert uses_kernels(torch.device("cuda"))
    with without_kernels():
        assert not uses_kernels(torch.device("cuda"))
    assert uses_kernels(torch.device("cuda"))


@computed
def test_kernels_that_agree_with_pytorch_pass_the_trial(on: Callable[[], None]) -> None:
    kernels._try(DEVICE)
