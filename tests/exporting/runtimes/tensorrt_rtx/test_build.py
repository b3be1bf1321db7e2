"""Engines built ahead of time: what is asked of the builder, what it says of layers, and what stops an export."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.qdq_checks import int8_layers
from edgekd.exporting.runtimes.tensorrt.parser import check_by_parser
from edgekd.exporting.runtimes.tensorrt_rtx.build import (
    build_ahead,
    check_layers,
    engine_for,
    import_rtx,
    reported_layers,
    require_builder,
)
from edgekd.exporting.targets import Target, load_target

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported
    from tests.exporting.runtimes.tensorrt_rtx.conftest import BuilderRtx

    Install = Callable[..., BuilderRtx]


@pytest.fixture
def target() -> Target:
    return load_target("rtx")


def test_one_engine_is_built_for_all_capabilities_of_the_board_and_once(
    exported: Exported, target: Target, rtx: Install
) -> None:
    module, model = rtx(), exported.int8["tensorrt"]
    built = engine_for(model, target)
    assert built.plan == b"plan" + model
    assert module.configs[0].chosen == {0: "SM86", 1: "SM89", 2: "SM120"}
    assert dict(built.types) == dict.fromkeys(int8_layers(model), "int8")
    assert engine_for(model, target) is built
    assert len(module.configs) == 1


def test_what_the_builder_says_of_layers_becomes_an_entry_of_the_manifest(
    exported: Exported, target: Target, rtx: Install
) -> None:
    rtx()
    model = exported.int8["tensorrt"]
    check = check_layers(model, "int8", target)
    assert check.by == "the builder of TensorRT for RTX 1.7.1.116, for compute capability 8.6, 8.9, 12.0"
    assert check.layers == dict.fromkeys(int8_layers(model), "int8")
    assert check.figures is not None
    assert check.figures["engine_bytes"] == 4 + len(model)
    assert check_layers(exported.float32, "fp32", target).layers == {}


def test_an_int8_convolution_that_fell_back_to_float_is_named_and_stops_the_export(
    exported: Exported, target: Target, rtx: Install
) -> None:
    rtx().in_float = ("network.depthwise.0/conv", "network.expand/conv", "frontend/matmul")
    model = exported.int8["tensorrt"]
    with pytest.raises(GateError, match=r"computes in float what is to be int8, for compute capability 8\.6") as stop:
        check_layers(model, "int8", target)
    words = str(stop.value)
    assert f"network.depthwise.0/conv, network.expand/conv (2 of {len(int8_layers(model))} layers)" in words
    assert words.endswith("edgekd quantize RUN --keep-float depthwise.0 --keep-float expand")
    assert "\n" not in words
    rtx().in_float = ("frontend/matmul",)
    assert "frontend/matmul" not in check_layers(model, "int8", target).layers, "the log-mel is to be in float"


def test_a_builder_that_does_not_tell_types_is_not_taken_for_one_that_computes_in_int8(
    exported: Exported, target: Target, rtx: Install
) -> None:
    module = rtx()
    build_ahead(module, exported.float32, ("8.6",))
    module.logger.log = lambda *_: None
    with pytest.raises(
        GateError, match=r"does not say whether it computes in int8 what is to be: network\.stem\.0/conv"
    ):
        check_layers(exported.int8["tensorrt"], "int8", target)


def test_a_report_of_an_earlier_engine_is_not_taken_for_this_ones(exported: Exported, rtx: Install) -> None:
    module = rtx()
    build_ahead(module, exported.int8["tensorrt"], ("8.6",))
    module.logger.log = lambda *_: None  # of the next it says nothing
    assert dict(build_ahead(module, exported.int8["tensorrt"], ("8.6",)).types) == {}


def test_a_refusal_is_the_builders_own_words_in_one_line(exported: Exported, target: Target, rtx: Install) -> None:
    rtx().refuses = "IBuilder::buildSerializedNetwork: Error Code 1: Myelin (\n FP32 GEMM is not supported. )"
    with pytest.raises(GateError, match=r"builds no engine for compute capability 8.6, 8.9, 12.0: IBuilder.*FP32 GEMM"):
        engine_for(exported.int8["tensorrt"], target)


def test_without_it_there_is_no_bundle_and_the_line_says_what_to_install(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(InputError, match=r"not installed\. Next: pip install 'tensorrt-rtx-cu13-libs==1\.7\.1\.\*'"):
        require_builder(target)


@pytest.mark.parametrize("failure", ["ImportError('libtensorrt_rtx.so.1: not found')", "RuntimeError('no driver')"])
def test_a_module_that_does_not_load_is_not_taken_for_one_that_is_absent(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(f"raise {failure}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(InputError, match=r"is installed and does not load: (lib|no )"):
        require_builder(target)
    told = check_by_parser(b"", "int8", lambda *_, **__: None).not_run or ""
    assert "is installed and does not load: " in told


def test_another_release_builds_engines_that_the_board_does_not_run(target: Target, rtx: Install) -> None:
    rtx().__version__ = "1.6.1.120"
    with pytest.raises(InputError, match=r"runs TensorRT for RTX 1\.7\.1, and 1\.6\.1\.120 here builds other engines"):
        require_builder(target)


def test_another_processor_is_refused(target: Target, rtx: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    rtx()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UsageError, match=r"which are aarch64 here and x86_64 there. Export it on such a machine"):
        require_builder(target)


def test_lines_that_are_no_layers_are_passed_over() -> None:
    assert reported_layers("Layers:\nName: alone\n\nI/O Tensors:\n Name: waveform, IOMode: Input") == []


@pytest.fixture
def real() -> object:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgekd[rtx]'")
    return import_rtx()


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "12.0", "12.1"])
def test_the_real_builder_has_every_int8_layer_on_integers(exported: Exported, real: object, capability: str) -> None:
    model = exported.int8["tensorrt"]
    built = build_ahead(real, model, (capability,))
    assert dict(built.types) == dict.fromkeys(int8_layers(model), "int8")
    assert len(built.plan) > 10_000


def test_the_real_builders_fall_back_to_float_is_seen(exported: Exported, real: object) -> None:
    """A build for Turing that fails leaves something behind that the next one in the process takes for its own."""
    from edgekd.exporting.runtimes.tensorrt.engine import Refused

    model = exported.int8["tensorrt"]
    with pytest.raises(Refused, match="Turing"):
        build_ahead(real, model, ("7.5",))
    if set(build_ahead(real, model, ("8.6",)).types.values()) == {"int8"}:
        pytest.skip("this release does not")
    assert set(build_ahead(real, model, ("8.6",)).types.values()) == {"int8"}
