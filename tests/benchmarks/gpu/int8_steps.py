"""Int8 on a device against the CPU: `prepare`, calibrated scales, a step of training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from edgekd.config import QuantizeConfig
from edgekd.exact_float32 import exact_float32
from edgekd.losses.ssatkd.kernels import without_kernels
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.fake_quant import set_enabled
from edgekd.quantization.prepare import QuantizedNetwork, prepare
from edgekd.quantization.qat import Int8Step
from tests.benchmarks.gpu.pairs import open_bench, pairs
from tests.benchmarks.gpu.parts import Task
from tests.benchmarks.gpu.steps import Outcome, Trial, judged, moved, relative

SCALES = 1e-3  # relative: a scale is read off a histogram of 2048 bins, and a value at an edge may change its bin
FOLDED = 1e-4
STEP = (1e-3, 5e-2)  # a value near the middle between two steps of the grid may be rounded to the other


def run(task: Task) -> None:
    """Into the checks of `task`."""
    pair, made = pairs(task.small)[1], dict[str, Any]()
    batch_size = 4 if task.small else 8

    def prepared() -> dict[str, Any]:
        bench = open_bench(pair, task.scratch / "int8", "cpu", batch_size, batch_size)
        trial = Trial(bench)
        log_mels, batch = _heard(trial), trial.batch()
        trial.student.eval()
        there = torch.device(task.device)
        network = copy.deepcopy(trial.student.network)
        networks = [prepare(network.to(device), log_mels[:1].to(device)) for device in (torch.device("cpu"), there)]
        made.update(trial=trial, networks=networks, log_mels=log_mels, batch=batch, there=there)
        for each in networks:
            set_enabled(each, False)
        with exact_float32(), torch.no_grad():
            ours, theirs = (each(log_mels.to(device)) for each, device in zip(networks, ("cpu", there), strict=True))
        for each in networks:
            set_enabled(each, True)
        off = {name: relative(b.cpu(), a) for name, a, b in zip(("logits", "tap"), ours[:2], theirs[:2], strict=True)}
        return {"differences": off, "bound": FOLDED, "holds": max(off.values()) <= FOLDED}

    def calibrated() -> dict[str, Any]:
        """Every observer, as each reads the range in its own way."""
        log_mels, there = made["log_mels"], made["there"]
        off: dict[str, float] = {}
        for observer in ("absmax", "percentile", "entropy", "mse"):
            recipe = CalibrationRecipe(observer=observer, bias_correction=observer == "mse")  # type: ignore[arg-type]
            for network, device in zip(made["networks"], (torch.device("cpu"), there), strict=True):
                calibrate(network, [part.to(device) for part in log_mels.split(2)], recipe)
            ours, theirs = (_scales(network) for network in made["networks"])
            off[observer] = max(float(abs(theirs[name] - scale) / scale) for name, scale in ours.items())
        return {"differences": off, "bound": SCALES, "holds": max(off.values()) <= SCALES}

    def trained() -> dict[str, Any]:
        trial, cpu = made["trial"], made["networks"][0]
        bench = open_bench(pair, task.scratch / "int8", task.device, batch_size, batch_size)
        other = Trial(bench, start=trial)
        network = copy.deepcopy(cpu).to(made["there"])  # the same scales, so that a step alone is compared
        reference = _int8_step(trial, cpu, made["batch"])
        found = _int8_step(other, network, moved(made["batch"], other.device))
        return judged(found, reference, STEP)

    if task.check("int8: prepared, unrounded", prepared, needed=True) and task.check(
        "int8: scales", calibrated, needed=True
    ):
        task.check("int8: a step", trained)


def _heard(trial: Trial) -> Tensor:
    """Normalised log-mels `(B, 1, T, F)` of the training clips, after batch norms have seen them."""
    bench = trial.flow.bench
    waveforms = bench.data.store.waveforms(bench.data.split.train)
    student = trial.student
    student.train()
    with torch.no_grad():
        for _ in range(5):
            student(waveforms)
        student.eval()
        return student.log_mel(waveforms)


def _int8_step(trial: Trial, network: QuantizedNetwork, batch: Any) -> Outcome:
    student = trial.student
    before, student.network = student.network, network
    step = trial.flow.step
    was = step.mixed, step.compiled
    step.mixed, step.compiled = False, None
    try:
        with exact_float32(), without_kernels():
            student.train()
            Int8Step(step, QuantizeConfig(epochs=4, frozen_epochs=2)).begin(1)
            for module in (student, trial.loss):
                module.zero_grad(set_to_none=True)
            return trial.differentiated(batch)
    finally:
        student.network = before
        step.mixed, step.compiled = was


def _scales(network: QuantizedNetwork) -> dict[str, float]:
    found = {name: float(quantiser.scale) for name, quantiser in network.quantisers().items()}
    for name, (layer, _) in zip(network.layer_names(), network.layers(), strict=True):
        for channel, scale in enumerate(layer.weight_quant.scale.tolist()):
            found[f"{name}.{channel}"] = scale
    return found
