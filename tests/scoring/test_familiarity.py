"""Scores of how familiar a clip is, against scikit-learn, SciPy and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.exporting.known import KnownScore
from edgekd.scoring.familiarity import (
    Gaussians,
    Trial,
    auroc,
    known_threshold,
    ledoit_wolf,
    told_apart,
)

RNG = np.random.default_rng


@pytest.mark.parametrize(("clips", "size"), [(30, 50), (200, 6)])
def test_shrinkage_is_that_of_scikit_learn(clips: int, size: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    values = RNG(2).normal(size=(clips, size)) * np.linspace(1, 3, size)
    assert ledoit_wolf(values) == pytest.approx(covariance.ledoit_wolf(values, assume_centered=True)[1])


def embeddings(clips: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(clips) % 3
    centres = RNG(3).normal(0, 4, (3, size))
    mixing = RNG(4).normal(size=(size, size))
    return centres[labels] + RNG(5).normal(size=(clips, size)) @ mixing, labels


def familiarity(found: Gaussians, values: np.ndarray) -> np.ndarray:
    """Minus the squared distance from the nearest class, as a classifier computes it."""
    nothing = torch.zeros(len(values), 3)
    return KnownScore("mahalanobis", found).of(nothing, nothing, torch.from_numpy(values)).numpy()


def test_distances_are_those_of_scipy_by_the_covariance_that_is_stated() -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    values, labels = embeddings(90, 40)
    found = Gaussians.fit(values, labels, 3)
    means = np.stack([values[labels == label].mean(axis=0) for label in range(3)])
    centred = values - means[labels]
    shrunk = (1 - found.shrinkage) * centred.T @ centred / 90
    shrunk += found.shrinkage * np.trace(centred.T @ centred / 90) / 40 * np.eye(40)
    variances, directions = np.linalg.eigh(shrunk)
    variances[:8] = variances[:8].mean()  # 32 of 40 are kept
    inverse = directions @ np.diag(1 / variances) @ directions.T
    others = RNG(6).normal(0, 5, (10, 40))
    expected = [-min(distance.mahalanobis(other, mean, inverse) ** 2 for mean in means) for other in others]
    np.testing.assert_allclose(familiarity(found, others), expected, rtol=1e-4)


def test_clips_of_the_classes_are_nearer_than_others() -> None:
    values, labels = embeddings(300, 8)
    found = Gaussians.fit(values[:200], labels[:200], 3)
    assert auroc(familiarity(found, values[200:]), familiarity(found, RNG(7).normal(0, 30, (100, 8)))) > 0.95


def test_embeddings_that_are_all_alike_have_a_distance() -> None:
    found = Gaussians.fit(np.ones((6, 3)), np.arange(6) % 2, 2)
    assert np.isfinite(familiarity(found, np.zeros((1, 3)))).all()


@pytest.mark.parametrize(("clips", "share", "rejected"), [(100, 0.05, 5), (79, 0.05, 3), (10, 0.0, 0), (19, 0.05, 0)])
def test_no_more_than_the_share_is_rejected(clips: int, share: float, rejected: int) -> None:
    known = RNG(8).permutation(clips).astype(float)
    assert (known < known_threshold(known, share)).sum() == rejected


@pytest.mark.parametrize(("share", "threshold"), [(0.0, -0.5), (0.5, 1.5), (0.75, 6.0)])
def test_no_tie_decides_what_is_rejected(share: float, threshold: float) -> None:
    """What rounds another way on a device is on the same side of it."""
    known = np.array([2.0, 0.0, 10.0 if share == 0.75 else 4.0, 1.0])
    assert known_threshold(known, share) == threshold


def test_known_clips_that_score_alike_are_not_rejected_together() -> None:
    assert known_threshold(np.ones(20), 0.5) == 1.0


def test_auroc_is_that_of_scikit_learn_with_ties() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    known, unknown = RNG(9).integers(0, 12, 60), RNG(10).integers(0, 9, 40)
    expected = metrics.roc_auc_score([1] * 60 + [0] * 40, np.concatenate([known, unknown]))
    assert auroc(known, unknown) == pytest.approx(expected)


def trial(seed: int, apart: float, groups: int = 12) -> Trial:
    rng = RNG(seed)
    of_group = rng.normal(0, 1, 2 * groups)
    known = apart + of_group[np.arange(48) % groups] + rng.normal(0, 0.3, 48)
    unknown = of_group[groups + np.arange(24) % (groups // 2)] + rng.normal(0, 0.3, 24)
    return Trial(
        known=np.round(known, 1),
        known_groups=[f"known {place % groups}" for place in range(48)],
        unknown=np.round(unknown, 1),
        unknown_groups=[f"unknown {place % (groups // 2)}" for place in range(24)],
        threshold=0.5,
    )


def test_figures_of_trials_are_their_means() -> None:
    trials = [trial(0, 1.0), trial(1, 2.0)]
    found = told_apart(trials)
    assert found.auroc == pytest.approx(np.mean([auroc(each.known, each.unknown) for each in trials]))
    assert found.false_alarms == pytest.approx(np.mean([(each.unknown >= 0.5).mean() for each in trials]))
    assert found.lost == pytest.approx(np.mean([(each.known < 0.5).mean() for each in trials]))
    assert 0 <= found.auroc_interval[0] < found.auroc < found.auroc_interval[1] <= 1


def test_a_group_that_is_drawn_twice_counts_twice() -> None:
    from edgekd.scoring.familiarity import _Ordered

    one = trial(2, 1.0)
    names = sorted({*one.known_groups, *one.unknown_groups})
    place = {name: number for number, name in enumerate(names)}
    weights = RNG(11).integers(0, 3, (5, len(names))).astype(float)
    found = _Ordered.of(one, place).statistics(weights)
    for row, drawn in enumerate(weights):
        known = np.repeat(one.known, [int(drawn[place[name]]) for name in one.known_groups])
        unknown = np.repeat(one.unknown, [int(drawn[place[name]]) for name in one.unknown_groups])
        expected = auroc(known, unknown), (unknown >= 0.5).mean(), (known < 0.5).mean()
        np.testing.assert_allclose(found[:, row], expected)


def test_fewer_recordings_are_less_sure() -> None:
    many, few = (told_apart([trial(3, 1.0, groups)]).auroc_interval for groups in (24, 4))
    assert few[1] - few[0] > many[1] - many[0]
