"""No float32 is rounded to TF32 where exactness is promised; elsewhere all is as the program had it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import backends, nn

from edgekd.config import ProfileConfig
from edgekd.exact_float32 import exact_float32
from edgekd.profiling.profiler import profile
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.prepare import prepare
from edgekd.quantization.qat import quantize
from edgekd.runs.at_work import at_work
from edgekd.runs.run import Run

EXACT = ["ieee"] * 7

# What a program may have set, by older switches and newer ones; each in a process of its own, as they remember.
CHOICES = (
    "pass",
    "backends.cudnn.allow_tf32 = False",
    "backends.cuda.matmul.allow_tf32 = True",
    "torch.set_float32_matmul_precision('medium')",
    "backends.fp32_precision = 'tf32'",
    "backends.cudnn.conv.fp32_precision = 'ieee'",
    "backends.cuda.matmul.fp32_precision = 'tf32'",
    "backends.mkldnn.conv.fp32_precision = 'bf16'",
    "backends.mkldnn.fp32_precision = 'bf16'",
)

PROGRAM = """
import os
import torch
from torch import backends
from edgekd.exact_float32 import exact_float32
from tests.test_exact_float32 import CHOICES, EXACT, state, switches

def check(choice):
    exec(choice)
    before = state()
    try:
        with exact_float32():
            assert switches() == EXACT, (choice, switches())
            inside = state()
            with exact_float32():
                assert switches() == EXACT, choice
            assert state() == inside, choice
            raise KeyError
    except KeyError:
        pass
    assert state() == before, (choice, before, state())

for choice in CHOICES:
    child = os.fork()
    if child == 0:
        check(choice)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, choice
"""


def switches() -> list[str]:
    return [
        backends.cudnn.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.cudnn.rnn.fp32_precision,
        backends.cuda.matmul.fp32_precision,
        backends.mkldnn.conv.fp32_precision,
        backends.mkldnn.rnn.fp32_precision,
        backends.mkldnn.matmul.fp32_precision,
    ]


def state() -> list[Any]:
    """All switches, older ones too; None for one that will not say."""
    found: list[Any] = [*switches(), backends.fp32_precision]
    for read in (
        lambda: backends.cudnn.allow_tf32,
        lambda: backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision,
    ):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found


@contextmanager
def watched() -> Iterator[list[list[str]]]:
    """The switches at each convolution that is computed within it."""
    seen: list[list[str]] = []

    def note(module: nn.Module, *_: object) -> None:
        if isinstance(module, nn.Conv2d):
            seen.append(switches())

    hook = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def test_it_is_exact_within_and_as_it_was_after() -> None:
    subprocess.run([sys.executable, "-W", "error::UserWarning:__main__", "-c", PROGRAM], check=True)


def test_the_older_switches_can_be_read_within() -> None:
    """The compiler, and `torch.backends.cudnn.flags`, do."""
    with exact_float32(), backends.cudnn.flags(enabled=True, allow_tf32=False):
        assert backends.cudnn.allow_tf32 is False
        assert torch.get_float32_matmul_precision() == "highest"


def test_whoever_writes_a_run_computes_exactly(tmp_path: Path) -> None:
    assert switches() != EXACT
    with at_work(tmp_path / "run", "cpu"):
        assert switches() == EXACT
    assert switches() != EXACT


def test_a_network_is_made_int8_exactly() -> None:
    class Network(nn.Sequential):
        def forward(self, log_mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
            tap = self[0](log_mel)
            return self[1](tap).mean((2, 3)), tap

    network, log_mel = Network(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)), torch.randn(2, 1, 8, 8)
    with watched() as prepared:
        rounded = prepare(network, log_mel)
    assert prepared and all(seen == EXACT for seen in prepared)
    seen: list[list[str]] = []
    rounded.register_forward_pre_hook(lambda *_: seen.append(switches()))
    calibrate(rounded, [log_mel], CalibrationRecipe())
    assert seen == [EXACT]


def test_an_int8_student_is_trained_and_subjects_are_profiled_exactly(tiny_copy: Run) -> None:
    with watched() as seen:
        quantize(tiny_copy)
    assert seen and all(each == EXACT for each in seen)
    with watched() as seen:
        profile(
            tiny_copy.folder / "student", ProfileConfig(backends=("torch",), repetitions=2, seconds=0.1, layers=False)
        )
    assert seen and all(each == EXACT for each in seen)
