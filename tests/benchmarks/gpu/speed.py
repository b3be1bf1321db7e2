"""How fast training is: `naive` against edgekd's steps, in turns, and how far from what the card could do.

The flows and their sections are those of `tests.benchmarks.training`. The floor by FLOPs is what a step's convolutions
and matrix products would take at the bf16 product that was measured; the floor by operators gives each operator the
slower of its FLOPs and its bytes (`measure.Work`). What tells most comes first and has what time it takes: what a run
does by default, then what `training.compile = "on"` does, and only then other shapes and the steps in between. Within a
shape all flows are built first, since building one forgets what was compiled for the others; then each is warmed up,
and what the time does not allow is left out.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tests.benchmarks.data_flows import VARIANTS, Ours, variant
from tests.benchmarks.gpu.pairs import CNN14, SMALL, YAMNET, Pair, open_bench
from tests.benchmarks.gpu.parts import Task, release, told
from tests.benchmarks.gpu.steps import fallen_back
from tests.benchmarks.gpu.trace import trace
from tests.benchmarks.measure import Clock, Limits, limits, ratio, synchronise, table
from tests.benchmarks.training import SECTIONS

TIMES_NAIVE = 15.0  # the bars
SHARE_OF_FLOOR = 0.4
ROUNDS = 7  # at most
MOST_OF_TIME = 0.8  # of what there is, until when flows are warmed up
LEAST_SECONDS = 8.0  # that a shape is begun for
BY_DEFAULT = ("naive", "taps", "student alone")
WHOLE = ("naive", "compiled step", "no textures")
BOTH = (*BY_DEFAULT, *WHOLE[1:])


@dataclass(frozen=True)
class Shape:
    """What is trained, in batches of how many clips and turns of how many steps, in which `flows`: the first is the
    base, then those of most worth."""

    pair: Pair
    batch_size: int
    steps: int
    flows: tuple[str, ...]
    how: str
    traced: bool = False

    def __str__(self) -> str:
        return f"{self.pair}, batch {self.batch_size}, {self.how}"


BETWEEN = ("naive", *(name for name in VARIANTS if name not in BOTH))
SHAPES = (
    Shape(CNN14, 64, 8, BY_DEFAULT, "by default", traced=True),
    Shape(CNN14, 64, 8, WHOLE, "compiled whole", traced=True),
    Shape(YAMNET, 64, 8, BOTH, "both"),
    Shape(YAMNET, 16, 16, BOTH, "both"),
    Shape(CNN14, 64, 8, BETWEEN, "steps between"),
)
SMALL_SHAPES = (
    Shape(SMALL[0], 4, 1, BY_DEFAULT, "by default", traced=True),
    Shape(SMALL[0], 4, 1, WHOLE, "compiled whole"),
    Shape(SMALL[1], 4, 1, BOTH, "both"),
    Shape(SMALL[0], 4, 1, BETWEEN, "steps between"),
)


def run(task: Task) -> None:
    """A check for each shape, with its traces."""
    for shape in SMALL_SHAPES if task.small else SHAPES:
        if str(shape) not in task.kept and task.left() < (1 if task.small else LEAST_SECONDS):
            task.result.setdefault("checks", {})[str(shape)] = {"state": "left out", "why": "no time was left"}
            continue
        task.check(str(shape), lambda shape=shape: _measured(task, shape))  # type: ignore[misc]


def _measured(task: Task, shape: Shape) -> dict[str, Any]:
    began = time.monotonic()
    ends = began + task.left()
    folder = task.scratch / f"speed-{shape.pair.student}-{shape.batch_size}"
    bench = open_bench(shape.pair, folder, task.device, shape.batch_size, (2 if task.small else 3) * shape.batch_size)
    found: dict[str, Any] = {"flows": {}, "left_out": [], "shared_bytes": _allocated(task)}
    flows: dict[str, Any] = {}
    for name in shape.flows:
        before = _allocated(task)
        flows[name] = variant(bench, name)
        found["flows"][name] = {"resident_bytes": _allocated(task) - before}
        if len(flows) > 1 and time.monotonic() - began > 0.3 * (ends - began):
            break
    warm: list[str] = []
    slowest = 0.0
    for name, flow in flows.items():
        at = time.monotonic()
        if len(warm) >= 2 and at + slowest > began + MOST_OF_TIME * (ends - began):
            continue
        before = _allocated(task)
        _reset_peak(task)
        flow(1)
        synchronise(task.device)
        row = found["flows"][name]
        row["peak_bytes"] = row.pop("resident_bytes") + _peak(task) - before if task.on_cuda else None
        row["first_call_seconds"] = time.monotonic() - at
        if isinstance(flow, Ours) and (why := fallen_back(flow)):
            row["fallen_back"] = why
        task.log(f"{shape}: {name} is ready after {row['first_call_seconds']:.1f} s")
        slowest = max(slowest, row["first_call_seconds"])
        warm.append(name)
    found["left_out"] = [name for name in shape.flows if name not in warm]
    found["flows"] = {name: found["flows"][name] for name in warm}
    task.result.setdefault("found", {})[str(shape)] = found  # kept should the time be up below
    flows = {name: flows[name] for name in warm}
    _take_turns(flows, shape, ends, found)
    task.save()
    _explain(task, flows, found, shape)
    task.save()
    if shape.traced:
        for name in warm[1:]:
            if task.left() > LEAST_SECONDS or task.small:
                found.setdefault("traces", {})[name] = trace(flows[name], task, f"{shape.pair}, {name}")
    task.result["found"].pop(str(shape))
    del flows
    release()
    return found


def _take_turns(flows: Mapping[str, Any], shape: Shape, ends: float, found: dict[str, Any]) -> None:
    """Seconds a step, round by round, in an order drawn anew, into `found`; one round in any case."""
    draw, names = random.Random(0), list(flows)
    times: dict[str, list[float]] = {name: [] for name in names}
    reserve = 0.0
    for number in range(ROUNDS):
        at = time.monotonic()
        if number and at + 1.2 * reserve > ends - 2.5 * reserve:  # sections and work take about as long again
            break
        draw.shuffle(names)
        for name in names:
            times[name].append(flows[name](shape.steps))
        reserve = max(reserve, time.monotonic() - at)
    base = next(iter(flows))
    for name, row in found["flows"].items():
        seconds = statistics.median(times[name])
        row |= {
            "seconds_a_step": seconds,
            "clips_a_second": shape.batch_size / seconds,
            "times_base": ratio(times[base], times[name]),
            "rounds_seconds": times[name],
        }
    found["base"] = base


def _explain(task: Task, flows: Mapping[str, Any], found: dict[str, Any], shape: Shape) -> None:
    """Shares of a step, its work and its floors; the bars, with textures and without."""
    best = _best(task)
    for name, flow in flows.items():
        row = found["flows"][name]
        clock = Clock(task.device)
        flow(max(2, shape.steps // 2), clock)
        spent = sum(clock.seconds.values())
        row["shares"] = {section: clock.seconds[section] / spent for section in SECTIONS}
        work = flow.work(best)
        row |= {
            "gflop": work.flops / 1e9,
            "gigabytes": work.bytes / 1e9,
            "floor_flops_seconds": work.flops / best.flops,
            "floor_seconds": work.seconds,
            "share_of_flops_floor": work.flops / best.flops / row["seconds_a_step"],
            "share_of_floor": work.seconds / row["seconds_a_step"],
        }
    if task.on_cuda:  # the bars are a GPU's
        found["bars"] = bars(found["flows"])


def bars(flows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the best of edgekd's flows with textures comes to, and of those without."""
    found: dict[str, dict[str, Any]] = {}
    for textures in (True, False):
        ours = [name for name in flows if (steps := VARIANTS[name]) is not None and steps.textures is textures]
        if ours:
            flow = max(ours, key=lambda name: flows[name]["clips_a_second"])
            row, how = flows[flow], "textures" if textures else "no textures"
            for bar, least, value in (
                ("times naive", TIMES_NAIVE, row["times_base"][0]),
                ("share of FLOP floor", SHARE_OF_FLOOR, row["share_of_flops_floor"]),
            ):
                found[f"{bar}, {how}"] = {"bar": least, "found": value, "flow": flow, "met": value >= least}
    return found


