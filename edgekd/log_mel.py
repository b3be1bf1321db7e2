"""Log-mel front end: the same numbers in a form to train with and a form to ship.

Two conventions. "panns", what the SSATKD paper and PANNs use (Kong et al. 2020, arXiv 1912.10211):
`10 log10(max(M |STFT(x)|^2, 1e-10))` with centred frames, reflected borders, and Slaney-scale, area-normalised mel
filters. "yamnet", what YAMNet uses (Plakal & Ellis 2019): `log(M |STFT(x)| + 0.001)`, frames from the first sample on,
each zero-padded at its end to the length of the DFT, and mel filters of height 1. Both have a periodic Hann window, and
may then average frames and mel bins, in steps (`frames_per_step`, `bins_per_step`).

`LogMel` computes the transform with an FFT, which trains fast and cannot be exported. `ExportLogMel` computes it with
a convolution and matrix products that every runtime has: the DFT in three factors (`edgekd.dft_factors`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv1d, pad

from edgekd.config import FrontendConfig
from edgekd.dft_factors import cosines, factors_of

POWER_FLOOR = 1e-10  # -100 dB
MAGNITUDE_OFFSET = 0.001  # YAMNet's
MEL_BLOCK = 12  # mel bins a block; a block's filters touch few DFT bins, so blocks skip most of the zeros


class LogMel(nn.Module):
    """Waveform `(B, S)` at `sample_rate` Hz -> log-mel `(B, 1, T, F)`: in dB or, convention "yamnet", natural.

    `(T, F)` is `config.shape(S)`.
    """

    window: Tensor
    mel_weights: Tensor

    def __init__(self, config: FrontendConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.sample_rate = sample_rate
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("window", torch.hann_window(config.window_length), persistent=False)
        self.register_buffer("mel_weights", mel_filterbank(config, sample_rate), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        # Powers span 100 dB and more, which bfloat16 cannot hold: no autocast here.
        with torch.autocast(waveform.device.type, enabled=False):
            of = self._of_magnitudes if self.config.convention == "yamnet" else self._of_powers
            log_mel = of(waveform.float()).unsqueeze(1)
            step = (self.config.frames_per_step, self.config.bins_per_step)
            return log_mel if step == (1, 1) else avg_pool2d(log_mel, step)

    def _of_powers(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(
            waveform,
            self.config.n_fft,
            self.config.hop_length,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (B, n_fft/2+1, T)
        mel = torch.matmul(power.transpose(1, 2), self.mel_weights)  # (B, T, F)
        return 10 * torch.log10(mel.clamp(min=POWER_FLOOR))

    def _of_magnitudes(self, waveform: Tensor) -> Tensor:
        frames = waveform.unfold(-1, self.config.window_length, self.config.hop_length) * self.window
        magnitude = torch.fft.rfft(frames, n=self.config.n_fft).abs()  # (B, T, n_fft/2+1)
        return torch.log(magnitude @ self.mel_weights + MAGNITUDE_OFFSET)


def turned(log_mel: Tensor) -> Tensor:
    """`(B, F, T)` -> `(B, T, F)`."""
    return log_mel.transpose(1, 2)


class ExportLogMel(nn.Module):
    """The numbers of `LogMel`, in operators that ONNX runtimes and TensorRT have.

    `gain` is applied to the waveform, `scale` and `shift` `(F,)` to the log-mel (a folded batch norm); none costs an
    operation of its own. `turn` swaps the last two dimensions, `(B, F, T)` to `(B, T, F)`; an exporter may know a
    better way. Without `borders` nothing is put around the samples: a stretch of a longer signal gives the frames that
    lie in it, `(S - window) / hop + 1`. Agrees with `LogMel` to 1e-4 of its unit.
    """

    first: Tensor
    second: Tensor
    third: Tensor
    offset: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        config: FrontendConfig,
        sample_rate: int,
        gain: float = 1.0,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        turn: Callable[[Tensor], Tensor] = turned,
        *,
        borders: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.turn, self.gain = config, turn, gain
        self.borders = borders and config.convention == "panns"
        self.filters = mel_filterbank(config, sample_rate)  # (n_fft/2+1, F)
        heard = self.filters.any(dim=1)
        self.factors = factors = factors_of(config.n_fft, config.hop_length, config.window_length, heard)
        self.register_buffer("source", factors.source)
        window = torch.hann_window(config.window_length, dtype=torch.float64)
        weight = pad(gain * window, (0, max(0, int(factors.sample.max()) + 1 - len(window))))[factors.sample]
        first = weight[:, None, None] * cosines(factors.first_steps, factors.circle)
        self.register_buffer("first", first.flatten(0, 2).float())  # ((A B, re|im, c), channels, hops)
        self.register_buffer("second", cosines(factors.second_steps, factors.circle).float())
        self.register_buffer("third", cosines(factors.third_steps, factors.circle).float())
        self.blocks = mel_blocks(self.filters)
        for number, (mels, bins) in enumerate(self.blocks):
            self.register_buffer(f"rows{number}", factors.row[bins])
            self.register_buffer(f"filters{number}", self.filters[bins, mels].t().contiguous())
        # As a tensor: TensorRT builders have failed on the addition of a scalar.
        self.register_buffer("offset", torch.full((config.n_mels, 1), MAGNITUDE_OFFSET))
        unit = 1.0 if config.convention == "yamnet" else 10 / math.log(10)
        steps = config.n_mels // config.bins_per_step
        self.register_buffer("scale", (unit * (torch.ones(steps) if scale is None else scale))[:, None])
        self.register_buffer("shift", torch.zeros(steps, 1) if shift is None else shift[:, None].clone())

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform `(B, S)` -> `(B, 1, T, F)`."""
        factors, batch = self.factors, waveform.shape[0]
        hops = self._framed(waveform).unflatten(1, (-1, factors.hop)).transpose(1, 2)  # (B, sample of a hop, hops)
        spectrum = conv1d(hops.index_select(1, self.source), self.first, groups=factors.residues)
        frames = spectrum.shape[2]
        if factors.middle > 1:
            spectrum = spectrum.reshape(batch, factors.inner, 2 * factors.middle, factors.classes * frames)
            spectrum = torch.matmul(self.second, spectrum)  # (B, l, (re|im, a), (c, T))
        if factors.inner > 1:
            spectrum = spectrum.reshape(batch, 2 * factors.inner, factors.middle * factors.classes * frames)
            spectrum = torch.matmul(self.third, spectrum)  # (B, (re|im, b), (a, c, T))
        squares = (spectrum * spectrum).reshape(batch, 2 * self.rows, frames)
        power = squares[:, : self.rows] + squares[:, self.rows :]  # (B, (b, a, c), T)
        heard = power.sqrt() if self.config.convention == "yamnet" else power
        mel = torch.cat(
            [
                torch.matmul(self.get_buffer(f"filters{block}"), heard.index_select(1, self.get_buffer(f"rows{block}")))
                for block in range(len(self.blocks))
            ],
            dim=1,
        )
        mel = mel + self.offset if self.config.convention == "yamnet" else mel.clamp(min=POWER_FLOOR)
        log_mel = mel.log()  # (B, F, T)
        step = (self.config.bins_per_step, self.config.frames_per_step)
        if step != (1, 1):
            log_mel = avg_pool2d(log_mel.unsqueeze(1), step).squeeze(1)
        return self.turn(log_mel * self.scale + self.shift).unsqueeze(1)

    @property
    def rows(self) -> int:
        """Rows (b, a, c) of the power spectrum."""
        return self.factors.bins * self.factors.middle * self.factors.classes

    def padding(self, samples: int) -> tuple[int, int, int, int]:
        """What is done to `samples` before the DFT, so that they end with the hops that the last frame reaches into.

        How many are reflected before them and after them, how many zeros follow (cut off, where negative), and how
        many samples there are then. A window may end within its last hop: what stands there is not heard.
        """
        config, factors = self.config, self.factors
        before = config.n_fft // 2 if self.borders else 0
        frames = (samples + 2 * before - config.window_length) // config.hop_length + 1
        frames -= frames % config.frames_per_step
        whole = (frames + factors.hops - 1) * config.hop_length
        missing = whole - before - samples
        after = max(0, min(missing, samples - 1)) if self.borders else 0
        return before, after, missing - after, whole

    def _framed(self, waveform: Tensor) -> Tensor:
        before, after, zeros, _ = self.padding(waveform.shape[1])
        if self.borders:
            waveform = pad(waveform, (before, after), mode="reflect")
        return pad(waveform, (0, zeros)) if zeros > 0 else waveform[:, : waveform.shape[1] + zeros]


