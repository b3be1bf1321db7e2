"""The teacher of a run that names none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.config import DistillConfig
from edgekd.models.teachers.table import TEACHERS
from edgekd.training import default_teacher
from edgekd.training.default_teacher import with_default_teacher


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched weights; a reader of YAMNet's is installed."""
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(default_teacher, "find_spec", lambda name: name)
    folder = tmp_path / "teachers"
    folder.mkdir()
    return folder


def get(fetched: Path, name: str) -> None:
    file = TEACHERS[name].file
    assert file is not None
    (fetched / file.name).touch()


def chosen(**settings: object) -> tuple[str, str, str | None]:
    config, why = with_default_teacher(DistillConfig.model_validate(settings))
    return config.teacher.name, config.teacher.adaptation, why


def test_it_is_the_best_that_is_at_hand(fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, adaptation, why = chosen()
    assert (name, adaptation) == ("convnet", "full")
    assert why is not None and "edgekd teachers fetch yamnet" in why, "nothing is downloaded unasked"
    get(fetched, "mobilenetv1")
    assert chosen()[:2] == ("mobilenetv1", "head")
    get(fetched, "cnn14")
    name, _, why = chosen()
    assert name == "cnn14" and why is not None and "yamnet gives better students: edgekd teachers fetch" in why
    assert chosen(student="mobilenetv1-cut5")[0] == "mobilenetv1", "a student is cut from its teacher"
    get(fetched, "yamnet")
    name, _, why = chosen()
    assert name == "yamnet" and why is not None and "fetch yamnet" not in why
    monkeypatch.setattr(default_teacher, "find_spec", lambda _: None)
    name, _, why = chosen()
    assert name == "cnn14" and why is not None and "edgekd[yamnet]' (its weights are here)" in why


def test_at_a_low_rate_it_learns_from_the_data(fetched: Path) -> None:
    get(fetched, "cnn14")
    name, _, why = chosen(data={"sample_rate": 4_000})
    assert name == "convnet" and why is not None and "above the 2000 Hz" in why
    assert chosen(data={"sample_rate": 16_000})[0] == "cnn14"


@pytest.mark.parametrize(
    "settings", [{"teacher": {"name": "cnn14"}}, {"loss": {"terms": ["classification"]}}, {"teacher": {"weights": "x"}}]
)
def test_what_the_user_has_decided_stays(settings: dict[str, object], fetched: Path) -> None:
    get(fetched, "yamnet")
    config = DistillConfig.model_validate(settings)
    assert with_default_teacher(config) == (config, None)


def test_weights_say_whose_they_are(fetched: Path, tmp_path: Path) -> None:
    get(fetched, "cnn14")
    np.savez(tmp_path / "w.npz", **{"conv.26.weight": np.zeros(1, np.float32)})
    name, adaptation, why = chosen(teacher={"weights": tmp_path / "w.npz"})
    assert (name, adaptation) == ("yamnet", "head") and why is not None and "w.npz" in why


def test_adaptation_that_is_named_stays(fetched: Path) -> None:
    assert chosen(teacher={"adaptation": "none"})[:2] == ("convnet", "none")
