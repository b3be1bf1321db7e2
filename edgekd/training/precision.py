"""In which arithmetic networks compute while something is trained."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Within it, bfloat16 on CUDA for all that autocast holds to be safe; float32 on a CPU, and where not `wanted`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and device.type == "cuda")
