"""NVIDIA's own parser and builder: what they take, what they refuse, and what happens where they are not installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from edgekd.errors import GateError
from edgekd.exporting.manifest import Check
from edgekd.exporting.qdq_checks import int8_layers
from edgekd.exporting.runtimes.tensorrt.parser import check_by_parser, parse_with_nvidia

if TYPE_CHECKING:
    from tests.export.conftest import Exported


def test_where_it_is_not_installed_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert parse_with_nvidia(b"") is None
    steps: list[tuple[str, int, int]] = []
    check = check_by_parser(b"", "fp16", lambda *step, **_: steps.append(step))
    assert check == Check(
        by="NVIDIA's ONNX parser and builder", precision="fp16", not_run="the extra 'rtx' is not installed"
    )
    assert steps == [("parse", 0, 1), ("parse", 1, 1)]


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgekd[rtx]'")


@pytest.mark.usefixtures("rtx")
def test_the_flavour_for_tensorrt_is_accepted_with_every_rounding(exported: Exported) -> None:
    import onnx

    model = exported.int8["tensorrt"]
    rounded = [node for node in onnx.load_from_string(model).graph.node if node.op_type == "QuantizeLinear"]
    found = parse_with_nvidia(model)
    assert found is not None
    assert found.rounded == len(rounded) > 0
    assert found.layers > len(rounded)
    assert len(found.plan) > 10_000
    assert dict(found.types) == dict.fromkeys(int8_layers(model), "int8"), "none has fallen back to float"


@pytest.mark.usefixtures("rtx")
def test_a_front_end_of_averaged_magnitudes_is_accepted(on_magnitudes: Exported) -> None:
    for model in (on_magnitudes.int8["tensorrt"], on_magnitudes.float32):
        assert parse_with_nvidia(model) is not None


@pytest.mark.usefixtures("rtx")
def test_the_float_graph_is_accepted(exported: Exported) -> None:
    found = parse_with_nvidia(exported.float32)
    assert found is not None
    assert (found.rounded, dict(found.types)) == (0, {})


@pytest.mark.usefixtures("rtx")
def test_the_flavour_that_it_would_clip_is_refused_before_it_is_asked(exported: Exported) -> None:
    with pytest.raises(GateError, match=r"refuses the graph: tensor '.*' is rounded to uint8") as refusal:
        parse_with_nvidia(exported.int8["onnxruntime"])
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("rtx")
def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(GateError, match="refuses the graph"):
        parse_with_nvidia(b"no graph")
