"""Sounds of no class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgekd.config import DataConfig
from edgekd.errors import InputError
from edgekd.profiling.accuracy import clips_of_run
from edgekd.profiling.probes import LEVELS, hum, levels_of, probes_of, site_clips
from edgekd.runs.run import Run


def test_noise_and_hum_have_the_levels_of_the_clips(tiny_run: Run) -> None:
    clips = clips_of_run(tiny_run)
    sounds, levels = probes_of(clips), levels_of(clips)
    assert list(sounds) == ["digital silence", "white noise", "pink noise", "50 Hz hum", "60 Hz hum"]
    waveforms = clips.store.waveforms(clips.rows)
    assert waveforms.square().mean(dim=1).sqrt().min() <= levels[0] <= levels[-1]
    assert not sounds["digital silence"].waveforms.any()
    for kind in ("white noise", "pink noise", "50 Hz hum"):
        assert sounds[kind].waveforms.shape == (LEVELS, clips.samples)
        np.testing.assert_allclose(sounds[kind].waveforms.square().mean(dim=1).sqrt(), levels, rtol=1e-3)


def test_a_hum_is_of_the_mains_and_its_harmonics() -> None:
    spectrum = np.abs(np.fft.rfft(hum(50, 4_000, 4_000, 0))) / 2_000
    assert np.flatnonzero(spectrum > 0.05).tolist() == list(range(50, 501, 50))
    np.testing.assert_allclose(spectrum[50:501:50], 1 / np.arange(1, 11), rtol=1e-3)


def test_the_windows_of_a_site_are_side_by_side(tmp_path: Path) -> None:
    ramp = np.linspace(-0.5, 0.5, 10_000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", ramp, 4_000, subtype="FLOAT")
    (tmp_path / "more").mkdir()
    soundfile.write(tmp_path / "more" / "b.wav", ramp[:1000], 4_000, subtype="FLOAT")
    hearing = DataConfig()
    found = site_clips([tmp_path / "a.wav", tmp_path / "more"], hearing, 4_000, 4_000)
    assert found.waveforms.shape == (4, 4_000)  # the last of the first is flush with its end
    assert [Path(name).name for name in found.groups] == ["a.wav"] * 3 + ["b.wav"]
    torch.testing.assert_close(found.waveforms[1], torch.from_numpy(ramp[4_000:8_000]))


def test_a_site_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--site .*nowhere: no such recording or folder"):
        site_clips([tmp_path / "nowhere"], DataConfig(), 4_000, 4_000)
    with pytest.raises(InputError, match="no recording in it"):
        site_clips([tmp_path], DataConfig(), 4_000, 4_000)
