"""The operators that TensorRT boards are said to have, by the word of NVIDIA's parser.

The parser is that of TensorRT for RTX, which is newer than that of most boards: what it refuses, no board is said to
have. It is asked with the ONNX standard's own test of each operator, as it is; or, as an exporter would write it, with
all inputs but the first stored, and its first output alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, ValueInfoProto, numpy_helper

from edgekd.exporting.targets import Target, list_targets

BOARDS = [target for target in list_targets() if target.runtime == "tensorrt"]
NEWEST = [target for target in BOARDS if target.tensorrt is not None and target.tensorrt.version.startswith("11")]
LEFT_OUT = {"If", "Loop", "Scan", "NonMaxSuppression", "Scatter", "Upsample"}  # control flow, boxes, names of before


def stored_inputs(case: Any) -> ModelProto | None:
    """The test with all inputs but the first stored; None where they are no arrays."""
    model, (inputs, _) = ModelProto(), case.data_sets[0]
    model.CopyFrom(case.model)
    values = [ValueInfoProto.FromString(value.SerializeToString()) for value in model.graph.input]
    if not all(isinstance(array, np.ndarray) for array in inputs):
        return None
    stored = [numpy_helper.from_array(array, value.name) for value, array in zip(values, inputs, strict=False)]
    del model.graph.input[:]
    model.graph.input.append(values[0])
    model.graph.initializer.extend(stored[1:])
    return model


def first_output(model: ModelProto) -> ModelProto:
    found = ModelProto()
    found.CopyFrom(model)
    node = found.graph.node[0]
    node.output[1:] = [""] * (len(node.output) - 1)
    del found.graph.output[1:]
    return found


def forms(case: Any) -> Iterator[ModelProto]:
    yield case.model
    if case.data_sets and len(case.model.graph.input) > 1 and (stored := stored_inputs(case)) is not None:
        yield stored
        if len(case.model.graph.output) > 1:
            yield first_output(stored)


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip(
        "tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed: pip install 'edgekd[rtx]'"
    )


@pytest.fixture(scope="module")
def accepted(rtx: Any) -> set[str]:
    """The operators of which NVIDIA's parser takes a test of the standard."""
    from onnx.backend.test.case.node import collect_testcases

    cases = defaultdict(list)
    for case in collect_testcases(None):
        if len(case.model.graph.node) == 1:
            cases[case.model.graph.node[0].op_type].append(case)
    return {
        operator for operator, known in cases.items() if any(takes(rtx, form) for case in known for form in forms(case))
    }


def takes(rtx: Any, model: ModelProto) -> bool:
    logger = rtx.Logger(rtx.Logger.INTERNAL_ERROR)
    network = rtx.Builder(logger).create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return bool(rtx.OnnxParser(network, logger).parse(model.SerializeToString()))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the standard's tests
@pytest.mark.parametrize("target", BOARDS, ids=lambda target: target.name)
def test_a_board_has_no_operator_that_the_parser_refuses(target: Target, accepted: set[str]) -> None:
    assert set(target.operators) <= accepted


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("target", NEWEST, ids=lambda target: target.name)
def test_a_board_with_the_newest_tensorrt_has_all_that_the_parser_takes(target: Target, accepted: set[str]) -> None:
    known = {operator for operator in accepted if onnx.defs.has(operator, target.opset, "")}
    in_its_opset = {operator for operator in known if onnx.defs.get_schema(operator, target.opset, "").domain == ""}
    assert in_its_opset - set(target.operators) <= LEFT_OUT


def test_no_tensorrt_board_has_what_was_seen_refused() -> None:
    """Also where the parser is not installed."""
    assert len(BOARDS) == 7
    for target in BOARDS:
        assert not {"DFT", "MelWeightMatrix", "NonZero", "OneHot"} & set(target.operators), target.name
