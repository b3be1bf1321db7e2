"""Parity: does the exported file, in ONNX Runtime, say what the trained network says?

A runtime rounds in other places than the fake-quantised network (an int8 result is one unit up or down where a sum
falls on the boundary), so probabilities differ a little and classes should not. Export refuses a model beyond its
tolerance.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgekd.errors import GateError
from edgekd.export.bundle import Parity
from edgekd.export.targets import Tolerance
from edgekd.models.students import Student
from edgekd.quantization.fake_quant import FlavourName, set_flavour
from edgekd.quantization.prepare import QuantizedNetwork

if TYPE_CHECKING:
    import onnxruntime

MIN_CLIPS = 64  # fewer say little about agreement
_BATCH = 8


def session(model_bytes: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """An ONNX Runtime CPU session of `model_bytes`, on `threads` threads.

    Raises `GateError` when the runtime refuses the model.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without VNNI, x86 adds pairs of uint8 x int8 products in 16 bits, which saturate; this asks for exact sums there
    # and changes nothing elsewhere.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
    except (failures.Fail, failures.InvalidGraph, failures.InvalidProtobuf, failures.NotImplemented) as refusal:
        raise GateError(f"ONNX Runtime {onnxruntime.__version__} cannot load the exported model: {refusal}") from None


def graph_classifier(runtime: onnxruntime.InferenceSession) -> Callable[[Tensor], Tensor]:
    """An exported graph as a classifier: its logits are log-probabilities, whose softmax is the probabilities again."""
    name = runtime.get_inputs()[0].name

    def classify(waveforms: Tensor) -> Tensor:
        probabilities = torch.from_numpy(runtime.run(None, {name: waveforms.numpy()})[0])
        return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()

    return classify


def reference(
    student: Student, network: QuantizedNetwork | None = None, flavour: FlavourName = "onnxruntime"
) -> Callable[[Tensor], Tensor]:
    """Waveforms `(B, S)` -> probabilities `(B, K)` as trained: the student, or with the quantised `network` in its
    place.

    `network` computes as a runtime of `flavour` will; see `edgekd.quantization.fake_quant.set_flavour`. Copies are
    taken, so what is passed in is left as it is.
    """
    whole = copy.deepcopy(student).cpu().eval()
    if network is not None:
        whole.network = copy.deepcopy(network).cpu().eval()
        set_flavour(whole.network, flavour)

    @torch.no_grad()
    def probabilities(waveforms: Tensor) -> Tensor:
        return whole(waveforms).logits.softmax(dim=1)

    return probabilities


def verify(
    model_bytes: bytes, reference: Callable[[Tensor], Tensor], waveforms: Tensor, tolerance: Tolerance
) -> Parity:
    """Compare the model in ONNX Runtime with `reference` on `waveforms (N, S)`, N at least `MIN_CLIPS`.

    Raises `GateError` with the figures when agreement is below or a difference above `tolerance`, or an output is not
    finite. ONNX Runtime stands in for TensorRT too: a `tensorrt`-flavour model is valid ONNX, and its meaning is the
    same.
    """
    if len(waveforms) < MIN_CLIPS:
        raise ValueError(f"verification needs at least {MIN_CLIPS} clips, got {len(waveforms)}")
    runtime = session(model_bytes)
    name = runtime.get_inputs()[0].name
    batches = waveforms.float().split(_BATCH)
    expected = torch.cat([reference(batch) for batch in batches])
    found = torch.cat([torch.from_numpy(runtime.run(None, {name: batch.numpy()})[0]) for batch in batches])
    if found.shape != expected.shape:
        raise GateError(
            f"The exported model gives outputs of shape {tuple(found.shape)}, the trained one {tuple(expected.shape)}."
        )
    agreement = (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean().item()
    difference = (found - expected).abs().max().item()
    if not (agreement >= tolerance.agreement and difference <= tolerance.probability):  # NaN refuses too
        raise GateError(
            f"The exported model does not agree with the trained one on {len(waveforms)} clips: {agreement:.1%} same "
            f"class (at least {tolerance.agreement:.1%} wanted), largest difference in probability {difference:.4f} "
            f"(at most {tolerance.probability:.4f}). Train the int8 student longer (edgekd quantize), or, if the "
            "application can bear it, set a wider [tolerance] in the target's TOML."
        )
    return Parity(clips=len(waveforms), agreement=agreement, largest_difference=difference)
