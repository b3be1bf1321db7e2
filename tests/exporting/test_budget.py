"""Budgets: figures of real graphs, refusals with the figure, and the student that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from edgekd.config import FrontendConfig
from edgekd.errors import GateError
from edgekd.exporting.budget import UNITS, WIDTHS, Figures, Sized, check_budget, figures_of, other_students
from edgekd.exporting.cost import graph_cost, split_at_log_mel
from edgekd.exporting.deployable import Deployable
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.targets import Budget, Target, load_target
from edgekd.models.build import cut_front_end

if TYPE_CHECKING:
    from tests.exporting.conftest import Exported

OWN: Sized = ("own", 1.0)
SMALL = Figures(model_bytes=50_000, parameters=5_000, macs=1_000_000, activation_bytes=20_000)
MIDDLE = Figures(model_bytes=100_000, parameters=9_000, macs=2_000_000, activation_bytes=40_000)


def limited(**limits: int) -> Target:
    return load_target("cpu").model_copy(update={"budget": Budget(**limits)})


def small_students(target: Target, width: float = 0.5) -> dict[Sized, Figures]:
    """The students of the house at the settings of `exported`, in one width where they come in sizes."""
    frontend = FrontendConfig(n_fft=128, hop_length=64, n_mels=16, f_min=20, f_max=2000)
    return other_students(("own", 1.0), 5, frontend, 4000, 2000, target, widths=(width,))


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


def test_a_student_within_its_budget_passes_without_a_look_at_others(exported: Exported) -> None:
    needed = figures_of(exported.int8["onnxruntime"])
    check_budget(needed, OWN, load_target("cpu"), lambda: pytest.fail("looked"))
    at_the_limit = {name: getattr(needed, name) for name in Budget.model_fields}
    check_budget(needed, OWN, limited(**at_the_limit), lambda: pytest.fail("looked"))


@pytest.mark.parametrize("name", list(Budget.model_fields))
def test_each_budget_refuses_with_the_figure_and_the_largest_student_that_fits(exported: Exported, name: str) -> None:
    figures = figures_of(exported.int8["onnxruntime"])
    needed = getattr(figures, name)
    fits = {
        ("small", 1.0): replace(SMALL, **{name: needed - 9}),
        ("middle", 0.5): replace(MIDDLE, **{name: needed - 2}),
    }
    too_large = {("large", 1.0): replace(MIDDLE, **{name: needed, "macs": 3_000_000 if name != "macs" else needed})}
    with pytest.raises(GateError) as refusal:
        check_budget(figures, ("hltdnn_ds", 0.75), limited(**{name: needed - 1}), lambda: {**fits, **too_large})
    line = str(refusal.value)
    assert line.startswith("Student 'hltdnn_ds x0.75' is over the budget of target 'cpu': ")
    assert f"{needed:,} {UNITS[name]}, {needed - 1:,} allowed ({name})" in line
    fitting = f"'middle x0.5' fits ({needed - 2:,} {UNITS[name]})"
    assert f"{fitting}: edgekd distill --student middle --width 0.5." in line
    assert "\n" not in line


def test_a_cut_with_fewer_channels_goes_before_larger_students_from_nothing() -> None:
    cut, limits = ("yamnet-cut5", 1.0), limited(parameters=SMALL.parameters)
    others = {("yamnet-cut5", 0.9): replace(SMALL, macs=2), ("yamnet-cut5", 0.8): replace(SMALL, macs=1)}
    needed = replace(SMALL, parameters=SMALL.parameters + 1)
    with pytest.raises(GateError, match=r"edgekd distill --student yamnet-cut5 --width 0\.9\.$"):
        check_budget(needed, cut, limits, lambda: {**others, ("large", 1.0): SMALL})


def test_the_command_starts_from_the_settings_of_the_run(tmp_path: Path) -> None:
    others, settings = {("small", 1.0): SMALL}, tmp_path / "a run" / "config.toml"
    needed = replace(SMALL, parameters=SMALL.parameters + 1)
    with pytest.raises(GateError, match=rf"distill --config '{settings}' --student small --width 1\.$"):
        check_budget(needed, OWN, limited(parameters=SMALL.parameters), lambda: others, settings)


def test_where_none_fits_the_smallest_says_what_it_takes() -> None:
    target = limited(model_bytes=1_000)
    others = {("middle", 1.0): MIDDLE, ("small", 1.0): SMALL}
    with pytest.raises(GateError, match=r"No other student fits: the smallest, 'small', takes 50,000 bytes of model"):
        check_budget(SMALL, OWN, target, lambda: others)
    with pytest.raises(GateError, match=r"No other student fits: there is none\..*frontend = 'external'"):
        check_budget(SMALL, OWN, target, dict)


def test_a_log_mel_outside_is_not_offered_to_a_runtime_that_takes_none() -> None:
    target = load_target("host-c").model_copy(update={"budget": Budget(model_bytes=1_000)})
    with pytest.raises(GateError, match=r"Raise the budget in a copy of the target's TOML\.$"):
        check_budget(SMALL, OWN, target, dict)


def test_other_students_and_widths_are_really_exported(exported: Exported) -> None:
    needed = figures_of(exported.float32)
    target = limited(activation_bytes=needed.activation_bytes - 1).model_copy(update={"frontend": "external"})
    # Of the three, hltdnn cannot be fed with 16 mel bins: no crash.
    with pytest.raises(GateError, match=r"'own' is over .* bytes live, .*'hltdnn_ds x0.5' fits .* --width 0\.5\."):
        check_budget(needed, OWN, target, lambda: small_students(target))


class Weighed(OnnxRuntime):
    """Counts what is exported, and exports nothing."""

    def __init__(self) -> None:
        self.sizes: list[Sized] = []

    def emit(self, deployables: Mapping[str, Deployable], *_: object) -> dict[str, bytes]:
        ((precision, deployable),) = deployables.items()
        assert precision == deployable.precision == "int8"
        self.sizes.append((deployable.student.name, deployable.student.width))
        return {}

    def figures(self, *_: object) -> Figures:
        return SMALL


def test_other_widths_of_the_same_student_are_tried_and_progress_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed, steps = Weighed(), []
    monkeypatch.setitem(RUNTIMES, "onnxruntime", weighed)
    frontend = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_min=20, f_max=2000)
    target, refused = load_target("cpu"), ("hltdnn_ds", 0.6)
    found = other_students(refused, 5, frontend, 4000, 4000, target, progress=lambda *step, **_: steps.append(step))
    expected = [("hltdnn", 1.0), *((name, width) for name in ("hltdnn_ds", "hltdnn_micro") for width in WIDTHS)]
    assert list(found) == weighed.sizes == expected
    assert steps == [("other students", done, 9) for done in range(10)]
    weighed.sizes.clear()
    yamnet = cut_front_end("yamnet-cut2").at(16_000)
    other_students(("yamnet-cut2", 0.65), 5, yamnet, 16_000, 16_000, target, widths=())
    assert weighed.sizes == [("hltdnn", 1.0), *(("yamnet-cut2", width) for width in (0.6, 0.5, 0.4, 0.3))]
    weighed.sizes.clear()
    other_students(("hltdnn_ds", WIDTHS[0]), 5, frontend, 4000, 4000, target)
    assert weighed.sizes == [size for size in expected if size != ("hltdnn_ds", WIDTHS[0])]
