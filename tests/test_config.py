from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgekd.config import DistillConfig, FrontendConfig, QuantizeConfig, parse
from edgekd.errors import UsageError
from edgekd.toml_files import read_toml, to_toml


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as failure:
        parse(DistillConfig, values, "run.toml")
    return str(failure.value)


def test_defaults_are_the_papers_where_nothing_else_was_measured_to_be_better() -> None:
    config = DistillConfig()
    assert config.frontend == FrontendConfig(n_fft=1024, hop_length=320, n_mels=64, f_min=50, f_max=14_000)
    assert (config.data.sample_rate, config.data.clip_seconds, config.data.split) == (32_000, 5.0, (0.7, 0.1, 0.2))
    training, augment, loss = config.training, config.augment, config.loss
    assert (training.weight_decay, training.decay_power) == (1e-5, 0.9)
    assert training.patience == 50
    assert (augment.time_masks, augment.time_mask(501), augment.time_mask_frames) == (2, 48, None)
    assert (augment.frequency_masks, augment.frequency_mask_bins) == (2, 8)
    assert loss.terms == ("classification", "statistical", "structural", "distillation")
    assert (loss.distillation, loss.temperature, loss.statistical, loss.structural_fusion) == (
        *("kl", 2.0),
        *("sinkhorn", "all"),
    )
    assert (loss.statistical_levels, loss.structural_levels) == (4, 3)
    assert (loss.weighting, loss.bandwidth, loss.texture_share, loss.adapter) == ("fixed", "relative", 0.5, "teacher")


def test_an_unknown_key_gets_the_nearest_one_and_the_list() -> None:
    message = refusal({"training": {"epoch": 3}})
    assert message.startswith(
        "run.toml: unknown key 'training.epoch'. Did you mean 'epochs'? Valid: adaptation, batch_size, "
    )
    assert "unknown key 'colour'. Valid: augment, data, device" in refusal({"colour": 1})


def test_an_unknown_key_deep_inside_is_compared_with_the_keys_of_its_own_section() -> None:
    assert "Did you mean 'snr_db'?" in refusal({"data": {"simulation": {"snr": [0, 1]}}})


def test_all_mistakes_are_told_in_one_line() -> None:
    message = refusal({"training": {"epochs": 0, "batch_size": 1}, "sed": 4})
    assert "training.epochs = 0: input should be greater than or equal to 1" in message
    assert "training.batch_size = 1: " in message
    assert "Did you mean 'seed'?" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "words"), [(-1, "greater than or equal to 0"), ("left", "a valid integer"), (1.5, "a valid integer")]
)
def test_a_value_that_may_be_of_two_types_is_told_of_once(value: Any, words: str) -> None:
    expected = f"run.toml: data.channel = {value!r}: input should be 'mean', or {words}"
    assert refusal({"data": {"channel": value}}) == expected
    assert refusal({"data": {"channel": value, "full_scale": 0}}).startswith(f"{expected}; data.full_scale = 0: ")


def test_a_section_that_is_no_table_is_refused() -> None:
    assert "training = 3: " in refusal({"training": 3})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"data": {"sample_rate": 16_000}, "frontend": {"f_max": 14_000}},
            "frontend.f_max (14000 Hz) is above half of data.sample_rate (8000 Hz)",
        ),
        ({"frontend": {"f_min": 14_000}}, "frontend.f_min must be below frontend.f_max"),
        ({"frontend": {"hop_length": 5_000}}, "frontend.hop_length (5000) must not exceed 4 windows (1024)"),
        ({"frontend": {"n_fft": 1_001}}, "frontend.n_fft = 1001: input should be a multiple of 2"),
        ({"frontend": {"n_fft": 8_192}, "data": {"clip_seconds": 0.12}}, "data.clip_seconds"),
        ({"loss": {"terms": ["distillation"]}}, "'classification' must be one of the terms"),
        ({"loss": {"terms": ["classification", "classification"]}}, "a term is named twice"),
        ({"data": {"split": [0.5, 0.5, 0.5]}}, "must be positive and sum to 1"),
        ({"data": {"split": [0.5, 0.5, 0.0]}}, "must be positive and sum to 1"),
        ({"data": {"split": [0.5, 0.5]}}, "data.split"),
        ({"quantize": {"epochs": 4, "frozen_epochs": 4}}, "frozen_epochs (4) must be below epochs (4)"),
        ({"training": {"learning_rate": math.inf}}, "training.learning_rate = inf"),
        ({"training": {"learning_rate": math.nan}}, "training.learning_rate = nan"),
        ({"data": {"simulation": {"snr_db": [math.nan, 1]}}}, "data.simulation.snr_db.0"),
        ({"device": "gpu"}, "device = 'gpu'"),
    ],
)
def test_values_that_cannot_work_are_refused_with_their_place(values: dict[str, Any], words: str) -> None:
    assert words in refusal(values)


