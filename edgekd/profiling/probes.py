"""Sounds that are none of the classes: what a microphone or hydrophone hears when there is nothing to hear.

Digital silence; white and pink noise; the hum of 50 and of 60 Hz mains, with harmonics up to the tenth that fall as
1/n; and recordings of the user's own site in which none of the classes is. Noise and hum have the levels of the clips
that are scored, from their quietest to their loudest, so that it is not the level that gives them away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.audio.hearing import ClipHearing, heard_pieces
from edgekd.audio.read import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
from edgekd.audio.recording import opened
from edgekd.data.walk import audio_files, why_no_audio
from edgekd.device.runner import windows
from edgekd.device.runner.level import Stretches
from edgekd.device.runner.resample import resample_pieces
from edgekd.errors import InputError
from edgekd.profiling.accuracy import ScoredClips
from edgekd.profiling.robustness import noise_of

SILENCE, SITE = "digital silence", "your site"
LEVELS = 16  # clips of each kind, a level each
HARMONICS = 10
MOST_WINDOWS = 200  # of the recordings of a site, evenly spaced
_LEVELLED = 256  # clips of which levels are taken, evenly spaced

Sound = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sounds:
    """Clips `waveforms (N, S)`, and which of them are of one recording: `groups`, a name a clip."""

    waveforms: Tensor
    groups: tuple[str, ...]

    @classmethod
    def apart(cls, waveforms: Tensor) -> Sounds:
        """Each made for itself."""
        return cls(waveforms, tuple(map(str, range(len(waveforms)))))


def probes_of(clips: ScoredClips) -> dict[str, Sounds]:
    """What is made here, by its name: clips at the rate and the levels of `clips`."""
    levels = levels_of(clips)
    made: dict[str, Sounds] = {SILENCE: Sounds.apart(torch.zeros(1, clips.samples))}
    for kind in ("white", "pink"):
        noise, _ = noise_of(kind, clips.sample_rate, clips.samples)
        made[f"{kind} noise"] = _at_levels([noise(place, clips.samples) for place in range(LEVELS)], levels)
    for mains in (50, 60):
        hums = [hum(mains, clips.sample_rate, clips.samples, place) for place in range(LEVELS)]
        made[f"{mains} Hz hum"] = _at_levels(hums, levels)
    return made


def levels_of(clips: ScoredClips) -> npt.NDArray[np.float64]:
    """`LEVELS` root mean squares, evenly spaced among those of `clips`, the silent ones left out."""
    places = np.unique(np.linspace(0, len(clips.rows) - 1, _LEVELLED).round().astype(int))
    found = []
    for place in places.tolist():
        waveform = clips.store.waveforms([clips.rows[place]])
        found.append(float(waveform.double().square().mean().sqrt()))
    heard = [level for level in found if level > 0] or [0.1]
    return np.quantile(heard, (np.arange(LEVELS) + 0.5) / LEVELS)


def hum(mains: float, sample_rate: int, samples: int, place: int) -> Sound:
    """`(samples,)` of `mains` Hz and its harmonics below the Nyquist frequency, phases drawn for `place`."""
    phases = np.random.default_rng(place).uniform(0, 2 * np.pi, HARMONICS)
    time = np.arange(samples) / sample_rate
    total = np.zeros(samples)
    for number, phase in enumerate(phases, 1):
        if number * mains < sample_rate / 2:
            total += np.sin(2 * np.pi * number * mains * time + phase) / number
    return total.astype(np.float32)


def _at_levels(sounds: Sequence[Sound], levels: npt.NDArray[np.float64]) -> Sounds:
    made = [
        sound * (level / np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
        for sound, level in zip(sounds, levels, strict=True)
    ]
    return Sounds.apart(torch.from_numpy(np.clip(np.stack(made), -1, 1).astype(np.float32)))


def site_clips(paths: Sequence[Path], hearing: ClipHearing, sample_rate: int, samples: int) -> Sounds:
    """Windows of `samples` of the recordings at `paths`, files or folders, side by side; of more than `MOST_WINDOWS`
    so many, evenly spaced.

    Raises `InputError` for a path that is not there, and for recordings that cannot be read.
    """
    files = [file for path in paths for file in _files(path)]
    counts = []
    for file in files:
        with opened(file) as recording:
            seconds = recording.info.frames / recording.info.rate
        counts.append(max(1, int(seconds * sample_rate // samples)))
    step = max(1, -(-sum(counts) // MOST_WINDOWS))
    kept: list[Sound] = []
    groups: list[str] = []
    place = 0
    for file in files:
        for window in _windows(file, hearing, sample_rate, samples):
            if place % step == 0:
                kept.append(window)
                groups.append(str(file))
            place += 1
    return Sounds(torch.from_numpy(np.stack(kept)), tuple(groups))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"--site {path}: no such recording or folder. Name one of your site.")
    found = audio_files(path)
    if not found:
        raise InputError(f"--site {path}: no recording in it.{why_no_audio(path)} Name another.")
    return found


def _windows(file: Path, hearing: ClipHearing, sample_rate: int, samples: int) -> Iterator[Sound]:
    with opened(file) as recording:
        rate = recording.info.rate
        stretches = Stretches(rate, sample_rate)
        heard = heard_pieces(recording, hearing, stretches)
        pieces = resample_pieces(heard, rate, sample_rate, RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF)
        trimmed = stretches if hearing.trim_silence else None
        for batch in windows(pieces, samples, samples, hearing.padding, trimmed):
            yield from batch
