from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekd.config import DistillConfig, FrontendConfig
from edgekd.errors import InputError, UsageError
from edgekd.models.build import build_student, build_teacher, check_models, sized
from edgekd.models.students.table import STUDENTS
from edgekd.models.teachers.table import fetched_weights
from edgekd.models.weights import save_weights

SMALL = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)


def models(student: str, teacher: str) -> DistillConfig:
    return DistillConfig(student=student, teacher={"name": teacher})


@pytest.mark.parametrize("name", sorted(STUDENTS))
def test_every_student_maps_waveforms_to_logits_and_a_tap(name: str) -> None:
    student = build_student(name, 7, 4_000, SMALL).eval()
    logits, tap, _ = student(torch.randn(2, 4_000))
    assert logits.shape == (2, 7)
    assert tap.shape[:2] == (2, student.tap_channels)
    assert student.name == name
    assert student.frontend.config == SMALL


def test_a_student_without_a_front_end_gets_the_papers() -> None:
    assert build_student("hltdnn_ds", 4).frontend.config == FrontendConfig()


@pytest.mark.parametrize("name", [name for name, spec in STUDENTS.items() if spec.sized])
def test_a_width_makes_a_student_smaller_or_larger(name: str) -> None:
    students = [build_student(name, 7, 4_000, SMALL, width) for width in (0.25, 0.5, 1.0, 1.5, 4.0)]
    sizes = [sum(parameter.numel() for parameter in student.parameters()) for student in students]
    assert sizes == sorted(set(sizes))
    assert [student.width for student in students] == [0.25, 0.5, 1.0, 1.5, 4.0]
    for student in students:
        logits, tap, _ = student.eval()(torch.randn(2, 4_000))
        assert (logits.shape, tap.shape[1]) == ((2, 7), student.tap_channels)
        channels = [module.out_channels for module in student.network.modules() if isinstance(module, torch.nn.Conv2d)]
        assert all(count % 4 == 0 for count in channels)


def test_a_student_of_one_size_has_no_other_width() -> None:
    words = r"Student 'hltdnn' has one size: leave --width out, or take hltdnn_ds"
    with pytest.raises(UsageError, match=words):
        build_student("hltdnn", 4, width=0.5)
    with pytest.raises(UsageError, match=words):
        check_models(DistillConfig(student="hltdnn", width=1.5), taught=False)
    check_models(DistillConfig(student="hltdnn", width=1.0), taught=False)
    check_models(DistillConfig(student="hltdnn_ds", width=1.5), taught=False)


def test_a_width_is_told_where_it_is_not_1() -> None:
    assert (sized("hltdnn_ds", 1.0), sized("hltdnn_ds", 0.75)) == ("hltdnn_ds", "hltdnn_ds x0.75")


def test_a_log_mel_that_is_too_small_is_refused_in_a_line() -> None:
    few = FrontendConfig(bins_per_step=4)
    with pytest.raises(UsageError, match=r"'hltdnn' cannot take a log-mel of 501 frames of 16 mel bins") as refusal:
        build_student("hltdnn", 4, 32_000, few)
    assert "\n" not in str(refusal.value)
    assert build_student("hltdnn_ds", 4, 32_000, few)


def test_another_fault_of_a_network_is_not_taken_for_a_small_log_mel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(torch.nn.Module):
        tap_channels = 4

        def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
            return log_mel @ log_mel.new_empty(3, 2)

    broken = replace(STUDENTS["hltdnn_ds"], build=lambda _classes, _width: Broken())
    monkeypatch.setitem(STUDENTS, "broken", broken)
    with pytest.raises(InputError, match=r"Student 'broken': its network, .*failed: RuntimeError: .*test_build"):
        build_student("broken", 4)


def test_without_a_front_end_it_is_the_default_one_at_the_rate() -> None:
    assert build_student("hltdnn_ds", 4, 8_000).frontend.config.n_fft == 256
    assert build_student("hltdnn_ds", 4).frontend.config == FrontendConfig()


def test_names_that_are_in_no_table_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Unknown student 'hltdnn-ds'\. Did you mean 'hltdnn_ds'\?"):
        build_student("hltdnn-ds", 4)
    with pytest.raises(UsageError, match=r"Unknown teacher 'cnn41'\. Did you mean 'cnn14'\?"):
        build_teacher("cnn41", 4)


def test_names_are_checked_before_anything_slow() -> None:
    check_models(models("hltdnn", "yamnet"), taught=True)
    check_models(models("hltdnn", "nobody"), taught=False)
    with pytest.raises(UsageError, match="Unknown student 'x'"):
        check_models(models("x", "nobody"), taught=False)
    with pytest.raises(UsageError, match=r"Unknown teacher 'yamnett'.*Your own is named package\.module:factory\."):
        check_models(models("hltdnn", "yamnett"), taught=True)
    with pytest.raises(UsageError, match=r"Unknown student 'x'.* Unknown teacher 'y'"):
        check_models(models("x", "y"), taught=True)


def test_weights_are_loaded_into_all_but_the_head(tmp_path: Path) -> None:
    donor = build_teacher("convnet", 3, None, 4_000, SMALL)
    path = tmp_path / "teacher.safetensors"
    save_weights(path, donor.state_dict())
    teacher = build_teacher("convnet", 9, path, 4_000, SMALL)
    assert teacher.head.out_features == 9
    for name, tensor in donor.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(teacher.state_dict()[name], tensor)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_weights(path, build_student("hltdnn", 3, 4_000, SMALL).state_dict())
    with pytest.raises(InputError, match=r"student\.safetensors: not weights of ConvNet.*missing"):
        build_teacher("convnet", 3, path, 4_000, SMALL)


@pytest.mark.parametrize(("given", "wanted"), [("yamnet", "mobilenetv1"), ("mobilenetv1", "convnet")])
def test_weights_of_another_teacher_are_named_as_its(tmp_path: Path, given: str, wanted: str) -> None:
    path = tmp_path / "teacher.safetensors"
    save_weights(path, build_teacher(given, 3, None, 16_000, SMALL).state_dict())
    with pytest.raises(InputError, match=rf"teacher\.safetensors: not weights of .* looks like weights of {given}\."):
        build_teacher(wanted, 3, path, 16_000, SMALL)


def test_a_whole_teacher_comes_with_its_head_and_only_for_its_classes(tmp_path: Path) -> None:
    donor = build_teacher("convnet", 3, None, 4_000, SMALL)
    path = tmp_path / "teacher.safetensors"
    save_weights(path, donor.state_dict())
    teacher = build_teacher("convnet", 3, path, 4_000, SMALL, whole=True)
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in donor.state_dict().items())
    with pytest.raises(InputError, match=r"head\.weight is \(3, \d+\), not \(4, \d+\)"):
        build_teacher("convnet", 4, path, 4_000, SMALL, whole=True)


def test_a_teacher_that_is_a_folder_needs_one() -> None:
    with pytest.raises(UsageError, match="'whisper' needs weights: a folder with"):
        build_teacher("whisper", 3)


def test_fetched_weights_are_found_by_the_teacher_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))
    assert fetched_weights("yamnet") is None
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "yamnet.h5").touch()
    assert fetched_weights("yamnet") == tmp_path / "teachers" / "yamnet.h5"
    assert [fetched_weights(name) for name in ("convnet", "ast", "a.b:c", "nobody")] == [None] * 4
