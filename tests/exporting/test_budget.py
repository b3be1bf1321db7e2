"""Budgets: figures of real graphs, refusals with the figure, and the student that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
import pytest

from edgekd.config import FrontendConfig
from edgekd.errors import GateError
from edgekd.exporting import budget
from edgekd.exporting.budget import Figures, check_budget, figures_of
from edgekd.exporting.cost import graph_cost, split_at_log_mel
from edgekd.exporting.targets import Budget, Target, load_target

if TYPE_CHECKING:
    from tests.export.conftest import Exported

SMALL = Figures(model_bytes=50_000, parameters=5_000, macs=1_000_000, activation_bytes=20_000)
MIDDLE = Figures(model_bytes=100_000, parameters=9_000, macs=2_000_000, activation_bytes=40_000)


def limited(**limits: int) -> Target:
    return load_target("cpu").model_copy(update={"budget": Budget(**limits)})


def check(model: bytes, target: Target, student: str = "own", width: float = 1.0) -> None:
    check_budget(
        model,
        target,
        student=student,
        width=width,
        num_classes=5,
        frontend=FrontendConfig(n_fft=128, hop_length=64, n_mels=16, f_min=20, f_max=2000),
        sample_rate=4000,
        clip_samples=2000,
    )


def test_file_and_activations_are_the_graphs_parameters_and_macs_its_networks(exported: Exported) -> None:
    model = exported.int8["onnxruntime"]
    found = figures_of(model)
    parts = split_at_log_mel(onnx.load_from_string(model))
    assert parts is not None
    network = graph_cost(parts[1])
    assert found.model_bytes == len(model)
    assert (found.parameters, found.macs) == (network.parameters, network.macs)
    assert found.activation_bytes >= 4 * exported.waveforms.shape[1]


def test_int8_needs_less_of_everything_but_macs(exported: Exported) -> None:
    # The rest of the file is the front end and the names, the same in both.
    whole, rounded = figures_of(exported.float32), figures_of(exported.int8["onnxruntime"])
    assert rounded.macs == whole.macs
    assert rounded.activation_bytes <= whole.activation_bytes


def test_a_student_within_its_budget_passes_without_a_look_at_others(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_other_students", lambda *_: pytest.fail("looked"))
    model = exported.int8["onnxruntime"]
    found = figures_of(model)
    check(model, load_target("cpu"))
    check(model, limited(**{name: getattr(found, name) for name in Budget.model_fields}))  # at the limit is within


@pytest.mark.parametrize("name", list(Budget.model_fields))
def test_each_budget_refuses_with_the_figure_and_the_largest_student_that_fits(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = exported.int8["onnxruntime"]
    needed = getattr(figures_of(model), name)
    fits = {
        ("small", 1.0): replace(SMALL, **{name: needed - 9}),
        ("middle", 0.5): replace(MIDDLE, **{name: needed - 2}),
    }
    too_large = {("large", 1.0): replace(MIDDLE, **{name: needed, "macs": 3_000_000 if name != "macs" else needed})}
    monkeypatch.setattr(budget, "_other_students", lambda *_: {**fits, **too_large})
    with pytest.raises(GateError) as refusal:
        check(model, limited(**{name: needed - 1}))
    line = str(refusal.value)
    assert f"{needed:,} {budget.UNITS[name]}, {needed - 1:,} allowed ({name})" in line
    fitting = f"'middle x0.5' fits ({needed - 2:,} {budget.UNITS[name]})"
    assert f"{fitting}: edgekd distill --student middle --width 0.5." in line
    assert "\n" not in line


def test_where_none_fits_the_smallest_says_what_it_takes(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_other_students", lambda *_: {("middle", 1.0): MIDDLE, ("small", 1.0): SMALL})
    with pytest.raises(GateError, match=r"No other student fits: the smallest, 'small', takes 50,000 bytes of model"):
        check(exported.float32, limited(model_bytes=1_000))
    monkeypatch.setattr(budget, "_other_students", lambda *_: {})
    with pytest.raises(GateError, match=r"No other student fits: there is none\..*frontend = 'external'"):
        check(exported.float32, limited(model_bytes=1_000))


def test_other_students_and_widths_are_really_exported(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = figures_of(exported.float32).activation_bytes - 1
    target = limited(activation_bytes=limit).model_copy(update={"frontend": "external"})
    monkeypatch.setattr(budget, "WIDTHS", (0.5,))
    # Of the three, hltdnn cannot be fed with 16 mel bins: no crash.
    with pytest.raises(GateError, match=r"'own' is over .* bytes live, .*'hltdnn_ds x0.5' fits .* --width 0\.5\."):
        check(exported.float32, target)


def test_the_refused_width_is_named_and_others_of_the_same_student_are_tried(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[budget.Sized] = []

    def untrained(other: budget.Sized, *settings: object) -> bytes:
        tried.append(other)
        return exported.float32

    monkeypatch.setattr(budget, "untrained", untrained)
    model = exported.int8["onnxruntime"]
    with pytest.raises(GateError, match=r"Student 'hltdnn_ds x0.75' is over"):
        check(model, limited(model_bytes=1_000), student="hltdnn_ds", width=0.75)
    assert tried == [("hltdnn", 1.0), ("hltdnn_ds", 1.0), ("hltdnn_ds", 0.5)] + [
        ("hltdnn_micro", width) for width in budget.WIDTHS
    ]
