"""The front end of bundles whose graph has none of its own."""

from __future__ import annotations

import math

import numpy as np


class LogMel:
    """Log-mel: clips `(B, S)` -> `(B, 1, T, F)`, float32, dB.

    `10 log10(max(M |STFT(gain x)|^2, 1e-10))` with a periodic Hann window, centred frames, reflected borders, and
    Slaney-scale mel filters of unit area (M. Slaney, "Auditory Toolbox", 1998): the numbers of training.
    """

    def __init__(
        self, n_fft: int, hop_length: int, n_mels: int, f_min: float, f_max: float, *, sample_rate: int, gain: float
    ) -> None:
        self._n_fft, self._hop_length = n_fft, hop_length
        self._window = gain * np.sin(np.pi * np.arange(n_fft) / n_fft) ** 2
        self._filters = mel_filters(n_fft, n_mels, f_min, f_max, sample_rate)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        return np.stack([self._one(clip) for clip in clips])[:, None]

    def _one(self, clip: np.ndarray) -> np.ndarray:
        padded = np.pad(clip.astype(np.float64), self._n_fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self._n_fft)[:: self._hop_length]
        mel = np.empty((len(frames), self._filters.shape[1]))
        for start in range(0, len(frames), 32):  # in pieces that stay in the cache: three times as fast
            spectrum = np.fft.rfft(frames[start : start + 32] * self._window)
            mel[start : start + 32] = (spectrum.real**2 + spectrum.imag**2) @ self._filters
        return (10 * np.log10(np.maximum(mel, 1e-10))).astype(np.float32)


def mel_filters(n_fft: int, n_mels: int, f_min: float, f_max: float, sample_rate: int) -> np.ndarray:
    """Triangular mel filters `(n_fft / 2 + 1, n_mels)`, each of unit area."""
    # The mel scale: linear to 1 kHz, 200 / 3 Hz a step; logarithmic above, 27 steps for a factor of 6.4.
    low, high = (f / (200 / 3) if f < 1000 else 15 + 27 * math.log(f / 1000) / math.log(6.4) for f in (f_min, f_max))
    mels = np.linspace(low, high, n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    bins = np.linspace(0, sample_rate // 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