def _best(task: Task) -> Limits:
    """What the card was seen to do: bf16 products, copies; measured now where that part was left out."""
    ceilings = task.shared.get("ceilings")
    if ceilings is None or "bf16_tflop_s" not in ceilings:
        return limits(task.device, 2)
    product = ceilings["bf16_tflop_s"] if task.on_cuda else ceilings["float32_tflop_s"]
    return Limits(product * 1e12, ceilings["copy_gb_s"] * 1e9)


def _allocated(task: Task) -> int:
    return torch.cuda.memory_allocated() if task.on_cuda else 0


def _peak(task: Task) -> int:
    return torch.cuda.max_memory_allocated() if task.on_cuda else 0


def _reset_peak(task: Task) -> None:
    if task.on_cuda:
        torch.cuda.reset_peak_memory_stats()


def show(result: Mapping[str, Any]) -> Iterator[str]:
    """A table a shape."""
    unfinished = result.get("found", {})
    for name, check in result.get("checks", {}).items():
        if check["state"] != "done":
            yield f"{name}: {check['state']}: {check.get('why', '')[:160]}"
            continue
        yield from _shape(name, check)
    for name, found in unfinished.items():
        if any("seconds_a_step" in row for row in found["flows"].values()):
            yield from _shape(f"{name} (not finished)", found)


