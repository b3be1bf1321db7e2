"""Which of the TensorRT engines built here to use: the fastest of those that agree with the golden examples."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.device.runner.bench import warm_up
from edgekd.device.runner.bundle import ENGINE_STEPS, built_engines, check_files, engine_step, read_manifest
from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.errors import DISAGREES, RunnerError, WrongUsage, complain, plain


def run_choose(folder: Path, options: argparse.Namespace) -> int:
    """The command `choose`."""
    manifest = read_manifest(folder)
    if manifest["target"]["runtime"] not in ENGINE_STEPS:
        raise WrongUsage("choose: this bundle runs on onnxruntime, with one model: there is nothing to choose from")
    check_files(folder, manifest)
    built = built_engines(folder, manifest)
    if not built:
        raise RunnerError(f"{folder}: no engine has been built here. {engine_step(manifest)}")
    candidates: dict[str, dict[str, Any]] = {}
    runners: dict[str, Runner] = {}
    for precision in built:
        try:
            runner = Runner(folder, precision=precision)
            outcome = runner.verify()
        except RunnerError as failure:
            candidates[precision] = {"agrees": False, "error": str(failure)}
            continue
        runners[precision] = runner
        told = ("agrees", "agreement", "largest_difference", "known_difference", "layers_in_float")
        candidates[precision] = {key: outcome[key] for key in told if key in outcome}
    if not runners:
        raise RunnerError(candidates[built[0]]["error"])
    for precision, times in _interleaved(runners, options.runs).items():
        p50, p95 = (round(float(value), 4) for value in np.percentile(times, (50, 95)))
        candidates[precision].update(p50_ms=p50, p95_ms=p95)
    agreeing = [precision for precision, figures in candidates.items() if figures["agrees"]]
    best = min(agreeing, key=lambda precision: candidates[precision]["p50_ms"], default=None)
    choice = {"precision": best, "candidates": candidates}
    if best is None:
        (folder / "engine.json").unlink(missing_ok=True)
    else:
        _write_whole(folder / "engine.json", json.dumps(choice, indent=2) + "\n")
    print(json.dumps(choice)) if options.json else _show_choice(choice)
    if best is not None:
        return 0
    complain("no engine agrees with the golden examples: do not rely on them. Next: --cpu runs the model itself")
    return DISAGREES


def _interleaved(runners: dict[str, Runner], runs: int) -> dict[str, np.ndarray]:
    """Engine times in ms, `(runs,)` or a few more each, in turns: a slow minute of the machine hits all of them."""
    rounds = 2 if any(runner.engine == "trtexec" for runner in runners.values()) else 5  # starting it takes seconds
    times: dict[str, list[np.ndarray]] = {precision: [] for precision in runners}
    clips = {precision: runner.golden_clips()[0][:1] for precision, runner in runners.items()}
    for precision, runner in runners.items():
        warm_up(runner, clips[precision], 20)
    for _ in range(rounds):
        for precision, runner in runners.items():
            times[precision].append(runner.time(clips[precision], -(-runs // rounds))[:, 1])
    return {precision: np.concatenate(blocks) for precision, blocks in times.items()}


def _show_choice(choice: dict[str, Any]) -> None:
    for precision, figures in choice["candidates"].items():
        if "error" in figures:
            print(f"{precision}  {plain(figures['error'])}")
            continue
        verdict = "chosen" if precision == choice["precision"] else "agrees" if figures["agrees"] else "disagrees"
        print(
            f"{precision}  p50 {figures['p50_ms']:.3f} ms   p95 {figures['p95_ms']:.3f} ms   same top class"
            f" {figures['agreement']:.1%}   largest difference {figures['largest_difference']:.2g}   {verdict}"
        )
        if figures.get("layers_in_float"):
            print(f"{precision}  computes in float what is to be int8: {plain(', '.join(figures['layers_in_float']))}")


def _write_whole(path: Path, text: str) -> None:
    """`path` is there whole or, whatever happens, as it was before."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as failure:
        part.unlink(missing_ok=True)
        raise RunnerError(f"{path}: cannot be written: {failure.strerror}") from None
