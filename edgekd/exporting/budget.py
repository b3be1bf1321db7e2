"""Budgets: does a student fit the device it is exported for, and if not, which one does?

The figures are those that the target's runtime gives. Of an exported graph they are the size of its file, the peak of
its activations, and the parameters and MACs of its network. The log-mel front end counts in the first two, where it is
in the graph, and not in the others, as in published comparisons (DCASE: at most 128 KB of parameters and 30 MMAC).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.config import FrontendConfig
from edgekd.errors import GateError, UsageError
from edgekd.exporting.cost import activation_bytes, graph_cost, split_at_log_mel
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.targets import Precision, Target
from edgekd.models.build import sized
from edgekd.models.students.names import cut_of
from edgekd.own_code import is_own
from edgekd.progress import Progress, silent

if TYPE_CHECKING:
    from edgekd.exporting.deployable import Deployable

Sized = tuple[str, float]  # a student's name and width
WIDTHS = (1.0, 0.75, 0.5, 0.25)  # at which students that come in sizes are tried
CUT_WIDTHS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # at which a student cut from a teacher is, where it is narrower
UNITS = {"model_bytes": "bytes of model", "parameters": "parameters", "macs": "MACs", "activation_bytes": "bytes live"}


@dataclass(frozen=True)
class Figures:
    """What a student needs; the names are those of a target's `[budget]`."""

    model_bytes: int
    parameters: int
    macs: int
    activation_bytes: int


def figures_of(model: bytes) -> Figures:
    """The figures of a serialised ONNX graph of a student."""
    import onnx

    graph = onnx.load_model_from_string(model)
    parts = split_at_log_mel(graph)
    network = graph_cost(graph if parts is None else parts[1])
    return Figures(
        model_bytes=len(model),
        parameters=network.parameters,
        macs=network.macs,
        activation_bytes=activation_bytes(graph),
    )


class TooLarge(GateError):
    """What was measured of a student is more than its board has: whether others fit is to be told.

    `fits` says so of what another needs, and `words` what that comes to on the board.
    """

    def __init__(self, message: str, fits: Callable[[Figures], bool], words: Callable[[Figures], str]) -> None:
        super().__init__(message)
        self.fits, self.words = fits, words


def check_budget(
    needed: Figures,
    student: Sized,
    target: Target,
    others: Callable[[], Mapping[Sized, Figures]],
    settings: Path | None = None,
) -> None:
    """Raise `GateError` where what the exported `student` needs is over a budget of `target`.

    The message says by how much, and names the largest other student or width that fits at the same settings, those of
    the file `settings` where it is given, or what the smallest would need. `others` is called only then (see
    `other_students`): it takes seconds a student.
    """
    over = _excess(needed, target)
    if over:
        otherwise = "Raise the budget in a copy of the target's TOML"
        if _may_leave_out_the_log_mel(target) and (target.budget.model_bytes or target.budget.activation_bytes):
            otherwise += ", or leave the log-mel to the host (frontend = 'external')"
        told = nearest(
            others(), lambda other: not _excess(other, target), lambda other: _words(other, target), settings, otherwise
        )
        raise GateError(
            f"Student '{sized(*student)}' is over the budget of target '{target.name}': {'; '.join(over)}. {told}"
        )


def _may_leave_out_the_log_mel(target: Target) -> bool:
    try:
        RUNTIMES[target.runtime].check_target(target.model_copy(update={"frontend": "external"}))
    except ValueError:
        return False
    return target.frontend == "graph"


def _excess(needed: Figures, target: Target) -> list[str]:
    """A phrase for every budget that is exceeded."""
    figures, allowed = asdict(needed), target.budget.model_dump(exclude_none=True)
    return [
        f"{figures[name]:,} {UNITS[name]}, {limit:,} allowed ({name})"
        for name, limit in allowed.items()
        if figures[name] > limit
    ]


def nearest(
    others: Mapping[Sized, Figures],
    fits: Callable[[Figures], bool],
    words: Callable[[Figures], str],
    settings: Path | None,
    otherwise: str,
) -> str:
    """The largest of `others` that fits, with the command that trains it, or what the smallest takes and what to do.

    A cut of the teacher goes before students that start from nothing: it knows more than a larger one of these.
    """
    by_size = sorted(others, key=lambda other: others[other].macs)
    fitting = [other for other in by_size if fits(others[other])]
    if fitting:
        name, width = ([other for other in fitting if cut_of(other[0])] or fitting)[-1]
        flags = name if width == 1 and settings is None else f"{name} --width {width:g}"
        given = "" if settings is None else f"--config {shlex.quote(str(settings))} "
        return f"'{sized(name, width)}' fits ({words(others[name, width])}): edgekd distill {given}--student {flags}."
    least = f"the smallest, '{sized(*by_size[0])}', takes {words(others[by_size[0]])}" if by_size else "there is none"
    return f"No other student fits: {least}. {otherwise}."


def _words(needed: Figures, target: Target) -> str:
    """The figures that `target` limits."""
    return ", ".join(
        f"{value:,} {UNITS[name]}" for name, value in asdict(needed).items() if getattr(target.budget, name) is not None
    )


def other_students(
    student: Sized,
    num_classes: int,
    frontend: FrontendConfig,
    sample_rate: int,
    clip_samples: int,
    target: Target,
    *,
    widths: Sequence[float] = WIDTHS,
    progress: Progress = silent,
) -> dict[Sized, Figures]:
    """What every student but `student` would need on `target`, untrained, in these `widths` where it comes in sizes; of
    a student cut from a teacher, what it would need with fewer channels, too."""
    from edgekd.models.students.table import STUDENTS

    runtime = RUNTIMES[target.runtime]
    tried = [(name, width) for name, spec in STUDENTS.items() for width in (widths if spec.sized else (1.0,))]
    cut = cut_of(student[0])
    if cut is not None and not is_own(cut.teacher):
        tried += [(student[0], width) for width in CUT_WIDTHS if width < student[1]]
    figures = {}
    for done, other in enumerate(tried):
        progress("other students", done, len(tried))
        if other == student:
            continue
        try:
            deployable = untrained(other, num_classes, frontend, sample_rate, clip_samples, target.precision)
            figures[other] = runtime.figures(runtime.emit({target.precision: deployable}, target, silent), target)
        except UsageError:  # its pooling leaves nothing of a log-mel with so few bins
            continue
    progress("other students", len(tried), len(tried))
    return figures


def untrained(
    student: Sized,
    num_classes: int,
    frontend: FrontendConfig,
    sample_rate: int,
    clip_samples: int,
    precision: Precision,
) -> Deployable:
    """An untrained student: of the same size and shapes as a trained one."""
    import torch

    from edgekd.exporting.deployable import Deployable
    from edgekd.models.build import build_student
    from edgekd.quantization.calibration import CalibrationRecipe, calibrate
    from edgekd.quantization.prepare import prepare

    generator = torch.Generator().manual_seed(0)
    name, width = student
    built = build_student(name, num_classes, sample_rate, frontend, width, samples=clip_samples).eval()
    network = None
    if precision == "int8":
        with torch.no_grad():
            log_mel = built.log_mel(0.1 * torch.randn(1, clip_samples, generator=generator))
        network = prepare(built.network, log_mel)
        calibrate(network, [log_mel], CalibrationRecipe(observer="absmax"))
    source = f"untrained {name} x{width:g}, {num_classes} classes, {sample_rate} Hz, {frontend!r}"
    return Deployable(precision, clip_samples, source, built, network)
