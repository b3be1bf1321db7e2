"""What of the front end follows from the sample rate, and what a user may say in its place."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest

from edgekd.config import DistillConfig, FrontendConfig, parse
from edgekd.errors import UsageError
from edgekd.layers_of_settings import displaced
from edgekd.section import Section
from edgekd.toml_files import to_toml


def settled(rate: int = 32_000, clip_seconds: float = 5.0, **settings: Any) -> FrontendConfig:
    data = {"sample_rate": rate, "clip_seconds": clip_seconds}
    return parse(DistillConfig, {"data": data, "frontend": settings}, "run.toml").frontend


def lengths(frontend: FrontendConfig) -> tuple[int, int, int]:
    return frontend.window_length, frontend.n_fft, frontend.hop_length


@pytest.mark.parametrize(
    ("rate", "window", "hop"),
    [(32_000, 1024, 320), (16_000, 512, 160), (8_000, 256, 80), (48_000, 1536, 480), (12_000, 384, 120)],
)
def test_the_defaults_are_32_and_10_ms_at_every_rate(rate: int, window: int, hop: int) -> None:
    assert lengths(settled(rate)) == (window, window, hop)


@pytest.mark.parametrize("rate", [2_000, 4_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("hop_ms", [10, 20, 40])
def test_rounded_samples_are_near_the_ms_and_factorise(rate: int, hop_ms: float) -> None:
    frontend = settled(rate, hop_ms=hop_ms)
    assert abs(frontend.hop_length / (hop_ms * rate / 1000) - 1) <= 0.02
    assert abs(frontend.n_fft / (0.032 * rate) - 1) <= 0.03
    common = math.gcd(frontend.n_fft, frontend.hop_length)
    assert common >= math.sqrt(frontend.n_fft) / 4, "the exported transform has two factors of similar size"


def test_alone_it_is_that_of_32_khz() -> None:
    assert lengths(FrontendConfig()) == (1024, 1024, 320)
    assert lengths(FrontendConfig(hop_ms=20)) == (1024, 1024, 640)
    assert lengths(FrontendConfig(n_fft=512)) == (512, 512, 320)


def test_yamnets_window_and_band_at_its_own_rate() -> None:
    frontend = settled(16_000, convention="yamnet")
    assert lengths(frontend) == (400, 512, 160)
    assert (frontend.n_mels, frontend.f_min, frontend.f_max) == (64, 125, 7_500)
    assert lengths(settled(16_000, convention="yamnet", hop_ms=60)) == (400, 512, 960)
    assert lengths(settled(22_050, convention="yamnet")) == (551, 1024, 224)


def test_samples_win_over_what_follows() -> None:
    assert lengths(settled(8_000, n_fft=1024, hop_length=320)) == (1024, 1024, 320)
    assert lengths(settled(8_000, hop_length=100)) == (256, 256, 100)
    assert lengths(settled(16_000, convention="yamnet", window_length=320)) == (320, 512, 160)
    assert lengths(settled(16_000, convention="yamnet", n_fft=1024)) == (400, 1024, 160)


def test_the_band_ends_at_half_the_rate_unless_it_is_said_to_end_above() -> None:
    assert [settled(rate).f_max for rate in (8_000, 16_000, 32_000)] == [4_000, 8_000, 14_000]
    with pytest.raises(UsageError, match=r"frontend.f_max \(14000 Hz\) is above half .* leave it out, pass --set"):
        settled(8_000, f_max=14_000)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_fft": 1024, "window_ms": 20}, "frontend.window_ms (20) and frontend.n_fft (1024 samples) are given, and"),
        ({"hop_length": 320, "hop_ms": 20}, "frontend.hop_ms (20) and frontend.hop_length (320 samples)"),
        ({"convention": "yamnet", "window_length": 512, "window_ms": 20}, "frontend.window_length (512 samples)"),
        ({"window_ms": 300}, "frontend.window_ms (300) is 9600 samples at 32000 Hz: it must be 16 to 8192"),
        ({"hop_ms": 0.1}, "frontend.hop_ms (0.1) is 3 samples at 32000 Hz"),
        ({"hop_ms": 200}, "frontend.hop_length (6400) must not exceed 4 windows (1024)"),
        ({"window_length": 512, "n_fft": 1024}, "frontend.window_length (512) must be that of frontend.n_fft (1024)"),
        ({"convention": "yamnet", "window_length": 700, "n_fft": 512}, "must not exceed frontend.n_fft (512)"),
        ({"bins_per_step": 32, "n_mels": 16}, "a clip has 501 frames of 16 mel bins, and the averages of frontend."),
        ({"f_min": 14_000}, "frontend.f_min must be below frontend.f_max"),
    ],
)
def test_lengths_that_cannot_be_are_refused_in_a_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as failure:
        settled(**settings)
    assert words in str(failure.value)


def test_a_clip_must_be_as_long_as_a_frame() -> None:
    with pytest.raises(UsageError, match="must be as long as the window at least"):
        settled(16_000, 0.101, convention="yamnet", window_ms=110)
    with pytest.raises(UsageError, match=r"must be longer than half of frontend\.n_fft"):
        settled(16_000, 0.101, n_fft=8_192)


def test_a_clip_shorter_than_a_centred_window_is_one_frame_or_two() -> None:
    assert settled(4_000, 0.15, n_fft=1024, hop_length=512).shape(600) == (2, 64)


# Written down and read again

GIVEN: list[dict[str, Any]] = [
    {},
    {"hop_ms": 40},
    {"n_fft": 1024, "hop_length": 320, "f_max": 3_900},
    {"convention": "yamnet", "frames_per_step": 4, "bins_per_step": 2},
    {"convention": "yamnet", "n_fft": 2048},
    {"hop_length": 99},
]


@pytest.mark.parametrize("settings", GIVEN)
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_a_written_configuration_is_read_as_it_was(rate: int, settings: dict[str, Any]) -> None:
    config = parse(DistillConfig, {"data": {"sample_rate": rate}, "frontend": settings}, "run.toml")
    text = to_toml(config.model_dump(mode="json"))
    again = parse(DistillConfig, tomllib.loads(text), "config.toml")
    assert again == config
    assert to_toml(again.model_dump(mode="json")) == text


def test_what_follows_from_the_rate_is_not_written_so_that_it_follows_again() -> None:
    written = DistillConfig().model_dump(mode="json")
    assert {"n_fft", "window_length", "hop_length", "f_max"}.isdisjoint(written["frontend"])
    written["data"]["sample_rate"] = 8_000
    assert lengths(parse(DistillConfig, written, "run.toml").frontend) == (256, 256, 80)


def test_samples_of_an_earlier_run_that_are_the_default_ones_follow_too() -> None:
    samples = {"n_fft": 1024, "hop_length": 320, "f_max": 14_000.0}
    earlier = parse(DistillConfig, {"frontend": samples}, "config.toml")
    assert earlier.model_dump(mode="json") == DistillConfig().model_dump(mode="json")
    low = parse(DistillConfig, {"data": {"sample_rate": 8_000}, "frontend": {**samples, "f_max": 4_000.0}}, "old.toml")
    assert low.model_dump()["frontend"].items() >= {"n_fft": 1024, "hop_length": 320}.items()
    assert "hop_ms" not in low.model_dump()["frontend"], "it would say something else"


def test_a_bundle_is_told_the_samples() -> None:
    told = settled(16_000, convention="yamnet", hop_ms=20).given().model_dump()
    assert told == {
        "convention": "yamnet",
        "n_fft": 512,
        "window_length": 400,
        "hop_length": 320,
        "n_mels": 64,
        "f_min": 125.0,
        "f_max": 7_500.0,
        "frames_per_step": 1,
        "bins_per_step": 1,
    }
    assert FrontendConfig(**told) == settled(16_000, convention="yamnet", hop_ms=20).model_copy(
        update={"window_ms": 25.0, "hop_ms": 10.0}
    )


def test_a_bundle_of_before_is_read() -> None:
    before = FrontendConfig(n_fft=512, hop_length=256, n_mels=64, f_min=20, f_max=3_900)
    assert (lengths(before), before.convention, before.shape(8_000)) == ((512, 512, 256), "panns", (32, 64))


def test_what_is_said_later_displaces_what_said_the_same_before() -> None:
    assert displaced("frontend.hop_ms", {}) == {"hop_length"}
    assert displaced("frontend.window_ms", {}) == {"window_length", "n_fft"}
    assert displaced("frontend.n_fft", {}) == {"window_ms"}
    assert displaced("frontend.n_fft", {"convention": "yamnet"}) == set(), "its window is another length"
    assert displaced("training.epochs", {}) == set()


@pytest.mark.parametrize(
    ("settings", "samples", "shape"),
    [
        ({}, 160_000, (501, 64)),
        ({"frames_per_step": 4, "bins_per_step": 3}, 160_000, (125, 21)),
        ({"convention": "yamnet", "window_length": 400, "n_fft": 512, "hop_length": 160}, 80_000, (498, 64)),
        ({"convention": "yamnet", "window_length": 400, "n_fft": 512, "hop_length": 640}, 80_000, (125, 64)),
    ],
)
def test_the_shape_of_a_log_mel(settings: dict[str, Any], samples: int, shape: tuple[int, int]) -> None:
    assert FrontendConfig(**settings).shape(samples) == shape


# SpecAugment's masks


def test_time_masks_are_a_share_of_the_clip_whatever_its_frames() -> None:
    augment = DistillConfig().augment
    assert [augment.time_mask(frames) for frames in (501, 250, 125, 81)] == [48, 24, 12, 8]


def test_masks_in_frames_stay_and_are_forgotten_where_they_are_the_default() -> None:
    stays = parse(DistillConfig, {"augment": {"time_mask_frames": 20}}, "run.toml").augment
    assert (stays.time_mask_frames, stays.time_mask(501), stays.time_mask(81)) == (20, 20, 20)
    earlier = parse(DistillConfig, {"augment": {"time_mask_frames": 48}}, "config.toml")
    assert earlier == DistillConfig()


def test_becoming_part_of_another_section_changes_no_front_end() -> None:
    class Bundle(Section):
        frontend: FrontendConfig

    frontend = FrontendConfig().at(8_000)
    assert Bundle(frontend=frontend).frontend.n_fft == frontend.n_fft == 256
