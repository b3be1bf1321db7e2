"""How far the log-mel in fixed point is from PyTorch's, on real clips: measured at each export, and bounded.

What is far below the loudest band of its frame is lost first: products of 16 bits leave errors some 100 dB below it. So
the bound is on what lies within `NEAR_DB`, and on nearly all of the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgekd.errors import GateError
from edgekd.exporting.deployable import Deployable
from edgekd.log_mel import LogMel
from edgekd.microcontrollers.c.host import in_16_bits
from edgekd.microcontrollers.integer.log_mel import FixedLogMel, fixed_log_mel
from edgekd.microcontrollers.integer.log_mel_reference import inputs, logarithms, rows
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.reference import quantised
from edgekd.microcontrollers.integer.trained_log_mel import TrainedLogMel

FRAMES = 4_096  # over all clips; more tell no more
NEAR_DB, MOST_NEAR_DB = 60.0, 0.25  # below the loudest band of a frame, and the largest error there
MOST_DB = 0.1  # the error that 99 in 100 of all cells do not exceed


@dataclass(frozen=True)
class LogMelError:
    """Of `frames`: the largest error of what is within `NEAR_DB` of a frame's loudest band, and what 99 in 100 of all
    cells do not exceed, in dB; the share of the network's int8 inputs that are another step than in float."""

    frames: int
    largest_db: float
    db_of_99_in_100: float
    inputs_that_differ: float

    def check(self, sample_rate: int) -> None:
        """Raise `GateError` where it is beyond the bound."""
        for what, error, most in (
            (f"within {NEAR_DB:g} dB of the loudest band", self.largest_db, MOST_NEAR_DB),
            ("in 99 of 100 cells", self.db_of_99_in_100, MOST_DB),
        ):
            if not error <= most:
                raise GateError(
                    f"The log-mel in fixed point at {sample_rate} Hz is up to {error:.3f} dB off {what} of the "
                    f"verification clips (at most {most:g} dB). Distil with a shorter frontend.window_ms or more "
                    "frontend.n_mels, or name a board with an FPU."
                )


def log_mel_error(deployable: Deployable, waveforms: torch.Tensor) -> LogMelError:
    """The error on clips `waveforms (N, S)` of 16 bits, of full scale 1; frames are drawn evenly."""
    student, network = deployable.student, deployable.network
    assert network is not None
    config, samples = student.frontend.config, waveforms.shape[1]
    entry = lower(network, *config.shape(samples), several=student.task.several).entry
    front_end = fixed_log_mel(TrainedLogMel.of(student), entry)
    steps, group = entry.rows, config.frames_per_step
    each = min(steps, max(1, math.ceil(FRAMES / group / len(waveforms))))
    clips = waveforms[: math.ceil(FRAMES / group / each)]
    chosen = np.linspace(0, steps - 1, each).round().astype(np.int64)
    wanted = (chosen[:, None] * group + np.arange(group)).ravel()
    with torch.no_grad():
        whole = LogMel(config.whole(), student.frontend.sample_rate)
        expected = torch.cat([whole(clip[None] * student.gain.cpu()) for clip in clips])[:, 0, wanted].numpy()
        in_float = torch.cat([student.log_mel(clip[None]) for clip in clips])
    differ, errors, below = [], [], []
    decibels = 20 / math.log(10) if config.convention == "yamnet" else 1.0
    heard = in_16_bits(clips.numpy())
    for clip, float_levels, float_inputs in zip(heard, expected, quantised(in_float.numpy(), entry), strict=True):
        frames = _frames(clip, front_end, config.hop_length, config.convention != "yamnet")[wanted]
        levels = decibels * float_levels.astype(np.float64)
        errors.append(np.abs(decibels * logarithms(front_end, frames) - levels))
        below.append(levels.max(axis=1, keepdims=True) - levels)
        found = inputs(front_end, rows(front_end, frames).reshape(each, group, -1).sum(axis=1))
        differ.append(found != float_inputs[chosen, :, 0])
    error, far = np.concatenate(errors), np.concatenate(below)
    return LogMelError(
        frames=len(error),
        largest_db=float(error[far <= NEAR_DB].max()),
        db_of_99_in_100=float(np.percentile(error, 99)),
        inputs_that_differ=float(np.mean(differ)),
    )


def _frames(clip: NDArray[np.int16], front_end: FixedLogMel, hop: int, centred: bool) -> NDArray[np.int16]:
    """Every frame of a clip, `(T, window)`."""
    length = len(front_end.window)
    return sliding_window_view(np.pad(clip, length // 2, mode="reflect") if centred else clip, length)[::hop]
