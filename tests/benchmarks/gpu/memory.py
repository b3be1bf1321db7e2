"""Batches that do not fit: halved, with the same loss, and the memory is free again.

On a GPU the process is given less memory than a whole batch needs; on a CPU, which has no such limit, what computes is
made to say that it has none for more than so many clips, so that the same code is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from edgekd.exact_float32 import exact_float32
from edgekd.losses.ssatkd.kernels import without_kernels
from edgekd.training.batches import Batch
from edgekd.training.frozen_teacher import FrozenTeacher
from edgekd.training.loop import StepOutput, _State, accumulate
from tests.benchmarks.gpu.pairs import open_bench, pairs
from tests.benchmarks.gpu.parts import Task, release, told
from tests.benchmarks.gpu.steps import Outcome, Trial

ROOM = 0.6  # of what the whole batch takes
SLACK = 64 << 20  # bytes, for what the allocator rounds up
BOUND = 1e-4  # relative


def run(task: Task) -> None:
    """Student and teacher."""
    task.check("a student's batch", lambda: halved_batch(task))
    task.check("a teacher's batch", lambda: halved_teacher(task))


class _Warned:
    """Stands in for a run: keeps its warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def halved_batch(task: Task) -> dict[str, Any]:
    """The loss and gradients of a batch in parts against those of the whole. In evaluation mode: batch norms that see a
    part at a time differ as they should."""
    clips = 4 if task.small else 64
    bench = open_bench(pairs(task.small)[0], task.scratch / "memory", task.device, clips, clips)
    trial = Trial(bench)
    batch, step = trial.batch(), trial.flow.step
    step.mixed, step.compiled = False, None
    trial.student.eval()
    state, run = _State(), _Warned()
    stage: Any = SimpleNamespace(
        name="student", step=step, optimizer=trial.flow.optimizer, device=bench.device, run=run
    )

    def computed() -> Outcome:
        trial.reset()
        with exact_float32(), without_kernels():
            values = accumulate(stage, batch, state)
        return Outcome(float(values["total"]), trial.gradients())

    whole = computed()
    release()
    before, needed = _needed(task, computed)
    with _less_memory(task, before + int(ROOM * needed)):
        if not task.on_cuda:
            stage.step = _Forgetful(step, clips // 2)
        parts = computed()
    trial.reset()
    release()
    stage.step, state.parts = step, 1
    after = computed()
    off, again = parts.against(whole), after.against(whole)
    return {
        **off,
        "needed_bytes": needed,
        "warnings": run.warnings,
        "bound": (BOUND, BOUND),
        "holds": bool(run.warnings)
        and max(off["loss_difference"], off["gradient_difference"], again["gradient_difference"]) <= BOUND,
        "words": run.warnings[0] if run.warnings else "it was not halved",
    }


def halved_teacher(task: Task) -> dict[str, Any]:
    """What a teacher says of a batch in parts against what it says of the whole."""
    clips = 4 if task.small else 128
    bench = open_bench(pairs(task.small)[0], task.scratch / "memory", task.device, clips, 4 if task.small else 64)
    teacher = FrozenTeacher(bench.teacher, bench.device, "float32")
    torch.manual_seed(0)
    waveforms = 0.1 * torch.randn(clips, bench.data.store.samples)
    with exact_float32():
        whole = teacher.tap(waveforms).cpu()
        release()
        before, needed = _needed(task, lambda: teacher.tap(waveforms))
        with _less_memory(task, before + int(ROOM * needed)):
            if not task.on_cuda:
                teacher.module = _ForgetfulTeacher(teacher.module, clips // 2)  # type: ignore[assignment]
            parts = teacher.tap(waveforms)
            differs = float((parts.cpu().double() - whole.double()).norm() / whole.double().norm())
    del parts
    release()
    left = torch.cuda.memory_allocated() - before if task.on_cuda else 0
    most = teacher._most
    return {
        "differences": {"tap": differs},
        "bound": BOUND,
        "needed_bytes": needed,
        "bytes_left_over": left,
        "heard_at_once": most,
        "holds": differs <= BOUND and most is not None and most < clips and left <= 1 << 20,
        "words": f"{most} of {clips} clips at once; {left} bytes more than before are held after it",
    }


def _needed(task: Task, work: Callable[[], object]) -> tuple[int, int]:
    """Bytes that are held before `work`, and that it takes besides; on a CPU neither is known."""
    if not task.on_cuda:
        work()
        return 0, 0
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    needed = torch.cuda.max_memory_allocated() - before
    release()
    return before, needed


@contextmanager
def _less_memory(task: Task, most: int) -> Iterator[None]:
    """Within it this process may have `most` bytes of the card, and some slack."""
    if not task.on_cuda:
        yield
        return
    release()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (most + SLACK) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class _Forgetful:
    """A step that has no memory for more than `most` clips."""

    def __init__(self, step: Any, most: int) -> None:
        self.step, self.most = step, most

    def __call__(self, batch: Batch) -> StepOutput:
        if len(batch) > self.most:
            raise torch.OutOfMemoryError
        return self.step(batch)


class _ForgetfulTeacher:
    def __init__(self, teacher: Any, most: int) -> None:
        self.teacher, self.most = teacher, most

    def tap(self, waveforms: Tensor) -> Tensor:
        if len(waveforms) > self.most:
            raise torch.OutOfMemoryError
        return self.teacher.tap(waveforms)


def show(result: Mapping[str, Any]) -> Iterator[str]:
    from tests.benchmarks.gpu.correctness import show as checks

    yield from checks(result)
    for name, check in result.get("checks", {}).items():
        if check.get("needed_bytes"):
            yield f"{name}: the whole takes {told(check['needed_bytes'] / 1e6)} MB"
