"""A network in tflite-micro beside our own C of it: for the Python of an environment that has tflite-micro and numpy.

    python in_tflite_micro.py FOLDER ROUNDS

In FOLDER lie `network.npz` (what `tests.benchmarks.peers.network` writes), `network.so`, and the models are
written there, `network.tflite` and `convolutions.tflite`. Prints a line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

INT8, INT32, FLOAT = schema.TensorType.INT8, schema.TensorType.INT32, schema.TensorType.FLOAT32
OPERATOR = schema.BuiltinOperator
VERSIONS = {OPERATOR.PAD: 2, OPERATOR.CONV_2D: 3, OPERATOR.DEPTHWISE_CONV_2D: 3}  # those that take int8
LOGIT_STEPS = 120  # of an int8 logit's 127, for the largest that the clips have


class Model:
    """A graph in the making: tensors and operators by name."""

    def __init__(self) -> None:
        self.buffers, self.tensors, self.operators = [schema.BufferT()], [], []
        self.codes: list[int] = []

    def tensor(self, name: str, shape: Any, kind: int, scale: Any = None, zero_point: int = 0, data: Any = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(map(int, shape)), kind, 0
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = np.full(len(scales), zero_point, np.int64)
            tensor.quantization.quantizedDimension = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def depthwise_axis(self, tensor: int) -> None:
        self.tensors[tensor].quantization.quantizedDimension = 3

    def operator(self, name: str, inputs: list[int], output: int, **options: Any) -> int:
        code = getattr(OPERATOR, name)
        if code not in self.codes:
            self.codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.codes.index(code), inputs, [output]
        kind = options.pop("kind", None)
        if kind is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")()
            for field, value in options.items():
                setattr(made.builtinOptions, field, value)
        self.operators.append(made)
        return output

    def pack(self, entry: int, output: int) -> bytes:
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [entry], [output]
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, []
        for code in self.codes:
            made = schema.OperatorCodeT()
            made.builtinCode, made.deprecatedBuiltinCode, made.version = code, min(code, 127), VERSIONS.get(code, 1)
            model.operatorCodes.append(made)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _maps(model: Model, facts: Mapping[str, Any]) -> dict[str, int]:
    return {
        each["name"]: model.tensor(each["name"], (1, *each["shape"]), INT8, each["scale"], each["zero_point"])
        for each in facts["maps"]
    }


def convolutions_of(facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> bytes:
    """The convolutions one behind the other that the first means are taken of, with the same weights and scales."""
    model, layers = Model(), facts["layers"]
    end = next(layer["source"] for layer in layers if layer["kind"] == "means")
    wanted, names = end, {end}
    for layer in reversed(layers):
        if layer["target"] == wanted:
            wanted = layer["source"]
            names.add(wanted)
    kept = [each for each in facts["maps"] if each["name"] in names]
    maps, known = _maps(model, {"maps": kept}), {each["name"]: each for each in kept}
    for number, layer in enumerate(layers):
        if layer["target"] in names:
            _convolution(model, number, layer, arrays, known, maps)
    return model.pack(maps[wanted], maps[end])


def model_of(facts: Mapping[str, Any], arrays: Mapping[str, Any], logit_scale: float) -> bytes:
    """The network with the same weights and scales; the last layer's results are rounded to `logit_scale`."""
    model = Model()
    maps = _maps(model, facts)
    known = {each["name"]: each for each in facts["maps"]}
    parts: dict[str, list[tuple[int, int]]] = {}
    for number, layer in enumerate(facts["layers"]):
        if layer["kind"] == "convolution":
            _convolution(model, number, layer, arrays, known, maps)
        else:
            made = _means(model, number, layer, arrays, known[layer["source"]], known[layer["target"]], maps)
            parts.setdefault(layer["target"], []).append((layer["start"], made))
    joined = known[facts["source"]]
    (name, found), *others = parts.items()
    assert name == facts["source"] and not others
    model.operator(
        "CONCATENATION",
        [made for _, made in sorted(found)],
        maps[name],
        kind="ConcatenationOptions",
        axis=3,
    )
    weight, factor = arrays["weight"], arrays["factor"] * 2.0**-12 / joined["scale"]
    bias = arrays["bias"].astype(np.int64) + joined["zero_point"] * weight.sum(axis=1, dtype=np.int64)
    filters = model.tensor("w", (len(weight), 1, 1, weight.shape[1]), INT8, factor, data=weight)
    biases = model.tensor("b", bias.shape, INT32, joined["scale"] * factor, data=bias.astype(np.int32))
    logits = model.tensor("logits", (1, 1, 1, len(weight)), INT8, logit_scale, 0)
    model.operator(
        "CONV_2D",
        [maps[name], filters, biases],
        logits,
        kind="Conv2DOptions",
        strideH=1,
        strideW=1,
        dilationHFactor=1,
        dilationWFactor=1,
        padding=schema.Padding.VALID,
    )
    return model.pack(maps[facts["maps"][0]["name"]], logits)


