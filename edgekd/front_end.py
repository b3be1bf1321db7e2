"""The settings of the log-mel front end, and what of them follows from the sample rate.

Times are in ms and the band in Hz, so that a configuration means the same at every rate. The samples follow:

- The hop is rounded to a multiple of a power of two, the largest up to the square root of the window that moves it by
  2 % at most: 320 samples at 32 kHz, 160 at 16, 80 at 8, but 448 (10.16 ms) at 44.1 kHz. In convention "panns" the
  window, which is the DFT's length, is rounded to a multiple of the same power: 1024, 512, 256, and 1408 (31.9 ms). The
  exported transform then splits in small factors (see `edgekd.dft_factors`); with 1428 and 441 samples it hardly does.
- In convention "yamnet" the window is rounded to a sample, and the DFT is as long as the next power of two.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgekd.section import Section

LONE_RATE = 32_000  # Hz, where there is no data whose rate it could be
HOP_SLACK = 0.02  # how far the hop may be moved, as a share of it
SHORTEST, LONGEST = 16, 8192  # samples of a window or a hop
LONGEST_HOP = 4  # windows: beyond, next to nothing of the sound is heard
FOLLOWING = ("n_fft", "window_length", "hop_length", "f_max")  # follow from the rate where they are not given


class FrontendConfig(Section):
    """Log-mel front end; the defaults are the SSATKD paper's, in ms, or with `convention = "yamnet"` YAMNet's.

    Each of `FOLLOWING` always has its value; where it was not given it is not written down either, so that it follows
    again when other settings are put over these. Without a rate (see `at`) the values are those at 32 kHz.
    """

    convention: Literal["panns", "yamnet"] = Field(
        default="panns",
        description="panns: power in dB, centred frames (the paper's); yamnet: log(magnitude + 0.001), frames from the "
        "first sample on",
    )
    window_ms: float = Field(default=32.0, gt=0, description="Hann window; yamnet: 25")
    hop_ms: float = Field(
        default=10.0,
        gt=0,
        description="from frame to frame; rounded by 2 % at most, so that the exported transform is quick",
    )
    n_fft: int = Field(
        default=1024,
        ge=SHORTEST,
        le=LONGEST,
        multiple_of=2,
        description="DFT length, samples; follows from window_ms and the rate; panns: the window has this length",
    )
    window_length: int = Field(
        default=1024,
        ge=SHORTEST,
        le=LONGEST,
        description="samples of the window, in place of window_ms; n_fft may be longer (yamnet: zeros at its end)",
    )
    hop_length: int = Field(default=320, ge=SHORTEST, description="samples, in place of hop_ms")
    n_mels: int = Field(default=64, ge=8, le=256)
    f_min: float = Field(default=50.0, ge=0, description="Hz; yamnet: 125")
    f_max: float = Field(
        default=14_000.0, gt=0, description="Hz; yamnet: 7500; not given, half of the rate where that is less"
    )
    frames_per_step: int = Field(
        default=1, ge=1, le=64, description="frames that are averaged into one before the student; a rest is left out"
    )
    bins_per_step: int = Field(
        default=1, ge=1, le=32, description="mel bins that are averaged into one before the student; a rest is left out"
    )

    _has_followed: bool = PrivateAttr(default=False)

    @model_validator(mode="after")
    def _without_a_rate(self) -> Self:
        if not self._has_followed:  # pydantic calls this again for a front end that becomes part of another section
            self._follow(LONE_RATE)
        return self

    @model_serializer(mode="wrap")
    def _without_what_follows(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        left_out = {name for name in FOLLOWING if name not in self.model_fields_set}
        left_out |= {f"{what}_ms" for what, name in self._in_samples().items() if name}
        return {name: value for name, value in write(self).items() if name not in left_out}

    def at(self, sample_rate: int) -> Self:
        """The same at `sample_rate` Hz. What was given in samples stays, but is not given where it follows anyway."""
        here = self.model_copy()
        here._follow(sample_rate)
        for name in [name for name in FOLLOWING if name in self.model_fields_set]:
            other = here.model_copy()
            other.model_fields_set.discard(name)
            other._follow(sample_rate)
            if other == here:
                here = other
        return here

    def given(self) -> Self:
        """The same as if each of `FOLLOWING` had been given: for a bundle, which is to mean what it says."""
        here = self.model_copy()
        here.model_fields_set.update(FOLLOWING)
        return here

    def whole(self) -> Self:
        """The same without averages: for a teacher on the run's own front end."""
        return self.model_copy(update={"frames_per_step": 1, "bins_per_step": 1})

    def shape(self, samples: int) -> tuple[int, int]:
        """`(T, F)` of the log-mel of so many samples."""
        heard = samples if self.convention == "panns" else samples - self.window_length
        return (heard // self.hop_length + 1) // self.frames_per_step, self.n_mels // self.bins_per_step

    def describe(self, sample_rate: int, samples: int) -> str:
        """What follows at `sample_rate` for clips of so many samples, in a line for a person."""
        frames, bins = self.shape(samples)
        return (
            f"at {sample_rate} Hz: windows of {self.window_length} samples (n_fft {self.n_fft}) every "
            f"{self.hop_length}, {self.f_min:g} to {self.f_max:g} Hz; a clip is {frames} x {bins}"
        )

    def check(self, sample_rate: int, samples: int) -> None:
        """Raise `ValueError` where clips of so many `samples` at `sample_rate` Hz have no such log-mel."""
        nyquist = sample_rate / 2
        if self.f_max > nyquist:
            raise ValueError(
                f"frontend.f_max ({self.f_max:g} Hz) is above half of data.sample_rate ({nyquist:g} Hz): leave it out, "
                f"pass --set frontend.f_max={nyquist:g}, or a higher --sample-rate"
            )
        if self.f_min >= self.f_max:
            raise ValueError("frontend.f_min must be below frontend.f_max")
        self._check_lengths(sample_rate)
        if self.convention == "panns" and samples <= self.n_fft // 2:  # the borders are reflected
            shortest = f"longer than half of frontend.n_fft ({self.n_fft})"
        elif self.convention == "yamnet" and samples < self.window_length:
            shortest = f"as long as the window at least (frontend.window_length: {self.window_length})"
        elif not all(self.shape(samples)):
            frames, bins = self.whole().shape(samples)
            raise ValueError(
                f"a clip has {frames} frames of {bins} mel bins, and the averages of frontend.frames_per_step "
                f"({self.frames_per_step}) or bins_per_step ({self.bins_per_step}) leave nothing of them"
            )
        else:
            return
        raise ValueError(f"a clip (data.clip_seconds at data.sample_rate: {samples} samples) must be {shortest}")

    def _check_lengths(self, sample_rate: int) -> None:
        for what, name in self._in_samples().items():
            asked, length = getattr(self, f"{what}_ms"), self.hop_length if what == "hop" else self.window_length
            if name and f"{what}_ms" in self.model_fields_set:  # and they differ, or the samples would be forgotten
                raise ValueError(
                    f"frontend.{what}_ms ({asked:g}) and frontend.{name} ({getattr(self, name)} samples) are given, "
                    f"and differ at {sample_rate} Hz: leave one out"
                )
            if not name and not (SHORTEST <= length <= LONGEST):
                raise ValueError(
                    f"frontend.{what}_ms ({asked:g}) is {length} samples at {sample_rate} Hz: it must be {SHORTEST} to "
                    f"{LONGEST}"
                )
        if self.window_length > self.n_fft or (self.convention == "panns" and self.window_length != self.n_fft):
            how = "be that of" if self.convention == "panns" else "not exceed"
            raise ValueError(f"frontend.window_length ({self.window_length}) must {how} frontend.n_fft ({self.n_fft})")
        if self.hop_length > LONGEST_HOP * self.window_length:
            raise ValueError(
                f"frontend.hop_length ({self.hop_length}) must not exceed {LONGEST_HOP} windows ({self.window_length})"
            )

    def _in_samples(self) -> dict[str, str | None]:
        """The setting that gives the window, and the hop, in samples; None where ms do."""
        windows = ("window_length", "n_fft") if self.convention == "panns" else ("window_length",)
        window = next((name for name in windows if name in self.model_fields_set), None)
        return {"window": window, "hop": "hop_length" if "hop_length" in self.model_fields_set else None}

    def _follow(self, sample_rate: int) -> None:
        """Give what was not given its value at `sample_rate`, in place: it is no setting that is changed."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if self.convention == "yamnet":
            settings = {"window_ms": 25.0, "hop_ms": self.hop_ms, "f_min": 125.0, "f_max": 7_500.0} | given
            window = settings.setdefault("window_length", round(settings["window_ms"] * sample_rate / 1000))
            settings.setdefault("n_fft", 1 << max(0, window - 1).bit_length())
        else:
            settings = {"window_ms": 32.0, "hop_ms": self.hop_ms, "f_min": 50.0, "f_max": 14_000.0} | given
            if "window_length" in given:
                settings.setdefault("n_fft", 2 * math.ceil(given["window_length"] / 2))
        hop = settings.get("hop_length", settings["hop_ms"] * sample_rate / 1000)
        window = settings.get("n_fft", settings["window_ms"] * sample_rate / 1000)
        unit = _unit(window, hop, "n_fft" in settings, "hop_length" in given)
        settings.setdefault("hop_length", unit * round(hop / unit))
        settings.setdefault("n_fft", max(2, unit) * round(window / max(2, unit)))
        settings.setdefault("window_length", settings["n_fft"])
        if "f_max" not in given:
            settings["f_max"] = min(settings["f_max"], sample_rate / 2)
        vars(self).update(settings)
        self._has_followed = True


def _unit(window: float, hop: float, window_known: bool, hop_known: bool) -> int:
    """The largest power of two, up to the square root of `window`, to whose multiples both can be rounded, in samples;
    what is `known` is not rounded at all."""
    units = [1 << power for power in range(int(math.log2(max(4, window)) / 2), 0, -1)]
    for unit in units:
        moved = abs(unit * round(hop / unit) - hop)
        if moved <= (0 if hop_known else HOP_SLACK * hop) and not (window_known and window % unit):
            return unit
    return 1
