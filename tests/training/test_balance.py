"""Classes of different size, on points in place of clips: how much labels count, and how often clips are heard."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from edgekd import processes
from edgekd.config import AugmentConfig, DistillConfig, TrainingConfig
from edgekd.errors import UsageError
from edgekd.losses.response import classification_loss
from edgekd.training.balance import balanced_rows, class_weights, weights_of
from edgekd.training.batches import TrainingBatches, seeded
from edgekd.training.cut_start import check_cut
from edgekd.training.lent_teacher import teacher_settings
from edgekd.training.views import draw_views
from tests.training.test_batches import Clips

ROWS = (0, 1, 2, 3, 4, 5, 6, 8, 9, 11)
LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, -7, 1, 2, -7, 1])  # of ROWS: six, three and one
WEIGHTS = torch.tensor([10 / 18, 10 / 9, 10 / 3])
PLAIN = AugmentConfig(time_shift=False)
MIXED = AugmentConfig(shifts_per_clip=2, mixes_per_clip=2)


def batches(augment: AugmentConfig = PLAIN, **changes: object) -> TrainingBatches:
    values: dict[str, object] = {
        "stage": "student",
        "seed": 3,
        "rows": ROWS,
        "batch_size": 5,
        "clips": Clips(),
        "labels": LABELS,
        "num_classes": 3,
        "augment": augment,
        "views": draw_views(ROWS, 64, augment, 3),
    }
    return TrainingBatches(**{**values, **changes})  # type: ignore[arg-type]


def test_weights_go_against_the_sizes_and_are_1_on_average() -> None:
    weights = class_weights("balanced", LABELS, ROWS, 3)
    assert weights is not None
    torch.testing.assert_close(weights, WEIGHTS)
    assert weights[LABELS[list(ROWS)]].mean().item() == pytest.approx(1)
    assert class_weights("none", LABELS, ROWS, 3) is None
    absent = class_weights("balanced", LABELS, ROWS[:6], 3)
    assert absent is not None and absent.isfinite().all() and absent[0] == 1
    torch.testing.assert_close(weights_of(torch.tensor([[0.5, 0.5, 0]]), weights), WEIGHTS[:2].mean()[None])


def test_the_loss_of_a_batch_is_that_of_torch_with_weights() -> None:
    for batch in batches(class_weights=WEIGHTS).epoch(1):
        logits = torch.randn(len(batch), 3, generator=torch.Generator().manual_seed(0))
        expected = F.cross_entropy(logits, LABELS[batch.rows], WEIGHTS)
        torch.testing.assert_close(classification_loss(logits, batch.targets, batch.labelled), expected)


@pytest.mark.parametrize("augment", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_parts_and_processes_come_to_the_loss_of_the_batch(
    augment: AugmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))  # of each clip of the index
    alone = list(batches(augment, class_weights=WEIGHTS).epoch(1))
    expected = [classification_loss(logits[batch.rows], batch.targets, batch.labelled) for batch in alone]
    found = [torch.zeros(()) for _ in alone]
    for rank in range(2):
        monkeypatch.setattr(processes, "share_of", lambda total, rank=rank: processes.part_of(total, rank, 2))
        for number, batch in enumerate(batches(augment, class_weights=WEIGHTS).epoch(1)):
            for part in batch.parts(2):
                loss = classification_loss(logits[part.rows], part.targets, part.labelled)
                found[number] = found[number] + loss * len(part) / batch.size
    torch.testing.assert_close(found, expected)


def test_balanced_sampling_hears_every_class_alike() -> None:
    drawn = balanced_rows(ROWS, LABELS, seeded(3, "student", 1))
    counts = Counter(LABELS[drawn].tolist())
    assert len(drawn) == len(ROWS) and sorted(counts.values()) == [3, 3, 4]
    assert set(drawn) <= set(ROWS)
    assert len({row for row in drawn if LABELS[row] == 0}) == counts[0], "none of a large class twice"
    assert {row for row in drawn if LABELS[row] == 1} == {6, 8, 11}, "all of a small one"
    assert drawn == balanced_rows(ROWS, LABELS, seeded(3, "student", 1)) != balanced_rows(ROWS, LABELS, seeded(3, 2))


def test_an_epoch_of_balanced_batches_follows_from_seed_stage_and_number() -> None:
    made = batches(balanced=True)
    epochs = [[batch.rows.tolist() for batch in made.epoch(number)] for number in (1, 2, 1)]
    assert epochs[0] == epochs[2] != epochs[1]
    assert [len(rows) for rows in epochs[0]] == [5, 5]
    assert made.class_weights is None and next(iter(made.epoch(1))).labelled is None


def test_both_at_once_are_refused() -> None:
    with pytest.raises(ValidationError, match="balanced twice"):
        TrainingConfig(class_weights="balanced", sampling="balanced")


def test_a_head_that_hears_all_clips_at_once_cannot_draw_them() -> None:
    terms = {"terms": ("classification",)}
    settings = {"student": "mobilenetv1-cut5", "training": {"sampling": "balanced"}, "loss": terms}
    with pytest.raises(UsageError, match=r"Pass --set training\.class_weights=balanced"):
        check_cut(DistillConfig.model_validate(settings))


def test_a_teacher_that_was_balanced_is_another_one() -> None:
    plain, balanced = (
        DistillConfig.model_validate({"training": {"class_weights": kind}}) for kind in ("none", "balanced")
    )
    assert teacher_settings(plain) != teacher_settings(balanced)
    assert "balance" not in teacher_settings(plain), "grids that were begun before go on"


SEVERAL = torch.tensor(
    [[1, 0], [1, 0], [1, 0], [1, 0], [1, 1], [0, 0], [1, 0], [-1, -1], [0, 1], [1, 0], [-1, -1], [0, 0]]
)


def test_of_several_classes_each_is_drawn_from_those_that_have_it_and_none_from_the_rest() -> None:
    drawn = balanced_rows(ROWS * 3, SEVERAL, torch.Generator().manual_seed(0))
    assert len(drawn) == 30
    assert {*drawn} <= {*ROWS}
    held = SEVERAL[torch.tensor(drawn)]
    assert (held[:, 0].sum() >= 10) and (held[:, 1].sum() >= 10)  # though two clips of ten have the second
    assert int((held == 0).all(1).sum()) == 10


def test_a_clip_of_several_classes_counts_as_the_mean_of_them_and_one_of_none_as_1() -> None:
    weights = class_weights("balanced", SEVERAL, ROWS, 2)
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([10 / (2 * 7), 10 / (2 * 2)]))
    targets = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    mean = weights.mean().item()
    found = weights_of(targets, weights, several=True)
    torch.testing.assert_close(found, torch.tensor([mean, 1.0, weights[1].item(), mean]))


def test_targets_of_mixtures_are_shares_of_memberships() -> None:
    made = batches(MIXED, views=draw_views(ROWS, 64, MIXED, 3), labels=SEVERAL, num_classes=2)
    views = made.views
    places, choices = torch.arange(len(ROWS)), torch.full((len(ROWS),), 2)  # the first mixture
    found = views.targets(SEVERAL, 2, places, choices)
    shares = views.shares[places, choices][:, None]  # type: ignore[union-attr]
    of = SEVERAL[torch.tensor(ROWS)].float()
    partners = views.partners[places, choices]  # type: ignore[union-attr]
    torch.testing.assert_close(found, shares * of + (1 - shares) * of[partners])
    assert views.labelled(SEVERAL, places, choices).all()
