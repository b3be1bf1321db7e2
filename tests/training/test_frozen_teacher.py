from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import FrontendConfig
from edgekd.errors import InputError
from edgekd.models.build import build_teacher
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.training.frozen_teacher import FrozenTeacher, fast_precision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def built() -> Teacher:
    torch.manual_seed(0)
    front_end = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900.0)
    return build_teacher("convnet", 3, None, 4_000, front_end)


@pytest.fixture
def teacher(built: Teacher) -> Teacher:
    return copy.deepcopy(built).train()


@pytest.fixture(scope="module")
def waveforms() -> Tensor:
    return 0.1 * torch.randn(4, 4_000, generator=torch.Generator().manual_seed(1))


def test_answers_are_those_of_the_teacher_in_eval_mode(teacher: Teacher, waveforms: Tensor) -> None:
    expected = copy.deepcopy(teacher).eval()(waveforms)
    frozen = FrozenTeacher(teacher, CPU, "float32")
    found = frozen(waveforms)
    torch.testing.assert_close(found.logits, expected.logits.detach())
    torch.testing.assert_close(found.tap, expected.tap.detach())
    torch.testing.assert_close(frozen.tap(waveforms), found.tap)


def test_nothing_of_the_teacher_can_change(teacher: Teacher, waveforms: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    frozen = FrozenTeacher(teacher, CPU)
    assert not frozen(waveforms).logits.requires_grad
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_can_keep_the_answers_for_its_backward_pass(precision: str, teacher: Teacher, waveforms: Tensor) -> None:
    frozen = FrozenTeacher(teacher, CPU, precision)  # type: ignore[arg-type]
    for tap in (frozen(waveforms).tap, frozen.tap(waveforms)):
        assert tap.dtype == torch.float32
        adapter = nn.Conv2d(tap.shape[1], 2, 1)
        adapter(tap).square().sum().backward()
        assert adapter.weight.grad is not None


def test_bfloat16_answers_are_near_those_of_float32(teacher: Teacher, waveforms: Tensor) -> None:
    exact = FrozenTeacher(teacher, CPU, "float32")(waveforms)
    rounded = FrozenTeacher(teacher, CPU, "bfloat16")(waveforms)
    for found, expected in zip(rounded, exact, strict=True):
        error = float((found - expected).norm() / expected.norm())
        assert 0 < error < 0.05


def test_a_processor_without_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for amx, avx, expected in ((False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda able=amx: able)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=avx: able)
        assert fast_precision(CPU) == expected
    assert fast_precision(torch.device("cuda")) == "bfloat16"


class Small(nn.Module):
    """A teacher on a device with memory for `most` clips."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.asked: list[int] = []

    def tap(self, waveforms: Tensor) -> Tensor:
        self.asked.append(len(waveforms))
        if len(waveforms) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return waveforms[:, :6].view(-1, 1, 2, 3) ** 2

    def forward(self, waveforms: Tensor) -> TeacherOutput:
        return TeacherOutput(waveforms[:, :3], self.tap(waveforms))


def test_batches_that_do_not_fit_the_memory_are_heard_in_parts() -> None:
    small, waveforms = Small(most=3), torch.randn(14, 8)
    frozen = FrozenTeacher(small, CPU, "float32")  # type: ignore[arg-type]
    for found in (frozen(waveforms).tap, frozen.tap(waveforms)):
        assert torch.equal(found, waveforms[:, :6].view(-1, 1, 2, 3) ** 2)
        nn.Conv2d(1, 2, 1)(found).sum().backward()
    assert torch.equal(frozen(waveforms[:2]).logits, waveforms[:2, :3])
    assert small.asked == [14, 7, 3, 3, 3, 3, 2, 3, 3, 3, 3, 2, 2], "what did not fit once is not tried again"


def test_a_single_clip_that_does_not_fit_ends_with_what_to_do() -> None:
    frozen = FrozenTeacher(Small(most=0), CPU, "float32")  # type: ignore[arg-type]
    advice = r"cpu is out of memory with one clip in the teacher\..*--clip-seconds.*--device cpu.*--teacher-cache full"
    with pytest.raises(InputError, match=advice):
        frozen.tap(torch.zeros(5, 8))
