"""Audio files to waveforms: decode, make one channel, resample, window, pad.

Decoding is `edgekd.audio.recording`'s (wav, aiff, au, flac, ogg Vorbis and Opus, mp3, ...; any width).
Resampling is the on-device runner's (`edgekd.device.runner.resample`, which has the equations), so that a device hears
the numbers of training. `RESAMPLE_FILTER_WIDTH` (zero crossings a side) and `RESAMPLE_ROLLOFF` put the whole transition
of its filter between 0.88 and 1.0 of the lower Nyquist frequency: at 32 kHz, flat to 14 kHz, the top of the default mel
bank, and 44 dB down or more from 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

import numpy as np

from edgekd.audio.hearing import ClipHearing, HeardClip, Hearing, Waveform, audible, heard_window
from edgekd.audio.recording import AudioInfo, Recording, opened
from edgekd.device.runner import level
from edgekd.device.runner import resample as resampling
from edgekd.device.runner.classifier import fit
from edgekd.errors import InputError

__all__ = [
    "AUDIO_SUFFIXES",
    "RESAMPLE_FILTER_WIDTH",
    "RESAMPLE_ROLLOFF",
    "AudioInfo",
    "Hearing",
    "HeardClip",
    "Waveform",
    "fit",
    "probe",
    "read",
    "read_clip",
    "resample",
    "tolerant",
]

RESAMPLE_FILTER_WIDTH = 32
RESAMPLE_ROLLOFF = 0.94
AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".wave", ".bwf", ".rf64", ".bw64", ".w64", ".flac", ".ogg", ".oga", ".opus"),
        *(".mp3", ".mp2", ".mpga", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph"),
    }
)


def probe(path: Path) -> AudioInfo:
    """Rate, length, channels and sample format, from the header, and the length from what follows where that says
    another.

    Raises `InputError` for a file that is missing, empty, not audio, without samples, or shorter than its header
    promises (where the container tells without decoding; otherwise `read` finds out).
    """
    try:
        with opened(path) as recording:
            return recording.info
    except InputError as failure:
        if _broken is None:
            raise
        _broken[path] = str(failure).removeprefix(f"{path}: ")
        return AudioInfo(rate=48_000, frames=48_000, channels=1, subtype="")


_broken: dict[Path, str] | None = None


def is_broken(path: Path) -> bool:
    """Whether `probe` has taken this file for a second of sound, within `tolerant`."""
    return _broken is not None and path in _broken


@contextmanager
def tolerant() -> Iterator[dict[Path, str]]:
    """Within it `probe` takes a broken file for a second of sound and notes it, with what is wrong, in the dict given.

    So that all broken files of a data set are found at once, by whichever loader. For one thread.
    """
    global _broken  # noqa: PLW0603
    _broken = {}
    try:
        yield _broken
    finally:
        _broken = None


def read(
    path: Path, sample_rate: int, start: int = 0, length: int | None = None, hearing: Hearing | None = None
) -> Waveform:
    """The window of `length` samples from `start` (both at the file's rate; None: to the end), as `hearing` has it
    (None: the mean of the channels, full scale 1), at `sample_rate`.

    Only the window is decoded, with as much before and after as the resampling filter reaches. Its numbers are
    therefore those of the whole recording resampled, wherever `start` falls on a sample of the new rate (`start *
    sample_rate / rate` whole, as for every multiple of a whole number of seconds); elsewhere the new samples are
    counted from `start`. Codecs that cannot be entered exactly at a sample (mp3) may differ by a rounding error.

    Returns `(ceil(length * sample_rate / rate),)` float32. Raises `InputError` as `probe` does, and for a file that
    ends early, cannot be decoded, holds NaN or infinite samples or such as are no sound of full scale 1, or lacks the
    channel.
    """
    with opened(path) as recording:
        return _window(recording, sample_rate, start, length, hearing)[0]


def read_clip(
    path: Path, start: int, length: int, *, sample_rate: int, samples: int, hearing: ClipHearing
) -> HeardClip:
    """`read`, made exactly `samples` long. A window whose samples all have one value is silence: zeros.

    Raises as `read` does.
    """
    with opened(path) as recording:
        rate = recording.info.rate
        needed = ceil(samples * rate / sample_rate)
        waveform, heard, left = _window(recording, sample_rate, start, min(length, needed), hearing)
    heard = audible(heard, recording.info.subtype)
    if level.is_flat(heard):
        waveform = np.zeros_like(waveform)
    ends = level.zeros_at_ends(heard, rate)
    if hearing.trim_silence and any(ends):
        heard = heard[ends[0] : len(heard) - ends[1]]
        first, stop = (ceil(place * sample_rate / rate) for place in (ends[0], ends[0] + len(heard)))
        waveform, ends = waveform[first:stop], (0, 0)
    silence = (*ends, level.zeros_in_runs(heard, rate))
    return HeardClip(fit(waveform, samples, hearing.padding), left, *(count / rate for count in silence))


def _window(
    recording: Recording, sample_rate: int, start: int, length: int | None, hearing: Hearing | None
) -> tuple[Waveform, Waveform, float]:
    """What `read` returns, the same at the file's rate, and `HeardClip.left` of it."""
    rate, frames = recording.info.rate, recording.info.frames
    stop = frames if length is None else start + length
    if not 0 <= start < stop <= frames:
        raise InputError(
            f"{recording.path}: has {frames} samples, so no window {start} to {stop}: was it changed or replaced?"
        )
    margin = resampling.reach(rate, sample_rate, RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF)
    first, last = max(0, start - margin), min(frames, stop + margin)
    around, left = heard_window(recording, first, last - first, hearing)
    outputs = ceil((stop - start) * sample_rate / rate)
    waveform = resample(around, rate, sample_rate, start - first, outputs)
    return waveform, around[start - first : stop - first], left


def resample(waveform: Waveform, from_rate: int, to_rate: int, first: int = 0, outputs: int | None = None) -> Waveform:
    """`waveform (S,)` at `from_rate` Hz to `(outputs,)` at `to_rate` Hz, the first at `waveform[first]`.

    `outputs` None: up to its end, `ceil((S - first) * to_rate / from_rate)`. Silence is assumed around it.
    """
    return resampling.resample(
        waveform, from_rate, to_rate, RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF, first=first, outputs=outputs
    )
