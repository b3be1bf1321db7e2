"""The front end of bundles whose graph has none of its own."""

from __future__ import annotations

import math

import numpy as np

from edgekd.device.runner.errors import RunnerError

_CACHED = 1 << 16  # samples of frames that are transformed together and stay in the cache: three times as fast
_FFT_INTO = int(np.__version__.split(".")[0]) >= 2  # before, numpy's FFT took no array to write into


class LogMel:
    """Log-mel: clips `(B, S)` -> `(B, 1, T, F)`, float32: the numbers of training.

    Convention "panns": `10 log10(max(M |STFT(gain x)|^2, 1e-10))` with centred frames, reflected borders, and
    Slaney-scale mel filters of unit area (M. Slaney, "Auditory Toolbox", 1998). Convention "yamnet": `log(M |STFT(gain
    x)| + 0.001)` with frames from the first sample on, zeros at the end of each, and mel filters of height 1. Both have
    a periodic Hann window, and average frames and bins in steps.
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        f_min: float,
        f_max: float,
        convention: str = "panns",
        window_length: int = 0,
        frames_per_step: int = 1,
        bins_per_step: int = 1,
        *,
        sample_rate: int,
        gain: float,
    ) -> None:
        if convention not in ("panns", "yamnet"):
            raise RunnerError(f"the manifest's log-mel has convention '{convention}', which this program does not know")
        window_length = window_length or n_fft
        self._n_fft, self._hop_length = n_fft, hop_length
        self._magnitudes = convention == "yamnet"
        self._window = gain * np.sin(np.pi * np.arange(window_length) / window_length) ** 2
        filters = height_1_filters if self._magnitudes else mel_filters
        self._mels = n_mels
        self._blocks = _blocks(filters(n_fft, n_mels, f_min, f_max, sample_rate), 1 if self._magnitudes else 2)
        self._steps = frames_per_step, bins_per_step
        # Used again and again: memory that is new to a process costs as much as the transform.
        bins = n_fft // 2 + 1
        self._group = max(1, min(64, _CACHED // n_fft))
        self._frames = np.empty((self._group, window_length))
        self._spectrum = np.empty((self._group, bins), np.complex128)
        self._found = np.empty((self._group, bins * (1 if self._magnitudes else 2)), np.float32)

    def shape(self, samples: int) -> tuple[int, int]:
        """`(T, F)` of a clip of so many samples."""
        heard = samples - len(self._window) if self._magnitudes else samples
        frames, bins = self._steps
        return (heard // self._hop_length + 1) // frames, self._mels // bins

    @property
    def step_samples(self) -> int:
        """Samples from one step of the log-mel to the next."""
        return self._hop_length * self._steps[0]

    def at_borders(self, samples: int) -> tuple[int, int]:
        """How many steps at the beginning and at the end of a clip of so many samples are made of its reflection, too:
        those of a clip that begins a step later are the others, and one more."""
        if self._magnitudes:
            return 0, 0
        frames, half = self._steps[0], self._n_fft // 2
        steps, _ = self.shape(samples)
        first = -(-half // self._hop_length)  # frame that is the first without
        last = (samples - self._n_fft + half) // self._hop_length  # and the last
        return min(steps, -(-first // frames)), max(0, steps - (last + 1) // frames)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        return np.stack([self.steps(clip, (0, self.shape(len(clip))[0])) for clip in clips])[:, None]

    def steps(self, clip: np.ndarray, *ranges: tuple[int, int]) -> np.ndarray:
        """Of the log-mel of a clip `(samples,)` those steps alone that are in `ranges`, from one to before another:
        `(steps, F)`."""
        each, bins = self._steps
        clip = np.ascontiguousarray(clip)
        mel = np.empty((each * sum(stop - first for first, stop in ranges), self._mels))
        done = filled = 0
        for step, last in ranges:
            frame, stop = step * each, last * each
            while frame < stop:
                end = min(stop, frame + self._group - filled)
                self._window_into(self._frames[filled : filled + end - frame], clip, frame)
                frame, filled = end, filled + end - frame
                if filled == self._group:
                    self._mel(filled, mel[done : done + filled])
                    done, filled = done + filled, 0
        if filled:
            self._mel(filled, mel[done:])
        log_mel = np.log(mel + 0.001 if self._magnitudes else np.maximum(mel, 1e-10))
        if not self._magnitudes:
            log_mel *= 10 / math.log(10)
        if (each, bins) != (1, 1):
            cells = log_mel[:, : self._mels // bins * bins].reshape(len(mel) // each, each, -1, bins)
            log_mel = cells.mean(axis=(1, 3))
        return log_mel.astype(np.float32)

    def _window_into(self, frames: np.ndarray, clip: np.ndarray, first: int) -> None:
        """Write frame `first` of a clip, and those after it, into `frames (n, window)`."""
        hop, length, before = self._hop_length, len(self._window), 0 if self._magnitudes else self._n_fft // 2
        stop = first + len(frames)
        low = min(stop, max(first, -(-before // hop)))
        high = max(low, min(stop, (len(clip) + before - length) // hop + 1))
        for begin, end in ((first, low), (low, high), (high, stop)):
            if begin == end:
                continue
            start, samples = begin * hop - before, clip
            if (begin, end) != (low, high):  # at a border, where the clip is reflected
                places = np.abs(np.arange(start, start + (end - begin - 1) * hop + length))
                start, samples = 0, clip[len(clip) - 1 - np.abs(len(clip) - 1 - places)]
            size = samples.itemsize
            view = np.ndarray((end - begin, length), samples.dtype, samples, start * size, (hop * size, size))
            np.multiply(view, self._window, out=frames[begin - first : end - first])

    def _mel(self, count: int, mel: np.ndarray) -> None:
        """The mel bins of so many of the frames, before the logarithm, into `mel (count, mels)`."""
        frames, spectrum, found = self._frames[:count], self._spectrum[:count], self._found[:count]
        if _FFT_INTO:
            np.fft.rfft(frames, self._n_fft, out=spectrum)
        else:
            spectrum = np.fft.rfft(frames, self._n_fft)
        if self._magnitudes:
            found[:] = np.abs(spectrum)
        else:  # both squares whose sum is the power
            parts = spectrum.view(np.float64)
            np.multiply(parts, parts, out=found, casting="same_kind")
        column, each = 0, 1 if self._magnitudes else 2
        for first, weights in self._blocks:
            rows, columns = weights.shape
            mel[:, column : column + columns] = found[:, each * first : each * first + rows] @ weights
            column += columns


def _blocks(filters: np.ndarray, parts: int) -> list[tuple[int, np.ndarray]]:
    """Mel filters `(bins, mels)`, 8 at a time: the first bin that they touch, and their weights from there on, for
    each of the `parts` of a bin."""
    blocks = []
    for start in range(0, filters.shape[1], 8):
        touched = np.flatnonzero(filters[:, start : start + 8].any(axis=1))
        first, stop = (int(touched[0]), int(touched[-1]) + 1) if len(touched) else (0, 1)
        weights = np.repeat(filters[first:stop, start : start + 8], parts, axis=0)
        blocks.append((first, np.ascontiguousarray(weights, np.float32)))
    return blocks


def height_1_filters(n_fft: int, n_mels: int, f_min: float, f_max: float, sample_rate: int) -> np.ndarray:
    """Triangular mel filters `(n_fft / 2 + 1, n_mels)` of height 1 on the scale `1127 ln(1 + f / 700)`."""
    mels = 1127 * np.log(1 + np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None] / 700)
    low, high = (1127 * math.log(1 + f / 700) for f in (f_min, f_max))
    edges = np.linspace(low, high, n_mels + 2)
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


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
