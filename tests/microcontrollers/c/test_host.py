"""A whole classifier in C on this machine: sound in pieces of any size, windows that overlap, scores as in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c.host import HostClassifier, classify, in_16_bits
from edgekd.microcontrollers.c.model import model_files, state_bytes, whole_frames
from edgekd.microcontrollers.integer.layers import SHARE
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.reference import classifier_of
from edgekd.models.build import build_student
from edgekd.models.students.student import Student
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.prepare import QuantizedNetwork, prepare
from tests.microcontrollers.c.programs import needs_host

pytestmark = needs_host
RATE, SAMPLES = 4_000, 3_000
CLASSES = ("a", "b", "c", "d", "e")
PANNS = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)
YAMNET = FrontendConfig(convention="yamnet", n_mels=32, f_min=50, f_max=1_900, frames_per_step=3, bins_per_step=2)


@dataclass(frozen=True)
class InC:
    hear: HostClassifier
    hop: int
    student: Student
    network: QuantizedNetwork
    expected: NDArray[np.float32]
    clips: NDArray[np.float32]


def in_c(config: FrontendConfig, hop: int) -> InC:
    """A student whose norms know the clips, sixteen of 16 bits, and what numpy says of them."""
    config = config.at(RATE)
    rng = np.random.default_rng(0)
    tones = np.sin(np.linspace(0.05, 3, 16)[:, None] * np.arange(SAMPLES)) + 0.1 * rng.standard_normal((16, SAMPLES))
    levels = 10 ** rng.uniform(-3, -0.5, (16, 1))
    clips = in_16_bits((levels * tones).astype(np.float32)).astype(np.float32) / 32768
    student, network = quantised_student(config, torch.from_numpy(clips))
    reference = classifier_of(lower(network, *config.shape(SAMPLES)), student.log_mel)
    expected = reference(torch.from_numpy(clips)).numpy()
    hear = HostClassifier(model_files(student, network, SAMPLES, hop))
    return InC(hear, hop, student, network, expected, clips)


def quantised_student(config: FrontendConfig, clips: torch.Tensor) -> tuple[Student, QuantizedNetwork]:
    torch.manual_seed(0)
    student = build_student("hltdnn_micro", len(CLASSES), RATE, config, samples=SAMPLES)
    student.gain.fill_(1.7)
    student.train()
    with torch.no_grad():
        for _ in range(20):
            student(clips)
        student.network.classifier.weight.mul_(8)  # type: ignore[union-attr, operator]
    student.eval()
    log_mel = student.log_mel(clips).detach()
    network = prepare(student.network, log_mel)
    calibrate(network, [log_mel], CalibrationRecipe(observer="absmax"))
    return student, network


@pytest.fixture(scope="module")
def panns() -> InC:
    return in_c(PANNS, whole_frames(1_000, PANNS))  # 1024: three windows at once, which share frames


@pytest.fixture(scope="module")
def yamnet() -> InC:
    return in_c(YAMNET, 1_111)  # no whole number of frames


@pytest.mark.parametrize("convention", ["panns", "yamnet"])
def test_scores_are_those_of_numpy(convention: str, request: pytest.FixtureRequest) -> None:
    each: InC = request.getfixturevalue(convention)
    assert np.abs(classify(each.hear)(each.clips) - each.expected).max() < 0.01
    assert each.expected.std(axis=0).max() > 0.01  # they tell clips apart


@pytest.mark.parametrize("convention", ["panns", "yamnet"])
def test_windows_of_a_long_recording_are_those_on_their_own(convention: str, request: pytest.FixtureRequest) -> None:
    each: InC = request.getfixturevalue(convention)
    hop, sound = each.hop, in_16_bits(np.concatenate(each.clips[:5]))
    alone = [each.hear.window(sound[start : start + SAMPLES]) for start in range(0, len(sound) - SAMPLES + 1, hop)]
    rng = np.random.default_rng(1)
    for largest in (1, 7, 200, hop):
        each.hear.start()
        at, found = 0, []
        while at < len(sound):
            count = int(rng.integers(1, largest + 1))
            scores = each.hear.push(sound[at : at + count])
            at += count
            if scores is not None:
                found.append(scores)
        assert np.array_equal(found, alone)


def test_a_gap_between_windows_is_not_heard(panns: InC) -> None:
    sparse = HostClassifier(model_files(panns.student, panns.network, SAMPLES, 2 * SAMPLES))
    sound = in_16_bits(np.concatenate(panns.clips[:4]))
    sparse.start()
    assert np.array_equal(sparse.push(sound[: 2 * SAMPLES]), panns.hear.window(sound[:SAMPLES]))
    assert np.array_equal(sparse.push(sound[2 * SAMPLES :]), panns.hear.window(sound[2 * SAMPLES : 3 * SAMPLES]))


def test_samples_are_rounded_and_cut_as_a_converter_does() -> None:
    clips = np.array([-2, -1, 0.4 / 32768, 0.6 / 32768, 1], np.float32)
    assert in_16_bits(clips).tolist() == [-32768, -32768, 0, 1, 32767]


def test_scores_of_a_window_add_up_to_one(panns: InC) -> None:
    assert abs(int(panns.hear.window(in_16_bits(panns.clips[0])).sum()) - SHARE) <= 5


@pytest.mark.parametrize("convention", ["panns", "yamnet"])
def test_the_memory_is_what_was_planned(convention: str, request: pytest.FixtureRequest) -> None:
    each: InC = request.getfixturevalue(convention)
    assert each.hear.state_bytes == state_bytes(each.hear.sizes)
