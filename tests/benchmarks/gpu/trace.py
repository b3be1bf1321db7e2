"""Ten steps under torch's profiler: which kernels take the time, how many are started, and a picture of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.gpu.parts import Task
from tests.benchmarks.measure import synchronise

STEPS = 10
LONGEST = 10
STARTS = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
LEAST_DRAWN = 2e-6  # seconds: what is shorter is drawn this long, so that it is seen

# Kinds of work by what a name holds, the first that fits, and their colours.
KINDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("convolution", ("conv", "fprop", "dgrad", "wgrad", "implicit_gemm", "nhwcToNchw", "nchwToNhwc"), "#1f77b4"),
    ("matrix product", ("gemm", "cutlass", "bmm", "aten::mm", "matmul", "linear"), "#2ca02c"),
    ("compiled kernel", ("triton", "compiled"), "#ff7f0e"),
    ("batch norm", ("batch_norm", "bn_", "batchnorm"), "#8c564b"),
    ("copy", ("memcpy", "memset", "copy", "aten::to", "_to_copy", "catarray"), "#7f7f7f"),
    ("optimiser", ("adam", "optimizer", "multi_tensor", "foreach"), "#9467bd"),
    ("pooling", ("pool",), "#17becf"),
    ("elementwise", ("elementwise", "aten::mul", "aten::add", "aten::sub", "aten::div", "aten::exp"), "#98df8a"),
    ("reduction", ("reduce", "aten::sum", "softmax", "logsumexp"), "#e377c2"),
    ("waiting", ("synchronize",), "#d62728"),
    ("start", ("launch",), "#bcbd22"),
    ("other", ("",), "#c7c7c7"),
)


@dataclass(frozen=True)
class Event:
    """Something that took `seconds` from `start`; `lane`: the host's thread or the device's stream."""

    name: str
    start: float
    seconds: float
    lane: tuple[bool, int]  # (on the device, number)

    @property
    def end(self) -> float:
        return self.start + self.seconds


def trace(flow: Callable[[int], float], task: Task, title: str) -> dict[str, Any]:
    """What ten steps of `flow` come to; the picture goes to the folder that comes back."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if task.on_cuda else [])]
    steps = 2 if task.small else STEPS
    flow(1)
    synchronise(task.device)
    with profile(activities=activities, acc_events=True) as recorded:
        flow(steps)  # and one more, that is not timed
        synchronise(task.device)
    events = events_of(recorded)
    name = "trace-" + "".join(letter if letter.isalnum() else "-" for letter in title).replace("--", "-") + ".png"
    draw(events, task.out / name, title, steps + 1)
    return summary(events, steps + 1) | {"picture": name}


def events_of(recorded: Any) -> list[Event]:
    """What was recorded, in the order of time."""
    result = recorded.profiler.kineto_results
    found = []
    for event in result.events():
        on_device = event.device_type() == DeviceType.CUDA
        lane = (on_device, int(event.device_resource_id() if on_device else event.start_thread_id()))
        found.append(Event(event.name(), event.start_ns() / 1e9, event.duration_ns() / 1e9, lane))
    return sorted(found, key=lambda event: event.start)


def summary(events: Sequence[Event], steps: int) -> dict[str, Any]:
    """Kernels by their time, launches and the share of the time that the device was at work; without a device the
    host's operators stand for kernels."""
    kernels = [event for event in events if event.lane[0] and not _is_annotation(event.name)]
    counted = kernels or [event for event in events if event.name.startswith("aten::")]
    seconds: dict[str, float] = defaultdict(float)
    for event in kernels or own_parts(counted):
        seconds[event.name] += event.seconds
    calls = Counter(event.name for event in counted)
    longest = sorted(seconds, key=lambda name: -seconds[name])[:LONGEST]
    started = Counter(start for event in events for start in STARTS if event.name.startswith(start))
    begun, ended = min(event.start for event in events), max(event.end for event in events)
    busy = _covered(counted)
    kinds: dict[str, float] = defaultdict(float)
    for name, value in seconds.items():
        kinds[kind_of(name)] += 1e3 * value / steps
    where = "the device" if kernels else "the host"
    return {
        "steps": steps,
        "kernels_a_step": len(counted) / steps,
        "starts_a_step": {name: count / steps for name, count in started.items()},
        "busy_share": busy / (ended - begun),
        "device_ms_a_step": 1e3 * sum(seconds.values()) / steps,
        "kinds_ms_a_step": dict(sorted(kinds.items(), key=lambda pair: -pair[1])),
        "longest": [
            {"name": name, "ms_a_step": 1e3 * seconds[name] / steps, "calls_a_step": calls[name] / steps}
            for name in longest
        ],
        "words": (
            f"{len(counted) / steps:.0f} kernels a step on {where}, {1e3 * sum(seconds.values()) / steps:.2f} ms, busy "
            f"{busy / (ended - begun):.0%} of the time; starts a step: "
            + (", ".join(f"{name} {count / steps:.0f}" for name, count in started.items()) or "none")
        ),
    }


