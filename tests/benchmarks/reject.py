"""What it costs to tell the unknown: bytes of the graph, and processor time of a clip, measured in turns.

    python -m tests.benchmarks.reject

One thread, an untrained int8 `hltdnn_ds` of 10 classes, 5 s at 32 kHz; medians of 60 rounds, and of the ratios of each.
"""

from __future__ import annotations

import time

import numpy as np

from edgekd.config import FrontendConfig
from edgekd.exporting.budget import untrained
from edgekd.exporting.graph import onnx_of
from edgekd.exporting.known import KnownScore
from edgekd.exporting.manifest import Reject
from edgekd.exporting.verify import session
from edgekd.scoring.familiarity import Gaussians

RATE, SAMPLES, CLASSES, ROUNDS = 32_000, 160_000, 10, 60


def main() -> None:
    """Print both for each score."""
    plain = untrained(("hltdnn_ds", 1.0), CLASSES, FrontendConfig().at(RATE), RATE, SAMPLES, "int8")
    layer = plain.student.embedding_layer
    assert layer is not None
    random = np.random.default_rng(0)
    labels = np.arange(600) % CLASSES
    gaussians = Gaussians.fit(random.normal(size=(600, layer.size)), labels, CLASSES)
    graphs = {"none": onnx_of(plain, "onnxruntime")}
    for score in ("energy", "mahalanobis"):
        reject = Reject(score=score, threshold=0.0, span=1.0, share=0.05, clips=1)  # type: ignore[arg-type]
        known = KnownScore(score, gaussians if score == "mahalanobis" else None)  # type: ignore[arg-type]
        graphs[score] = onnx_of(plain.rejecting(known, reject), "onnxruntime")
    sessions = {name: session(graph) for name, graph in graphs.items()}
    clip = {"waveform": (0.1 * random.standard_normal((1, SAMPLES))).astype(np.float32)}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(ROUNDS + 5):
        for name, runtime in sessions.items():
            began = time.process_time()
            runtime.run(None, clip)
            if turn >= 5:
                times[name].append(1e3 * (time.process_time() - began))
    for name, graph in graphs.items():
        ratio = np.median(np.array(times[name]) / np.array(times["none"]))
        print(f"{name:<12} {len(graph):>9,} bytes   {np.median(times[name]):.2f} ms   {ratio:.3f} of none")


if __name__ == "__main__":
    main()
