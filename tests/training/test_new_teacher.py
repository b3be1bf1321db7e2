from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekd.config import DistillConfig, TeacherConfig
from edgekd.errors import InputError, UsageError
from edgekd.models.teachers.base import Teacher
from edgekd.runs.run import Run
from edgekd.training.new_teacher import check_teacher, new_teacher, settled
from tests.training.conftest import Begin


def test_a_teacher_that_could_not_learn_is_refused_with_a_way_out(tmp_path: Path) -> None:
    def check(name: str, adaptation: str, weights: Path | None = None) -> None:
        check_teacher(TeacherConfig.model_validate({"name": name, "adaptation": adaptation, "weights": weights}))

    with pytest.raises(UsageError, match=r"'cnn14' needs pre-trained weights: .*teachers fetch cnn14.* FILE \(C"):
        check("cnn14", "full")
    with pytest.raises(UsageError, match=r"'ast' needs pre-trained weights: pass --teacher-weights FOLDER \("):
        check("ast", "full")
    with pytest.raises(UsageError, match=r"'ast' gets a new head"):
        check("ast", "none", tmp_path)
    for adaptation in ("head", "none"):
        with pytest.raises(UsageError, match=r"'convnet' starts at random.*pass --adaptation full"):
            check("convnet", adaptation)
    check("convnet", "full")
    check("convnet", "head", tmp_path)
    check("yamnet", "head", tmp_path)
    check("my.module:factory", "head")


def test_a_teacher_is_the_same_at_every_call(begin: Begin) -> None:
    config, classes = (desk := begin()).run.config, desk.run.classes
    first, second = new_teacher(config, classes).state_dict(), new_teacher(config, classes).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_teacher_of_another_run_has_to_fit(tiny_run: Run, tiny_config: Callable[..., DistillConfig]) -> None:
    weights = tiny_run.folder / "teacher" / "best.safetensors"

    def build(classes: tuple[str, ...], adaptation: str = "none", name: str = "convnet", rate: int = 4_000) -> Teacher:
        teacher = {"weights": weights, "adaptation": adaptation, "name": name}
        return new_teacher(tiny_config(Path("unused"), teacher=teacher, data={"sample_rate": rate}), classes)

    same = build(tiny_run.classes).state_dict()
    finished = tiny_run.teacher()
    assert finished is not None
    assert all(torch.equal(tensor, same[name]) for name, tensor in finished.state_dict().items())
    assert build(("a", "b"), adaptation="head").head.out_features == 2
    other = tuple(reversed(tiny_run.classes))
    with pytest.raises(InputError, match=rf"adapted to the classes {tiny_run.classes[0]}, .* give it a new head"):
        build(other)
    with pytest.raises(InputError, match=r"adapted to clips at 4000 Hz, and these are at 8000 Hz: pass --sample-rate"):
        build(tiny_run.classes, rate=8_000)
    with pytest.raises(InputError, match=r"this is the teacher convnet of the run .*: pass --teacher convnet"):
        build(tiny_run.classes, name="cnn14")


def test_settings_that_follow_from_the_machine_are_written_down(
    tiny_config: Callable[..., DistillConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def chosen(**settings: object) -> TeacherConfig:
        return settled(tiny_config(tmp_path / "run", **settings)).teacher

    assert chosen(teacher={"name": "cnn14"}).weights is None
    fetched = tmp_path / "cache" / "teachers" / "Cnn14_mAP=0.431.pth"
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    assert chosen(teacher={"name": "cnn14"}).weights == fetched
    assert chosen(teacher={"name": "cnn14", "weights": tmp_path / "other.pth"}).weights == tmp_path / "other.pth"
    assert chosen(teacher={"name": "cnn14"}, loss={"terms": ["classification"]}).weights is None
    assert chosen(teacher={"name": "resnet38"}).weights is None
    assert chosen(teacher={"name": "a.b:c"}).folder == tmp_path
    assert chosen(teacher={"name": "a.b:c", "folder": tmp_path / "code"}).folder == tmp_path / "code"
    assert chosen(teacher={"name": "cnn14"}).folder is None

    def student_folder(**settings: object) -> Path | None:
        return settled(tiny_config(tmp_path / "run", **settings)).student_folder

    assert student_folder(student="a.b:c") == tmp_path
    assert student_folder(student="a.b:c", loss={"terms": ["classification"]}) == tmp_path
    assert student_folder(student="a.b:c", student_folder=tmp_path / "code") == tmp_path / "code"
    assert student_folder() is None
