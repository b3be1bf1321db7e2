from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import signal

from edgekd._torchaudio import functional
from edgekd.audio import read as audio
from edgekd.audio import recording
from edgekd.config import DataConfig
from edgekd.errors import InputError

RATE = 32_000


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples)


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def cut(path: Path, share: float) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


# Resampling


@pytest.mark.parametrize(
    "rates", [(44_100, 32_000), (48_000, 32_000), (96_000, 32_000), (8_000, 32_000), (32_000, 16_000), (11_025, 8_000)]
)
def test_resampling_gives_the_numbers_of_torchaudio(rates: tuple[int, int]) -> None:
    waveform = noise(rates[0] + 17).astype(np.float32)
    expected = functional.resample(
        torch.from_numpy(waveform).double(),
        *rates,
        lowpass_filter_width=audio.RESAMPLE_FILTER_WIDTH,
        rolloff=audio.RESAMPLE_ROLLOFF,
        resampling_method="sinc_interp_hann",
    )
    assert np.abs(audio.resample(waveform, *rates) - expected.numpy()).max() < 1e-6


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_828, 52_734, 96_000, 44_101])
def test_a_tone_keeps_its_pitch_level_and_phase_from_any_rate(rate: int) -> None:
    resampled = audio.resample(tone(3_000, rate, 0.25).astype(np.float32), rate, RATE)
    middle = slice(500, -500)  # silence outside the file rings into its ends
    assert np.abs(resampled - tone(3_000, RATE, len(resampled) / RATE))[middle].max() < 1e-3


def test_resampling_agrees_with_scipy_below_the_transition_band() -> None:
    low, high = signal.butter(8, 10_000, fs=48_000, output="sos"), noise(48_000)
    waveform = signal.sosfiltfilt(low, high)
    expected = signal.resample_poly(waveform, 2, 3, window=("kaiser", 12.0))
    difference = audio.resample(waveform.astype(np.float32), 48_000, RATE) - expected
    assert np.abs(difference[500:-500]).max() < 1e-3 * np.abs(expected).max()


def test_the_pass_band_reaches_14_khz_and_nothing_aliases_below_it() -> None:
    def level_db(hertz: float) -> float:
        heard = audio.resample(tone(hertz, 96_000).astype(np.float32), 96_000, RATE)[1000:-1000]
        return float(10 * np.log10(2 * np.mean(heard.astype(np.float64) ** 2)))

    assert max(abs(level_db(hertz)) for hertz in (100, 5_000, 10_000, 13_000, 14_000)) < 0.1
    assert max(level_db(hertz) for hertz in (16_100, 17_000, 20_000, 30_000, 45_000)) < -44


def test_one_rate_to_itself_changes_nothing() -> None:
    waveform = noise(100).astype(np.float32)
    np.testing.assert_array_equal(audio.resample(waveform, RATE, RATE), waveform)


# Reading


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_a_window_has_the_numbers_of_the_whole_recording(tmp_path: Path, name: str, rate: int) -> None:
    path = write(tmp_path / name, noise(rate * 3), rate)
    whole = audio.read(path, RATE)
    window = audio.read(path, RATE, start=rate, length=rate)
    assert window.shape == (RATE,)
    assert np.abs(window - whole[RATE : 2 * RATE]).max() < 1e-6


def test_a_window_off_the_new_grid_is_counted_from_its_first_sample(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1_000, 44_100), 44_100, "FLOAT")
    window = audio.read(path, RATE, start=10_001, length=20_000)
    expected = np.sin(2 * np.pi * 1_000 * (10_001 / 44_100 + np.arange(len(window)) / RATE))
    assert np.abs(window - expected).max() < 1e-3


def test_stereo_is_averaged(tmp_path: Path) -> None:
    left, right = noise(RATE, 1), noise(RATE, 2)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(audio.read(path, RATE), (left + right) / 2, atol=1e-7)


def test_96_khz_stereo_just_works(tmp_path: Path) -> None:
    both = np.stack([tone(1_000, 96_000), tone(1_000, 96_000)], axis=1)
    waveform = audio.read(write(tmp_path / "a.wav", both * 0.5, 96_000, "PCM_24"), RATE)
    assert np.abs(waveform - 0.5 * tone(1_000, RATE))[500:-500].max() < 1e-3


def test_8_bit_samples_are_centred_on_zero(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(440, RATE) * 0.5, subtype="PCM_U8")
    assert audio.probe(path).subtype == "PCM_U8"
    assert np.abs(audio.read(path, RATE) - 0.5 * tone(440, RATE)).max() < 1 / 127


def test_probe_tells_what_the_header_says(tmp_path: Path) -> None:
    info = audio.probe(write(tmp_path / "a.wav", np.zeros((22_050, 2)), 44_100, "PCM_24"))
    assert (info.rate, info.frames, info.channels, info.subtype, info.seconds) == (44_100, 22_050, 2, "PCM_24", 0.5)


def test_a_short_clip_is_filled_by_repetition_or_zeros() -> None:
    waveform = np.array([1, 2, 3], dtype=np.float32)
    assert audio.fit(waveform, 8, "repeat").tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert audio.fit(waveform, 8, "zeros").tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert audio.fit(waveform, 2, "repeat").tolist() == [1, 2]


