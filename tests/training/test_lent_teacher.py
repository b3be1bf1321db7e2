"""What decides whether a teacher can be lent. That it is lent, and teaches as one's own: `test_distill`."""

from __future__ import annotations

from typing import Any

import pytest

from edgekd.config import DistillConfig
from edgekd.training.lent_teacher import teacher_settings


def settings(adaptation: str, **sections: Any) -> dict[str, Any]:
    values = {"teacher": {"name": "convnet", "adaptation": adaptation}, **sections}
    return teacher_settings(DistillConfig.model_validate(values))


@pytest.mark.parametrize("adaptation", ["head", "full"])
@pytest.mark.parametrize("heard", [{"gain_db": 6.0}, {"shifts_per_clip": 2}, {"mixes_per_clip": 1}])
def test_a_teacher_is_asked_about_what_is_heard(adaptation: str, heard: dict[str, float]) -> None:
    assert settings(adaptation, augment=heard) != settings(adaptation)


@pytest.mark.parametrize("adaptation", ["head", "full"])
def test_how_the_student_is_trained_is_no_matter_of_the_teacher(adaptation: str) -> None:
    training = {"epochs": 7, "weight_average": 0.9, "norm_statistics": "precise"}
    assert settings(adaptation, training=training) == settings(adaptation)


def test_masks_matter_to_a_teacher_that_learns_under_them_itself() -> None:
    masks = {"time_masks": 0}
    assert settings("head", augment=masks) == settings("head")
    assert settings("full", augment=masks) != settings("full")
