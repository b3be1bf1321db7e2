"""How long each term of the loss takes, forward and backward, at the taps of real students and teachers.

    python -m tests.benchmarks.losses [--student hltdnn] [--teacher cnn14] [--batch-size 8] [--json]

Beside edgekd's own forms stand plain ones, of the same value, as one writes them down from the equations: blurs and
resizings as such and one convolution a mask for the structural term, the whole product of two assignments for the
co-occurrence, Sinkhorn's iterations at one regularisation and through autograd for the transport. All take turns;
ratios are medians over the rounds (middle half). The floor is that of `training`, of the operators as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.config import FrontendConfig, LossConfig
from edgekd.losses.response import distillation_loss
from edgekd.losses.ssatkd.statistical import SPACING_FLOOR, Cooccurrence, StatisticalTexture, statistical_loss
from edgekd.losses.ssatkd.structural import StructuralTexture
from edgekd.losses.ssatkd.transport import EPSILON_LAST
from edgekd.losses.total import SSATKDLoss
from edgekd.models.build import build_student
from edgekd.models.outputs import StudentOutput, TeacherOutput
from edgekd.models.teachers.table import TEACHERS
from tests.benchmarks.measure import Work, limits, ratio, synchronise, table, turns

SAMPLE_RATE, SECONDS = 32_000, 5.0
CLASSES = 4
PLAIN_ITERATIONS = 500


@dataclass(frozen=True)
class Case:
    """`loss(*inputs)` is a scalar; the inputs get gradients."""

    term: str
    form: str
    loss: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        return f"{self.term}, {self.form}"

    def forward(self) -> Tensor:
        return self.loss(*(tensor.detach().requires_grad_() for tensor in self.inputs))


def plain_structural(student: Tensor, teacher: Tensor, levels: int = 3) -> Tensor:
    a, b = (_plain_texture(features, levels).flatten(1) for features in (student, teacher))
    return (1 - F.cosine_similarity(a, b)).mean()


def _plain_texture(features: Tensor, levels: int) -> Tensor:
    channels, step = features.shape[1], 2**levels
    down, right = (max(-(-size // step), 3) * step - size for size in features.shape[2:])
    pyramid = [F.pad(features, (0, right, 0, down))]
    for _ in range(levels):
        pyramid.append(F.interpolate(_blur(pyramid[-1]), scale_factor=0.5, mode="bilinear"))
    doubled = [_blur(F.interpolate(coarse, scale_factor=2.0, mode="bilinear")) for coarse in pyramid[2:]]
    bands = [*(fine - rough for fine, rough in zip(pyramid[1:-1], doubled, strict=True)), pyramid[-1]]
    ring = features.new_tensor([1.0, 2.0, 1.0, 0.0, -1.0, -2.0, -1.0, 0.0]) / 8
    rows, columns = torch.tensor([0, 0, 0, 1, 2, 2, 2, 1]), torch.tensor([0, 1, 2, 2, 2, 1, 0, 0])
    found = []
    for band in bands:
        edges = []
        for direction in range(8):
            mask = features.new_zeros(3, 3)
            mask[rows, columns] = ring.roll(-direction)
            edges.append(F.conv2d(band, mask.expand(channels, 1, 3, 3), groups=channels))
        response = torch.stack(edges, dim=2).flatten(1, 2)
        height, width = (size // 2 - 2 for size in pyramid[0].shape[2:])
        found.append(F.pad(response, (0, width - response.shape[3], 0, height - response.shape[2])))
    return torch.cat(found, dim=1)


def _blur(features: Tensor) -> Tensor:
    row = features.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = torch.outer(row, row).expand(features.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(features, (2, 2, 2, 2), mode="reflect"), kernel, groups=features.shape[1])


def plain_cooccurrence(features: Tensor, size: int = 4) -> Cooccurrence:
    """With the relative bandwidth."""
    similarity = F.cosine_similarity(features, features.mean((2, 3), keepdim=True))
    low, high = similarity.amin((1, 2)), similarity.amax((1, 2))
    centres = (torch.arange(size, device=features.device) + 0.5) / size
    levels = low[:, None] + centres * (high - low)[:, None]
    spacing = ((high - low) / size).clamp_min(SPACING_FLOOR)[:, None, None, None]
    shares = torch.softmax(-(((similarity[:, None] - levels[:, :, None, None]) / spacing).square()), dim=1)
    here, there = shares[:, :, :-1, :-1], shares[:, :, 1:, 1:]
    counts = (here[:, :, None] * there[:, None]).sum((3, 4))
    return Cooccurrence(counts / counts.sum((1, 2), keepdim=True), levels)


def plain_transport(student: Tensor, teacher: Tensor) -> Tensor:
    """Of two matrices of co-occurrence `(B, N, N)`, their levels spread over [0, 1]."""
    a, b = student.flatten(1), teacher.flatten(1)
    places = _levels(student)[0]
    positions = torch.cartesian_prod(places, places)
    cost = torch.cdist(positions, positions)[None]
    epsilon = EPSILON_LAST * cost.amax()
    f, g = torch.zeros_like(a)[:, :, None], torch.zeros_like(b)[:, None]
    log_a, log_b = a.log()[:, :, None], b.log()[:, None]
    for _ in range(PLAIN_ITERATIONS):
        g = -epsilon * torch.logsumexp((f - cost) / epsilon + log_a, dim=1, keepdim=True)
        f = -epsilon * torch.logsumexp((g - cost) / epsilon + log_b, dim=2, keepdim=True)
    plan = ((f + g - cost) / epsilon + log_a + log_b).exp()
    return (plan * cost).sum((1, 2)).mean()


def _levels(cooccurrence: Tensor) -> Tensor:
    batch, size = cooccurrence.shape[:2]
    return ((torch.arange(size, device=cooccurrence.device) + 0.5) / size).expand(batch, size)


def cases(options: argparse.Namespace) -> list[Case]:
    """Every term in each of its forms, on maps like those after a ReLU."""
    torch.manual_seed(0)
    student = build_student(options.student, CLASSES, SAMPLE_RATE, FrontendConfig()).eval()
    with torch.no_grad():
        tap = student(torch.randn(1, round(SECONDS * SAMPLE_RATE))).tap
    spec = TEACHERS[options.teacher]
    batch, device = options.batch_size, options.device
    own = torch.randn(batch, *tap.shape[1:], device=device).relu()
    others = torch.randn(batch, *spec.tap, device=device).relu()
    logits, answers = torch.randn(2, batch, CLASSES, device=device)
    labels = torch.arange(batch, device=device) % CLASSES
    loss = SSATKDLoss(LossConfig(), tap.shape[1], spec.tap[0]).to(device)
    assert loss.adapter is not None
    with torch.no_grad():
        size = [min(sides) for sides in zip(own.shape[2:], others.shape[2:], strict=True)]
        ours, theirs = (F.interpolate(x, size=size, mode="bilinear") for x in (own, loss.adapter(others)))
        structural, statistical = StructuralTexture().to(device), StatisticalTexture(bandwidth="relative")
        matrices = (statistical(ours).cooccurrence, statistical(theirs).cooccurrence)

    def whole(tap: Tensor, logits: Tensor) -> Tensor:
        return loss(StudentOutput(logits, tap), TeacherOutput(answers, others), labels).total

    def transport(student: Tensor, teacher: Tensor) -> Tensor:
        levels = _levels(student)
        return statistical_loss(Cooccurrence(student, levels), Cooccurrence(teacher, levels))

    return [
        Case("structural", "edgekd", structural.distance, (ours, theirs)),
        Case("structural", "plain", plain_structural, (ours, theirs)),
        Case("co-occurrence", "edgekd", lambda x: statistical(x).cooccurrence.square().sum(), (ours,)),
        Case("co-occurrence", "plain", lambda x: plain_cooccurrence(x).cooccurrence.square().sum(), (ours,)),
        Case("transport", "edgekd", transport, matrices),
        Case("transport", "plain", plain_transport, matrices),
        Case("distillation", "edgekd", lambda x: distillation_loss(x, answers, "kl"), (logits,)),
        Case("all four terms", "edgekd", whole, (own, logits)),
    ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed."""
    best, found = limits(options.device), cases(options)

    def timed(case: Case) -> Callable[[], float]:
        def seconds() -> float:
            case.forward().backward()
            synchronise(options.device)
            started = time.perf_counter()
            value = case.forward()
            synchronise(options.device)
            forwards[str(case)].append(time.perf_counter() - started)
            value.backward()
            synchronise(options.device)
            return time.perf_counter() - started

        return seconds

    forwards: dict[str, list[float]] = {str(case): [] for case in found}
    times = turns({str(case): timed(case) for case in found}, options.rounds)
    rows, ours = [], {case.term: case for case in found if case.form == "edgekd"}
    for case in found:
        with Work(best) as work:
            value = case.forward()
            value.backward()
        base = ours[case.term]
        rows.append(
            {
                "term": case.term,
                "form": case.form,
                "value": value.item(),
                "off": abs(value.item() - base.forward().item()),
                "seconds": float(np.median(times[str(case)])),
                "forward_seconds": float(np.median(forwards[str(case)])),
                "times_edgekd": ratio(times[str(case)], times[str(base)]),
                "floor_seconds": work.seconds,
            }
        )
    return {
        "student": options.student,
        "teacher": options.teacher,
        "batch_size": options.batch_size,
        "tap": list(found[-1].inputs[0].shape),
        "compared_at": list(found[0].inputs[0].shape),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "rows": rows,
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """The table, line by line."""
    tap, compared = (" x ".join(map(str, found[name])) for name in ("tap", "compared_at"))
    yield (
        f"{found['student']} and {found['teacher']}, {found['device']}, {found['threads']} threads, "
        f"{found['rounds']} rounds\ntap {tap}, compared at {compared}"
    )
    yield table(
        ["", "form", "ms", "forward", "times edgekd", "floor ms", "times floor", "off"],
        [
            [
                row["term"],
                row["form"],
                f"{1e3 * row['seconds']:.2f}",
                f"{1e3 * row['forward_seconds']:.2f}",
                str(row["times_edgekd"]),
                f"{1e3 * row['floor_seconds']:.2f}",
                f"{row['seconds'] / row['floor_seconds']:.1f}",
                f"{row['off']:.0e}",
            ]
            for row in found["rows"]
        ],
    )


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="hltdnn")
    parser.add_argument("--teacher", choices=TEACHERS, default="cnn14")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    found = measure(options)
    print(json.dumps(found) if options.json else "\n".join(show(found)))


if __name__ == "__main__":
    main()