def _convolution(model: Model, number: int, layer: Any, arrays: Any, known: Any, maps: Mapping[str, int]) -> None:
    source, target = known[layer["source"]], known[layer["target"]]
    entry = _padded(model, layer, source, target, maps)
    weight = arrays[f"{number}_weight"]
    factor = arrays[f"{number}_factor"] * target["scale"] / source["scale"]
    if layer["depthwise"]:
        weight = weight[..., 0].transpose(1, 2, 0)[None]
    filters = model.tensor(f"w{number}", weight.shape, INT8, factor, data=weight)
    if layer["depthwise"]:
        model.depthwise_axis(filters)
    bias = arrays[f"{number}_bias"].astype(np.int64) + source["zero_point"] * arrays[f"{number}_sums"]
    scales = np.float64(np.float32(source["scale"])) * factor.astype(np.float32)  # as the numbers of the file have it
    biases = model.tensor(f"b{number}", bias.shape, INT32, scales, data=bias.astype(np.int32))
    kind = {"kind": "DepthwiseConv2DOptions", "depthMultiplier": 1} if layer["depthwise"] else {}
    model.operator(
        "DEPTHWISE_CONV_2D" if layer["depthwise"] else "CONV_2D",
        [entry, filters, biases],
        maps[layer["target"]],
        **{"kind": "Conv2DOptions", **kind},
        strideH=layer["stride"][0],
        strideW=layer["stride"][1],
        dilationHFactor=1,
        dilationWFactor=1,
        padding=schema.Padding.VALID if entry != maps[layer["source"]] else schema.Padding.SAME,
    )


