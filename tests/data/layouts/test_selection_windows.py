from __future__ import annotations

import numpy as np
import pytest

from edgekd.data.layouts.selection_windows import cut_windows, evenly, sort_windows
from edgekd.events.event import Event

RATE = 100


def kinds(*events: tuple[float, float, str], seconds: float = 10, share: float = 0.5, clip: float = 2.0) -> str:
    """A letter a window: its class, `-` neither, `.` background, `+` both classes."""
    windows = cut_windows(round(seconds * RATE), RATE, clip, None)
    found = sort_windows(windows, RATE, [Event("a.wav", *event) for event in events], ("a", "b"), share)
    return "".join(
        "+" if both.all() else "a" if both[0] else "b" if both[1] else "-" if touched else "."
        for both, touched in zip(found.enough, found.touched, strict=True)
    )


def test_what_no_selection_touches_is_background() -> None:
    assert kinds((2, 4, "a")) == ".a..."
    assert kinds((2, 4, "x")) == ".-..."
    assert kinds() == "....."


def test_a_short_call_is_in_the_window_that_has_half_of_it() -> None:
    assert kinds((3.7, 4.2, "a")) == ".a-.."
    assert kinds((3.8, 4.3, "a")) == ".-a.."
    assert kinds((3.75, 4.25, "a")) == ".aa.."  # half in each


def test_a_long_passage_has_to_fill_half_of_a_window() -> None:
    assert kinds((1.1, 7.1, "a")) == "-aaa."
    assert kinds((0.9, 7.0, "a")) == "aaaa."
    assert kinds((0.9, 7.0, "a"), share=0.8) == "-aa-."


def test_several_calls_count_together() -> None:
    assert kinds((2.0, 2.3, "a")) == ".a..."
    assert kinds((0, 2.5, "a"), (3.4, 6, "a")) == "aaa.."  # 0.5 s and 0.6 s of the second window
    assert kinds((0, 2.4, "a"), (3.5, 6, "a")) == "a-a.."


def test_two_classes_in_one_window_are_both() -> None:
    assert kinds((2, 3.2, "a"), (2.8, 4, "b")) == ".+..."
    assert kinds((2, 3.2, "a"), (2.1, 3, "x")) == ".a..."


def test_points_are_in_the_window_they_are_in() -> None:
    assert kinds((4, 4, "a")) == "..a.."
    assert kinds((3.99, 3.99, "a")) == ".a..."


def test_a_selection_that_ends_where_a_window_begins_does_not_touch_it() -> None:
    assert kinds((2, 4.000001, "a")) == ".a..."
    assert kinds((1.999999, 4, "a")) == ".a..."


def test_windows_follow_each_other_or_hop() -> None:
    assert cut_windows(450, 100, 1.0, None) == [(0, 100), (100, 100), (200, 100), (300, 100), (400, 50)]
    assert cut_windows(300, 100, 1.0, 0.5) == [(0, 100), (50, 100), (100, 100), (150, 100), (200, 100)]
    assert cut_windows(60, 100, 1.0, 0.5) == [(0, 60)]
    assert cut_windows(44_100, 44_100, 0.1, 0.0999)[-1] == (39_650, 4_410)


@pytest.mark.parametrize(("count", "wanted"), [(10, 3), (10, 10), (3, 10), (7, 1), (1000, 999)])
def test_evenly_spread(count: int, wanted: int) -> None:
    chosen = evenly(count, wanted)
    assert len(set(chosen.tolist())) == min(count, wanted)
    assert 0 <= chosen.min() <= chosen.max() < count
    if len(chosen) > 2:
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1
