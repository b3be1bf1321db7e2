from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.config import FrontendConfig
from edgekd.models.build import build_student
from edgekd.models.students.student import Student
from edgekd.models.students.table import STUDENTS
from edgekd.quantization.calibration import calibrate, load_recipe
from edgekd.quantization.fake_quant import set_enabled
from edgekd.quantization.prepare import prepare

CONFIG = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    return build_student("hltdnn_ds", 4, 4_000, CONFIG)


def test_a_whole_student_is_gain_log_mel_norm_and_network(student: Student) -> None:
    student.gain.fill_(3.0)
    student.train()(torch.randn(8, 4_000))  # so that the norm's statistics are not those it starts with
    student.eval()
    waveform = 0.1 * torch.randn(2, 4_000)
    log_mel = student.frontend(3.0 * waveform)
    mean, variance = student.norm.running_mean, student.norm.running_var
    assert mean is not None
    assert variance is not None
    normalised = (log_mel - mean) / torch.sqrt(variance + student.norm.eps)
    torch.testing.assert_close(student.log_mel(waveform), normalised, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(student(waveform).logits, student.network(normalised).logits, rtol=1e-3, atol=1e-4)


def test_norm_is_over_mel_bins(student: Student) -> None:
    assert student.norm.num_features == CONFIG.n_mels
    normalised = student.train().log_mel(torch.randn(6, 4_000))
    torch.testing.assert_close(normalised.mean((0, 1, 2)), torch.zeros(32), rtol=0, atol=1e-4)
    torch.testing.assert_close(normalised.std((0, 1, 2), correction=0), torch.ones(32), rtol=0, atol=1e-3)


def test_frames_and_bins_are_averaged_before_the_norm_and_the_network() -> None:
    torch.manual_seed(0)
    steps = CONFIG.model_copy(update={"frames_per_step": 4, "bins_per_step": 2})
    student, whole = build_student("hltdnn_ds", 4, 4_000, steps), build_student("hltdnn_ds", 4, 4_000, CONFIG)
    waveform = torch.randn(2, 4_000)  # 32 frames
    log_mel = student.front_end(waveform)
    assert log_mel.shape == (2, 1, 8, 16)
    means = whole.front_end(waveform).unflatten(3, (16, 2)).unflatten(2, (8, 4)).mean(dim=(3, 5))
    torch.testing.assert_close(log_mel, means)
    assert student.norm.num_features == 16
    assert torch.equal(student.eval()(log_mel).logits, student(waveform).logits)


def test_gain_is_saved_with_the_weights(student: Student) -> None:
    student.gain.fill_(2.5)
    other = build_student("hltdnn_ds", 4, 4_000, CONFIG)
    other.load_state_dict(student.state_dict())
    assert other.gain == 2.5
    assert not [name for name in student.state_dict() if name.startswith("frontend")]


def test_augmentation_changes_what_the_network_sees(student: Student) -> None:
    student.eval()
    waveform, seen = torch.randn(1, 4_000), []

    def hide(log_mel: Tensor) -> Tensor:
        seen.append(log_mel)
        return torch.zeros_like(log_mel)

    hidden = student(waveform, hide).logits
    torch.testing.assert_close(seen[0], student.log_mel(waveform))
    torch.testing.assert_close(hidden, student.network(torch.zeros(1, 1, 32, 32)).logits)
    assert not torch.allclose(hidden, student(waveform).logits)


@pytest.mark.parametrize("name", sorted(STUDENTS))
def test_every_network_traces_for_quantisation(name: str) -> None:
    student = build_student(name, 4, 4_000, CONFIG).eval()
    log_mel = torch.randn(2, 1, 32, 32)
    traced = prepare(student.network, log_mel)
    set_enabled(traced, False)
    for part, expected in zip(traced(log_mel), student.network(log_mel), strict=True):
        torch.testing.assert_close(part, expected)


@pytest.mark.parametrize("name", sorted(STUDENTS))
def test_the_embedding_is_what_enters_the_classifier(name: str) -> None:
    student = build_student(name, 4, 4_000, CONFIG).eval()
    waveforms = torch.randn(3, 4_000)
    assert student(waveforms).embedding is None
    student.give_embedding()
    for _ in range(2):
        logits, _, embedding = student(waveforms)
        assert embedding is not None
        assert student.embedding_layer is not None
        assert embedding.shape == (3, student.embedding_layer.size)
        classifier = student.network.get_submodule("classifier")
        torch.testing.assert_close(classifier(embedding), logits)


def test_the_embedding_of_a_student_in_training_has_no_dropout(student: Student) -> None:
    student.give_embedding()
    embedding = student.train()(torch.randn(4, 4_000)).embedding
    assert embedding is not None
    assert (embedding == 0).float().mean() < 0.25, "a third is dropped after it"
    embedding.sum().backward()
    assert student.network.get_submodule("stem.0").weight.grad is not None


def test_the_embedding_of_a_quantised_student_is_rounded(student: Student) -> None:
    student.eval()
    log_mel = student.log_mel(torch.randn(2, 4_000))
    network = prepare(student.network, log_mel)
    calibrate(network, [log_mel], load_recipe("default"))
    student.network = network
    student.give_embedding()
    logits, _, embedding = student(torch.randn(2, 4_000))
    assert embedding is not None
    scale = network.layers()[-1][1].scale
    steps = embedding / scale
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    torch.testing.assert_close(network.layers()[-1][0](embedding, scale), logits)


def test_a_compiled_student_gives_its_embedding_too(student: Student) -> None:
    student.eval().give_embedding()
    log_mel = student.front_end(torch.randn(2, 4_000))
    compiled = torch.compile(student, fullgraph=True, backend="eager")
    for expected, found in zip(student(log_mel), compiled(log_mel), strict=True):
        torch.testing.assert_close(found, expected)