def test_a_clip_reads_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", noise(48_000 * 4), 48_000)
    asked = []
    decode = recording.Recording.read
    monkeypatch.setattr(recording.Recording, "read", lambda *args: asked.append(args[-1]) or decode(*args))
    clip = audio.read_clip(path, 0, 48_000 * 4, sample_rate=RATE, samples=RATE, hearing=DataConfig()).waveform
    assert clip.shape == (RATE,)
    assert clip.dtype == np.float32
    assert asked[0] < 48_100


def test_many_channels_are_mixed_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = np.stack([noise(5_000, seed) for seed in range(7)], axis=1)
    path = write(tmp_path / "a.wav", channels, subtype="FLOAT")
    whole = audio.read(path, RATE)
    monkeypatch.setattr("edgekd.audio.recording.BLOCK", 100)
    np.testing.assert_array_equal(audio.read(path, RATE), whole)


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg"])
def test_a_name_that_is_no_text_is_read_like_any_other(tmp_path: Path, ending: str) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9\xff." + ending.encode()))
    write(tmp_path / f"a.{ending}", noise(RATE)).rename(path)
    assert audio.probe(path).frames == RATE
    assert audio.read(path, RATE).shape == (RATE,)


# Bad files: one line each, with the file's name


def complaint(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        audio.read(path, RATE)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in complaint(tmp_path / "a.wav")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read" in complaint(tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert "empty" in complaint(tmp_path / "a.wav")


def test_a_file_that_is_not_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("Dear diary,")
    assert "not an audio file" in complaint(tmp_path / "a.wav")


def test_a_header_without_samples_is_named(tmp_path: Path) -> None:
    assert "holds no samples" in complaint(write(tmp_path / "a.wav", np.zeros(0)))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.au", "a.ogg", "a.opus", "a.mp3", "a.rf64"])
@pytest.mark.parametrize("share", [0.999, 0.9, 0.5])
def test_a_truncated_file_is_named_whatever_its_format(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    options = {"a.opus": ("OGG", "OPUS"), "a.rf64": ("RF64", "PCM_16")}.get(name, (None, None))
    soundfile.write(path, noise(48_000 * 4), 48_000, format=options[0], subtype=options[1])
    audio.read(path, RATE)
    complaint(cut(path, share))


def test_a_truncated_wav_says_how_much_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1000))
    assert "truncated: the header promises 2000 bytes of samples, 978 follow" in complaint(cut(path, 0.5))


def test_a_big_endian_wav_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1000), RATE, endian="BIG", subtype="PCM_16")
    assert path.read_bytes()[:4] == b"RIFX"
    audio.read(path, RATE)
    assert "truncated" in complaint(cut(path, 0.5))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_with_its_size_unknown_just_works(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", noise(1000))
    whole = bytearray(path.read_bytes())
    whole[40:44] = struct.pack("<I", size)
    path.write_bytes(whole)
    assert audio.read(path, RATE).shape == (1000,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_found(tmp_path: Path, value: float) -> None:
    samples = noise(1000)
    samples[345] = value
    assert "sample 345 is NaN or infinite" in complaint(write(tmp_path / "a.wav", samples, subtype="FLOAT"))


def test_a_window_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1000))
    with pytest.raises(InputError, match="has 1000 samples, so no window 900 to 1100"):
        audio.read(path, RATE, start=900, length=200)


def test_every_real_clip_is_whole(esc10: Path) -> None:
    for path in sorted((esc10 / "audio").iterdir()):
        assert audio.probe(path).rate == 48_000


# Whole files of every kind

MONO = ("GSM", "G72", "NMS")  # codecs of one channel
KINDS = [
    (kind, subtype, channels)
    for kind in ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF", "W64", "NIST", "FLAC", "OGG", "MP3")
    for subtype in soundfile.available_subtypes(kind)
    for channels in ((1,) if subtype.startswith(MONO) else (1, 2))
    # soundfile itself fails of DWVW (it seeks after reading); of MPEG audio libsndfile writes layer III, as mp3.
    if not subtype.startswith(("DWVW", "MPEG_LAYER_I")) or (kind, subtype) == ("MP3", "MPEG_LAYER_III")
]


@pytest.mark.parametrize(("kind", "subtype", "channels"), KINDS)
def test_whole_files_are_heard_as_libsndfile_hears_them(tmp_path: Path, kind: str, subtype: str, channels: int) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    samples = np.stack([noise(4_001, seed) for seed in range(channels)], axis=1)
    with soundfile.SoundFile(path, "w", 48_000, channels, subtype, format=kind) as file:
        with contextlib.suppress(soundfile.LibsndfileError):  # some kinds have no place for it
            file.comment = "a tag"
        file.write(samples)
    with recording.opened(path) as opened:
        heard = opened.read(0, opened.info.frames)
    with soundfile.SoundFile(path) as file:
        expected = file.read(4_001, dtype="float32", always_2d=True)
    assert len(heard) >= 4_001  # a codec's last block may be filled up, and the count of it be lost
    np.testing.assert_array_equal(heard[:4_001], expected)
