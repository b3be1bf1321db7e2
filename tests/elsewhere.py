"""A device that is not there, played by the CPU: what fails on a GPU for want of a `.to(device)` fails on it, too.

Tensors on it hold a tensor of the CPU and say that they lie elsewhere. Operators compute on what they hold, and refuse
tensors of both places, as CUDA's do; `numpy()` of one is refused, and new tensors are where they were asked to be. So a
run on it must end as one on the CPU, but for the order of sums. Use it in a process of its own
(`python -m tests.elsewhere`): a backend cannot be taken back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
FREE = 1 << 30  # bytes of its memory
BOTH_PLACES = ("aten::copy_", "aten::_to_copy", "aten::index.Tensor", "aten::index_put")
"""Operators that take tensors of both places on CUDA, too: copies, and indices on the host."""


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def open_device() -> torch.device:
    """The device; once in a process."""
    _setup_privateuseone_for_python_backend(NAME, Backend())
    Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign,assignment]
    torch.inference_mode = lambda mode=True: torch.no_grad()  # type: ignore[assignment,misc]  # it knows no views of these
    on_host = torch.tensor  # which makes its tensor before any operator is asked

    def tensor(*values: Any, device: Any = None, **named: Any) -> Tensor:
        made = on_host(*values, **named)
        return made if device is None else made.to(device)

    torch.tensor = tensor
    return torch.device(NAME, 0)


class Elsewhere(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        shape: dict[str, Any] = {
            "strides": held.stride(),
            "storage_offset": held.storage_offset(),
            "dtype": held.dtype,
            "layout": held.layout,
            "device": torch.device(NAME, 0),
        }
        made = Tensor._make_wrapper_subclass(cls, held.size(), **shape)  # type: ignore[attr-defined]
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError(f"can't convert a tensor on {self.device} to numpy: copy it to the host first")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: object) -> Elsewhere:
        return Elsewhere(inner["held"])

    @classmethod
    def __torch_dispatch__(
        cls, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        return computed(operator, arguments, keywords or {})


class Placing(TorchDispatchMode):
    """Within it new tensors can be asked for on the device, and tensors moved there."""

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        return computed(operator, arguments, keywords or {})


def computed(operator: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """What `operator` returns, computed on the CPU, its tensors where they would be."""
    name = operator.name()
    tensors = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    if there and not name.startswith(BOTH_PLACES):
        for tensor in tensors:
            if not isinstance(tensor, Elsewhere) and tensor.dim():
                raise RuntimeError(f"{name}: one tensor is on {there[0].device}, another on {tensor.device}")
    device = keywords.get("device")
    on_cpu = dict(keywords)
    if device is not None:
        on_cpu["device"] = torch.device("cpu")
    if on_cpu.get("pin_memory"):
        on_cpu["pin_memory"] = False
    held = tree_map(lambda each: each.held if isinstance(each, Elsewhere) else each, (arguments, on_cpu))
    result = operator(*held[0], **held[1])
    if name.startswith("aten::copy_"):
        placed = isinstance(arguments[0], Elsewhere)
    else:
        placed = torch.device(device).type == NAME if device is not None else bool(there)
    if not placed:
        return result
    result = tree_map(lambda each: Elsewhere(each) if isinstance(each, Tensor) else each, result)
    return return_and_correct_aliasing(operator, arguments, keywords, result) if there else result


def main() -> None:
    """Run the function `MODULE:NAME` with the device and the other arguments, paths."""
    import importlib

    device = open_device()
    from edgekd import processes
    from edgekd.training import device_rows

    module, _, name = sys.argv[1].partition(":")
    work: Callable[..., None] = getattr(importlib.import_module(module), name)
    processes.join = lambda _: device  # type: ignore[assignment]
    device_rows.free_bytes = lambda _: FREE
    torch.set_num_threads(1)
    with Placing():
        work(device, *map(Path, sys.argv[2:]))


if __name__ == "__main__":
    main()
