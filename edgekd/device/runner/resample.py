"""Any sample rate to any other: band-limited interpolation with a Hann-windowed sinc.

Output n is the sum over inputs k of x[k] h(b (k / f - n / g)), at rates of f and g Hz, with

    h(t) = b / f cos(pi t / 2W)^2 sinc(t)  for |t| < W, else 0;    b = R min(f, g)

where `width` W counts zero crossings a side and `rolloff` R is the cut-off as a share of the lower Nyquist frequency
(J. O. Smith, "Digital Audio Resampling", ccrma.stanford.edu/~jos/resample): the numbers of
`torchaudio.functional.resample`. That holds the filter as one matrix, which for two rates with a small common divisor
(52 734 Hz, common in ship recordings, and 32 kHz) is gigabytes; here it is cut into narrow blocks.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Iterable, Iterator, NamedTuple

import numpy as np

# Rows and columns of one matrix product: wide enough for BLAS, narrow enough to hold few zeros, and small enough that
# BLAS stays on one thread. Its threads make products of this size slower, up to 20 times where the caller has some too.
_BLOCK = 32
_LONGEST = 1 << 22  # inputs held until they are computed together


class Resampler:
    """Changes the rate of a signal that arrives in pieces: `push` as they come, `finish` at the end.

    Silence is assumed before and after. Output comes in frames of `source / gcd` inputs: with 44 100 to 32 000 Hz every
    10 ms. Rates without a large common divisor make longer frames, of up to a second, which delay a live signal and
    change no sample of it. `at_once` frames are computed together (fewer at the end).
    """

    def __init__(self, source: int, target: int, width: int, rolloff: float, at_once: int = 1) -> None:
        self._source, self._target, self._at_once = source, target, at_once
        self._filter = _sinc_filter(source, target, width, rolloff)
        self._held = np.zeros(self._filter.reach, np.float32)
        self._inputs = self._outputs = 0  # so far

    def push(self, samples: np.ndarray) -> np.ndarray:
        """The next input samples; returns the outputs that are certain now."""
        held = np.concatenate([self._held, samples])
        frames = self._filter.frames_in(len(held)) // self._at_once * self._at_once
        self._held = held[frames * self._filter.advance :].copy()
        self._inputs += len(samples)
        self._outputs += frames * self._filter.outputs
        return self._filter.apply(held, frames)

    def finish(self) -> np.ndarray:
        """The rest, so that n inputs have made `ceil(n * target / source)` outputs."""
        missing = -(-self._inputs * self._target // self._source) - self._outputs
        frames = -(-missing // self._filter.outputs)
        silence = np.zeros(max(0, self._filter.inputs_of(frames) - len(self._held)), np.float32)
        return self._filter.apply(np.concatenate([self._held, silence]), frames)[:missing]


def resample(
    waveform: np.ndarray,
    source: int,
    target: int,
    width: int,
    rolloff: float,
    first: int = 0,
    outputs: int | None = None,
) -> np.ndarray:
    """`waveform (S,)` at `source` Hz -> `(outputs,)`, float32, at `target` Hz, the first of them at `waveform[first]`.

    `outputs` None: up to its end, `ceil((S - first) * target / source)`. Silence is assumed before it and after it; of
    what comes before `first`, only `reach` samples matter.
    """
    if outputs is None:
        outputs = -(-(len(waveform) - first) * target // source)
    if source == target:
        return waveform[first : first + outputs]
    sinc = _sinc_filter(source, target, width, rolloff)
    frames = -(-outputs // sinc.outputs)
    padded = np.zeros(sinc.inputs_of(frames), np.float32)
    silence = max(0, sinc.reach - first)
    part = waveform[max(0, first - sinc.reach) :][: len(padded) - silence]
    padded[silence : silence + len(part)] = part
    return sinc.apply(padded, frames)[:outputs]


def resample_pieces(
    pieces: Iterable[np.ndarray], source: int, target: int, width: int, rolloff: float
) -> Iterator[np.ndarray]:
    """`resample` of a waveform that comes in pieces, to the same numbers, in pieces."""
    if source == target:
        yield from pieces
        return
    # Products of the same shapes as of the whole waveform; but not of half a minute, where frames are long.
    frames = _BLOCK if _BLOCK * source // math.gcd(source, target) <= _LONGEST else 1
    resampler = Resampler(source, target, width, rolloff, frames)
    for piece in pieces:
        yield resampler.push(piece)
    yield resampler.finish()


def reach(source: int, target: int, width: int, rolloff: float) -> int:
    """How many input samples before it, and after it, an output is made of."""
    return 0 if source == target else math.ceil(width * source / (rolloff * min(source, target)))


class _SincFilter(NamedTuple):
    # Output n lies at n * source / target input samples, so the filter repeats every `target / gcd` outputs. A frame is
    # one or more such periods: `inputs`, the first `reach` of them before its first output, make `outputs`, and the
    # next begins `advance` inputs later. It is cut into blocks of outputs, each with the first input it needs and its
    # weights `(taps, columns)`: dense products, where the whole filter as one matrix would be nearly all zeros.
    reach: int
    advance: int
    inputs: int
    outputs: int
    blocks: list[tuple[int, np.ndarray]]

    def frames_in(self, inputs: int) -> int:
        return max(0, (inputs - self.inputs) // self.advance + 1)

    def inputs_of(self, frames: int) -> int:
        return max(0, (frames - 1) * self.advance + self.inputs)

    def apply(self, samples: np.ndarray, frames: int) -> np.ndarray:
        resampled = np.empty((frames, self.outputs), np.float32)
        column = 0
        for first, weights in self.blocks if frames else []:
            taps, columns = weights.shape
            windows = np.lib.stride_tricks.sliding_window_view(samples, taps)[first :: self.advance][:frames]
            for row in range(0, frames, _BLOCK):  # windows overlap, so a copy of all of them would be large
                product = np.ascontiguousarray(windows[row : row + _BLOCK]) @ weights
                resampled[row : row + _BLOCK, column : column + columns] = product
            column += columns
        return resampled.reshape(-1)


@lru_cache(maxsize=4)
def _sinc_filter(source: int, target: int, width: int, rolloff: float) -> _SincFilter:
    before = reach(source, target, width, rolloff)
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    cutoff = min(source, target) * rolloff
    periods = -(-_BLOCK // target)
    blocks = []
    for start in range(0, target * periods, _BLOCK):
        output = np.arange(start, min(start + _BLOCK, target * periods))
        first, last = int(output[0]) * source // target, int(output[-1]) * source // target
        sample = np.arange(first - before, last + before + 2)[:, None]
        # Whole numbers up to the division: the difference of two large times would lose digits.
        zeros = (sample * target - output * source) / (source * target) * cutoff  # distance in zero crossings
        window = np.cos(np.clip(zeros / width, -1, 1) * math.pi / 2) ** 2
        blocks.append((first, (np.sinc(zeros) * window * cutoff / source).astype(np.float32)))
    inputs = max(first + len(weights) for first, weights in blocks)
    return _SincFilter(before, source * periods, inputs, target * periods, blocks)
