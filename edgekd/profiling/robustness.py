"""How accuracy falls with noise and with shorter clips: what a hydrophone meets and a test side does not hold.

*Noise* is added to every clip at a signal-to-noise ratio that is the mean power of the clip over that of the noise,
whatever was in the clip already: at 0 dB both are as strong. The noise of a clip is the same for every ratio and every
subject, so that curves differ by the subject alone. Pink noise, of the same power in every octave, is nearer to the
ambient noise of sea and rooms than white; a recording of one's own site is nearer still.

*Length*: a piece of each clip, from a place drawn at random once, filled up again as the runner fills short recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.audio.read import fit, read
from edgekd.errors import InputError
from edgekd.profiling.accuracy import Classify, ScoredClips
from edgekd.progress import Progress, silent
from edgekd.report.results import Point, Robustness
from edgekd.scoring.scored import score_clips

SNRS_DB = (20.0, 15.0, 10.0, 5.0, 0.0, -5.0)
SHARES = (0.5, 0.25, 0.125)  # of a clip
_BATCH = 8
MOST_CLIPS = 400  # more would take minutes and move the curves by less than their intervals

Sound = npt.NDArray[np.float32]
Noise = Callable[[int, int], Sound]
"""The place of a clip and its samples -> `(samples,)` of noise, of any power but 0."""
Padding = Literal["repeat", "zeros"]


def noise_of(kind: str, sample_rate: int, samples: int) -> tuple[Noise, str]:
    """`white`, `pink`, or the recording at a path, and what it is in words.

    Raises `InputError` for a recording that cannot be read, is silent, or is shorter than a clip of `samples`.
    """
    if kind == "white":
        return _coloured(0.0), "white noise (the same power at every frequency)"
    if kind == "pink":
        return _coloured(1.0), "pink noise (the same power in every octave)"
    path = Path(kind)
    if not path.is_file():
        raise InputError(f"--noise {kind}: no such recording. Name one, or: pink, white.")
    recording = read(path, sample_rate)
    if len(recording) < samples:
        have, need = len(recording) / sample_rate, samples / sample_rate
        raise InputError(f"--noise {kind}: {have:.2f} s of noise, and a clip is {need:.2f} s. Name a longer recording.")
    if not recording.any():
        raise InputError(f"--noise {kind}: the recording is silent. Name another.")

    def piece(place: int, length: int) -> Sound:
        rng = np.random.default_rng(place)
        for _ in range(100):  # a recording may have gaps
            start = int(rng.integers(0, len(recording) - length + 1))
            found = recording[start : start + length]
            if found.any():
                return found
        raise InputError(f"--noise {kind}: nearly all of the recording is silent. Name another.")

    return piece, f"the recording {path.name}"


def noisy(waveforms: Tensor, noise: Tensor, snr_db: float) -> Tensor:
    """`waveforms (B, S)` with `noise (B, S)` at `snr_db`; a silent clip stays as it is."""
    power, noise_power = waveforms.square().mean(dim=1), noise.square().mean(dim=1)
    gain = (power / noise_power * 10 ** (-snr_db / 10)).sqrt()
    return waveforms + gain[:, None] * noise


def shortened(waveforms: Tensor, places: Sequence[int], samples: int, padding: Padding) -> Tensor:
    """A piece of `samples` of each of `waveforms (B, S)`, padded to S again; shorter pieces lie in longer ones."""
    whole = waveforms.shape[1]
    starts = [int(np.random.default_rng(place).random() * (whole - samples)) for place in places]
    pieces = [fit(wave[start:], samples, padding) for wave, start in zip(waveforms.numpy(), starts, strict=True)]
    return torch.from_numpy(np.stack([fit(piece, whole, padding) for piece in pieces]))


def robustness(
    clips: ScoredClips, classify: Classify, noise: Noise, progress: Progress = silent, stage: str = "robustness"
) -> Robustness:
    """Accuracy of `classify` on `clips`, noisy and shortened; on at most `MOST_CLIPS` of them, evenly spaced."""
    clips = clips.at(np.unique(np.linspace(0, len(clips.rows) - 1, MOST_CLIPS).round().astype(int)).tolist())
    lengths = [round(share * clips.samples) for share in SHARES]
    by_noise: dict[float, list[Tensor]] = {snr: [] for snr in SNRS_DB}
    by_length: dict[float, list[Tensor]] = {size / clips.sample_rate: [] for size in lengths}
    with torch.inference_mode():
        for start in range(0, len(clips.rows), _BATCH):
            places = range(start, min(start + _BATCH, len(clips.rows)))
            waveforms = clips.store.waveforms([clips.rows[place] for place in places])
            added = torch.from_numpy(np.stack([noise(place, clips.samples) for place in places]))
            for snr, said in by_noise.items():
                said.append(classify(noisy(waveforms, added, snr)))
            for samples, said in zip(lengths, by_length.values(), strict=True):
                said.append(classify(shortened(waveforms, places, samples, clips.padding)))
            progress(stage, places.stop, len(clips.rows))

    def points(conditions: dict[float, list[Tensor]]) -> tuple[Point, ...]:
        found = []
        for value, said in conditions.items():
            scores = score_clips(torch.cat(said).numpy(), clips.labels, clips.groups, clips.classes, clips.seed)
            found.append(Point.of(value, scores))
        return tuple(found)

    return Robustness(noise=points(by_noise), length=points(by_length))


def _coloured(exponent: float) -> Noise:
    """Gaussian noise whose power falls with frequency to `-exponent`, without its constant part."""

    def make(place: int, samples: int) -> Sound:
        rng = np.random.default_rng(place)
        steps = np.arange(1, samples // 2 + 1)
        spectrum = rng.standard_normal(len(steps)) + 1j * rng.standard_normal(len(steps))
        shaped = np.concatenate([[0], spectrum * steps ** (-exponent / 2)])
        return np.fft.irfft(shaped, samples).astype(np.float32)

    return make
