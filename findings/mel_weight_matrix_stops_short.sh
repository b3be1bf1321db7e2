#!/usr/bin/env bash
# ONNX's MelWeightMatrix stops short of the upper frequency that it is given.
#
# The operator makes the matrix from spectrum to mel bands that every audio model needs, inside the graph.
# Expected: N triangles between N + 2 edges, the first at the lower and the last at the upper frequency, as in HTK,
# Kaldi, TensorFlow, librosa and torchaudio.
# Seen (onnxruntime 1.32.0 and, equally, onnx.reference 1.23.2): the edges are spaced by 1 / (N + 2) of the range in
# mel, where N + 1 fit, and then rounded down to whole bins. 40 bands up to 8000 Hz end at 7440 Hz, 64 at 7656 Hz, 128
# bands up to 22050 Hz at 21426 Hz; what lies above has no weight in any band. Bin 0 (0 Hz) can get the weight 1,
# which triangles never do.
# Matters: all bands lie lower than those that a model was trained on, the more the higher, and the top is missing:
# put the training's own matrix into the graph as a constant.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def operator(bands, points, rate):
    values = {
        "bands": np.int64(bands),
        "points": np.int64(points),
        "rate": np.int64(rate),
        "low": np.float32(0),
        "high": np.float32(rate / 2),
    }
    graph = helper.make_graph(
        [helper.make_node("MelWeightMatrix", list(values), ["matrix"])],
        "mel",
        [],
        [helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [points // 2 + 1, bands])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    matrix = session.run(None, {})[0]
    assert np.allclose(matrix, ReferenceEvaluator(model).run(None, {})[0])
    return matrix


def edges(bands, rate, spaces):
    """In Hz, spaced evenly in mel by the given part of the range up to half the rate."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    return 700 * (10 ** (np.arange(bands + 2) * top / spaces / 2595) - 1)


for bands, points, rate in ((40, 400, 16000), (64, 512, 16000), (128, 2048, 44100)):
    matrix = operator(bands, points, rate)
    used = np.flatnonzero(matrix.any(1)).max() * rate / points
    centres = np.floor((points + 1) * edges(bands, rate, bands + 2)[1:-1] / rate).astype(int)
    last = edges(bands, rate, bands + 1)[-2]
    print(f"{bands} bands up to {rate / 2:.0f} Hz: reach {used:.0f} Hz, the last has its centre at", end=" ")
    print(
        f"{matrix[:, -1].argmax() * rate / points:.0f} Hz and not at {last:.0f} Hz; weight of 0 Hz: {matrix[0].sum()}"
    )
    assert used < 0.98 * rate / 2
    assert np.array_equal(matrix.argmax(0), centres)
    assert matrix[:, -1].argmax() * rate / points < last - 200
assert operator(64, 512, 16000)[0].sum() == 1
PY
