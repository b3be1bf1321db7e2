"""Log-mel front end: the same numbers in a form to train with and a form to ship.

Two conventions. "panns", what the SSATKD paper and PANNs use (Kong et al. 2020, arXiv 1912.10211):
`10 log10(max(M |STFT(x)|^2, 1e-10))` with centred frames, reflected borders, and Slaney-scale, area-normalised mel
filters. "yamnet", what YAMNet uses (Plakal & Ellis 2019): `log(M |STFT(x)| + 0.001)`, frames from the first sample on,
each zero-padded at its end to the length of the DFT, and mel filters of height 1. Both have a periodic Hann window, and
may then average frames and mel bins, in steps (`frames_per_step`, `bins_per_step`).

`LogMel` computes the transform with an FFT, which trains fast and cannot be exported. `ExportLogMel` computes it with
convolution and matrix products that every runtime has, by one step of Cooley and Tukey's factorisation (1965). With
`N = N1 N2`, `n = N2 n1 + n2` and `k = k1 + N1 k2`,

    X[k] = sum_n2 W_N2^(n2 k2) ( sum_n1 w[n] x[n] W_N1^(n1 k1) W_N^(n2 k1) ).

The inner sum is a convolution over n1 with one group for each n2: its kernels hold the window and the twiddle
factors, and its stride, hop / N2, does the framing, so frames are never cut out of the signal. Where the window is
shorter than N the kernels end with it. As x is real only k1 = 0 .. N1/2 is computed; the outer sum is then one small
matrix product, and every bin or its mirror image N - k is among its rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv1d, pad

from edgekd.config import FrontendConfig

POWER_FLOOR = 1e-10  # -100 dB
MAGNITUDE_OFFSET = 0.001  # YAMNet's
MEL_BLOCK = 16  # mel bins a block; a block's filters touch few DFT bins, so blocks skip most of the zeros


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
    better way. Agrees with `LogMel` to 1e-4 of its unit. About 5 times as fast as the DFT as one strided convolution.
    """

    first: Tensor
    second: Tensor
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
    ) -> None:
        super().__init__()
        self.config, self.turn = config, turn
        self.inner = _inner_length(config.n_fft, config.hop_length)
        first = _first_stage(config, self.inner)
        self.taps = first.shape[2]
        self.residues = config.n_fft // self.inner // 2 + 1
        self.register_buffer("first", (gain * first).float())
        filters = mel_filterbank(config, sample_rate).double()  # (n_fft/2+1, F)
        heard, rows = _outer_rows(config.n_fft, self.inner, filters.any(dim=1))
        self.register_buffer("second", _second_stage(self.inner, heard).float())
        self.outer_rows = len(heard)
        self.blocks = 0
        for start in range(0, config.n_mels, MEL_BLOCK):
            block = filters[:, start : start + MEL_BLOCK]
            used = block.any(dim=1)
            self.register_buffer(f"rows{self.blocks}", rows[used])
            self.register_buffer(f"filters{self.blocks}", block[used].t().contiguous().float())
            self.blocks += 1
        # As a tensor: TensorRT builders have failed on the addition of a scalar.
        self.register_buffer("offset", torch.full((config.n_mels, 1), MAGNITUDE_OFFSET))
        unit = 1.0 if config.convention == "yamnet" else 10 / math.log(10)
        bins = config.n_mels // config.bins_per_step
        self.register_buffer("scale", (unit * (torch.ones(bins) if scale is None else scale))[:, None])
        self.register_buffer("shift", torch.zeros(bins, 1) if shift is None else shift[:, None].clone())

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform `(B, S)` -> `(B, 1, T, F)`."""
        phases = self._framed(waveform).unflatten(1, (-1, self.inner)).transpose(1, 2)  # (B, n2, samples / N2)
        stage1 = conv1d(phases, self.first, stride=self.config.hop_length // self.inner, groups=self.inner)
        stage1 = stage1.unflatten(1, (2 * self.inner, self.residues)).transpose(1, 2)  # (B, k1, (n2, re|im), T)
        stage2 = torch.matmul(self.second, stage1)  # (B, k1, (re|im, k2), T)
        squares = stage2 * stage2
        power = (squares[:, :, : self.outer_rows] + squares[:, :, self.outer_rows :]).flatten(1, 2)  # (B, (k1, k2), T)
        spectrum = power.sqrt() if self.config.convention == "yamnet" else power
        mel = torch.cat(
            [
                torch.matmul(
                    self.get_buffer(f"filters{block}"), spectrum.index_select(1, self.get_buffer(f"rows{block}"))
                )
                for block in range(self.blocks)
            ],
            dim=1,
        )
        mel = mel + self.offset if self.config.convention == "yamnet" else mel.clamp(min=POWER_FLOOR)
        log_mel = mel.log()  # (B, F, T)
        step = (self.config.bins_per_step, self.config.frames_per_step)
        if step != (1, 1):
            log_mel = avg_pool2d(log_mel.unsqueeze(1), step).squeeze(1)
        return self.turn(log_mel * self.scale + self.shift).unsqueeze(1)

    def _framed(self, waveform: Tensor) -> Tensor:
        """The samples that frames lie in, and no others: each begins a hop after the one before."""
        config = self.config
        steps, _ = config.shape(waveform.shape[1])
        if config.convention == "panns":
            waveform = pad(waveform, (config.n_fft // 2, config.n_fft // 2), mode="reflect")
        needed = (steps * config.frames_per_step - 1) * config.hop_length + self.taps * self.inner
        if needed > waveform.shape[1]:  # the window ends within the last tap
            return pad(waveform, (0, needed - waveform.shape[1]))
        return waveform[:, :needed] if needed < waveform.shape[1] else waveform


def _inner_length(n_fft: int, hop_length: int) -> int:
    """N2: the divisor of both `n_fft` and `hop_length` nearest 0.8 times the square root of `n_fft`, where ONNX Runtime
    was quickest for 256 to 1408 points.

    1 where they have no common divisor: the DFT is then one strided convolution, slower but right.
    """
    common = math.gcd(n_fft, hop_length)
    divisors = [d for d in range(1, common + 1) if common % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / (0.8 * math.sqrt(n_fft)))))


def _first_stage(config: FrontendConfig, inner: int) -> Tensor:
    """Kernels `(N2 * 2 * K1, 1, taps)` float64: for each n2 the window, the DFT over n1 and the twiddle factors; `taps`
    of the N1 that the window reaches."""
    outer, taps = config.n_fft // inner, math.ceil(config.window_length / inner)
    n1 = torch.arange(taps, dtype=torch.float64)[None, None, :]
    n2 = torch.arange(inner, dtype=torch.float64)[:, None, None]
    k1 = torch.arange(outer // 2 + 1, dtype=torch.float64)[None, :, None]
    angle = -2 * math.pi * (n1 * k1 / outer + n2 * k1 / config.n_fft)  # (n2, k1, n1)
    window = pad(torch.hann_window(config.window_length, dtype=torch.float64), (0, taps * inner - config.window_length))
    window = window.view(taps, inner).t()[:, None, :]  # (n2, 1, n1)
    return torch.stack([window * angle.cos(), window * angle.sin()], dim=1).reshape(-1, 1, taps)


def _second_stage(inner: int, outer: Tensor) -> Tensor:
    """The complex DFT over n2 as a real matrix float64: rows (re|im, k2) for `k2` in `outer`, columns (n2, re|im)."""
    index = torch.arange(inner, dtype=torch.float64)
    angle = -2 * math.pi * outer.double()[:, None] * index[None, :] / inner  # (k2, n2)
    cosine, sine = angle.cos(), angle.sin()
    real = torch.stack([cosine, -sine], dim=2)
    imaginary = torch.stack([sine, cosine], dim=2)
    return torch.stack([real, imaginary]).reshape(2 * len(outer), 2 * inner)


def _outer_rows(n_fft: int, inner: int, heard: Tensor) -> tuple[Tensor, Tensor]:
    """The k2 that the outer sum needs, and the row (k1, k2) in which each bin 0 .. n_fft/2 then lies.

    `heard (n_fft/2+1,)`: bins that some mel filter touches. A k2 whose bins none does, above `f_max`, is left out; the
    rows of bins that are not heard mean nothing. Real signals have `|X[n_fft - k]| = |X[k]|`, so a row may stand for
    its mirror image.
    """
    ones = n_fft // inner
    k1, k2 = torch.arange(ones // 2 + 1)[:, None], torch.arange(inner)[None, :]
    k = k1 + ones * k2
    held = torch.minimum(k, n_fft - k)  # the bin in each row
    needed = heard[held].any(dim=0).nonzero()[:, 0]
    rows = torch.zeros(n_fft // 2 + 1, dtype=torch.int64)
    flat = held[:, needed].flatten()
    for row in reversed(range(len(flat))):  # of rows that hold the same bin the first
        rows[flat[row]] = row
    return needed, rows


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
