"""A computation of every step, compiled: `torch.compile`, and on CUDA one CUDA graph for each size of a batch.

A student is small: on a GPU, starting its hundreds of kernels one after another takes longer than computing them. A
CUDA graph starts them all at once. What a graph returned is overwritten when it runs again, so whatever is to outlast a
step must be computed from it within the step.

Where the compiler fails (no C++ compiler, no Triton, something it does not know) the computation goes on as it is.
Random numbers are drawn as they would be without it, so that a run is the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch

Result = TypeVar("Result")

BACKEND = "inductor"
OPTIONS: dict[str, Any] = {"fallback_random": True}


class Compiled(Generic[Result]):
    """`function`, compiled for `device` when it is first called, and called as it is from when that fails; `failed` is
    then told why. `narrow`: on CUDA, with kernels of our own for convolutions of few channels."""

    def __init__(
        self,
        function: Callable[..., Result],
        device: torch.device,
        failed: Callable[[str], object],
        *,
        narrow: bool = True,
    ) -> None:
        torch.compiler.reset()  # what was compiled for an earlier run would count against the limit of variants
        self.function, self._failed, self._on_cuda = function, failed, device.type == "cuda"
        backend, options = BACKEND, OPTIONS
        if self._on_cuda and backend == "inductor":
            backend, options = _with_rules if narrow else _with_graphs, None  # type: ignore[assignment]
        self._compiled: Callable[..., Result] | None = torch.compile(
            function, fullgraph=True, dynamic=False, backend=backend, options=options if backend == "inductor" else None
        )

    def __call__(self, *inputs: Any) -> Result:
        if self._compiled is not None:
            if self._on_cuda:
                torch.compiler.cudagraph_mark_step_begin()
            failures = _failures()
            try:
                # What is kept on disk between processes does not say by which rules it was made.
                with torch._functorch.config.patch(
                    force_non_lazy_backward_lowering=True, enable_autograd_cache=not self._on_cuda
                ):
                    return self._compiled(*inputs)
            except failures as failure:
                self.gives_up(failure)
        return self.function(*inputs)

    def gives_up(self, failure: Exception) -> bool:
        """Have what failed in the code that the compiler made be the last, if it was not already: a gradient is not
        computed here."""
        if self._compiled is None:
            return False
        self._compiled = None
        cause = getattr(failure, "inner_exception", failure)  # what the backend raised
        self._failed(f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}")
        return True


def _failures() -> tuple[type[Exception], ...]:
    """What the compiler raises when it fails."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return (TorchDynamoException, FailOnRecompileLimitHit)


def _with_rules(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
    """The backend on CUDA, told what it does not know."""
    from edgekd.training.narrow_convolutions import RULES

    return _with_graphs(graph, inputs, RULES)


def _with_graphs(
    graph: torch.fx.GraphModule, inputs: Sequence[Any], rules: Mapping[Any, Callable[..., Any]] | None = None
) -> Any:
    """The backend on CUDA, with CUDA graphs."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    options = {**OPTIONS, "triton.cudagraphs": True}
    with config.patch(options):
        known = {**select_decomp_table(), **(rules or {})}
    return compile_fx(graph, inputs, config_patches=options, decompositions=known)
