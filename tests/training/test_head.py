"""A head trained to its optimum: the same one that scikit-learn finds."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from edgekd.config import LossConfig
from edgekd.losses.terms import Compared
from edgekd.losses.total import SSATKDLoss
from edgekd.training.head import DECAY, minimise


def compared(
    targets: torch.Tensor, teacher: torch.Tensor | None = None, labelled: torch.Tensor | None = None
) -> Compared:
    return Compared(torch.empty(0), targets, labelled, teacher, None, None)


def clips(count: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(count) % 3
    features = torch.randn(count, 8, generator=generator) + 1.5 * torch.eye(8)[classes]
    return (features - features.mean(0)) / features.std(0), classes


def test_labels_alone_are_logistic_regression() -> None:
    features, classes = clips()
    loss = SSATKDLoss(LossConfig(terms=("classification",)), 1, 0)
    weight, bias = minimise(features, compared(classes), loss, 3)
    peer = LogisticRegression(C=1 / (2 * DECAY * len(classes)), tol=1e-8, max_iter=2000).fit(features, classes)
    ours = (features @ weight.T + bias).softmax(1).numpy()
    np.testing.assert_allclose(ours, peer.predict_proba(features), atol=5e-3)


def test_a_teachers_answers_move_it_by_their_weight() -> None:
    features, classes = clips()
    wrong = 6.0 * torch.eye(3)[(classes + 1) % 3]  # a teacher that is sure and mistaken

    def accuracy(weight: float) -> float:
        config = LossConfig(terms=("classification", "distillation"), weights={"distillation": weight})
        found, bias = minimise(features, compared(classes, wrong), SSATKDLoss(config, 1, 0), 3)
        return float(((features @ found.T + bias).argmax(1) == classes).float().mean())

    assert accuracy(0.01) > 0.8
    assert accuracy(10.0) < 0.2


def test_a_clip_without_a_label_teaches_nothing_by_its_label() -> None:
    features, classes = clips()
    known = torch.ones(len(classes))
    known[60:] = 0
    lies = classes.clone()
    lies[60:] = (classes[60:] + 1) % 3
    loss = SSATKDLoss(LossConfig(terms=("classification",)), 1, 0)
    counted = known / known.mean()
    honest, _ = minimise(features, compared(classes, labelled=counted), loss, 3)
    deceived, _ = minimise(features, compared(lies, labelled=counted), loss, 3)
    torch.testing.assert_close(honest, deceived)
