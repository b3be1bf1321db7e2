"""Graphs of others: any ONNX file that maps waveforms `(B, S)` to scores `(B, K)`, made fit to be compared.

Weights may lie in files beside it, as `torch.onnx.export` writes them (`x.onnx.data`): those in its own folder are
read, and no other, which onnx itself sees to. Initialisers that are listed as inputs too, as older exporters did, are
constants. Waveforms are fed in the float type that the graph takes. Scores that are no probabilities are taken for
logits. Whatever else a graph may be ends in one line, before anything is measured: it is run on noise first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgekd.config import ProfileConfig
from edgekd.device.runner.engines import onnxruntime_failures
from edgekd.errors import GateError, InputError
from edgekd.exporting.verify import FLOATS, in_one_line
from edgekd.profiling.backends import OnnxGraph
from edgekd.report.results import Cost, PrecisionName
from edgekd.task import SINGLE, Task

if TYPE_CHECKING:
    import onnx

_LARGEST = 1 << 31  # bytes of an ONNX file: what protobuf holds
_LONGEST = 1 << 28  # samples of a clip, a gigabyte in float32
_SUM = 0.01  # how far from 1 a row of probabilities in float16 may be
_FIXED = "python -P -m onnxruntime.tools.make_dynamic_shape_fixed"


class Guest(OnnxGraph):
    """A graph of others. `classes`: K of what it gives. `notes`: what the reader of its figures should know."""

    classes: int
    notes: tuple[str, ...]

    def __init__(
        self, path: Path, model: bytes, precision: PrecisionName, config: ProfileConfig, task: Task = SINGLE
    ) -> None:
        super().__init__(model, precision, provider=config.provider, threads=config.threads)
        self._path, self._task = path, task
        notes = []
        scores = self._tried()
        self.classes = scores.shape[1]
        sums = scores.sum(dim=1)
        self._logits = bool(scores.min() < -_SUM) or bool(((sums - 1).abs() > _SUM).any())
        if task.several:
            self._logits = bool(scores.min() < 0) or bool(scores.max() > 1)
        if self._logits and task.several:
            notes.append(f"{path} gives scores outside 0 to 1: they were taken for logits, each of a class for itself.")
        elif self._logits:
            notes.append(
                f"{path} gives scores whose rows sum to {sums[0].item():.3g}, not to 1: they were taken for logits, and"
                " soft-maxed for what needs probabilities. The classes that win are the same."
            )
        if self._float is FLOATS["tensor(double)"]:
            notes.append(f"{path} computes in float64; its operations are counted as those of float32.")
        self._cost, uncounted = self._counted()
        self._is_counted = uncounted is None
        if uncounted is not None:
            notes.append(f"{path}: its operations could not be counted: {uncounted}.")
        self.notes = tuple(notes)

    def classify(self, waveforms: Tensor) -> Tensor:
        scores = super().classify(waveforms)
        return self._task.probabilities(scores) if self._logits else scores

    def cost(self, _example: Tensor) -> Cost:
        return self._cost

    def _parts(self) -> tuple[Any, Any] | None:
        """None too where the network takes more than what the log-mel becomes."""
        try:
            return super()._parts() if self._is_counted else None
        except GateError:
            return None

    def _tried(self) -> Tensor:
        """Its scores of noise, `(B, K)`: two clips, or one where it takes no more. Raises `InputError`."""
        clips = 1 if self.shape[0] == 1 else 2
        noise = 0.1 * torch.randn(clips, self.samples, generator=torch.Generator().manual_seed(0))
        try:
            scores = super().classify(noise)
        except onnxruntime_failures() as failure:
            words = (
                f"{self._path}: it does not run on {clips} clip{'s' * (clips > 1)} of noise: {in_one_line(failure)}."
            )
            raise InputError(f"{words} Export it for a batch of any size, or of 1.") from None
        if scores.ndim != 2 or len(scores) != clips:
            raise InputError(
                f"{self._path}: of {clips} clip{'s' * (clips > 1)} it gives scores of shape {tuple(scores.shape)};"
                f" {_WANTED}"
            )
        if not scores.isfinite().all():
            raise InputError(f"{self._path}: its scores of noise are not finite. Check it on a clip of your own.")
        return scores

    def _counted(self) -> tuple[Cost, str | None]:
        """What it costs, and why its operations are not in that."""
        from onnx.shape_inference import InferenceError

        try:
            return super().cost(torch.zeros(1, 1)), None
        except (ValueError, KeyError, ArithmeticError, InferenceError) as failure:
            return Cost(file_bytes=len(self.model)), in_one_line(failure)


def open_guest(path: Path, config: ProfileConfig, task: Task = SINGLE) -> Guest:
    """The graph in an ONNX file. Raises `InputError` for one that does not map waveforms to scores, and for one that
    cannot be read or run here."""
    import onnx

    model = _read(path)
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    _check_sound(path, inputs)
    if len(graph.output) != 1:
        raise InputError(f"{path}: {len(graph.output)} outputs ({_names(graph.output)}); {_WANTED}")
    given = graph.output[0].type
    if not given.HasField("tensor_type") or given.tensor_type.elem_type not in _float_types():
        raise InputError(f"{path}: its output '{graph.output[0].name}' is no tensor of floats; {_WANTED}")
    kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del graph.input[:]
    graph.input.extend(kept)
    given.tensor_type.ClearField("shape")  # what it says of it may be wrong, and is seen when it runs
    told = {entry.key: entry.value for entry in model.metadata_props}.get("edgekd.precision")
    integers = any(node.op_type in ("QuantizeLinear", "QLinearConv", "ConvInteger") for node in graph.node)
    halves = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    precision: PrecisionName = "int8" if told == "int8" or integers else "float16" if halves else "float32"
    try:
        return Guest(path, model.SerializeToString(), precision, config, task)
    except GateError as refusal:
        raise InputError(f"{path}: {refusal}") from None


def _read(path: Path) -> onnx.ModelProto:
    """The graph with all its tensors in it. Raises `InputError`."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.checker import ValidationError
    from onnx.external_data_helper import load_external_data_for_model

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as failure:
        raise InputError(f"{path}: not an ONNX file that can be read: {in_one_line(failure)}.") from None
    if not model.graph.node:
        raise InputError(f"{path}: not an ONNX file that can be read: it has no operators.")
    outside = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    try:
        lengths = [int(entry.value) for tensor in outside for entry in tensor.external_data if entry.key == "length"]
        if sum(lengths) < _LARGEST:
            load_external_data_for_model(model, str(path.parent))
    except (ValidationError, ValueError) as failure:
        raise InputError(
            f"{path}: its external data cannot be read: {in_one_line(failure)}. Keep the file that was written beside"
            " it in the same folder under the same name, or export it in one file (external_data=False)."
        ) from None
    if max(sum(lengths), model.ByteSize()) >= _LARGEST:
        raise InputError(f"{path}: 2 GiB or larger with its external data, which is more than can be profiled here.")
    return model


