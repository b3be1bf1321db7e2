"""Scales, ticks and markers of charts."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgekd.report.svg import SERIES, Scale, marker, round_steps, time_scale


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.83, 1.0), (2.4, 26.1), (0.00012, 0.00019), (0, 12345), (-5, 20)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = round_steps(low, high, 6)
    assert 2 <= len(found) <= 6
    assert low - 1e-9 <= min(found) and max(found) <= high + 1e-9
    steps = np.diff(found)
    assert steps == pytest.approx(steps[0])
    leading = steps[0] / 10 ** np.floor(np.log10(1.0001 * steps[0]))
    assert any(leading == pytest.approx(digit) for digit in (1, 2, 5))


@pytest.mark.parametrize(("low", "high"), [(1, 100), (0.13, 1.9), (2.05, 29.4), (0.001, 1e4)])
def test_ticks_of_a_logarithmic_scale_are_inside_and_placed_by_ratio(low: float, high: float) -> None:
    scale = Scale(low, high, 0, 100, log=True)
    assert 1 <= len(scale.ticks()) <= 9
    assert all(low <= tick <= high for tick in scale.ticks())
    assert scale(low) == 0 and scale(high) == pytest.approx(100)
    assert scale((low * high) ** 0.5) == pytest.approx(50)


def test_a_time_scale_holds_all_times() -> None:
    for times in ([1.0, 3.0], [1.0, 300.0], [5.0], [0.0, 2.0], [0.0]):
        scale = time_scale(times, 10, 90)
        assert all(10 <= scale(time) <= 90 for time in times)


def test_markers_differ_in_shape() -> None:
    shapes = {re.sub(r" class=.*", "", marker(series, 0, 0)) for series in range(SERIES)}
    assert len(shapes) == SERIES