def _shape(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    rows = {flow: row for flow, row in found["flows"].items() if "seconds_a_step" in row}
    rounds = len(next(iter(rows.values()))["rounds_seconds"])
    yield f"{name}: {rounds} round{'' if rounds == 1 else 's'}; a step, and its floors as shares of its time"
    if found.get("left_out"):
        yield f"  left out, as time was short: {', '.join(found['left_out'])}"
    head = ["", "clips/s", "ms", f"x {found['base']}", "peak MB", "GFLOP", "FLOP floor", "op floor"]
    yield table(head, [_row(flow, row) for flow, row in rows.items()])
    shared = {flow: row["shares"] for flow, row in rows.items() if "shares" in row}
    if shared:
        head = ["where its time goes", *SECTIONS]
        yield table(head, [[flow, *(f"{of[section]:.0%}" for section in SECTIONS)] for flow, of in shared.items()])
    for flow, row in rows.items():
        if "fallen_back" in row:
            yield f"{flow} IS NOT AS ASKED: {row['fallen_back']}"
    for bar, said in found.get("bars", {}).items():
        met = "met" if said["met"] else "MISSED"
        flow = f" ({said['flow']})" if "flow" in said else ""
        yield f"bar {bar} {said['bar']:g}: {met}, {told(said['found'])}{flow}"
    for flow, traced in found.get("traces", {}).items():
        yield f"trace of {flow}: {traced['words']}"
        for kernel in traced["longest"]:
            yield f"  {kernel['ms_a_step']:8.3f} ms {kernel['calls_a_step']:7.1f} calls  {kernel['name'][:90]}"


def _row(flow: str, row: Mapping[str, Any]) -> list[str]:
    peak = row.get("peak_bytes")
    low_to_high = row["times_base"]
    return [
        flow,
        f"{row['clips_a_second']:.0f}" if row["clips_a_second"] > 100 else f"{row['clips_a_second']:.1f}",
        f"{1e3 * row['seconds_a_step']:.2f}",
        f"{low_to_high[0]:.2f}",
        "-" if peak is None else f"{peak / 1e6:.0f}",
        f"{row['gflop']:.0f}" if "gflop" in row else "-",
        f"{row['share_of_flops_floor']:.1%}" if "gflop" in row else "-",
        f"{row['share_of_floor']:.0%}" if "gflop" in row else "-",
    ]
