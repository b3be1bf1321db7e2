"""What each student of the package costs at a clip length: counted on shapes, without numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgekd.models.build import build_student, cut_front_end
from edgekd.models.students.names import CUTS, cut_of
from edgekd.models.students.table import STUDENTS
from edgekd.models.teachers.table import TEACHERS

DEFAULT_RATE = 32_000  # Hz, of students that have none of their own


def student_facts(clip_seconds: float = 5.0, num_classes: int = 10) -> list[dict[str, Any]]:
    """What is known of every student at width 1, for programs: `macs` of its network for one clip, the log-mel not
    counted, and `largest`, the values of the largest map that a layer writes. `starts_from`: whose weights it has."""
    return [_facts(name, clip_seconds, num_classes) for name in (*STUDENTS, *CUTS)]


def _facts(name: str, clip_seconds: float, num_classes: int) -> dict[str, Any]:
    cut, spec = cut_of(name), STUDENTS.get(name)
    rate = DEFAULT_RATE if cut is None else TEACHERS[cut.teacher].own_rate or DEFAULT_RATE
    frontend = cut_front_end(name).at(rate)
    samples = round(clip_seconds * rate)
    network = build_student(name, num_classes, rate, frontend, samples=samples).network
    macs, largest, tap = _counted(network, frontend.shape(samples))
    return {
        "student": name,
        "summary": spec.summary if spec is not None else "few labels",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": macs,
        "largest": largest,
        "tap": tap,
        "sized": spec is None or spec.sized,
        "starts_from": None if cut is None else cut.teacher,
    }


def _counted(network: nn.Module, shape: tuple[int, int]) -> tuple[int, int, list[int]]:
    """Multiplications, the values of the largest map, and the shape of the tap, for a log-mel of `shape (T, F)`."""
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    outline = network.to("meta").eval()
    for module in outline.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = outline(torch.empty(1, 1, *shape, device="meta"))
    return counter.get_total_flops() // 2, max(sizes), list(output[1].shape[1:])
