"""What a PyTorch module costs on one clip: parameters, multiply-accumulates (MACs), bytes moved and held.

MACs are those of convolutions and matrix products; element-wise work, pooling and the FFT of a front end are left out.
They are counted by torch's own `FlopCounterMode` while the module runs (a MAC is two FLOPs). Bytes are those of the
tensors that its operators read, write and keep until they are not needed any more, counted while it runs too; views are
free, and what an operator needs inside itself is not seen. ONNX files are counted by `exporting.cost`, by the same
rules but with the fusions of a runtime, which eager PyTorch does not have. Batch 1 throughout.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgekd.report.results import Cost


def module_cost(
    module: nn.Module,
    front_end: Callable[[Tensor], object] | None,
    learned: nn.Module,
    file_bytes: int,
    example: Tensor,
) -> Cost:
    """Cost of `module(example)`, `example` a waveform `(1, S)`.

    `front_end` is its part before the network, whose MACs (a resampler's, say) are not the network's; `learned` holds
    the parameters that count. `frontend_macs` stays null, as a front end in PyTorch is an FFT.
    """
    macs = module_macs(module, example)
    traffic = module_traffic(module, example)
    return Cost(
        parameters=module_parameters(learned),
        macs=macs if front_end is None else macs - module_macs(front_end, example),
        file_bytes=file_bytes,
        traffic_bytes=traffic,
        arithmetic_intensity=macs / traffic,
        activation_bytes=module_activations(module, example),
    )


def module_parameters(module: nn.Module) -> int:
    """Learned numbers in `module`."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def module_macs(module: Callable[[Tensor], object], example: Tensor) -> int:
    """MACs of `module(example)`; every convolution and matrix product that PyTorch runs in it counts."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # The counter has no formula for the CPU's fused attention; the plain one is matrix products.
    with sdpa_kernel(SDPBackend.MATH), counter:
        module(example)
    return counter.get_total_flops() // 2


@torch.no_grad()
def module_traffic(module: Callable[[Tensor], object], example: Tensor) -> int:
    """Bytes of the tensors that all operators of `module(example)` read, weights included, and write."""
    counter = _Traffic()
    with counter:
        module(example)
    return counter.bytes


@torch.no_grad()
def module_activations(module: nn.Module, example: Tensor) -> int:
    """The most bytes of tensors that `module(example)` holds at once, the input included, weights and buffers not."""
    counter = _Live([*module.parameters(), *module.buffers(), example])
    with counter:
        module(example)
    return counter.peak + example.nbytes


class _Traffic(TorchDispatchMode):
    """Adds up what operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*arguments, **(keywords or {}))
        read, written = _tensors((arguments, keywords)), _tensors(result)
        sources = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = not operator._schema.is_mutable and all(
            tensor.untyped_storage().data_ptr() in sources for tensor in written
        )
        if not is_view and (read or "empty" not in operator.name()):
            # One tensor twice, as in x * x, is read once.
            once = {(tensor.data_ptr(), tensor.shape): tensor for tensor in read}
            self.bytes += sum(map(_bytes, (*once.values(), *written)))
        return result


class _Live(TorchDispatchMode):
    """Follows the memory of tensors from the operator that makes them to the end of the last name for it."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._followed: set[int] = set()

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*arguments, **(keywords or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address and address not in self._known and address not in self._followed:
                self._followed.add(address)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._given_up, address, storage.nbytes())
        self.peak = max(self.peak, self._now)
        return result

    def _given_up(self, address: int, size: int) -> None:
        self._followed.discard(address)
        self._now -= size


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())  # less where it repeats what is stored
