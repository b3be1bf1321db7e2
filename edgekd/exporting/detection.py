"""What makes an event of what a run's student says: the thresholds that were chosen for it, defaults for the rest."""

from __future__ import annotations

from edgekd.device.runner.detection import default_hop, moved_hop
from edgekd.device.runner.log_mel import LogMel
from edgekd.errors import GateError
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.manifest import Detection
from edgekd.exporting.step_graphs import strides
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import Thresholds, read_thresholds


def detection_of(run: Run, stage: Stage) -> Detection:
    """For the student of a stage; `with_hops` says how far apart its windows are. Raises `InputError` as
    `read_thresholds` does."""
    defaults = Detection.of_nobody(run.classes, run.config.data.background)
    found = read_thresholds(run, stage)
    if found is None:
        return defaults
    events = {name: each for name, each in found.classes.items() if name != defaults.background}
    opens = {name: each.open for name, each in events.items() if each.open is not None}
    closes = {name: each.close for name, each in events.items() if each.close is not None}
    return defaults.model_copy(
        update={
            "open": {**defaults.open, **opens},
            "close": {**defaults.close, **closes},
            "chosen": _words(found),
        }
    )


def with_hops(detection: Detection, run: Run) -> Detection:
    """In windows about `default_hop` apart that share most of their work. A run and all its bundles have the same,
    whatever runs them: what is heard does not depend on it."""
    config = run.config
    samples = round(config.data.clip_seconds * config.data.sample_rate)
    shared = _shared_samples(run, samples)
    hop = moved_hop(default_hop(samples), samples, shared)
    return detection.model_copy(update={"hop_samples": hop, "shared_samples": shared})


def _shared_samples(run: Run, samples: int) -> tuple[int, ...]:
    """At which hops windows share columns of the log-mel, and of what the float student makes of it."""
    config = run.config
    told = config.frontend.given().model_dump(mode="json")
    log_mel = LogMel(**told, sample_rate=config.data.sample_rate, gain=1.0)
    try:
        graph = onnx_of(deployable_of(run, "fp32"), "onnxruntime", Form(log_mel="external"))
    except GateError:  # PyTorch cannot write this student as a graph, so windows have the log-mel in common at most
        return (log_mel.step_samples,)
    return tuple(log_mel.step_samples * stride for stride in strides(graph, log_mel, samples))


def _words(found: Thresholds) -> str:
    return f"{found.aim.words}, on the validation side: {found.clips} clips, {found.hours:.3g} h"
