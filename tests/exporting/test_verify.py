"""The parity gate refuses what it should, with the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekd.errors import GateError
from edgekd.exporting.graph import Form, float_onnx, quantized_onnx
from edgekd.exporting.targets import Tolerance
from edgekd.exporting.verify import (
    REFERENCE_CLIPS,
    in_onnxruntime,
    in_reference,
    reference,
    session,
    verify,
    verify_by_reference,
)

if TYPE_CHECKING:
    from conftest import Exported

TOLERANCE = Tolerance(probability=0.02, agreement=0.98)


def with_perturbed_weight(model_bytes: bytes, name: str) -> bytes:
    model = onnx.load_from_string(model_bytes)
    (stored,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(stored).copy()
    values[0] = -values[0]
    stored.CopyFrom(numpy_helper.from_array(values, name))
    return model.SerializeToString()


def test_a_faithful_model_passes_and_its_figures_are_reported(exported: Exported) -> None:
    for flavour, model in exported.int8.items():
        trained = reference(exported.student, exported.network, flavour)
        parity = verify(in_onnxruntime(model), trained, exported.waveforms, TOLERANCE)
        assert parity.clips == 64
        assert parity.agreement >= 0.98
        assert 0 < parity.largest_difference <= 0.02


def test_a_perturbed_weight_is_refused_with_figures_and_tolerance(exported: Exported) -> None:
    model = with_perturbed_weight(exported.int8["onnxruntime"], "network.classifier.weight.integers")
    trained = reference(exported.student, exported.network, "onnxruntime")
    with pytest.raises(GateError, match=r"on 64 clips: .*% same class \(at least 98.0% wanted\), .*at most 0.0200"):
        verify(in_onnxruntime(model), trained, exported.waveforms, TOLERANCE)


def test_outputs_that_are_not_numbers_are_refused(exported: Exported) -> None:
    def broken(waveforms: torch.Tensor) -> torch.Tensor:
        return torch.full((len(waveforms), 5), float("nan"))

    with pytest.raises(GateError, match="does not agree"):
        verify(in_onnxruntime(exported.int8["onnxruntime"]), broken, exported.waveforms, TOLERANCE)


def test_the_flavour_of_the_reference_matters_beyond_127_scales(exported: Exported) -> None:
    """Louder than any calibration clip: onnxruntime's uint8 goes on to 255 scales where int8 stops at 127."""
    loud = exported.waveforms * 300
    model = exported.int8["onnxruntime"]
    found = torch.from_numpy(session(model).run(None, {"waveform": loud.numpy()})[0])
    own, other = (
        (reference(exported.student, exported.network, flavour)(loud) - found).abs().max().item()
        for flavour in ("onnxruntime", "tensorrt")
    )
    assert own < 0.02
    assert other > 2 * own


def test_the_reference_leaves_student_and_network_as_they_are(exported: Exported) -> None:
    before = [quantiser.range for quantiser in exported.network.quantisers().values()]
    reference(exported.student, exported.network, "onnxruntime")
    assert [quantiser.range for quantiser in exported.network.quantisers().values()] == before
    assert exported.student.network is not exported.network


def test_too_few_clips_are_a_mistake_of_the_caller(exported: Exported) -> None:
    with pytest.raises(ValueError, match="at least 64"):
        classify = in_onnxruntime(exported.float32)
        verify(classify, reference(exported.student), exported.waveforms[:63], TOLERANCE)


@pytest.mark.parametrize("opset", [13, 20])
def test_the_standards_own_implementation_agrees_and_refuses_what_does_not(exported: Exported, opset: int) -> None:
    form = Form(opset=opset)
    model = quantized_onnx(exported.student, exported.network, exported.waveforms.shape[1], "tensorrt", form)
    trained = reference(exported.student, exported.network, "tensorrt")
    parity = verify_by_reference(in_reference(model), trained, exported.waveforms, TOLERANCE)
    assert parity.clips == REFERENCE_CLIPS
    assert parity.largest_difference <= 0.02
    wrong = in_reference(with_perturbed_weight(model, "network.classifier.weight.integers"))
    with pytest.raises(GateError, match=r"onnx.reference .* gets other probabilities"):
        verify_by_reference(wrong, trained, exported.waveforms, TOLERANCE)


def test_a_graph_is_a_function_of_waveforms_whatever_it_takes(exported: Exported) -> None:
    samples = exported.waveforms.shape[1]
    expected = reference(exported.student)(exported.waveforms[:9])
    for form in (Form(batch=1), Form(log_mel="external"), Form(log_mel="external", batch=1)):
        model = float_onnx(exported.student, samples, form)
        found = in_onnxruntime(model, exported.student.front_end)(exported.waveforms[:9])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_file_that_is_no_model_is_refused_by_name_of_the_runtime() -> None:
    with pytest.raises(GateError, match=r"ONNX Runtime .* cannot load"):
        session(np.random.default_rng(0).bytes(200))