def _padded(model: Model, layer: Any, source: Any, target: Any, maps: Mapping[str, int]) -> int:
    """The layer's entry: the map itself where padding is what SAME means, else one with the padding about it."""
    same, pads = True, layer["padding"]
    for size, out, kernel, stride, ends in zip(
        source["shape"], target["shape"], layer["kernel"], layer["stride"], (pads[:2], pads[2:]), strict=False
    ):
        total = max((out - 1) * stride + kernel - size, 0)
        same &= out == -(-size // stride) and ends[0] == total // 2
    if same:
        return maps[layer["source"]]
    rows, columns, channels = source["shape"]
    shape = (1, rows + pads[0] + pads[1], columns + pads[2] + pads[3], channels)
    wide = model.tensor(f"{layer['target']}_padded", shape, INT8, source["scale"], source["zero_point"])
    ends = np.array([[0, 0], pads[:2], pads[2:], [0, 0]], np.int32)
    model.operator("PAD", [maps[layer["source"]], model.tensor("p", (4, 2), INT32, data=ends)], wide, kind="PadOptions")
    return wide


def _means(model: Model, number: int, layer: Any, arrays: Any, source: Any, target: Any, maps: Any) -> int:
    rows, columns, channels = source["shape"]
    if not layer["bins"]:
        made = model.tensor(f"means{number}", (1, 1, 1, channels), INT8, target["scale"], target["zero_point"])
        axes = model.tensor("axes", (2,), INT32, data=np.array([1, 2], np.int32))
        return model.operator("MEAN", [maps[layer["source"]], axes], made, kind="ReducerOptions", keepDims=True)
    # Integers have no histogram here: what a table says of each value, looked up, averaged and scaled in float.
    bins, cells, places = layer["bins"], layer["cells"], rows * columns
    table = arrays[f"{number}_table"].astype(np.float32).reshape(channels * 256, bins) / 32768
    rise = np.arange(channels, dtype=np.int32) * 256 + 128
    whole = model.tensor(f"n{number}", (1, rows, columns, channels), INT32)
    model.operator("CAST", [maps[layer["source"]]], whole, kind="CastOptions")
    place = model.tensor(f"i{number}", (1, rows, columns, channels), INT32)
    model.operator("ADD", [whole, model.tensor("rise", (channels,), INT32, data=rise)], place, kind="AddOptions")
    told = model.tensor(f"t{number}", (1, rows, columns, channels, bins), FLOAT)
    data = model.tensor(f"table{number}", table.shape, FLOAT, data=table)
    model.operator("GATHER", [data, place], told, kind="GatherOptions", axis=0, batchDims=0)
    flat = model.tensor(f"f{number}", (1, rows, columns, channels * bins), FLOAT)
    shape = model.tensor("s", (4,), INT32, data=np.array([1, rows, columns, channels * bins], np.int32))
    model.operator("RESHAPE", [told, shape], flat, kind="ReshapeOptions", newShape=[1, rows, columns, channels * bins])
    means = model.tensor(f"m{number}", (1, *cells, channels * bins), FLOAT)
    height, width = rows // cells[0], columns // cells[1]
    assert height * cells[0] == rows and width * cells[1] == columns
    pool = {"strideH": height, "strideW": width, "filterHeight": height, "filterWidth": width}
    model.operator("AVERAGE_POOL_2D", [flat], means, kind="Pool2DOptions", padding=schema.Padding.VALID, **pool)
    count = cells[0] * cells[1]
    sizes, turned = (1, count, channels * bins), (1, channels * bins, count)
    lines, columns_first = (model.tensor(f"{n}{number}", each, FLOAT) for n, each in (("l", sizes), ("c", turned)))
    shape = model.tensor("s3", (3,), INT32, data=np.array(sizes, np.int32))
    model.operator("RESHAPE", [means, shape], lines, kind="ReshapeOptions", newShape=list(sizes))
    order = model.tensor("order", (3,), INT32, data=np.array([0, 2, 1], np.int32))
    model.operator("TRANSPOSE", [lines, order], columns_first, kind="TransposeOptions")
    step = arrays[f"{number}_factor"] * target["scale"] * (places // count)  # of a mean of shares, in its real unit
    factor = np.repeat(step * 32768, bins).astype(np.float32).reshape(1, -1, 1)
    offset = np.repeat(arrays[f"{number}_bias"] * arrays[f"{number}_factor"] * target["scale"], bins)
    many, sum_ = (model.tensor(f"{n}{number}", turned, FLOAT) for n in ("x", "y"))
    model.operator(
        "MUL", [columns_first, model.tensor("by", factor.shape, FLOAT, data=factor)], many, kind="MulOptions"
    )
    offset = offset.astype(np.float32).reshape(1, -1, 1)
    model.operator("ADD", [many, model.tensor("more", offset.shape, FLOAT, data=offset)], sum_, kind="AddOptions")
    vector = model.tensor(f"v{number}", (1, 1, 1, channels * bins * count), FLOAT)
    shape = model.tensor("s1", (4,), INT32, data=np.array([1, 1, 1, channels * bins * count], np.int32))
    new = [1, 1, 1, channels * bins * count]
    model.operator("RESHAPE", [sum_, shape], vector, kind="ReshapeOptions", newShape=new)
    made = model.tensor(f"q{number}", new, INT8, target["scale"], target["zero_point"])
    return model.operator("QUANTIZE", [vector], made, kind="QuantizeOptions")


def arena_of(interpreter: Any) -> int:
    """What the interpreter says that it used of its arena, in bytes: it prints that to standard error."""
    with tempfile.TemporaryFile() as said:
        kept = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        text = said.read().decode(errors="replace")
    found = re.search(r"Arena allocation total (\d+) bytes", text)
    assert found is not None, text
    return int(found[1])


def _shares(logits: Any, facts: Mapping[str, Any]) -> Any:
    if facts["several"]:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def main(folder: Path, rounds: int) -> None:
    stored = np.load(folder / "network.npz")
    facts, arrays = json.loads(str(stored["facts"])), {name: stored[name] for name in stored.files}
    values, ours = arrays["values"], ctypes.CDLL(str(folder / "network.so"))
    scores = np.zeros((len(values), facts["classes"]), np.int32)

    def of_c(clip: int) -> None:
        ours.infer(values[clip].ctypes.data_as(ctypes.c_void_p), scores[clip].ctypes.data_as(ctypes.c_void_p))

    logits = arrays["logits"] * 2.0**-12
    model = model_of(facts, arrays, float(np.abs(logits).max() / LOGIT_STEPS))
    (folder / "network.tflite").write_bytes(model)
    (folder / "convolutions.tflite").write_bytes(convolutions_of(facts, arrays))
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=4 << 20)
    found = np.zeros((len(values), facts["classes"]), np.int8)
    spent: dict[str, list[float]] = {"tflite-micro": [], "c": []}
    for clip in range(len(values)):
        interpreter.set_input(values[clip][None], 0)
        interpreter.invoke()
        found[clip] = interpreter.get_output(0).ravel()
        of_c(clip)
    for number in range(rounds):
        clip = number % len(values)
        interpreter.set_input(values[clip][None], 0)
        started = time.process_time()
        interpreter.invoke()
        middle = time.process_time()
        for _ in range(4):
            of_c(clip)
        spent["c"].append((time.process_time() - middle) / 4)
        spent["tflite-micro"].append(middle - started)
    best = logits.argmax(axis=1)
    ordered = np.sort(logits, axis=1)
    differ = found.argmax(axis=1) != best
    print(
        json.dumps(
            {
                "model_bytes": len(model),
                "arena_bytes": arena_of(interpreter),
                "seconds": spent,
                "clips": len(values),
                "c_as_numpy": bool((scores == arrays["scores"]).all()),
                "equal_class": int((~differ).sum()),
                "largest_logit_difference": float(np.abs(found * np.abs(logits).max() / LOGIT_STEPS - logits).max()),
                "largest_score_difference": float(
                    np.abs(_shares(found * np.abs(logits).max() / LOGIT_STEPS, facts) - arrays["scores"] / 32768).max()
                ),
                "logit_step": float(np.abs(logits).max() / LOGIT_STEPS),
                "closest_where_class_differs": (ordered[:, -1] - ordered[:, -2])[differ].tolist(),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
