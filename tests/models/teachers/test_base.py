"""What holds for every teacher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekd._torchaudio import functional
from edgekd.config import FrontendConfig
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher, mean_and_max, repeat_frames
from edgekd.models.teachers.table import TEACHERS
from edgekd.models.weights import read_weights, save_weights

QUICK = ("mobilenetv1", "yamnet", "convnet")  # the two large ones are in test_panns.py, built once


@pytest.fixture(scope="module", params=QUICK)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, num_classes: int) -> Teacher:
    return TEACHERS[name].build(num_classes, 22_050, FrontendConfig(f_max=11_000.0), None).eval()


@pytest.fixture(scope="module")
def teacher(name: str) -> Teacher:
    torch.manual_seed(0)
    return build(name, 3)


def noise(seconds: float, rate: int = 22_050, clips: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(clips, int(seconds * rate), generator=torch.Generator().manual_seed(1))


def test_logits_embedding_and_tap_have_the_promised_shapes(teacher: Teacher) -> None:
    with torch.no_grad():
        output = teacher(noise(1.2))
        embedding, tap = teacher.embed(noise(1.2))
    assert isinstance(output, TeacherOutput)
    assert output.logits.shape == (2, 3)
    assert embedding.shape == (2, teacher.embedding_size)
    assert output.tap.shape[:2] == (2, teacher.tap_channels) and output.tap.ndim == 4
    assert torch.equal(output.logits, teacher.head(embedding)) and torch.equal(output.tap, tap)


def test_the_tap_alone_equals_the_tap_of_the_whole(teacher: Teacher) -> None:
    with torch.no_grad():
        assert torch.equal(teacher.tap(noise(1.2)), teacher(noise(1.2)).tap)


def test_evaluation_is_deterministic(teacher: Teacher) -> None:
    with torch.no_grad():
        first, second = teacher(noise(1.0)), teacher(noise(1.0))
    assert torch.equal(first.logits, second.logits) and torch.equal(first.tap, second.tap)


def test_a_clip_of_a_tenth_of_a_second_is_enough(teacher: Teacher) -> None:
    with torch.no_grad():
        assert teacher(noise(0.11)).logits.isfinite().all()


def test_silence_gives_finite_logits(teacher: Teacher) -> None:
    with torch.no_grad():
        assert teacher(torch.zeros(1, 22_050)).logits.isfinite().all()


def test_every_weight_can_be_fine_tuned(teacher: Teacher) -> None:
    teacher(noise(0.5)).logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in teacher.parameters())
    teacher.zero_grad()


def test_an_adapted_teacher_is_saved_and_loaded_without_its_head(name: str, teacher: Teacher, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_weights(path, teacher.state_dict())
    assert not any(name.endswith(("kernel", "window", "mel_weights")) for name in read_weights(path))
    other = build(name, 5)
    head = other.head.weight.clone()
    other.load_pretrained(path)
    with torch.no_grad():
        assert torch.equal(other.embed(noise(0.5))[0], teacher.embed(noise(0.5))[0])
    assert torch.equal(other.head.weight, head)


@pytest.mark.parametrize("name", ["mobilenetv1", "yamnet"])
def test_a_teacher_hears_the_same_at_any_rate(name: str) -> None:
    own_rate = TEACHERS[name].own_rate
    assert own_rate is not None
    torch.manual_seed(0)
    at_own, at_other = (
        TEACHERS[name].build(3, own_rate, FrontendConfig(), None),
        TEACHERS[name].build(3, 48_000, FrontendConfig(), None),
    )
    at_other.load_state_dict(at_own.state_dict())
    waveform = noise(0.5, 48_000)
    resampled = functional.resample(waveform, 48_000, own_rate)
    with torch.no_grad():
        torch.testing.assert_close(at_other.eval()(waveform), at_own.eval()(resampled))


def test_mean_and_max_pools_as_panns_do() -> None:
    features = torch.tensor([[[[1.0, 3.0], [5.0, 7.0], [0.0, 0.0]]]])  # means over frequency: 2, 6, 0
    torch.testing.assert_close(mean_and_max(features), torch.tensor([[6 + 8 / 3]]))


def test_short_features_are_repeated_in_time_and_long_ones_kept() -> None:
    features = torch.arange(3.0).reshape(1, 1, 3, 1)
    assert repeat_frames(features, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert repeat_frames(features, 2) is features


def test_listing_the_teachers_imports_no_torch() -> None:
    check = (
        "import sys; from edgekd.models.teachers.table import TEACHERS; assert TEACHERS and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
