"""The layers of a PyTorch module: the modules in it, timed while they run, each without the modules in it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from edgekd.profiling.layers import WARMUP, LayerTime, slowest_first
from edgekd.report.results import Layer

BETWEEN = "(between layers)"


@torch.inference_mode()
def torch_layers(module: nn.Module, example: Tensor, runs: int = 20, threads: int = 1) -> tuple[Layer, ...]:
    """Mean times over `runs` of the modules in `module(example)`, each without the time of the modules in it.

    On a GPU by CUDA events, so that a module takes from its first to its last kernel. What is computed between modules,
    in the `forward` of those that hold them, is a layer of its own.
    """
    names = {inner: name or BETWEEN for name, inner in module.named_modules()}
    with _threads(threads):
        found, computing = _counted(module, example, names)
        clock = _CudaClock() if example.is_cuda else _WallClock()
        for number in range(WARMUP + runs):
            spans = _spans(module, example, clock)
            if number >= WARMUP:
                for inner, ms in _without_children(spans, clock).items():
                    found[names[inner] if inner in computing else BETWEEN].ms += ms / runs
    return slowest_first(found)


@dataclass
class _Span:
    """One call of a module."""

    module: nn.Module
    start: Any
    end: Any = None
    children: list[_Span] = field(default_factory=list)


class _WallClock:
    def now(self) -> float:
        return time.perf_counter()

    def ms(self, start: float, end: float) -> float:
        return 1e3 * (end - start)

    def finish(self) -> None:
        """All times can be read at once."""


class _CudaClock:
    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def ms(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return start.elapsed_time(end)

    def finish(self) -> None:
        """Wait until all events have happened."""
        torch.cuda.synchronize()


def _spans(module: nn.Module, example: Tensor, clock: _WallClock | _CudaClock) -> list[_Span]:
    """Every call of a module in one `module(example)`."""
    every: list[_Span] = []
    running: list[_Span] = []

    def begins(inner: nn.Module, *_: Any) -> None:
        span = _Span(inner, clock.now())
        if running:
            running[-1].children.append(span)
        running.append(span)
        every.append(span)

    def ends(*_: Any) -> None:
        running.pop().end = clock.now()

    with _hooked(module, begins, ends):
        module(example)
    clock.finish()
    return every


def _without_children(spans: list[_Span], clock: _WallClock | _CudaClock) -> dict[nn.Module, float]:
    own: dict[nn.Module, float] = defaultdict(float)
    for span in spans:
        own[span.module] += clock.ms(span.start, span.end)
        for child in span.children:
            own[span.module] -= clock.ms(child.start, child.end)
    return own


def _counted(
    module: nn.Module, example: Tensor, names: Mapping[nn.Module, str]
) -> tuple[dict[str, LayerTime], set[nn.Module]]:
    """Layers without their times, and the modules that compute something themselves."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    computing: set[nn.Module] = set()
    running: list[nn.Module] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
        ) -> Any:
            if running and not operator.is_view:
                computing.add(running[-1])
            return operator(*arguments, **(keywords or {}))

    found: dict[str, LayerTime] = {BETWEEN: LayerTime(type(module).__name__)}
    flops: dict[str, int] = defaultdict(int)
    counter = FlopCounterMode(display=False)
    marks = [0]

    def account() -> None:
        """What has been computed since the last mark belongs to the module that is running."""
        total = counter.get_total_flops()
        if running:
            flops[names[running[-1]]] += total - marks[0]
        marks[0] = total

    def begins(inner: nn.Module, *_: Any) -> None:
        account()
        running.append(inner)

    def ends(inner: nn.Module, _: Any, output: Any) -> None:
        account()
        running.pop()
        tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        layer = found.setdefault(names[inner], LayerTime(type(inner).__name__))
        layer.output_bytes = sum(tensor.nbytes for tensor in tensors)
        layer.precision = str(tensors[0].dtype).removeprefix("torch.") if tensors else None

    # The counter has no formula for the CPU's fused attention; the plain one is matrix products.
    with _hooked(module, begins, ends), sdpa_kernel(SDPBackend.MATH), counter, Watch():
        module(example)
    for name, layer in found.items():
        layer.macs = flops[name] // 2 or None
    kept = {names[inner] for inner in computing} | {BETWEEN}
    return {name: layer for name, layer in found.items() if name in kept}, computing


@contextmanager
def _hooked(module: nn.Module, begins: Any, ends: Any) -> Iterator[None]:
    handles = [inner.register_forward_pre_hook(begins) for inner in module.modules()]
    handles += [inner.register_forward_hook(ends) for inner in module.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
