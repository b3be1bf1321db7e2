"""Which cells there are, and what each is trained with."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.config import DistillConfig, parse
from edgekd.data.index import Clip, ClipIndex
from edgekd.errors import UsageError
from edgekd.experiments.plan import METHODS, plan_cells, plan_parts, plan_text

TinyConfig = Callable[..., DistillConfig]


def test_a_method_of_ones_own_changes_what_it_names(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "grid")
    mine = {"loss": {"temperature": 4.0}, "training": {"epochs": 2}}
    other = {"teacher": {"epochs": 9}}
    (cell, taught) = plan_cells(config, {"mine": mine, "other": other}, {"split0": {}}, [3])
    assert cell.config.model_dump(exclude={"out"}) == DistillConfig.model_validate(
        {
            **config.model_dump(),
            "loss": {**config.loss.model_dump(), "temperature": 4.0},
            "training": {**config.training.model_dump(), "epochs": 2},
        }
    ).model_dump(exclude={"out"})
    assert cell.teacher is not None
    assert taught.teacher is not None
    assert cell.teacher.out.name == "split0-seed3", "the teacher that the others have"
    assert taught.teacher.out.name.startswith("split0-seed3-"), "a teacher to itself"
    assert taught.teacher.teacher.epochs == 9


def test_a_teacher_that_nobody_asks_is_not_lent_to_who_asks(tiny_config: TinyConfig, tmp_path: Path) -> None:
    methods = {name: METHODS[name] for name in ("kd", "embedding", "kd-embedding", "ssatkd")}

    def folders(**teacher: str) -> list[str]:
        cells = plan_cells(tiny_config(tmp_path / "grid", teacher=teacher), methods, {"split0": {}}, [3])
        return [cell.teacher.out.name for cell in cells if cell.teacher is not None]

    assert folders(adaptation="full") == ["split0-seed3"] * 4
    kd, embedding, both, ssatkd = folders(adaptation="none")
    assert kd == both == ssatkd == "split0-seed3"
    assert embedding.startswith("split0-seed3-")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"los": {}}, r"method 'mine': unknown key 'los'\. Did you mean 'loss'\?"),
        ({"training": {"epochs": 0}}, r"method 'mine': training\.epochs = 0"),
        ({"seed": 1}, r"Method 'mine' sets seed: it is the same for all methods"),
        ({"data": {"fold": 2, "padding": "zeros"}}, r"Method 'mine' sets data\.fold"),
    ],
)
def test_a_method_with_wrong_settings_is_refused(
    changes: dict[str, Any], words: str, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        plan_cells(tiny_config(tmp_path / "grid"), {"mine": changes}, {"split0": {}}, [0])


def test_a_method_s_rate_and_ms_are_not_held_to_the_samples_of_the_others(tmp_path: Path) -> None:
    shared = {"out": tmp_path / "grid", "data": {"dataset": "sonar_sim"}, "loss": {"terms": ["classification"]}}
    methods = {
        "as it is": {},
        "rate": {"data": {"sample_rate": 8_000}},
        "hop": {"frontend": {"hop_ms": 20}},
        "samples": {"frontend": {"n_fft": 512}},
    }

    def lengths(frontend: dict[str, Any]) -> list[tuple[int, int]]:
        config = parse(DistillConfig, {**shared, "frontend": frontend}, "settings")
        cells = plan_cells(config, methods, {"split0": {}}, [0])
        return [(cell.config.frontend.n_fft, cell.config.frontend.hop_length) for cell in cells]

    assert lengths({}) == [(1024, 320), (256, 80), (1024, 640), (512, 320)]
    assert lengths({"hop_length": 256}) == [(1024, 256), (256, 256), (1024, 640), (512, 256)]
    assert lengths({"window_ms": 64})[3] == (512, 320)


def index_of(**given: Any) -> ClipIndex:
    folds = given.pop("folds", [None])
    return ClipIndex("set", Path(), ("a",), tuple(Clip(Path("x"), 0, "g", fold, 0, 1, **given) for fold in folds))


def test_parts_are_folds_or_the_given_split_or_splits_by_group(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "grid", data={"split_seed": 4})
    folds, given, plain = index_of(folds=[3, 1, 2, 1]), index_of(side="test"), index_of()
    assert plan_parts(config, folds, None, 1) == {f"fold{fold}": {"data": {"fold": fold}} for fold in (1, 2, 3)}
    assert list(plan_parts(config, folds, [2], 1)) == ["fold2"]
    assert plan_parts(config, given, None, 1) == {"given": {}}
    assert plan_parts(config, plain, None, 2) == {f"split{seed}": {"data": {"split_seed": seed}} for seed in (4, 5)}
    by_group = tiny_config(tmp_path / "grid", data={"given_split": False})
    assert list(plan_parts(by_group, folds, None, 2)) == ["split0", "split1"]
    for index, chosen, splits, words in (
        (plain, [1], 1, r"--folds: set is used without folds; it is split by groups: pass --splits N"),
        (given, [1], 1, r"--folds: .* comes with its split"),
        (folds, None, 3, r"--splits 3: set has folds \(1, 2, 3\): pass --folds"),
    ):
        with pytest.raises(UsageError, match=words):
            plan_parts(config, index, chosen, splits)


def test_audio_without_labels_is_a_methods_to_choose_and_the_teacher_stays_the_same(
    tiny_config: TinyConfig, tmp_path: Path
) -> None:
    more = {**METHODS["kd"], "data": {"unlabelled": [str(tmp_path)]}}
    cells = plan_cells(tiny_config(tmp_path / "grid"), {"kd": METHODS["kd"], "more": more}, {"split0": {}}, [3])
    assert [cell.config.data.unlabelled for cell in cells] == [(), (tmp_path,)]
    assert cells[0].teacher == cells[1].teacher is not None
    # Given for all, it teaches whom a teacher teaches.
    shared = tiny_config(tmp_path / "grid", data={"unlabelled": (tmp_path,)})
    cells = plan_cells(shared, {"labels": METHODS["labels"], "kd": METHODS["kd"]}, {"split0": {}}, [3])
    assert [cell.config.data.unlabelled for cell in cells] == [(), (tmp_path,)]
    assert cells[1].teacher is not None
    assert cells[1].teacher.data.unlabelled == ()


def test_the_plan_is_toml_of_the_shared_settings_and_comments(tiny_config: TinyConfig, tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "grid")
    text = plan_text(config, {"labels": METHODS["labels"], "warm": {"loss": {"temperature": 3.0}}}, [1, 3], 2, [0, 7])
    assert text.startswith("# 2 methods, folds 1,3 or 2 splits, seeds 0, 7; shared settings:\n")
    assert parse(DistillConfig, tomllib.loads(text), "plan") == config
    assert text.endswith("\n\n# warm changes:\n# [loss]\n# temperature = 3.0\n")
    assert plan_text(config, {}, None, 1, [0]).startswith("# 0 methods, folds all, seeds 0; shared settings:\n")


def test_a_method_that_keeps_other_answers_of_its_teacher_shares_the_teacher(
    tiny_config: TinyConfig, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path / "grid", teacher={"cache": "logits"})
    (cell,) = plan_cells(config, {"kd": METHODS["kd"]}, {"split0": {}}, [3])
    assert cell.teacher is not None
    assert (cell.config.teacher.cache, cell.teacher.teacher.cache) == ("logits", "logits")
    assert cell.teacher.out.name == "split0-seed3"