def test_configurations_cannot_be_changed_in_place() -> None:
    config = QuantizeConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3  # type: ignore[misc]


def test_reading_toml_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    with pytest.raises(UsageError, match=r"run\.toml: no such configuration file"):
        read_toml(path)
    path.write_text("seed = 1\nseed = = 2\n")
    with pytest.raises(UsageError, match=r"run\.toml: not valid TOML: .*line 2"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"run\.toml: not valid TOML"):
        read_toml(path)
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory"):
        read_toml(tmp_path)
    path.write_text('seed = 1\n[data]\ndataset = "esc10"\n')
    assert read_toml(path) == {"seed": 1, "data": {"dataset": "esc10"}}


# TOML, as a run keeps it

ODD = [
    "plain",
    "",
    'quotes " and \\ backslashes \\u0041',
    "line\nbreak\ttab\r",
    "häfen 🚢 船",
    "control \x00 \x1b \x7f",
    "[section]\nkey = 1",
    "# no comment",
    "' '' '''",
]


@pytest.mark.parametrize("text", ODD)
def test_toml_holds_any_string(text: str) -> None:
    values = {"key": text, "list": [text, text], "section": {"inner": {"key": text}}}
    assert tomllib.loads(to_toml(values)) == values


@pytest.mark.parametrize("number", [0, -3, 10**12, 0.1, -1e-12, 1e300, 1e16, 5e-324, 2.0, math.pi])
def test_toml_holds_any_number_with_its_type(number: float) -> None:
    read = tomllib.loads(to_toml({"key": number}))["key"]
    assert read == number
    assert type(read) is type(number)


def test_toml_nests_and_leaves_none_out() -> None:
    values = {"a": {"b": {"c": 1}, "none": None, "flag": True}, "top": False, "list": [0.5, 2.0], "empty": []}
    assert tomllib.loads(to_toml(values)) == {
        "a": {"b": {"c": 1}, "flag": True},
        "top": False,
        "list": [0.5, 2.0],
        "empty": [],
    }


def test_weights_of_several_teachers_go_by_the_order_of_the_names(tmp_path: Path) -> None:
    config = DistillConfig.model_validate(
        {"teacher": {"name": "a, b,c:d", "weights": f"{tmp_path}/a.pth,, {tmp_path}/c d.pt"}}
    )
    assert config.teacher.weights is None
    assert config.teacher.weights_of == {"a": tmp_path / "a.pth", "c:d": tmp_path / "c d.pt"}
    first, second, third = config.teacher.members()
    assert (first.name, first.weights) == ("a", tmp_path / "a.pth")
    assert (second.name, second.weights) == ("b", None)
    assert (third.name, third.weights, third.weights_of) == ("c:d", tmp_path / "c d.pt", {})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config.model_dump(mode="json")))
    assert DistillConfig.model_validate(read_toml(path)) == config


def test_the_weights_of_one_teacher_may_have_a_comma_in_their_name(tmp_path: Path) -> None:
    config = DistillConfig.model_validate({"teacher": {"name": "cnn14", "weights": str(tmp_path / "a,b.pth")}})
    assert config.teacher.weights == tmp_path / "a,b.pth"
    assert config.teacher.members() == (config.teacher,)


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"name": "a,b", "weights": "x.pth"}, r"weights: 1 for 2 teachers"),
        ({"name": "a,a"}, r"names by comma, each once"),
        ({"name": "a,"}, r"names by comma, each once"),
        ({"name": "a,b", "weights_of": {"c": "x.pth"}}, r"weights_of: c: not one of several teachers \(a,b\)"),
        ({"name": "a", "weights_of": {"a": "x.pth"}}, r"weights_of: a: not one of several teachers"),
    ],
)
def test_wrong_names_and_weights_of_several_teachers_are_told(teacher: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(DistillConfig, {"teacher": teacher}, "settings")
