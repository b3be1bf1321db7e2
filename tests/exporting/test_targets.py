"""Targets: the shipped boards are valid, a user's own file works, and every mistake is one clear line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edgekd.errors import UsageError
from edgekd.exporting.runtimes.tensorrt.releases import newest_opset
from edgekd.exporting.targets import Target, list_targets, load_target
from edgekd.resources import named_resources

JETSONS = {
    "jetson-agx-orin": ("11.4.1", "7.2.2", "8.7"),
    "jetson-nano": ("8.2", "4.6.1", "5.3"),
    "jetson-orin-nano": ("10.3", "6.2", "8.7"),
    "jetson-orin-nx": ("10.3", "6.2", "8.7"),
    "jetson-thor": ("11.4.1", "7.2.2", "11.0"),
    "jetson-xavier-nx": ("8.5", "5.1", "7.2"),
}
IN_C = [
    *("audiomoth", "cortex-m0plus", "cortex-m33", "cortex-m4f", "cortex-m55", "cortex-m7", "esp32-s3", "host-c"),
    *("rp2040", "stm32u5"),
]
CPUS = ["cpu", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2w"]


def own_board(tmp_path: Path, old: str = "", new: str = "", like: str = "cpu") -> str:
    """A user's own TOML: a shipped target with one change."""
    path = tmp_path / "board.toml"
    text = named_resources("targets")[like].read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return str(path)


def test_shipped_targets_are_named_like_their_files() -> None:
    assert [target.name for target in list_targets()] == sorted([*JETSONS, *CPUS, *IN_C, "gpu", "rtx"])
    assert list(named_resources("targets")) == [target.name for target in list_targets()]


def test_no_name_or_alias_means_two_boards() -> None:
    names = [name for target in list_targets() for name in (target.name, *target.aliases)]
    assert len(names) == len(set(names))


def test_jetson_is_the_orin_nano() -> None:
    assert load_target("jetson") == load_target("jetson-orin-nano")


@pytest.mark.parametrize(("name", "release"), JETSONS.items())
def test_a_jetson_has_the_tensorrt_of_its_jetpack(name: str, release: tuple[str, str, str]) -> None:
    target = load_target(name)
    assert (target.runtime, target.flavour, target.architecture) == ("tensorrt", "tensorrt", "aarch64")
    assert target.tensorrt is not None
    assert (target.tensorrt.version, target.tensorrt.jetpack, target.tensorrt.compute_capability) == release
    assert target.batch == 1


def test_only_maxwell_has_no_int8_and_leaves_the_log_mel_to_the_host() -> None:
    for name in JETSONS:
        target = load_target(name)
        assert target.precision == ("fp16" if name == "jetson-nano" else "int8")
        assert set(target.precisions) == {"fp16", "fp32"} | ({"int8"} if name != "jetson-nano" else set())
        assert target.frontend == ("external" if name == "jetson-nano" else "graph")


@pytest.mark.parametrize("name", CPUS)
def test_onnxruntime_boards_take_the_flavour_with_uint8_after_relu(name: str) -> None:
    target = load_target(name)
    assert (target.runtime, target.flavour, target.tensorrt) == ("onnxruntime", "onnxruntime", None)
    assert (target.precisions, target.batch) == (("int8", "fp32"), "dynamic")


def test_every_target_says_what_it_is_made_of_and_where_that_was_read() -> None:
    for target in list_targets():
        assert target.hardware is not None
        assert all(re.match(r"https://\S+$", source) for source in target.sources.values())
        known = {"c"} <= set(target.sources) if target.operators == () else {"operators"} < set(target.sources)
        assert known, target.name
        if target.tensorrt is not None:
            assert {"tensorrt", "compute_capability"} < set(target.sources), target.name
        if target.tensorrt_rtx is not None:
            assert {"tensorrt_rtx", "compute_capability"} < set(target.sources), target.name
        if target.hardware.power_modes:
            assert "power_modes" in target.sources, target.name


def test_accelerators_are_where_nvidia_puts_them() -> None:
    cores = {target.name: target.hardware.dla_cores for target in list_targets() if target.hardware is not None}
    assert {name for name, number in cores.items() if number} == {
        "jetson-agx-orin",
        "jetson-orin-nx",
        "jetson-xavier-nx",
    }


def test_every_allowed_operator_is_one_of_onnx() -> None:
    for target in list_targets():
        assert bool(target.operators) == (target.c is None)
        assert len(target.operators) == len(set(target.operators))
        assert [name for name in target.operators if not onnx.defs.has(name)] == []


def test_the_fourier_transform_is_left_to_matrix_products_before_tensorrt_11_2() -> None:
    for target in list_targets():
        if target.tensorrt is not None and target.tensorrt.release < (11, 2):
            assert not {"STFT", "DFT"} & set(target.operators), target.name


def test_no_target_is_written_in_an_operator_set_that_it_does_not_read() -> None:
    for target in list_targets():
        if target.tensorrt is not None:
            assert target.opset <= newest_opset(target.tensorrt.release)


def test_unknown_target_gets_the_nearest_name_and_the_list() -> None:
    with pytest.raises(UsageError, match=r"Unknown target 'jetsen'. Did you mean 'jetson'\?.*raspberry-pi-5"):
        load_target("jetsen")


def test_a_path_to_a_toml_is_the_users_own_board(tmp_path: Path) -> None:
    assert load_target(own_board(tmp_path, '"cpu"', '"field-recorder"')).name == "field-recorder"


