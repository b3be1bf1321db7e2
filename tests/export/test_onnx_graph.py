"""The exported graphs against the networks they came from, by ONNX Runtime and by the standard's reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgekd import __version__
from edgekd.errors import InputError
from edgekd.export.onnx_graph import quantized_onnx
from edgekd.export.verify import reference, session
from edgekd.quantization.fake_quant import FLAVOURS, FlavourName
from edgekd.quantization.prepare import prepare

if TYPE_CHECKING:
    from conftest import Exported

LAYERS = 5  # convolutions of the small network


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model_bytes: bytes, waveforms: torch.Tensor) -> np.ndarray:
    return session(model_bytes).run(["probabilities"], {"waveform": waveforms.numpy()})[0]


def test_float_model_gives_the_students_probabilities(exported: Exported) -> None:
    expected = reference(exported.student)(exported.waveforms)
    np.testing.assert_allclose(run(exported.float32, exported.waveforms), expected, atol=1e-4)
    assert expected.max() - expected.min() > 0.3  # the comparison is not of constants


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_int8_model_in_onnxruntime_gives_the_fake_quantised_probabilities(
    exported: Exported, flavour: FlavourName
) -> None:
    expected = reference(exported.student, exported.network, flavour)(exported.waveforms).numpy()
    found = run(exported.int8[flavour], exported.waveforms)
    assert (found.argmax(1) == expected.argmax(1)).all()
    np.testing.assert_allclose(found, expected, atol=0.02)
    # Nearly every clip agrees to float32 rounding: what is left is one unit where a value lies between two.
    assert np.median(np.abs(found - expected).max(axis=1)) < 1e-5


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_int8_model_means_the_same_to_the_onnx_reference(exported: Exported, flavour: FlavourName) -> None:
    waveforms = exported.waveforms[:8]
    expected = reference(exported.student, exported.network, flavour)(waveforms).numpy()
    model = ReferenceEvaluator(onnx.load_from_string(exported.int8[flavour]))
    np.testing.assert_allclose(model.run(None, {"waveform": waveforms.numpy()})[0], expected, atol=0.02)


def test_onnxruntime_runs_every_layer_on_integers(exported: Exported, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model = exported.int8["onnxruntime"]
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    optimised = operators(onnx.load(tmp_path / "optimised.onnx"))
    assert optimised["QLinearConv"] == LAYERS
    assert optimised["QGemm"] == 1
    assert optimised["QLinearAdd"] == 1
    assert optimised["Relu"] == 0
    front_end = operators(onnx.load_from_string(exported.float32))["Conv"] - LAYERS
    assert optimised["Conv"] + optimised["FusedConv"] == front_end


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_weights_are_stored_as_int8_with_one_scale_a_channel(exported: Exported, flavour: FlavourName) -> None:
    stored = {tensor.name: tensor for tensor in onnx.load_from_string(exported.int8[flavour]).graph.initializer}
    for name in ("stem.0", "depthwise.0", "pointwise", "squeeze", "expand", "classifier"):
        weight = stored[f"network.{name}.weight.integers"]
        assert weight.data_type == onnx.TensorProto.INT8
        assert stored[f"network.{name}.weight.scale"].dims == [weight.dims[0]]
        assert f"network.{name}.operation.weight" not in stored


def test_one_scale_before_and_after_the_max_pool(exported: Exported) -> None:
    nodes = onnx.load_from_string(exported.int8["tensorrt"]).graph.node
    (pool,) = (node for node in nodes if node.op_type == "MaxPool")
    (before,) = (node for node in nodes if node.output[0] == pool.input[0])
    (after,) = (node for node in nodes if pool.output[0] in node.input)
    assert (before.op_type, after.op_type) == ("DequantizeLinear", "QuantizeLinear")
    assert before.input[1:] == after.input[1:]


def test_graph_has_no_needless_operators(exported: Exported) -> None:
    for model in (exported.float32, *exported.int8.values()):
        found = operators(onnx.load_from_string(model))
        needless = ("Identity", "Cast", "Shape", "Constant", "Dropout", "Expand", "Where", "Range")
        assert not {name: found[name] for name in needless if found[name]}
    # The averaged branch's batch norm is the only one that no convolution could take in.
    assert operators(onnx.load_from_string(exported.int8["tensorrt"]))["BatchNormalization"] <= 1


def test_model_takes_any_batch(exported: Exported) -> None:
    model = exported.int8["onnxruntime"]
    whole = run(model, exported.waveforms[:5])
    one_by_one = np.concatenate([run(model, clip[None]) for clip in exported.waveforms[:5]])
    np.testing.assert_allclose(whole, one_by_one, atol=1e-6)


def test_every_stored_weight_has_a_zero_point_of_its_own(exported: Exported) -> None:
    """ONNX Runtime's exact mode for x86 without VNNI fails on a shared one."""
    for model_bytes in exported.int8.values():
        graph = onnx.load_from_string(model_bytes).graph
        stored = {tensor.name for tensor in graph.initializer}
        points = [n.input[2] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]
        assert len(points) == len(set(points))


def test_interface_opset_and_metadata_are_those_promised(exported: Exported) -> None:
    for model_bytes, opset, properties in (
        (exported.float32, 20, {"edgekd.precision": "float32"}),
        (exported.int8["onnxruntime"], 20, {"edgekd.precision": "int8", "edgekd.flavour": "onnxruntime"}),
        (exported.int8["tensorrt"], 19, {"edgekd.precision": "int8", "edgekd.flavour": "tensorrt"}),
    ):
        model = onnx.load_from_string(model_bytes)
        assert [value.name for value in model.graph.input] == ["waveform"]
        assert [value.name for value in model.graph.output] == ["probabilities"]
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        assert (model.producer_name, model.producer_version) == ("edgekd", __version__)
        assert {entry.key: entry.value for entry in model.metadata_props} == properties
        assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_same_student_gives_the_same_bytes(exported: Exported) -> None:
    again = quantized_onnx(exported.student, exported.network, exported.waveforms.shape[1], "onnxruntime")
    assert again == exported.int8["onnxruntime"]


def test_nothing_of_the_exporting_machine_is_in_the_file(exported: Exported) -> None:
    for model in (exported.float32, *exported.int8.values()):
        assert str(Path(__file__).parents[2]).encode() not in model
        assert b"stack_trace" not in model


def test_an_uncalibrated_network_is_refused(exported: Exported) -> None:
    network = prepare(exported.student.network, exported.student.log_mel(exported.waveforms[:2]).detach())
    with pytest.raises(InputError, match="was not calibrated"):
        quantized_onnx(exported.student, network, exported.waveforms.shape[1], "tensorrt")


def test_opsets_that_onnxruntime_fails_on_are_refused(exported: Exported) -> None:
    with pytest.raises(ValueError, match="opset 21"):
        quantized_onnx(exported.student, exported.network, exported.waveforms.shape[1], "tensorrt", opset=21)
