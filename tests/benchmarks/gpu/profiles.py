"""The project's own profiling on a device: latencies by its events, layers, memory, of teachers and students."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from edgekd.exact_float32 import exact_float32
from edgekd.models.weights import save_weights
from edgekd.profiling.backends import TorchModel
from edgekd.profiling.latency import cuda_events
from tests.benchmarks.gpu.pairs import Pair, open_bench, pairs
from tests.benchmarks.gpu.parts import Task
from tests.benchmarks.measure import seconds_of, table

BATCHES = (1, 8, 32)
REPETITIONS = 20


def run(task: Task) -> None:
    """A check for each teacher and student."""
    for pair in pairs(task.small):
        for role in ("student", "teacher"):
            name = getattr(pair, role)
            task.check(f"{name}", lambda pair=pair, role=role: profiled(task, pair, role))  # type: ignore[misc]


def profiled(task: Task, pair: Pair, role: str) -> dict[str, Any]:
    """Medians in ms, the most memory in MB, and the three slowest layers."""
    bench = open_bench(pair, task.scratch / f"profile-{pair.student}", task.device, 4, 4)
    module: Any = bench.new_student() if role == "student" else bench.new_teacher()
    module.eval()
    file = task.scratch / "profiled.safetensors"
    save_weights(file, module.state_dict())
    if role == "student":
        front_end, network = module.log_mel, module.network
    else:
        log_mel = module.front_end()
        front_end, network = (None if log_mel is None else lambda clips: log_mel(module.at_own_rate(clips))), None
    model = TorchModel(
        module, front_end=front_end, network=network, learned=module, file=file, device=task.device, threads=1
    )
    torch.manual_seed(0)
    clips = 0.1 * torch.randn(max(BATCHES), bench.data.store.samples)
    found: dict[str, Any] = {"batches": {}, "device": task.device}
    repetitions = 2 if task.small else REPETITIONS
    with exact_float32():
        timers = model.timers(clips[:1])
        found["parts_ms"] = {name: _median_ms(timer, repetitions) for name, timer in timers.items()}
        for size in BATCHES[:2] if task.small else BATCHES:
            there = clips[:size].to(task.device)
            whole = seconds_of(lambda size=size: model.classify(clips[:size]), repetitions, task.device)  # type: ignore[misc]
            row = {"whole_ms": 1e3 * whole, "clips_a_second": size / whole}
            if task.on_cuda:
                inferring = model._inferring(model._run, there)
                row["device_ms"] = _median_ms(cuda_events(inferring, task.device), repetitions)
            memory = model.memory(clips[:size])
            row["memory_mb"] = None if memory.activation_bytes is None else memory.activation_bytes / 1e6
            found["batches"][str(size)] = row
        layers = model.layers(clips[:1])
        cost = model.cost(clips[:1])
    found["layers"] = [{"name": layer.name, "ms": layer.ms} for layer in layers[:3]]
    found["layer_sum_ms"] = sum(layer.ms for layer in layers)
    found["macs"], found["parameters"] = cost.macs, cost.parameters
    return found


def _median_ms(timer: Any, repetitions: int) -> float:
    for _ in range(3):
        timer()
    return 1e3 * statistics.median(timer() for _ in range(repetitions))


def show(result: Mapping[str, Any]) -> Iterator[str]:
    """A line a model."""
    rows = []
    for name, check in result.get("checks", {}).items():
        if check["state"] != "done":
            yield f"{name}: {check['state']}: {check.get('why', '')[:160]}"
            continue
        for size, row in check["batches"].items():
            device, memory = row.get("device_ms"), row.get("memory_mb")
            rows.append(
                [
                    name,
                    size,
                    f"{row['whole_ms']:.2f}",
                    "-" if device is None else f"{device:.2f}",
                    f"{row['clips_a_second']:.0f}",
                    "-" if memory is None else f"{memory:.0f}",
                    f"{check['layer_sum_ms']:.2f}" if size == "1" else "",
                    ", ".join(f"{layer['name']} {layer['ms']:.2f}" for layer in check["layers"][:2])
                    if size == "1"
                    else "",
                ]
            )
    if rows:
        yield table(["", "batch", "whole ms", "device ms", "clips/s", "MB", "layers ms", "slowest (ms)"], rows)
