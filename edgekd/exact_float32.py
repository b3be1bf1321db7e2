"""float32 that is float32, on CUDA too.

PyTorch lets cuDNN round what float32 convolutions multiply to TF32, which has 10 bits of mantissa, unless it is told
not to (and matrix products, where a program asks for it): numbers differ by a thousandth, and networks by more than a
folded batch norm or an int8 student may. So wherever edgekd says float32, TF32 is off:

    commands that write a run     all of them, from the first tensor to the last (`edgekd.runs.at_work`)
    `prepare` and `calibrate`     int8: traced and folded networks compared, ranges measured
    `profile`                     accuracy, robustness and times of PyTorch's modules: "float32" is what was measured

What is to be fast computes in bfloat16 instead, under autocast (`edgekd.training.precision`): convolutions and linear
layers of teacher and student in training. There front ends, normalised log-mels, softmax, textures and losses stay in
float32, which is then exact as well; validation, int8 training and all that is written down are float32 altogether.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import backends


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it, in this process, no float32 is rounded to TF32 or bfloat16, whatever was set; a decorator, too."""
    cudnn: Any = backends.cudnn
    mkldnn: Any = backends.mkldnn
    switches: tuple[Any, ...] = (
        cudnn, cudnn.conv, cudnn.rnn, backends.cuda.matmul, mkldnn.conv, mkldnn.rnn, mkldnn.matmul
    )  # fmt: skip
    before = [switch.fp32_precision for switch in switches]
    convolutions, products = _older()
    # The older switches alone would leave a default in force that was set by a newer one; of the newer ones alone, the
    # older ones would raise where they are read.
    if convolutions:
        backends.cudnn.allow_tf32 = False
    if products not in (None, "highest"):
        torch.set_float32_matmul_precision("highest")
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        yield
    finally:
        if convolutions:
            backends.cudnn.allow_tf32 = True
        if products not in (None, "highest"):
            torch.set_float32_matmul_precision(products)
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


def _older() -> tuple[bool, str | None]:
    """What the older switches say: of cuDNN, and of matrix products; False and None where the newer ones were used and
    they refuse to say."""
    try:
        convolutions = bool(backends.cudnn.allow_tf32)
    except RuntimeError:
        convolutions = False
    try:
        return convolutions, torch.get_float32_matmul_precision()
    except RuntimeError:
        return convolutions, None
