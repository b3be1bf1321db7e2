"""int8 as edgekd makes it, and as ONNX Runtime's own static quantisation makes it of the same float student.

    python -m tests.benchmarks.int8 RUN [--json]

RUN is a finished run with an int8 student. ONNX Runtime's tool gets what a good engineer would give it: the float graph
pre-processed as its guide says, the front end left out (in int8 a log-mel is noise), per-channel weights, the same
calibration clips, three calibrators, and once the advice to quantise convolutions and linear layers only ("layers").
Accuracy is on the run's own test side. Latency is one clip on one thread; the graphs take turns, whole and without
their front ends, and are compared round by round.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgekd.data.clip_store import ClipStore
from edgekd.exporting.cost import split_at_log_mel
from edgekd.exporting.graph import FRONT_END, Form, float_onnx, quantized_onnx
from edgekd.exporting.verify import session
from edgekd.quantization.calibration import load_recipe, select_clips
from edgekd.quantization.int8_student import load_int8, quantized_network
from edgekd.runs.run import Run

CALIBRATORS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
OURS = "edgekd int8"
PARTS = {"whole": 7, "network": 12}  # and how wide a column is
ROUNDS, BLOCK = 60, 5  # each graph runs a block in every round

Sound = NDArray[np.float32]


class _Clips(CalibrationDataReader):
    def __init__(self, store: ClipStore, rows: Sequence[int]) -> None:
        self.waveforms: Iterator[Sound] = (store.waveforms([row]).numpy() for row in rows)

    def get_next(self) -> dict[str, Sound] | None:
        waveform = next(self.waveforms, None)
        return None if waveform is None else {"waveform": waveform}


def by_onnxruntime(
    float_model: bytes,
    store: ClipStore,
    rows: Sequence[int],
    method: CalibrationMethod,
    operators: list[str] | None = None,
) -> bytes:
    """What onnxruntime's `quantize_static` makes of a float graph: all that it can, or these `operators` only."""
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "made"))
        given.write_bytes(float_model)
        quant_pre_process(str(given), str(prepared))
        nodes = onnx.load(prepared).graph.node
        quantize_static(
            prepared,
            made,
            _Clips(store, rows),
            op_types_to_quantize=operators,
            nodes_to_exclude=[node.name for node in nodes if node.name.startswith(FRONT_END)],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            extra_options={"CalibPercentile": 99.99} if method is CalibrationMethod.Percentile else {},
        )
        return made.read_bytes()


def subjects(run: Run, store: ClipStore) -> dict[str, bytes]:
    """Serialised graphs by name."""
    data = run.open_data()
    index = data.index
    rows = select_clips(index.labels, data.split.train, load_recipe("default"), run.config.seed)
    float_model = float_onnx(run.student(), store.samples)
    quantised = load_int8(run)
    graphs = {
        "float": float_model,
        OURS: quantized_onnx(
            quantised, quantized_network(quantised), store.samples, "onnxruntime", Form(computes_weights=True)
        ),
    }
    for name, method in CALIBRATORS.items():
        graphs[f"onnxruntime int8, {name}"] = by_onnxruntime(float_model, store, rows, method)
    layers = ["Conv", "Gemm"]
    graphs["onnxruntime int8, layers"] = by_onnxruntime(float_model, store, rows, CalibrationMethod.MinMax, layers)
    return graphs


def accuracy(model: bytes, store: ClipStore, rows: Sequence[int], labels: Sequence[int]) -> float:
    runtime = session(model)
    found = [runtime.run(None, {"waveform": store.waveforms([row]).numpy()})[0].argmax() for row in rows]
    return float(np.mean(np.array(found) == [labels[row] for row in rows]))


def calls(models: dict[str, bytes], waveform: Sound) -> dict[tuple[str, str], Callable[[], object]]:
    """(name, "whole" or "network") -> one classification."""
    found: dict[tuple[str, str], Callable[[], object]] = {}
    for name, model in models.items():
        whole = session(model)
        found[name, "whole"] = lambda runtime=whole: runtime.run(None, {"waveform": waveform})  # type: ignore[misc]
        parts = split_at_log_mel(onnx.load_from_string(model))
        assert parts is not None
        first, second = (session(part.SerializeToString()) for part in parts)
        feed = {second.get_inputs()[0].name: first.run(None, {"waveform": waveform})[0]}
        found[name, "network"] = lambda runtime=second, feed=feed: runtime.run(None, feed)  # type: ignore[misc]
    return found


def blocks(timed: dict[tuple[str, str], Callable[[], object]]) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Median ms of each call in each round; calls take turns in short blocks whose first call is not timed."""
    found: dict[tuple[str, str], list[float]] = {key: [] for key in timed}
    for _ in range(ROUNDS):
        for key, call in timed.items():
            call()
            seconds = []
            for _ in range(BLOCK):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
            found[key].append(1e3 * statistics.median(seconds))
    return {key: np.array(values) for key, values in found.items()}


def ratio(times: NDArray[np.float64], base: NDArray[np.float64]) -> tuple[float, float, float]:
    """Median over the rounds of `times / base`, and where the middle half of them lies: drift hits both alike."""
    low, middle, high = np.percentile(times / base, (25, 50, 75))
    return float(middle), float(low), float(high)


def main() -> None:
    logging.disable(logging.WARNING)  # the quantiser's advice to do what is done here
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    run = Run.open(options.run)
    data = run.open_data()
    index = data.index
    store, test = data.store, data.split.test
    models = subjects(run, store)
    times = blocks(calls(models, store.waveforms(test[:1]).numpy()))
    rows = [
        {
            "graph": name,
            "accuracy": round(accuracy(model, store, test, index.labels), 4),
            "bytes": len(model),
            **{f"{part}_ms": round(float(np.median(times[name, part])), 3) for part in PARTS},
            **{f"{part}_ratio": ratio(times[name, part], times[OURS, part]) for part in PARTS},
        }
        for name, model in models.items()
    ]
    if options.json:
        print(json.dumps({"run": str(run.folder), "test_clips": len(test), "rows": rows}))
        return
    print(f"{run.folder}, {len(test)} test clips; ratios to '{OURS}', medians over rounds (middle half)")
    print(f"{'':<30}{'accuracy':>10}{'KB':>6}{'ms':>7}{'ratio':>19}{'network ms':>12}{'ratio':>19}")
    for row in rows:
        cells = "".join(
            f"{row[f'{part}_ms']:>{wide}.2f}{_shown(row[f'{part}_ratio']):>19}" for part, wide in PARTS.items()
        )
        print(f"{row['graph']:<30}{row['accuracy']:>10.1%}{row['bytes'] / 1e3:>6.0f}{cells}")


def _shown(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f}-{found[2]:.2f})"


if __name__ == "__main__":
    main()
