"""Instructions that the emulator counts: of the log-mel and of all, of a second of a stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.config import FrontendConfig
from edgekd.errors import GateError
from edgekd.exporting.budget import untrained
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES, Core
from edgekd.microcontrollers.c.count import Instructions, instructions
from edgekd.microcontrollers.c.measure import compiled
from edgekd.microcontrollers.c.model import model_files
from tests.microcontrollers.c.programs import needs_emulator

pytestmark = needs_emulator
RATE, SAMPLES = 4_000, 4_000
M4 = CORES["cortex-m4"]


def files(hop: int, fixed_point: bool = False) -> dict[str, str]:
    frontend = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)
    deployable = untrained(("hltdnn_micro", 0.5), 3, frontend, RATE, SAMPLES, "int8")
    assert deployable.network is not None
    return model_files(deployable.student, deployable.network, SAMPLES, hop, fixed_point)


@pytest.fixture(scope="module")
def pcm() -> NDArray[np.int16]:
    return (3_000 * np.random.default_rng(0).standard_normal(SAMPLES)).astype(np.int16)


@pytest.fixture(scope="module")
def apart(pcm: NDArray[np.int16], tmp_path_factory: pytest.TempPathFactory) -> Instructions:
    return counted(files(SAMPLES), M4, pcm, tmp_path_factory.mktemp("apart"))


def counted(model: dict[str, str], core: Core, pcm: NDArray[np.int16], folder: Path) -> Instructions:
    folder.mkdir(exist_ok=True)
    return instructions(model, compiled(model, core, folder), core, pcm)


def test_windows_that_overlap_share_the_log_mel_and_not_the_network(
    apart: Instructions, pcm: NDArray[np.int16], tmp_path: Path
) -> None:
    twice = counted(files(2_048), M4, pcm, tmp_path)
    assert apart.total > apart.log_mel > 10_000
    assert twice.network / apart.network == pytest.approx(SAMPLES / 2_048, rel=0.1)
    assert twice.log_mel / apart.log_mel == pytest.approx(1, abs=0.2)  # but for frames at the ends of a window


def test_the_longest_push_makes_more_rows_than_others(apart: Instructions) -> None:
    pushes = RATE / apart.push_samples
    assert apart.push_samples == 128
    assert 1.5 * apart.total / pushes < apart.longest_push < apart.total / 3


def test_a_core_without_an_fpu_takes_more_for_the_log_mel_and_far_more_in_float(
    apart: Instructions, pcm: NDArray[np.int16], tmp_path: Path
) -> None:
    in_float, fixed = (
        counted(files(SAMPLES, kind), CORES["cortex-m0plus"], pcm, tmp_path / f"{kind}") for kind in (False, True)
    )
    assert in_float.log_mel > 6 * fixed.log_mel > 6 * apart.log_mel


def test_an_emulator_that_does_not_know_the_board_is_told_of(tmp_path: Path) -> None:
    newer = replace(M4, emulated=replace(M4.emulated, machine="mps9-an999"))
    with pytest.raises(GateError, match=r"count.elf on an emulated cortex-m4 failed: .*unsupported machine"):
        toolchain.emulate(tmp_path / "count.elf", newer)
