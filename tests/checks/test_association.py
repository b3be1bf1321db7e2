"""How much the class goes with an attribute."""

from __future__ import annotations

import numpy as np

from edgekd.checks.association import association, binned, cramers_v, cross_table, expected_if_independent


def test_attributes_drawn_by_chance_are_seldom_called_confounded() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 12)
    found = [association("level", rng.permutation(60) % 8, labels) for _ in range(40)]
    assert sum(each.confounded for each in found) <= 1
    assert np.mean([each.cramers_v for each in found]) < 0.15
    assert 0.35 < np.mean([each.p for each in found]) < 0.65


def test_the_guess_from_an_attribute_is_learned_from_other_groups() -> None:
    labels = np.arange(16) % 2
    assert association("level", np.arange(16), labels).share == 0.5, "each value is there once"
    assert association("level", labels, labels).share == 1.0


def test_cramers_v_is_scipys_before_the_correction_and_0_or_1_at_the_ends() -> None:
    from scipy.stats import chi2_contingency

    rng = np.random.default_rng(1)
    codes, labels = rng.integers(0, 4, 300), rng.integers(0, 3, 300)
    table = cross_table(codes, labels)
    expected = chi2_contingency(table, correction=False)
    np.testing.assert_allclose(expected_if_independent(table), expected.expected_freq)
    assert cramers_v(300 * 2, (4, 3), 300) > 0.98
    assert cramers_v(0.0, (4, 3), 300) == 0.0


def test_a_guess_that_knows_nothing_is_right_as_often_as_chance() -> None:
    labels = np.arange(400) % 10
    codes = (np.random.default_rng(0).random(400) < 0.01).astype(int)  # next to nothing
    found = association("silence", codes, labels)
    assert found.chance == 0.1
    assert 0.09 <= found.share <= 0.13, "that a group is left out must not make its own class the last guess"


def test_a_value_that_many_have_is_a_bin_of_its_own() -> None:
    values = [0.0] * 40 + [float(value) for value in range(1, 29)]
    codes, names = binned(values, "{:g} s".format)
    assert (len(names), names[0], names[1]) == (4, "0 s", "1 s to 10 s")
    assert np.bincount(codes).tolist() == [40, 9, 9, 10]
