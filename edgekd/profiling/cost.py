"""What a classifier costs: parameters, multiply-accumulates (MACs) of one clip, bytes.

MACs are those of convolutions and matrix products; element-wise work, pooling and the FFT of a PyTorch front end are
left out. PyTorch modules are counted by torch's own `FlopCounterMode` while they run (a MAC is two FLOPs), ONNX files
by `edgekd.export.cost`. Batch 1 throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cost:
    """Of one subject. `macs` are the network's on one clip, `frontend_macs` those of the log-mel before it.

    `frontend_macs` is None where the front end is an FFT, which has none to count.
    """

    parameters: int
    macs: int
    frontend_macs: int | None
    file_bytes: int

    def to_dict(self) -> dict[str, int | None]:
        return asdict(self)


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
