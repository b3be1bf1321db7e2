"""A computation of every step, compiled: `torch.compile`, and on CUDA one CUDA graph for each size of a batch.

A student is small: on a GPU, starting its hundreds of kernels one after another takes longer than computing them. A
CUDA graph starts them all at once. What a graph returned is overwritten when it runs again, so whatever is to outlast a
step must be computed from it within the step.

Where the compiler fails (no C++ compiler, no Triton, something it does not know) the computation goes on as it is.
Random numbers are drawn as they would be without it, so that a run is the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

Result = TypeVar("Result")

BACKEND = "inductor"


class Compiled(Generic[Result]):
    """`function`, compiled for `device` when it is first called, and called as it is from when that fails; `failed` is
    then told why."""

    def __init__(self, function: Callable[..., Result], device: torch.device, failed: Callable[[str], object]) -> None:
        torch.compiler.reset()  # what was compiled for an earlier run would count against the limit of variants
        self._function, self._failed, self._on_cuda = function, failed, device.type == "cuda"
        options: dict[str, Any] = {"fallback_random": True}
        if self._on_cuda:
            options["triton.cudagraphs"] = True
        self._compiled: Callable[..., Result] | None = torch.compile(
            function, fullgraph=True, dynamic=False, backend=BACKEND, options=options if BACKEND == "inductor" else None
        )

    def __call__(self, *inputs: Any) -> Result:
        if self._compiled is not None:
            if self._on_cuda:
                torch.compiler.cudagraph_mark_step_begin()
            failures = _failures()
            try:
                with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
                    return self._compiled(*inputs)
            except failures as failure:
                self._compiled = None
                cause = getattr(failure, "inner_exception", failure)  # what the backend raised
                self._failed(f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}")
        return self._function(*inputs)


def _failures() -> tuple[type[Exception], ...]:
    """What the compiler raises when it fails."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return (TorchDynamoException, FailOnRecompileLimitHit)
