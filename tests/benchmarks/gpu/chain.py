"""The whole chain on a device: `edgekd demo`, and a profile of its run there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgekd.config import ProfileConfig
from edgekd.demo import SETTINGS, demonstrate
from edgekd.experiments.chain import distill_and_quantize
from edgekd.profiling.profiler import profile
from edgekd.runs.run import Run
from tests.benchmarks.gpu.parts import NotHere, Task

CUDA_PROVIDER = "CUDAExecutionProvider"


def run(task: Task) -> None:
    """The chain, then profiles of what it made."""
    if task.check("demo", lambda: chained(task), needed=True):
        task.check("profile in PyTorch", lambda: profiled(task, ("torch",), None))
        task.check("profile in onnxruntime on the device", lambda: on_provider(task))


def chained(task: Task) -> dict[str, Any]:
    """`edgekd demo`, and how long its stages took."""
    began, stages = time.monotonic(), dict[str, float]()
    last = {"stage": "", "at": began}

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        now = time.monotonic()
        stages[stage] = stages.get(stage, 0.0) + now - last["at"]  # type: ignore[operator]
        last.update(stage=stage, at=now)

    with _sized(task):
        done = demonstrate(
            task.scratch / "demo", device=task.device, progress=progress, overwrite=True, train=distill_and_quantize
        )
    task.shared["run"] = done.run
    test = done.run.report()["test"]
    return {
        "demo_seconds": time.monotonic() - began,
        "stages_seconds": {name: round(value, 2) for name, value in stages.items() if value > 0.5},
        "accuracy": {name: values["accuracy"] for name, values in test.items()},
        "warnings": done.run.report().get("warnings", []),
        "verdict": list(done.profile.verdict),
    }


@contextmanager
def _sized(task: Task) -> Iterator[None]:
    """The demo's settings, much smaller on a CPU."""
    before = dict(SETTINGS)
    if task.small:
        simulation = {**SETTINGS["data"]["simulation"], "vessels_per_class": 5}
        SETTINGS["data"] = {**SETTINGS["data"], "sample_rate": 4_000, "clip_seconds": 1.0, "simulation": simulation}
        SETTINGS["frontend"] = {"n_fft": 256, "hop_length": 128, "n_mels": 32, "f_max": 1_900.0}
        SETTINGS["teacher"] = {**SETTINGS["teacher"], "epochs": 2}
        SETTINGS["training"] = {**SETTINGS["training"], "epochs": 2}
        SETTINGS["quantize"] = {"epochs": 2, "frozen_epochs": 1}
    try:
        yield
    finally:
        SETTINGS.clear()
        SETTINGS.update(before)


def profiled(task: Task, backends: tuple[str, ...], provider: str | None) -> dict[str, Any]:
    """`edgekd profile` of the run, on the device."""
    run: Run = task.shared["run"]
    config = ProfileConfig(
        backends=backends,
        device="cuda" if task.on_cuda and provider is None else "cpu",
        provider=provider or "CPUExecutionProvider",
        repetitions=20,
        seconds=3.0,
        batches=(1, 8) if task.small else (1, 8, 32),
        noise=None if task.small else "pink",
        layers=True,
    )
    found = profile(run, config)
    return {
        "subjects": {
            subject.name: {
                "runtime": subject.runtime,
                "p50_ms": None if subject.latency is None else subject.latency.p50_ms,
                "device_ms": None if subject.latency is None else subject.latency.device_ms,
                "accuracy": None if subject.scores is None else subject.scores.accuracy,
            }
            for subject in found.subjects
        },
        "notes": list(found.notes)[:6],
    }


def on_provider(task: Task) -> dict[str, Any]:
    """ONNX Runtime on the card, where it is built for it."""
    import onnxruntime

    if not task.on_cuda:
        raise NotHere("not on a CPU")
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise NotHere(f"onnxruntime {onnxruntime.__version__} here has no {CUDA_PROVIDER}")
    return profiled(task, ("onnxruntime",), CUDA_PROVIDER)


def show(result: Mapping[str, Any]) -> Iterator[str]:
    """A line a check, and one a subject."""
    for name, check in result.get("checks", {}).items():
        if check["state"] != "done":
            yield f"{name}: {check['state']}: {check.get('why', '')[:200]}"
        elif "demo_seconds" in check:
            accuracy = ", ".join(f"{subject} {value:.1%}" for subject, value in check["accuracy"].items())
            longest = sorted(check["stages_seconds"].items(), key=lambda pair: -pair[1])[:6]
            stages = ", ".join(f"{stage} {value:.0f}" for stage, value in longest)
            yield f"{name}: green in {check['demo_seconds']:.0f} s ({stages}); test: {accuracy}"
            for warning in check["warnings"]:
                yield f"  warning: {warning[:160]}"
        else:
            for subject, row in check["subjects"].items():
                whole = "" if row["p50_ms"] is None else f", {row['p50_ms']:.2f} ms"
                device = "" if row["device_ms"] is None else f", device {row['device_ms']:.3f} ms"
                accuracy = "" if row["accuracy"] is None else f", accuracy {row['accuracy']:.1%}"
                yield f"{name}: {subject}, {row['runtime']}{whole}{device}{accuracy}"
