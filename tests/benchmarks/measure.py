"""What the benchmarks share: turns, ratios, the sections of a step, what an operation costs at least, tables."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Ratio(NamedTuple):
    """Median over the rounds of a quotient, and where the middle half of the quotients lies."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if self.median < 10 else 1
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def turns(timed: Mapping[str, Callable[[], float]], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """What each call says, round by round; in a round all take turns, in an order drawn anew, so that drift hits all
    alike."""
    found: dict[str, list[float]] = {name: [] for name in timed}
    order, draw = list(timed), random.Random(seed)
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            found[name].append(timed[name]())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """`above / below`, round by round."""
    low, median, high = np.percentile(np.array(above) / np.array(below), (25, 50, 75))
    return Ratio(float(median), float(low), float(high))


def seconds_of(call: Callable[[], object], repetitions: int, device: str = "cpu") -> float:
    """Median seconds of a call; the first is not timed."""
    call()
    found = []
    for _ in range(repetitions):
        synchronise(device)
        started = time.perf_counter()
        call()
        synchronise(device)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def anonymous_bytes() -> int | None:
    """Memory that this process holds and that is not a file's, which the system could take back; None where it does
    not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class Clock:
    """Seconds in each named section; what is spent in an inner section is not the outer one's."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._open: list[str] = []
        self._since = 0.0

    def enter(self, name: str) -> None:
        self._charge()
        self._open.append(name)

    def leave(self) -> None:
        self._charge()
        self._open.pop()

    def turn_to(self, name: str) -> None:
        """From now on the innermost section is another one."""
        self._charge()
        self._open[-1] = name

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def _charge(self) -> None:
        synchronise(self._device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Timed:
    """Stands in for an object whose calls, subscripts and named methods are timed as a section; all else passes
    through."""

    def __init__(self, inner: Any, clock: Clock, section: str, *methods: str) -> None:
        self._inner, self._clock, self._section, self._methods = inner, clock, section, methods

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return Timed(value, self._clock, self._section) if name in self._methods else value

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        with self._clock.section(self._section):
            return self._inner(*arguments, **keywords)

    def __getitem__(self, key: Any) -> Any:
        with self._clock.section(self._section):
            return self._inner[key]

    def __len__(self) -> int:
        return len(self._inner)


@dataclass(frozen=True)
class Limits:
    """What this machine was seen to do at best: floating-point operations a second (of a large matrix product in
    float32) and bytes a second (of a large copy, read and written)."""

    flops: float
    bandwidth: float


def limits(device: str = "cpu", repetitions: int = 7) -> Limits:
    """Measured, with torch's present number of threads. The best of several counts: others can only slow it down."""
    side = 1536 if device == "cpu" else 8192
    a, b = torch.rand(2, side, side, device=device)
    source = torch.rand(48 << 20 if device == "cpu" else 512 << 20, device=device)
    target = torch.empty_like(source)
    product, copied = [], []
    for _ in range(repetitions):
        product.append(seconds_of(lambda: a @ b, 1, device))
        copied.append(seconds_of(lambda: target.copy_(source), 1, device))
    return Limits(2 * side**3 / min(product), 2 * source.nbytes / min(copied))


class Work(TorchDispatchMode):
    """Counts, while it is on, what torch's operators do: FLOPs of convolutions and matrix products, bytes of the
    tensors they read and write, and the least `seconds` that takes.

    Within `limits` an operator takes as long as the slower of the two needs; they run one after the other. That is the
    floor for operators as they are: fusing some saves bytes and may go below it, as does what stays in a cache.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.flops = self.bytes = 0
        self.seconds = 0.0

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        formula = flop_registry.get(operator._overloadpacket)
        if formula is None:
            with self:  # an operator that is made of others counts as these
                result = operator.decompose(*arguments, **keywords)
            if result is not NotImplemented:
                return result
        result = operator(*arguments, **keywords)
        flops = formula(*arguments, **keywords, out_val=result) if formula is not None else 0
        read, written = _tensors((arguments, keywords)), _tensors(result)
        sources = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = not operator._schema.is_mutable and all(
            tensor.untyped_storage().data_ptr() in sources for tensor in written
        )
        moved = 0
        if not is_view and (read or "empty" not in operator.name()):
            once = {(tensor.data_ptr(), tensor.shape): tensor for tensor in read}
            moved = sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in (*once.values(), *written))
        self.flops += flops
        self.bytes += moved
        self.seconds += max(flops / self.limits.flops, moved / self.limits.bandwidth)
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need: the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in (head, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)
