"""In which arithmetic networks compute while something is trained; `edgekd.exact_float32` says what is float32 then."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device, enabled: bool = True) -> torch.autocast:
    """Within it, bfloat16 on CUDA for all that autocast holds to be safe; float32 on a CPU, and where not `enabled`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and device.type == "cuda")
