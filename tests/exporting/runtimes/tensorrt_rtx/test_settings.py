"""Which GPUs engines can be built for, said when a board's TOML is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.exporting.targets import Target, load_target
from edgekd.resources import named_resources

SHIPPED = 'capabilities = ["8.6", "8.9", "12.0"]'


def board(tmp_path: Path, *changes: tuple[str, str]) -> Target:
    text = named_resources("targets")["rtx"].read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "board.toml"
    path.write_text(text)
    return load_target(str(path))


def test_the_shipped_board_is_an_rtx_workstation() -> None:
    target = load_target("rtx")
    assert target.tensorrt_rtx is not None
    assert target.tensorrt_rtx.listed() == "8.6, 8.9 or 12.0"
    assert (target.runtime, target.architecture, target.precision) == ("tensorrt-rtx", "x86_64", "int8")


@pytest.mark.parametrize(
    ("capabilities", "message"),
    [
        (
            '["8.7"]',
            r"no 8\.7 \(Jetson Orin\) in TensorRT for RTX, which builds for 7\.5, .*12\.1; a Jetson runs",
        ),
        (
            '["9.0"]',
            r"no 9\.0 \(H100 and H200\) in TensorRT for RTX, which builds for 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1$",
        ),
        ('["sm_89"]', "no sm_89 in TensorRT for RTX, which builds for"),
        ('["8.9", "8.9"]', "name each once"),
        ("[]", "at least 1"),
        ('["7.5"]', r"multiplies no float32 matrices on 7\.5 \(Turing\), so there only precisions = \['fp16'\]"),
    ],
)
def test_a_gpu_that_it_does_not_build_for_is_named_with_the_real_cause(
    tmp_path: Path, capabilities: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        board(tmp_path, (SHIPPED, f"capabilities = {capabilities}"))
    assert "\n" not in str(refusal.value)
    assert "driver" not in str(refusal.value)


def test_turing_runs_fp16_on_a_log_mel_from_outside(tmp_path: Path) -> None:
    fp16 = ('precisions = ["int8", "fp16", "fp32"]', 'precisions = ["fp16"]\nfrontend = "external"')
    target = board(tmp_path, (SHIPPED, 'capabilities = ["7.5"]'), fp16)
    assert target.tensorrt_rtx is not None
    assert target.tensorrt_rtx.listed() == "7.5"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "1.7.1"', 'version = "1.7"', r"tensorrt_rtx\.version = '1\.7'"),
        ("[tensorrt_rtx]", "[tensorrt_rtx]\nmax_batch = 0", r"tensorrt_rtx\.max_batch = 0"),
        ("[tensorrt_rtx]", '[tensorrt]\nversion = "11.4"\n[tensorrt_rtx]', "means nothing with runtime 'tensorrt-rtx'"),
    ],
)
def test_a_mistake_in_its_table_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        board(tmp_path, (old, new))


def test_without_its_table_it_is_no_board(tmp_path: Path) -> None:
    text = named_resources("targets")["rtx"].read_text()
    start, end = text.index("[tensorrt_rtx]"), text.index("[hardware]")
    (tmp_path / "board.toml").write_text(text[:start] + text[end:])
    with pytest.raises(UsageError, match=r"needs a \[tensorrt_rtx\] table with version and capabilities"):
        load_target(str(tmp_path / "board.toml"))
