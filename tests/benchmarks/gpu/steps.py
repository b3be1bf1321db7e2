"""One step of training, taken anew from the same weights and clips: its loss and gradients, for comparing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.exact_float32 import exact_float32
from edgekd.training.batches import Batch
from edgekd.training.student_step import computes_in_kernels
from tests.benchmarks.data_flows import Ours, Steps

_RUNS = 3  # of a compiled step: it is compiled, recorded as a CUDA graph, and played


@dataclass(frozen=True)
class Outcome:
    """A step's `loss`, and its gradients by name of the parameter, on the CPU."""

    loss: float
    gradients: Mapping[str, Tensor]

    def against(self, reference: Outcome) -> dict[str, Any]:
        """Relative differences: of the loss; of all gradients as one vector, and the cosine of the angle between them;
        of the parameter that differs most, beside its own gradient or a thousandth of all, whichever is larger."""
        names = list(reference.gradients)
        ours, theirs = (torch.cat([each.gradients[n].double().flatten() for n in names]) for each in (self, reference))
        size = theirs.norm()
        worst, by = max(
            (
                float(
                    (self.gradients[name].double() - expected.double()).norm()
                    / torch.maximum(expected.double().norm(), 1e-3 * size)
                ),
                name,
            )
            for name, expected in reference.gradients.items()
        )
        return {
            "loss": self.loss,
            "loss_difference": abs(self.loss - reference.loss) / abs(reference.loss),
            "gradient_difference": float((ours - theirs).norm() / size),
            "cosine": float(ours @ theirs / (ours.norm() * size)),
            "worst_difference": worst,
            "worst_parameter": by,
        }


class Trial:
    """A student and its loss as a run begins them, on the device of their bench."""

    def __init__(self, bench: Any, steps: Steps | None = None, start: Trial | None = None) -> None:
        """`start`: whose weights it begins with. Without `steps` it is a run's as it is by default."""
        self.flow = Ours(bench, "trial", steps or Steps(kernels=False))
        self.student, self.loss, self.device = self.flow.student, self.flow.loss, bench.device
        if start is not None:
            for own, other in ((self.student, start.student), (self.loss, start.loss)):
                own.load_state_dict(other.state_dict())
        self._start = [{k: v.clone() for k, v in m.state_dict().items()} for m in (self.student, self.loss)]

    def batch(self) -> Batch:
        """The first batch of an epoch with textures."""
        needs = self.flow.step.begin(1)
        return next(self.flow.batches.epoch(1, needs))

    def outcome(self, batch: Batch, *, mixed: bool = False, compiled: bool = False) -> Outcome:
        """A step of `batch`, from the weights that it began with. Nothing is dropped, as devices draw otherwise."""
        step = self.flow.step
        computes_in_kernels(self.flow.run, self.device)  # another flow may have been the last
        was = step.mixed, step.compiled
        step.mixed, step.compiled = mixed, (was[1] if compiled else None)
        try:
            with exact_float32():
                for _ in range(_RUNS if step.compiled is not None else 1):
                    self.reset()
                    self.student.train()
                    step.begin(1)
                    found = self.differentiated(batch)
                return found
        finally:
            step.mixed, step.compiled = was

    def differentiated(self, batch: Batch) -> Outcome:
        """A step that is ready, of `batch`, with nothing dropped."""
        for module in self.student.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        output = self.flow.step(batch)
        output.total.backward()
        return Outcome(float(output.total.detach()), self.gradients())

    def reset(self) -> None:
        """The weights as they were, no gradients."""
        for module, state in zip((self.student, self.loss), self._start, strict=True):
            module.load_state_dict(state)
            module.zero_grad(set_to_none=True)

    def gradients(self) -> dict[str, Tensor]:
        return {
            f"{prefix}{name}": parameter.grad.detach().float().cpu().clone()
            for prefix, module in (("", self.student), ("loss.", self.loss))
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }


def judged(found: Outcome, reference: Outcome, bound: tuple[float, float]) -> dict[str, Any]:
    """How far off a step is, and whether within `bound`: of its loss, and of all gradients as one vector."""
    said = found.against(reference)
    holds = said["loss_difference"] <= bound[0] and said["gradient_difference"] <= bound[1]
    return {**said, "bound": bound, "holds": holds}


def fallen_back(flow: Ours) -> str:
    """Why what was to be compiled, or computed in kernels of our own, is not, as the run warns; empty where it is."""
    compiled: Any = flow.step.compiled
    if compiled is None:
        return ""
    lost = {
        "not compiled": compiled._compiled is None,
        "kernels of their own": flow.run.config.training.compile == "on",
    }
    warnings = flow.bench.run.report().get("warnings", [])
    said = [line for line in warnings if any(told and part in line for part, told in lost.items())]
    return "; ".join(said) or ("?" if compiled._compiled is None else "")


def moved(batch: Batch, device: torch.device) -> Batch:
    """The same batch on a device."""

    def there(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(there, value))
        return value

    kept = {"rows": batch.rows}
    return replace(batch, **{f.name: there(getattr(batch, f.name)) for f in fields(batch)} | kept)


def relative(found: Tensor, expected: Tensor) -> float:
    """How far off a tensor is, beside its size."""
    return float((found.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


@contextmanager
def in_order_of(network: nn.Module, order: torch.memory_format) -> Iterator[None]:
    """Within it the weights of `network` lie in this order, so that its sums are taken in another."""
    network.to(memory_format=order)  # type: ignore[call-overload]
    try:
        yield
    finally:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
