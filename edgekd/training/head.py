"""The head of a student whose layers know something already: trained alone, to its optimum, in seconds.

Below it nothing moves, so each view of each clip is heard once, and its features stay. What the head minimises is the
run's own loss, as far as it is about answers (labels, the teacher's answers), with a penalty on large weights: a convex
function, which L-BFGS brings to its minimum without a learning rate.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgekd.losses.terms import TERMS, Compared, Need
from edgekd.losses.total import SSATKDLoss
from edgekd.models.students.cut import CutNetwork
from edgekd.models.students.student import Student
from edgekd.progress import Progress
from edgekd.training.balance import on_average_1
from edgekd.training.batches import TrainingBatches, clips_beside
from edgekd.training.views import Views

DECAY = 5e-3  # of the squared weights, times what all terms count together
ITERATIONS = 100
MOST_ROWS = 40_000  # clips in views: more take memory, and a head has few weights
BATCH = 32


def fit_head(
    student: Student, batches: TrainingBatches, loss: SSATKDLoss, device: torch.device, progress: Progress
) -> None:
    """Train the classifier of a cut `student`, all else standing still, on every view of every clip of `batches`.

    Also puts the features' means and deviations over the clips as they are into the network.
    """
    network = student.network
    assert isinstance(network, CutNetwork)
    student.to(device).eval()
    heard = _hear(student, network, batches, loss, progress)
    if batches.beside is not None:
        without = _hear(student, network, _some(batches.beside, batches), loss, progress)
        heard = _together(heard, without)
    clips = heard.student_logits[: len(batches.rows)]  # the first view is the clip as it is
    with torch.no_grad():
        network.spread.get_buffer("running_mean").copy_(clips.mean(0))
        network.spread.get_buffer("running_var").copy_(clips.var(0).clamp_min(1e-8))
        features = network.spread(heard.student_logits.to(device))
    weight, bias = minimise(features, _counted(heard), loss, network.classifier.out_features)
    with torch.no_grad():
        network.classifier.weight.copy_(weight)
        network.classifier.bias.copy_(bias)


def minimise(features: Tensor, heard: Compared, loss: SSATKDLoss, num_classes: int) -> tuple[Tensor, Tensor]:
    """The weight `(K, D)` and bias `(K,)` of the head that is best for `features (N, D)`; `heard` has what it is
    compared with, in place of the student's logits anything."""
    terms = {name: loss.terms[name] for name in loss.config.terms if TERMS[name].needs <= {"logits"}}
    counts = {name: loss.config.weights.get(name, 1.0) for name in terms}
    weight = torch.zeros(features.shape[1], num_classes, requires_grad=True, device=features.device)
    bias = torch.zeros(num_classes, requires_grad=True, device=features.device)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        compared = heard._replace(student_logits=features @ weight + bias)
        total = torch.stack([counts[name] * term(compared) for name, term in terms.items()]).sum()
        total = total + DECAY * sum(counts.values()) * weight.square().sum()
        total.backward()
        return total

    optimizer.step(objective)
    return weight.detach().T, bias.detach()


@torch.no_grad()
def _hear(
    student: Student, network: CutNetwork, batches: TrainingBatches, loss: SSATKDLoss, progress: Progress
) -> Compared:
    """Features of every view of every clip, in place of logits, and what the loss compares the answers with; `labelled
    (N,)`: how much the label of each counts, 0 where there is none."""
    views, clips = batches.views, len(batches.rows)
    assert isinstance(views, Views)
    device = batches.clips.device
    count = max(1, min(len(views), MOST_ROWS // clips))
    logits: frozenset[Need] = frozenset({"logits"})
    asked = any("logits" in TERMS[name].needs for name in loss.config.terms)
    features: list[Tensor] = []
    targets: list[Tensor] = []
    labelled: list[Tensor] = []
    answers: list[Tensor] = []
    for choice in range(count):
        for rows in torch.tensor(batches.rows).split(BATCH):
            places = views.places(rows)
            choices = torch.full_like(places, choice)
            waveforms = views.request(batches.clips, places, choices)()
            features.append(network.features(student.log_mel(waveforms)))
            targets.append(views.targets(batches.labels, batches.num_classes, places, choices))
            labelled.append(batches.counts(places, choices, targets[-1]))
            if asked and batches.teacher is not None:
                answers.append(batches.teacher.request(places, choices, logits).outputs(waveforms).logits)
            progress("student head", sum(map(len, features)), count * clips)
    return Compared(
        student_logits=torch.cat(features),
        targets=torch.cat(targets).to(device),
        labelled=torch.cat(labelled).to(device),
        teacher_logits=torch.cat(answers) if answers else None,
        student_tap=None,
        teacher_tap=None,
        task=loss.task,
    )


def _some(without: TrainingBatches, labelled: TrainingBatches) -> TrainingBatches:
    """As many clips without labels, each as it is, as their share beside the views of the labelled ones asks for."""
    assert isinstance(labelled.views, Views)
    assert isinstance(without.views, Views)
    wanted = clips_beside(len(labelled.rows) * len(labelled.views), labelled.beside_share)
    rows = without.rows[:: max(1, -(-len(without.rows) // max(1, wanted)))]
    return replace(without, rows=rows, views=without.views.some(1))


def _together(labelled: Compared, without: Compared) -> Compared:
    pairs = zip(labelled, without, strict=True)
    return Compared(*(torch.cat(pair) if isinstance(pair[0], Tensor) else pair[0] for pair in pairs))  # type: ignore[arg-type]


def _counted(heard: Compared) -> Compared:
    """`labelled` as the terms take it: 1 on average, None where each clip counts alike."""
    assert heard.labelled is not None
    return heard._replace(labelled=on_average_1(heard.labelled))
