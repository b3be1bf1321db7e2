"""Whether a device computes what a CPU does: steps of distillation, teachers, stored answers, int8, resumed runs.

Every check says how far it is off and by what bound it is judged. Float32 is exact here: no TF32. The order of sums is
the device's own, and so small differences are magnified by what a step does with them; how much is told by the CPU
against itself with its weights in another order ("the CPU's own").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from edgekd.exact_float32 import exact_float32
from edgekd.training.batches import Batch
from edgekd.training.frozen_teacher import FrozenTeacher, Precision
from tests.benchmarks.data_flows import Bench, Steps
from tests.benchmarks.gpu import int8_steps, resumed
from tests.benchmarks.gpu.pairs import Pair, open_bench, pairs
from tests.benchmarks.gpu.parts import NotHere, Task, told
from tests.benchmarks.gpu.steps import Outcome, Trial, fallen_back, in_order_of, moved, relative

BATCH = 8

# Relative differences that a check allows: of the loss and of all gradients as one vector.
FLOAT32 = (1e-5, 1e-4)
STORED = (5e-3, 3e-2)  # float16, and on a GPU the teacher's bfloat16 in batches of another size
BFLOAT16 = (2e-2, 2e-1)  # 8 bits of mantissa through a whole network and back


def run(task: Task) -> None:
    """All checks; what has to be compiled, which takes most of the time, last, but for what runs do by default."""
    both = [_Distillation(task, pair) for pair in pairs(task.small)]
    for each in both:
        each.uncompiled()
    both[0].compiled(mixed=True)
    int8_steps.run(task)
    resumed.run(task)
    both[0].compiled(mixed=True, whole=True)
    both[1].compiled(mixed=True)
    both[1].compiled(mixed=True, whole=True)
    for each in both:
        each.compiled(mixed=False)
        each.compiled(mixed=False, whole=True)


class _Distillation:
    """The checks of one pair: all against one step on the CPU."""

    def __init__(self, task: Task, pair: Pair) -> None:
        self.task, self.pair = task, pair
        self.batch_size = 4 if task.small else BATCH
        self.cpu: Trial | None = None
        self.reference: Outcome | None = None
        self._there: dict[bool, tuple[Trial, Batch]] = {}

    def uncompiled(self) -> None:
        check, pair = self.task.check, self.pair
        if not check(f"{pair}: the CPU's own", self._begin, needed=True):
            return
        check(f"{pair}: float32", lambda: self._step(FLOAT32))
        check(f"{pair}: bf16", lambda: self._step(BFLOAT16, mixed=True))
        check(f"{pair}: teacher float32", lambda: self._teacher("float32"))
        check(f"{pair}: teacher bf16", lambda: self._teacher("bfloat16"))
        check(f"{pair}: cache full, off", self._stored)

    def compiled(self, *, mixed: bool, whole: bool = False) -> None:
        """The student compiled, or the `whole` step, with kernels of our own."""
        bound, name = (BFLOAT16, "bf16") if mixed else (FLOAT32, "float32")
        if self.cpu is not None:
            self.task.check(
                f"{self.pair}: {name}, {'step' if whole else 'student'} compiled",
                lambda: self._step(bound, mixed=mixed, compiled=True, whole=whole),
            )

    def _bench(self, device: str) -> Bench:
        folder = self.task.scratch / f"correct-{self.pair.student}"
        return open_bench(self.pair, folder, device, self.batch_size, self.batch_size)

    def _begin(self) -> dict[str, Any]:
        """The reference, and how far the CPU is from itself when it sums in another order."""
        trial = Trial(self._bench("cpu"))
        self.batch = trial.batch()
        reference = trial.outcome(self.batch)
        with in_order_of(trial.student.network, torch.contiguous_format):
            other = trial.outcome(self.batch)
        self.cpu, self.reference = trial, reference
        return _judged(other, reference, FLOAT32)

    def _on_device(self, whole: bool = False) -> tuple[Trial, Batch]:
        if whole not in self._there:
            trial = Trial(self._bench(self.task.device), Steps(kernels=whole), start=self.cpu)
            self._there[whole] = trial, moved(self.batch, trial.device)
        return self._there[whole]

    def _step(
        self, bound: tuple[float, float], *, mixed: bool = False, compiled: bool = False, whole: bool = False
    ) -> dict[str, Any]:
        if mixed and not self.task.on_cuda:
            raise NotHere("float32 on a CPU")
        trial, batch = self._on_device(whole)
        if compiled and trial.flow.step.compiled is None:
            raise NotHere("not compiled on a CPU")
        found = trial.outcome(batch, mixed=mixed, compiled=compiled)
        fallen = fallen_back(trial.flow) if compiled else ""
        assert self.reference is not None
        judged = _judged(found, self.reference, bound)
        return judged | {"holds": False, "words": f"NOT AS ASKED: {fallen}"} if fallen else judged

    def _stored(self) -> dict[str, Any]:
        """The stored answers against the teacher asked in the step, all on the device."""
        trial, _ = self._on_device()
        asked = Trial(trial.flow.bench, Steps(cache="off", kernels=False), start=self.cpu)
        return _judged(trial.outcome(trial.batch()), asked.outcome(asked.batch()), STORED)

    def _teacher(self, precision: Precision) -> dict[str, Any]:
        """Its answers on the device against those of the CPU in float32."""
        assert self.cpu is not None
        bench, there = self.cpu.flow.bench, self._on_device()[0]
        waveforms = bench.data.store.waveforms(self.batch.rows.tolist())
        with exact_float32():
            expected = FrozenTeacher(bench.teacher, torch.device("cpu"), "float32")(waveforms)
            found = FrozenTeacher(there.flow.bench.new_teacher(), there.device, precision)(waveforms)
        answers = {"logits": (found.logits, expected.logits), "tap": (found.tap, expected.tap)}
        off = {name: relative(ours.cpu(), theirs) for name, (ours, theirs) in answers.items()}
        bound = 1e-4 if precision == "float32" else 3e-2
        return {"differences": off, "bound": bound, "holds": max(off.values()) <= bound}


def _judged(found: Outcome, reference: Outcome, bound: tuple[float, float]) -> dict[str, Any]:
    said = found.against(reference)
    holds = said["loss_difference"] <= bound[0] and said["gradient_difference"] <= bound[1]
    return {**said, "bound": bound, "holds": holds}


def show(result: Mapping[str, Any]) -> Iterator[str]:
    """A line a check."""
    for name, check in result.get("checks", {}).items():
        if check["state"] != "done":
            yield f"{name}: {check['state']}: {check.get('why', '')[:160]}"
            continue
        judged = {True: "holds", False: "DOES NOT HOLD", None: ""}[check.get("holds")]
        figures = [
            f"{label} {told(check[key])}"
            for key, label in (
                ("loss_difference", "loss"),
                ("gradient_difference", "gradient"),
                ("cosine", "cosine"),
                ("worst_difference", "worst"),
            )
            if key in check
        ]
        figures += [f"{part} {told(value)}" for part, value in check.get("differences", {}).items()]
        bound = f" (bound {', '.join(told(each) for each in _listed(check['bound']))})" if "bound" in check else ""
        yield f"{name}: {judged} {', '.join(figures)}{bound}".rstrip()
        if check.get("words"):
            yield f"  {check['words']}"


def _listed(bound: Any) -> list[float]:
    return list(bound) if isinstance(bound, list | tuple) else [bound]