def test_a_users_board_may_limit_what_a_student_needs(tmp_path: Path) -> None:
    limits = "[budget]\nmodel_bytes = 131_072\nmacs = 30_000_000\n\n[tolerance]"
    budget = load_target(own_board(tmp_path, "[tolerance]", limits)).budget
    assert (budget.model_bytes, budget.macs, budget.parameters) == (131_072, 30_000_000, None)
    assert load_target("cpu").budget.model_dump(exclude_none=True) == {}


WRONG_CPU = [
    ("opset = 20", "opset = 21", r"board\.toml: opset = 21: input should be less than or equal to 20"),
    ("opset = 20", "opsett = 20", r"board\.toml: .*unknown key 'opsett'. Did you mean 'opset'\?"),
    ('["int8", "fp32"]', '["int4"]', r"board\.toml: precisions.0 = 'int4': input should be 'int8', 'fp16' or 'fp32'"),
    ('["int8", "fp32"]', "[]", r"board\.toml: precisions = \[\]"),
    ('["int8", "fp32"]', '["int8", "int8"]', r"board\.toml: precisions = \['int8', 'int8'\]: name each once"),
    ('["int8", "fp32"]', '["fp16"]', r"board\.toml: precisions: onnxruntime .* leave 'fp16' out"),
    ("agreement = 0.97", "agreement = 97", r"board\.toml: tolerance.agreement = 97"),
    ("[tolerance]", "[budget]\nmmacs = 3\n[tolerance]", r"unknown key 'budget.mmacs'. Did you mean 'macs'\?"),
    ("[tolerance]", "[budget]\nmacs = 0\n[tolerance]", r"budget.macs = 0"),
    ('runtime = "onnxruntime"', 'runtime = "tvm"', r"runtime = 'tvm': input should be 'onnxruntime' or 'tensorrt'"),
    (
        'architecture = "x86_64"',
        'architecture = "armv7e-m"',
        r"architecture = 'armv7e-m': runtime 'onnxruntime' runs on",
    ),
    ("536_870_912", "262_144", r"memory_bytes = 262144: runtime 'onnxruntime' needs 1048576 at least"),
    ("536_870_912", "0", r"memory_bytes = 0: input should be greater than or equal to 1"),
    (
        'flavour = "onnxruntime"',
        'flavour = "intel"',
        r"runtime 'onnxruntime' needs flavour 'onnxruntime': with the other",
    ),
    ('runtime = "onnxruntime"', 'runtime = "tensorrt"', r"runtime 'tensorrt' needs a \[tensorrt\] table"),
    ('flavour = "onnxruntime"', 'flavour = "tensorrt"', r"runtime 'onnxruntime' needs flavour 'onnxruntime'"),
    ("[tolerance]", '[tensorrt]\nversion = "10.3"\n[tolerance]', r"means nothing with runtime 'onnxruntime'"),
    ("[tolerance]", "[tolerance", r"board\.toml: not valid TOML"),
]
WRONG_JETSON = [
    ('version = "10.3"', "version = 10.3", r"tensorrt.version = 10.3: write numbers and dots, in quotes"),
    ('version = "10.3"', 'version = "ten"', r"tensorrt.version = 'ten': write numbers and dots"),
    ('version = "10.3"', 'versoin = "10.3"', r"unknown key 'tensorrt.versoin'. Did you mean 'version'\?"),
    ('version = "10.3"', 'version = "7.1"', r"tensorrt.version = '7.1': the oldest .* 8.2"),
    ('version = "10.3"', 'version = "8.4"', r"TensorRT 8.4 is too old for 'int8' from Q/DQ pairs"),
    ('version = "10.3"', 'version = "8.6"', r"opset = 20: TensorRT 8.6 reads up to 17"),
    ('flavour = "tensorrt"', 'flavour = "onnxruntime"', r"runtime 'tensorrt' needs flavour 'tensorrt'"),
    ('"0 15W"', '"15W"', r"hardware.power_modes.0 = '15W'"),
]


@pytest.mark.parametrize(
    ("like", "old", "new", "message"),
    [("cpu", *mistake) for mistake in WRONG_CPU] + [("jetson-orin-nano", *mistake) for mistake in WRONG_JETSON],
)
def test_a_wrong_key_or_value_is_one_line_naming_the_file(
    tmp_path: Path, like: str, old: str, new: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as failure:
        load_target(own_board(tmp_path, old, new, like))
    assert "\n" not in str(failure.value)
    assert "board.toml" in str(failure.value)


def test_fp16_beside_a_log_mel_that_cannot_be_pinned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"TensorRT 8.2 cannot keep the log-mel in float32 beside 'fp16'"):
        load_target(own_board(tmp_path, 'frontend = "external"', 'frontend = "graph"', like="jetson-nano"))


def test_c_hears_one_clip_after_another() -> None:
    with pytest.raises(UsageError, match=r"Target 'host-c' hears one clip after another\. Leave --batch out\."):
        load_target("host-c").adapted(batch="dynamic")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: no such configuration file"):
        load_target(str(tmp_path / "none.toml"))


def test_a_target_survives_the_manifest() -> None:
    for target in list_targets():
        assert Target.model_validate_json(target.model_dump_json()) == target


def test_targets_load_without_torch_or_onnx() -> None:
    code = (
        "import sys; from edgekd.exporting.targets import list_targets; list_targets();"
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
