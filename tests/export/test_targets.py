"""Targets: the shipped boards are valid, a user's own file works, and every mistake is one clear line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.export.targets import list_targets, load_target
from edgekd.resources import named_resources


def own_board(tmp_path: Path, old: str = "", new: str = "") -> str:
    """A user's own TOML: the CPU target with one change."""
    path = tmp_path / "board.toml"
    path.write_text(named_resources("targets")["cpu"].read_text().replace(old, new))
    return str(path)


def test_shipped_targets_are_named_like_their_files() -> None:
    assert [target.name for target in list_targets()] == ["cpu", "jetson-orin-nano", "raspberry-pi-5"]
    assert list(named_resources("targets")) == [target.name for target in list_targets()]


def test_no_name_or_alias_means_two_boards() -> None:
    names = [name for target in list_targets() for name in (target.name, *target.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["jetson", "jetson-orin-nano"])
def test_jetson_is_the_orin_nano_with_jetpack_6(name: str) -> None:
    target = load_target(name)
    assert (target.name, target.runtime, target.flavour) == ("jetson-orin-nano", "tensorrt", "tensorrt")
    assert target.tensorrt is not None
    assert target.tensorrt.release == (10, 3)
    assert target.tensorrt.compute_capability == "8.7"


@pytest.mark.parametrize("name", ["cpu", "raspberry-pi-5"])
def test_onnxruntime_boards_take_the_flavour_with_uint8_after_relu(name: str) -> None:
    target = load_target(name)
    assert (target.runtime, target.flavour, target.tensorrt) == ("onnxruntime", "onnxruntime", None)


def test_every_target_says_where_its_facts_come_from() -> None:
    assert all(target.sources for target in list_targets())


def test_unknown_target_gets_the_nearest_name_and_the_list() -> None:
    with pytest.raises(UsageError, match=r"Unknown target 'jetsen'. Did you mean 'jetson'\?.*raspberry-pi-5"):
        load_target("jetsen")


def test_a_path_to_a_toml_is_the_users_own_board(tmp_path: Path) -> None:
    assert load_target(own_board(tmp_path, '"cpu"', '"field-recorder"')).name == "field-recorder"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("opset = 20", "opset = 21", r"board\.toml: opset = 21: input should be less than or equal to 20"),
        ("opset = 20", "opsett = 20", r"board\.toml: .*unknown key 'opsett'. Did you mean 'opset'\?"),
        ('precision = "int8"', 'precision = "fp16"', r"board\.toml: precision = 'fp16'"),
        ("agreement = 0.97", "agreement = 97", r"board\.toml: tolerance.agreement = 97"),
        (
            'runtime = "onnxruntime"',
            'runtime = "tensorrt"',
            r"board\.toml: runtime 'tensorrt' needs a \[tensorrt\] table",
        ),
        ("[tolerance]", "[tolerance", r"board\.toml: not valid TOML"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_naming_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as failure:
        load_target(own_board(tmp_path, old, new))
    assert "\n" not in str(failure.value)


def test_tensorrt_refuses_the_flavour_with_uint8(tmp_path: Path) -> None:
    text = named_resources("targets")["jetson-orin-nano"].read_text()
    path = tmp_path / "board.toml"
    path.write_text(text.replace('flavour = "tensorrt"', 'flavour = "onnxruntime"'))
    with pytest.raises(UsageError, match="needs flavour 'tensorrt'"):
        load_target(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: no such configuration file"):
        load_target(str(tmp_path / "none.toml"))


def test_targets_load_without_torch_or_onnx() -> None:
    code = (
        "import sys; from edgekd.export.targets import list_targets; list_targets();"
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
