"""What is heard of a recording: its channels made one, its full scale brought to 1, and the silence in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.audio.recording import Recording
from edgekd.device.runner import level
from edgekd.device.runner.level import Stretches
from edgekd.device.runner.wav import mix_down
from edgekd.errors import InputError

Waveform = NDArray[np.float32]

FLOATS = frozenset({"FLOAT", "DOUBLE"})  # sample formats that may be of any scale
LOSSY = frozenset({"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})
INAUDIBLE = 2.0**-16  # what 16 bits round to 0: as near as these formats come to digital silence


class Hearing(Protocol):
    """What is heard of a recording: settings of `DataConfig`, and of a bundle's classifier."""

    @property
    def channel(self) -> int | Literal["mean"]: ...

    @property
    def full_scale(self) -> float: ...


class ClipHearing(Hearing, Protocol):
    """`Hearing`, and how a clip is made of what is heard."""

    @property
    def padding(self) -> Literal["repeat", "zeros"]: ...

    @property
    def trim_silence(self) -> bool: ...


class HeardClip(NamedTuple):
    """A clip `(S,)`, and what is known of it before it was filled.

    `left`: the share of its channels' mean power that is left of them in one: 1 of one channel, about 0.5 of the mean
    of two that have nothing to do with each other, 0 of two in opposite phase. `silence_start`, `silence_end`,
    `silence`: seconds of digital silence at its start, at its end and in all, in runs of `level.LEAST_SILENCE` or more;
    a clip that is silent throughout has none at its ends.
    """

    waveform: Waveform
    left: float
    silence_start: float
    silence_end: float
    silence: float


def at_full_scale(
    path: Path, channels: NDArray[np.float32], subtype: str, hearing: Hearing | None
) -> NDArray[np.float32]:
    """`channels (S, C)` of a file with this sample format, its full scale brought to 1.

    Raises `InputError` for samples that are no sound of this full scale.
    """
    if subtype not in FLOATS:
        return channels
    scale = 1.0 if hearing is None else hearing.full_scale
    channels = channels if scale == 1 else channels / np.float32(scale)
    if (peak := level.largest(channels)) > level.HIGHEST_PEAK:
        raise InputError(
            f"{path}: samples reach {peak * scale:.4g}, where full scale is {_advice(scale, peak * scale)}"
        )
    return channels


def as_heard(path: Path, channels: NDArray[np.float32], hearing: Hearing | None) -> Waveform:
    """What is heard `(S,)` of `channels (S, C)`. Raises `InputError` for a channel that is not there."""
    channel = "mean" if hearing is None else hearing.channel
    count = channels.shape[1]
    if channel != "mean" and channel >= count:
        raise InputError(
            f"{path}: has {count} channel(s), counted from 0, so none with number {channel}. Choose one that every "
            "file has (data.channel), or leave it out: the mean."
        )
    return np.ascontiguousarray(mix_down(channels, channel))


def heard_window(recording: Recording, start: int, length: int, hearing: Hearing | None) -> tuple[Waveform, float]:
    """`length` samples from `start` as they are heard, and `HeardClip.left` of them.

    Raises `InputError` as `Recording.read`, `at_full_scale` and `as_heard` do.
    """
    path, info = recording.path, recording.info
    mixes = info.channels > 1 and (hearing is None or hearing.channel == "mean")
    one = of_all = 0.0
    pieces = []
    for block in recording.blocks(start, length) if info.channels > 1 else (recording.read(start, length),):
        channels = at_full_scale(path, block, info.subtype, hearing)
        heard = as_heard(path, channels, hearing)
        if mixes:
            one += float(np.sum(np.square(heard, dtype=np.float64)))
            of_all += float(np.sum(np.square(channels, dtype=np.float64))) / info.channels
        pieces.append(heard)
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces), one / of_all if of_all > 0 else 1.0


def audible(waveform: Waveform, subtype: str) -> Waveform:
    """`waveform (S,)` with digital silence as 0, which a lossy format turns into the faintest noise."""
    return np.where(np.abs(waveform) < INAUDIBLE, np.float32(0), waveform) if subtype in LOSSY else waveform


def _advice(scale: float, peak: float) -> str:
    """The rest of the message about samples of a float file that reach so far."""
    integers = {2.0**15: "16-bit", 2.0**23: "24-bit", 2.0**31: "32-bit"}
    known = next((full for full in integers if peak <= full), None)
    if known is None or scale != 1:
        return f"{scale:g}. Give the full scale of its unit: --set data.full_scale=NUMBER."
    return (
        f"{scale:g}. If these are {integers[known]} integers as floats, pass --set data.full_scale={known:.0f}; if "
        "they are in pascal or another unit, the value that the recorder's full scale has in it."
    )


def heard_pieces(recording: Recording, hearing: Hearing, stretches: Stretches) -> Iterator[Waveform]:
    """The whole recording as it is heard, in pieces `(samples,)`, which `stretches` gets to know.

    Raises `InputError` as `Recording.read`, `at_full_scale` and `as_heard` do.
    """
    subtype = recording.info.subtype
    for block in recording.blocks():
        heard = as_heard(recording.path, at_full_scale(recording.path, block, subtype, hearing), hearing)
        stretches.push(audible(heard, subtype))
        yield heard


def unchecked_pieces(recording: Recording, hearing: Hearing) -> Iterator[Waveform]:
    """`heard_pieces` where some samples may be NaN, infinite or of another unit: whoever gets them is to ask.

    Raises `InputError` as `as_heard` does, and for a file that ends early or cannot be decoded.
    """
    scale = hearing.full_scale if recording.info.subtype in FLOATS else 1.0
    for block in recording.blocks(finite=False):
        with np.errstate(over="ignore", invalid="ignore"):
            heard = as_heard(recording.path, block, hearing)
            yield heard if scale == 1 else heard / np.float32(scale)
