"""A picture of a data set: the log-mel spectrogram of a clip of each class."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from edgekd.audio.read import read_clip
from edgekd.checks.inspection import Inspection
from edgekd.config import DistillConfig
from edgekd.data.index import ClipIndex
from edgekd.log_mel import LogMel
from edgekd.progress import Progress, silent
from edgekd.runs.pictures import plot_spectrograms

_DB = 20 / math.log(10)  # of a magnitude's natural logarithm


def draw_spectrograms(
    inspection: Inspection, index: ClipIndex, config: DistillConfig, out: Path, progress: Progress = silent
) -> None:
    """Draw the clip of median level of each class that has sound, on the front end of `config`, to the PNG `out`."""
    data = config.data
    front_end = LogMel(config.frontend.whole(), data.sample_rate)
    samples = round(data.clip_seconds * data.sample_rate)
    heard = data.model_copy(update={"padding": "zeros"})
    spectrograms = {}
    for done, each in enumerate(inspection.classes, 1):
        if each.example is not None:
            clip = index.clips[each.example]
            waveform = read_clip(
                clip.path, clip.start, clip.length, sample_rate=data.sample_rate, samples=samples, hearing=heard
            ).waveform
            spectrograms[each.name] = front_end(torch.from_numpy(waveform)[None])[0, 0].numpy()
        progress("draw", done, len(inspection.classes))
    if spectrograms:
        weights = front_end.mel_weights
        bins = torch.linspace(0, data.sample_rate / 2, len(weights))
        centres = (weights * bins[:, None]).sum(0) / weights.sum(0)
        if front_end.config.convention == "yamnet":
            spectrograms = {name: _DB * log_mel for name, log_mel in spectrograms.items()}
        plot_spectrograms(spectrograms, centres.numpy(), config.frontend.hop_length / data.sample_rate, out)