def mel_blocks(filters: Tensor) -> list[tuple[slice, slice]]:
    """Mel bins in blocks of `MEL_BLOCK`, and the DFT bins, from the first to the last, that each block touches.

    `filters`: `(n_fft/2+1, F)`. A block that touches none has the first bin.
    """
    blocks = []
    for start in range(0, filters.shape[1], MEL_BLOCK):
        mels = slice(start, min(start + MEL_BLOCK, filters.shape[1]))
        used = filters[:, mels].any(dim=1).nonzero()[:, 0].tolist() or [0]
        blocks.append((mels, slice(used[0], used[-1] + 1)))
    return blocks


def normalise_mel_bins(norm: nn.BatchNorm2d, log_mel: Tensor) -> Tensor:
    """Batch norm with a mean and a variance for each mel bin: `(B, 1, T, F)` -> `(B, 1, T, F)`."""
    return norm(log_mel.transpose(1, 3)).transpose(1, 3)


@torch.no_grad()
def mel_bin_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """That batch norm in evaluation mode as `scale * x + shift`, `(F,)` each, on the CPU."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale.cpu(), (norm.bias - norm.running_mean * scale).cpu()


def mel_filterbank(config: FrontendConfig, sample_rate: int) -> Tensor:
    """Mel filters `(n_fft/2+1, n_mels)`: Slaney's, each of unit area, or those of convention "yamnet"."""
    if config.convention == "yamnet":
        return triangles_of_height_1(config.n_fft, sample_rate, config.n_mels, config.f_min, config.f_max)
    from edgekd._torchaudio import functional as audio_functional

    return audio_functional.melscale_fbanks(
        n_freqs=config.n_fft // 2 + 1,
        f_min=config.f_min,
        f_max=config.f_max,
        n_mels=config.n_mels,
        sample_rate=sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )


def triangles_of_height_1(n_fft: int, sample_rate: int, n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Mel filters `(n_fft/2+1, n_mels)`: triangles of height 1, linear on the scale `1127 ln(1 + f / 700)`."""

    def mel(frequency: float) -> float:
        return 1127.0 * math.log(1.0 + frequency / 700.0)

    bins = torch.tensor([mel(k * sample_rate / n_fft) for k in range(n_fft // 2 + 1)], dtype=torch.float64)[:, None]
    edges = torch.linspace(mel(f_min), mel(f_max), n_mels + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    return torch.minimum(rising, falling).clamp(min=0).float()
