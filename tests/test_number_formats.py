"""One rule a quantity: what each reads like, at the edges of its rule too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgekd import number_formats as formats

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("written", "value", "words"),
    [
        (formats.number, 0, "0"),
        (formats.number, 0.00004, "< 0.0001"),
        (formats.number, 0.0213, "0.0213"),
        (formats.number, 0.08, "0.0800"),
        (formats.number, 0.09996, "0.100"),
        (formats.number, 0.9996, "1.00"),
        (formats.number, 3.4, "3.40"),
        (formats.number, 99.96, "100"),
        (formats.number, 1204.4, "1,204"),
        (formats.number, -3.4, f"{MINUS}3.40"),
        (formats.count, 812, "812"),
        (formats.count, 999, "999"),
        (formats.count, 999.7, "1.00 k"),
        (formats.count, 25_482, "25.5 k"),
        (formats.count, 999_960, "1.00 M"),
        (formats.count, 69_200_000, "69.2 M"),
        (formats.count, 1_100_000_000, "1.10 G"),
        (formats.size, 0, "0 B"),
        (formats.size, 1023, "1,023 B"),
        (formats.size, 1024, "1.00 KiB"),
        (formats.size, 236_804, "231 KiB"),
        (formats.size, 1023.7 * 1024, "1.00 MiB"),
        (formats.size, 15_105_320, "14.4 MiB"),
        (formats.size, 3 << 30, "3.00 GiB"),
        (formats.energy, 83e-6, "83.0 µJ"),
        (formats.energy, 0.0112, "11.2 mJ"),
        (formats.energy, 0.00099996, "1.00 mJ"),
        (formats.energy, 1.2, "1.20 J"),
        (formats.power, 4.3, "4.30 W"),
        (formats.percent, 0.98754, "98.8%"),
        (formats.percent, 1.0, "100.0%"),
        (formats.points, -0.0625, f"{MINUS}6.2"),
        (formats.points, 0.011, "+1.1"),
        (formats.points, -0.0004, "+0.0"),
        (formats.points_lost, 0.352, "0.35"),
        (formats.points_lost, -0.1, f"{MINUS}0.10"),
        (formats.ratio, 0.42, "0.42"),
        (formats.ratio, 1.02, "1.02"),
        (formats.ratio, 2.997, "3.0"),
        (formats.ratio, 9.23, "9.2"),
        (formats.ratio, 29.96, "30"),
        (formats.ratio, 164.4, "164"),
        (formats.times, 9.23, "9.2\N{MULTIPLICATION SIGN}"),
        (formats.real_time_factor, 0.00016, "0.00016"),
        (formats.real_time_factor, 0.000081, "0.000081"),
        (formats.real_time_factor, 1.24, "1.2"),
        (formats.real_time_factor, 12.4, "12"),
        (formats.p_value, 0.0312, "0.031"),
        (formats.p_value, 0.0003, "< 0.001"),
        (formats.probability_difference, 0.00212, "0.0021"),
        (formats.probability_difference, 1.2e-7, "1.2e-07"),
        (formats.decibels, 41.26, "41.3"),
        (formats.celsius, 60.6, "61 °C"),
        (formats.load, 0.9, "0.90"),
        (formats.setting, 0.625, "0.625"),
        (formats.setting, -5.0, f"{MINUS}5"),
        (formats.setting, 20.0, "20"),
    ],
)
def test_every_quantity_has_its_rule(written: Callable[[float], str], value: float, words: str) -> None:
    assert written(value) == words


@pytest.mark.parametrize("base", [1e-4, 1e-3, 0.1, 1, 10, 100, 1e3, 1e6])
@pytest.mark.parametrize("step", [-1e-9, 0, 1e-9, 0.0049, -0.0049])
def test_three_digits_are_within_half_of_the_last(base: float, step: float) -> None:
    value = base * (1 + step)
    words = formats.number(value)
    assert abs(float(words.replace(",", "")) - value) <= max(0.005 * value, 0.00005) + 1e-12
    assert not words.endswith(".")


def test_an_interval_is_written_like_its_figure_without_units() -> None:
    assert formats.interval(0.855, 1.0, formats.percent) == "85.5 to 100.0"
    assert formats.interval(6.8, 31.2, formats.times) == "6.8 to 31"
    assert formats.interval(-0.127, 0.004, formats.points) == f"{MINUS}12.7 to +0.4"
