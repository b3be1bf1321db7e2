"""Budgets: does a student fit the device it is exported for, and if not, which one does?

The figures are of the exported graph: the size of its file, the peak of its activations, and the parameters and MACs of
its network. The log-mel front end counts in the first two, where it is in the graph, and not in the others, as in
published comparisons (DCASE: at most 128 KB of parameters and 30 MMAC).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from edgekd.config import FrontendConfig
from edgekd.errors import GateError
from edgekd.exporting.cost import activation_bytes, graph_cost, split_at_log_mel
from edgekd.exporting.targets import Target
from edgekd.models.build import sized

Sized = tuple[str, float]  # a student's name and width
WIDTHS = (1.0, 0.5)  # at which students that come in sizes are tried
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


def check_budget(
    model: bytes,
    target: Target,
    *,
    student: str,
    width: float = 1.0,
    num_classes: int,
    frontend: FrontendConfig,
    sample_rate: int,
    clip_samples: int,
) -> None:
    """Raise `GateError` where `model`, the exported graph of `student`, is over a budget of `target`.

    The message says by how much, and names the largest other student or width that fits at the same settings, or what
    the smallest would need. Others are exported only then, untrained, which takes seconds each.
    """
    found = figures_of(model)
    over = _excess(found, target)
    if not over:
        return
    others = _other_students((student, width), num_classes, frontend, sample_rate, clip_samples, target)
    raise GateError(
        f"Student '{sized(student, width)}' is over the budget of target '{target.name}': {'; '.join(over)}."
        f" {_advice(others, target)}"
    )


def _excess(found: Figures, target: Target) -> list[str]:
    """A phrase for every budget that is exceeded."""
    needed, allowed = asdict(found), target.budget.model_dump(exclude_none=True)
    return [
        f"{needed[name]:,} {UNITS[name]}, {limit:,} allowed ({name})"
        for name, limit in allowed.items()
        if needed[name] > limit
    ]


def _advice(others: dict[Sized, Figures], target: Target) -> str:
    by_size = sorted(others, key=lambda other: others[other].macs)
    fitting = [other for other in by_size if not _excess(others[other], target)]
    if fitting:
        name, width = fitting[-1]
        flags = name if width == 1 else f"{name} --width {width:g}"
        fits = f"'{sized(name, width)}' fits ({_words(others[name, width], target)})"
        return f"{fits}: edgekd distill --student {flags}."
    advice = "Raise the budget in a copy of the target's TOML"
    if target.frontend == "graph" and (target.budget.model_bytes or target.budget.activation_bytes):
        advice += ", or leave the log-mel to the host (frontend = 'external')"
    nearest = (
        f"the smallest, '{sized(*by_size[0])}', takes {_words(others[by_size[0]], target)}"
        if by_size
        else "there is none"
    )
    return f"No other student fits: {nearest}. {advice}."


def _words(found: Figures, target: Target) -> str:
    """The figures that `target` limits."""
    return ", ".join(
        f"{value:,} {UNITS[name]}" for name, value in asdict(found).items() if getattr(target.budget, name) is not None
    )


def _other_students(
    student: Sized, num_classes: int, frontend: FrontendConfig, sample_rate: int, clip_samples: int, target: Target
) -> dict[Sized, Figures]:
    from edgekd.models.students.table import STUDENTS

    found = {}
    for other in [(name, width) for name, spec in STUDENTS.items() for width in (WIDTHS if spec.sized else (1.0,))]:
        if other == student:
            continue
        try:
            found[other] = figures_of(untrained(other, num_classes, frontend, sample_rate, clip_samples, target))
        except RuntimeError:  # its pooling leaves nothing of a log-mel with so few bins
            continue
    return found


def untrained(
    student: Sized, num_classes: int, frontend: FrontendConfig, sample_rate: int, clip_samples: int, target: Target
) -> bytes:
    """An untrained student as it would be exported for `target`: the same size and shapes as a trained one."""
    import torch

    from edgekd.exporting.graph import Form, float_onnx, quantized_onnx
    from edgekd.models.build import build_student
    from edgekd.quantization.calibration import CalibrationRecipe, calibrate
    from edgekd.quantization.prepare import prepare

    generator = torch.Generator().manual_seed(0)
    name, width = student
    built = build_student(name, num_classes, sample_rate, frontend, width).eval()
    form = Form(target.opset, target.frontend, target.batch)
    if target.precision != "int8":
        return float_onnx(built, clip_samples, form, half=target.precision == "fp16")
    with torch.no_grad():
        log_mel = built.log_mel(0.1 * torch.randn(1, clip_samples, generator=generator))
    network = prepare(built.network, log_mel)
    calibrate(network, [log_mel], CalibrationRecipe(observer="absmax"))
    return quantized_onnx(built, network, clip_samples, target.flavour, form)