def draw(events: Sequence[Event], file: Path, title: str, steps: int) -> None:
    """All steps above, and two of them below: a lane for each thread of the host and stream of the device."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    shown = [event for event in events if not _is_annotation(event.name)]
    lanes = _busiest(shown)
    begun, ended = min(event.start for event in shown), max(event.end for event in shown)
    step = (ended - begun) / steps
    figure, axes = plt.subplots(2, 1, figsize=(18, 3.0 + 1.3 * len(lanes)), constrained_layout=True)
    middle = begun + (ended - begun) / 2
    for axis, (low, high) in zip(axes, ((begun, ended), (middle, min(ended, middle + 2 * step))), strict=True):
        for place, lane in enumerate(lanes):
            _draw_lane(axis, [each for each in shown if each.lane == lane], place, low, high, begun)
        axis.set_yticks(range(len(lanes)), [_name_of(lane, lanes) for lane in lanes])
        axis.set_ylim(-0.6, len(lanes) - 0.4)
        axis.set_xlim(1e3 * (low - begun), 1e3 * (high - begun))
        axis.set_xlabel("ms")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_title(f"{title}: {steps} steps, {1e3 * step:.1f} ms each under the profiler")
    axes[1].set_title("two of them")
    axes[0].legend(
        handles=[Patch(color=colour, label=kind) for kind, _, colour in KINDS],
        ncols=len(KINDS),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.22),
        frameon=False,
    )
    figure.savefig(file, dpi=80)
    plt.close(figure)


def kind_of(name: str) -> str:
    return next(kind for kind, parts, _ in KINDS if any(part.lower() in name.lower() for part in parts))


def _draw_lane(axis: Any, events: Sequence[Event], place: int, low: float, high: float, begun: float) -> None:
    """One lane from `low` to `high`."""
    least = max(LEAST_DRAWN, (high - low) / 4000)
    bars: dict[str, list[tuple[float, float]]] = defaultdict(list)
    last: dict[str, float] = {}
    for event in own_parts(each for each in events if each.end >= low and each.start <= high):
        kind = kind_of(event.name)
        if event.end < last.get(kind, 0.0) + least / 2 and last.get(kind):
            continue  # would lie on one that is drawn
        bars[kind].append((1e3 * (event.start - begun), 1e3 * max(event.seconds, least)))
        last[kind] = event.end
    for kind, _, colour in KINDS:
        if bars[kind]:
            axis.broken_barh(bars[kind], (place - 0.4, 0.8), color=colour, linewidth=0)


def own_parts(events: Iterable[Event]) -> list[Event]:
    """The stretches of time in which each is the innermost of its lane: operators hold others."""
    found: list[Event] = []
    lanes: dict[tuple[bool, int], list[Event]] = defaultdict(list)
    for event in events:
        lanes[event.lane].append(event)
    for lane, inside in lanes.items():
        opened: list[Event] = []
        since = 0.0

        def until(end: float, lane: tuple[bool, int] = lane, opened: list[Event] = opened) -> None:
            """The innermost is so from `since` to `end`."""
            nonlocal since
            if end > since:
                found.append(Event(opened[-1].name, since, end - since, lane))
                since = end

        for event in sorted(inside, key=lambda each: (each.start, -each.seconds)):
            while opened and opened[-1].end <= event.start:
                until(opened[-1].end)
                opened.pop()
            if opened:
                until(event.start)
            opened.append(event)
            since = event.start
        while opened:
            until(opened[-1].end)
            opened.pop()
    return sorted(found, key=lambda each: each.start)


def _covered(events: Iterable[Event]) -> float:
    """Seconds during which at least one of them was at work."""
    total, until = 0.0, float("-inf")
    for event in sorted(events, key=lambda each: each.start):
        total += max(0.0, event.end - max(event.start, until))
        until = max(until, event.end)
    return total


def _busiest(events: Sequence[Event], most: int = 6) -> list[tuple[bool, int]]:
    """The lanes with most events: the host's first, then the device's."""
    counts = Counter(event.lane for event in events)
    return sorted(lane for lane, _ in counts.most_common(most))


def _name_of(lane: tuple[bool, int], lanes: Sequence[tuple[bool, int]]) -> str:
    on_device, number = lane
    if on_device:
        return f"device, stream {number}"
    return f"host, thread {1 + [each for each in lanes if not each[0]].index(lane)}"


def _is_annotation(name: str) -> bool:
    """Whether it is a span that someone marked, which holds others and is no work of its own."""
    return name.startswith(("ProfilerStep", "Optimizer.", "##", "Torch-Compiled", "Pregraph", "CompiledFunction"))
