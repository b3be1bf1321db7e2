"""The exported graphs against the networks they came from, by ONNX Runtime and by the standard's reference."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from edgekd import __version__
from edgekd.device.runner.log_mel import LogMel
from edgekd.errors import GateError, InputError
from edgekd.exporting.cost import split_at_log_mel
from edgekd.exporting.graph import Form, float_onnx, input_shape, log_mel_nodes, quantized_onnx
from edgekd.exporting.qdq_checks import check_optimised, check_structure, float_operators
from edgekd.exporting.verify import reference, session
from edgekd.models.build import build_student
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
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
    # The log-mel is turned while it is float. As a Transpose it would be merged with the one that moves channels last.
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    assert [0, 3, 2, 1] not in [list(node.attribute[0].ints) for node in nodes if node.op_type == "Transpose"]
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
        (exported.float32, 20, {"edgekd.precision": "fp32"}),
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


def test_a_half_precision_model_keeps_its_front_end_in_float32(exported: Exported) -> None:
    model_bytes = float_onnx(exported.student, exported.waveforms.shape[1], half=True)
    expected = reference(exported.student)(exported.waveforms)
    np.testing.assert_allclose(run(model_bytes, exported.waveforms), expected, atol=0.01)
    model = onnx.load_from_string(model_bytes)
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    assert halves
    assert all(not name.startswith("frontend.") for name in halves)
    in_front = [node for node in model.graph.node if node.name.startswith("frontend/")]
    assert {"Conv", "MatMul", "Log"} <= {node.op_type for node in in_front}
    assert not halves & {name for node in in_front for name in node.input}
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_an_external_front_end_leaves_the_normalisation_in_the_graph(exported: Exported) -> None:
    form = Form(log_mel="external")
    model_bytes = quantized_onnx(exported.student, exported.network, exported.waveforms.shape[1], "onnxruntime", form)
    log_mel = exported.student.front_end(exported.waveforms).detach().numpy()
    found = session(model_bytes).run(["probabilities"], {"log_mel": log_mel})[0]
    expected = run(exported.int8["onnxruntime"], exported.waveforms)
    np.testing.assert_allclose(found, expected, atol=0.02)
    (value,) = onnx.load_from_string(model_bytes).graph.input
    frames, bins = log_mel.shape[2:]
    assert [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim] == ["batch", 1, frames, bins]
    assert input_shape(exported.student.frontend.config, exported.waveforms.shape[1], "external") == (1, frames, bins)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_averaged_magnitudes_ship_as_they_were_trained(on_magnitudes: Exported, flavour: FlavourName) -> None:
    student, waveforms = on_magnitudes.student, on_magnitudes.waveforms
    np.testing.assert_allclose(run(on_magnitudes.float32, waveforms), reference(student)(waveforms), atol=1e-4)
    expected = reference(student, on_magnitudes.network, flavour)(waveforms).numpy()
    assert expected.max() - expected.min() > 0.3
    np.testing.assert_allclose(run(on_magnitudes.int8[flavour], waveforms), expected, atol=0.02)
    assert check_structure(on_magnitudes.int8[flavour], flavour) == 6
    if flavour == "onnxruntime":
        check_optimised(on_magnitudes.int8[flavour])
    pinned = log_mel_nodes(on_magnitudes.int8[flavour])
    assert {"frontend/sqrt", "frontend/averagepool", "frontend/log"} <= set(pinned)
    assert not any("Pool" in node for node in float_operators(on_magnitudes.int8[flavour]).network)


def test_the_log_mel_of_averaged_magnitudes_can_be_split_off(on_magnitudes: Exported) -> None:
    student, waveform = on_magnitudes.student, on_magnitudes.waveforms[:1]
    for model in (on_magnitudes.float32, *on_magnitudes.int8.values()):
        parts = split_at_log_mel(onnx.load_from_string(model))
        assert parts is not None
        front_end = session(parts[0].SerializeToString())
        (log_mel,) = front_end.run(None, {"waveform": waveform.numpy()})
        np.testing.assert_allclose(log_mel, student.log_mel(waveform).detach(), atol=1e-4)
        assert operators(parts[0])["AveragePool"] == 1
        assert not {"Log", "Sqrt"} & set(operators(parts[1])), "they are the front end's"


def test_averaged_magnitudes_may_come_from_outside(on_magnitudes: Exported) -> None:
    student, waveforms = on_magnitudes.student, on_magnitudes.waveforms
    form, samples = Form(log_mel="external"), waveforms.shape[1]
    model_bytes = quantized_onnx(student, on_magnitudes.network, samples, "onnxruntime", form)
    config = student.frontend.config
    own = LogMel(**config.given().model_dump(), sample_rate=4_000, gain=student.gain.item())(waveforms.numpy())
    assert own.shape[1:] == input_shape(config, samples, "external")
    found = session(model_bytes).run(["probabilities"], {"log_mel": own})[0]
    np.testing.assert_allclose(found, run(on_magnitudes.int8["onnxruntime"], waveforms), atol=0.02)


def test_a_fixed_batch_is_one_and_leaves_no_symbol(exported: Exported) -> None:
    samples = exported.waveforms.shape[1]
    model_bytes = quantized_onnx(exported.student, exported.network, samples, "tensorrt", Form(batch=1))
    graph = onnx.load_from_string(model_bytes).graph
    for value, shape in ((graph.input[0], [1, samples]), (graph.output[0], [1, 5])):
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == shape
    clip = exported.waveforms[:1]
    np.testing.assert_allclose(run(model_bytes, clip), run(exported.int8["tensorrt"], clip), atol=1e-6)


@pytest.mark.parametrize("opset", [13, 17])
def test_older_operator_sets_say_the_same(exported: Exported, opset: int) -> None:
    samples = exported.waveforms.shape[1]
    model_bytes = quantized_onnx(exported.student, exported.network, samples, "tensorrt", Form(opset=opset))
    assert onnx.load_from_string(model_bytes).opset_import[0].version == opset
    np.testing.assert_allclose(
        run(model_bytes, exported.waveforms), run(exported.int8["tensorrt"], exported.waveforms), atol=1e-5
    )


def test_nodes_are_called_after_their_modules(exported: Exported) -> None:
    for model_bytes in (exported.float32, *exported.int8.values()):
        names = [node.name for node in onnx.load_from_string(model_bytes).graph.node]
        assert len(set(names)) == len(names)
        assert {"frontend/conv", "frontend/log", "network.histogram/exp", "probabilities"} <= set(names)
        assert all(name.startswith(("frontend/", "network")) or name == "probabilities" for name in names)
        pinned = log_mel_nodes(model_bytes)
        assert "frontend/log" in pinned
        assert not any("quantized" in name or name.startswith("network") for name in pinned)


def test_layers_with_the_same_constants_do_not_share_them(exported: Exported) -> None:
    """Biases of zeros are one tensor to the exporter, and one with their zero points."""
    network = copy.deepcopy(exported.network)
    with torch.no_grad():
        for layer, quantiser in network.layers():
            if layer.layer.bias is not None:
                layer.layer.bias.zero_()
            layer.follow(quantiser.scale)
    model_bytes = quantized_onnx(exported.student, network, exported.waveforms.shape[1], "onnxruntime")
    expected = reference(exported.student, network, "onnxruntime")(exported.waveforms)
    np.testing.assert_allclose(run(model_bytes, exported.waveforms), expected, atol=0.02)
    nodes = onnx.load_from_string(model_bytes).graph.node
    stored = [name for node in nodes if node.output[0].endswith((".weight", ".bias")) for name in node.input]
    assert len(stored) == len(set(stored)) > 6


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
        quantized_onnx(exported.student, exported.network, exported.waveforms.shape[1], "tensorrt", Form(opset=21))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_uneven_padding_belongs_to_its_convolution(flavour: FlavourName) -> None:
    """YAMNet pads even maps with a row and a column at the end alone."""
    torch.manual_seed(0)
    student = build_student("yamnet-cut5", 4, 16_000, width=0.5, samples=16_000).eval()
    waveforms = 0.1 * torch.randn(4, 16_000)
    with torch.no_grad():
        log_mels = student.log_mel(waveforms)
    network = prepare(student.network, log_mels)
    calibrate(network, [log_mels], CalibrationRecipe(observer="absmax"))
    for model_bytes, trained in (
        (float_onnx(student, 16_000), reference(student)),
        (quantized_onnx(student, network, 16_000, flavour), reference(student, network, flavour)),
    ):
        model = onnx.load_from_string(model_bytes)
        after = [node for node in model.graph.node if node.name.startswith("network")]
        assert "Pad" not in {node.op_type for node in after}
        pads = {tuple(a.ints) for node in after if node.op_type == "Conv" for a in node.attribute if a.name == "pads"}
        assert any(pad[1] != pad[3] for pad in pads), "more zeros after the last mel bin than before the first"
        np.testing.assert_allclose(run(model_bytes, waveforms), trained(waveforms), atol=1e-3)


class Decomposed(nn.Module):
    """A network with an operator that PyTorch traces and its exporter has no ONNX for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        return self.network(log_mel * torch.linalg.svdvals(log_mel).amax())


def test_a_layer_that_the_exporter_does_not_know_is_one_line(exported: Exported) -> None:
    student = copy.deepcopy(exported.student)
    student.network = Decomposed(student.network)
    with pytest.raises(
        GateError, match=r"cannot write the student as an ONNX graph: it has no ONNX for aten"
    ) as caught:
        float_onnx(student, exported.waveforms.shape[1])
    assert "\n" not in str(caught.value)