def _check_sound(path: Path, inputs: list[onnx.ValueInfoProto]) -> None:
    """Raise `InputError` where these are not one waveform `(B, S)` of floats, S known and B any or 1."""
    if len(inputs) != 1:
        raise InputError(f"{path}: {len(inputs)} inputs ({_names(inputs)}); {_WANTED}")
    sound = inputs[0]
    kind = sound.type.tensor_type
    if not sound.type.HasField("tensor_type") or kind.elem_type not in _float_types():
        raise InputError(f"{path}: its input '{sound.name}' is no tensor of floats; {_WANTED}")
    shape = [dimension.dim_value if dimension.HasField("dim_value") else None for dimension in kind.shape.dim]
    told = f"{path}: its input '{sound.name}' has the shape ({', '.join(str(size or '?') for size in shape)})"
    if not kind.HasField("shape"):
        told = f"{path}: its input '{sound.name}' has no shape"
    if len(shape) != 2:
        raise InputError(f"{told}; {_WANTED}")
    batch, samples = shape
    if not samples:
        raise InputError(
            f"{told}: how many samples it hears is not fixed. Fix it: {_FIXED} --input_name {sound.name} --input_shape"
            f" 1,SAMPLES {path} fixed.onnx"
        )
    if batch not in (None, 0, 1):
        raise InputError(f"{told}: it takes {batch} clips at a time. Export it for a batch of any size, or of 1.")
    if not 0 < samples <= _LONGEST:
        raise InputError(f"{told}: no clip is that long; {_WANTED}")


def _float_types() -> tuple[int, ...]:
    from onnx import TensorProto

    return (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def _names(values: Any) -> str:
    return ", ".join(value.name for value in values) or "none"


_WANTED = "a graph that maps one input, waveforms (batch, samples), to one output, scores (batch, classes), is wanted."
