from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgekd.errors import GateError, InputError, UsageError
from edgekd.quantization.calibration import load_recipe
from edgekd.quantization.int8_student import load_int8
from edgekd.quantization.qat import calibrated_network
from edgekd.quantization.sensitivity import LayerSensitivity, Loss, Sensitivity, auto_mixed, sensitivity, sqnr
from edgekd.runs.run import Run

module = sys.modules["edgekd.quantization.sensitivity"]  # `edgekd.quantization.sensitivity` is the function


def contents(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


class Table:
    """Stands in for the bench of a run: what is lost is looked up."""

    clips = 80

    def __init__(self, drop: Callable[[set[str]], float]) -> None:
        self._drop = drop

    def loss(self, keep_float: tuple[str, ...] | list[str]) -> Loss:
        return Loss(self._drop(set(keep_float)), 30.0)


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch, tiny_run: Run) -> Callable[..., object]:
    """`auto_mixed` on layers a, b, c, d, ranked in this order, where `drop(kept)` points are lost."""

    def choose(max_drop: float, drop: Callable[[set[str]], float]) -> object:
        none = Loss(0.0, 30.0)
        ranked = Sensitivity("default", 80, 0.9, none, tuple(LayerSensitivity(n, 1, none, none) for n in "abcd"))
        monkeypatch.setattr(module, "_Bench", lambda *_: Table(drop))
        monkeypatch.setattr(module, "_rank", lambda *_: ranked)
        return auto_mixed(tiny_run, max_drop)

    return choose


def test_sensitivity_is_what_keeping_the_other_layers_in_float_loses(tiny_copy: Run) -> None:
    """The switched quantisers against networks that are prepared and calibrated anew."""
    before = contents(tiny_copy.folder)
    found = sensitivity(tiny_copy)
    after = contents(tiny_copy.folder)
    new = {str(tiny_copy.folder / name) for name in ("int8-sensitivity.json", "int8-sensitivity.png")}
    assert set(after) - set(before) == new
    assert {name: after[name] for name in before} == before, "nothing else is touched"
    assert (tiny_copy.folder / "int8-sensitivity.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((tiny_copy.folder / "int8-sensitivity.json").read_text())
    assert stored == json.loads(json.dumps(found.to_dict()))

    data = tiny_copy.open_data()
    index = data.index
    split, store, student = data.split, data.store, tiny_copy.student()
    labels = torch.tensor([index.labels[row] for row in split.validation])
    with torch.no_grad():
        heard = student.log_mel(store.waveforms(split.validation))
        expected = student.network(heard)[0]
    assert found.clips == len(labels)
    assert found.float_accuracy == pytest.approx((expected.argmax(1) == labels).float().mean().item())

    def measured(keep_float: list[str]) -> tuple[float, float]:
        recipe, seed = load_recipe("default"), tiny_copy.config.seed
        network = calibrated_network(student, data, recipe, seed, keep_float)
        with torch.no_grad():
            logits: Tensor = network(heard)[0]
        lost = int((expected.argmax(1) == labels).sum() - (logits.argmax(1) == labels).sum())
        return 100 * lost / len(labels), sqnr(expected, logits)

    names = [layer.layer for layer in found.layers]
    assert len(names) == len(load_int8(tiny_copy).network.layers()) == 14  # type: ignore[operator]
    for layer in (found.layers[0], found.layers[-1]):
        drop, noise = measured([layer.layer])
        assert (layer.spared.drop, layer.spared.sqnr_db) == (pytest.approx(drop), pytest.approx(noise, abs=0.1))
        drop, noise = measured([name for name in names if name != layer.layer])
        assert (layer.alone.drop, layer.alone.sqnr_db) == (pytest.approx(drop), pytest.approx(noise, abs=0.1))
    drop, noise = measured([])
    assert (found.all_int8.drop, found.all_int8.sqnr_db) == (pytest.approx(drop), pytest.approx(noise, abs=0.1))
    keys = [(-max(layer.alone.drop, 0), layer.alone.sqnr_db) for layer in found.layers]
    assert keys == sorted(keys)
    assert all(layer.alone.sqnr_db > found.all_int8.sqnr_db for layer in found.layers)


def test_no_layer_is_left_in_float_where_the_drop_is_small_enough(choose: Callable) -> None:
    assert choose(0.5, lambda kept: 0.5).keep_float == ()


def test_layers_are_left_in_float_in_the_order_of_the_ranking_until_the_drop_is_allowed(choose: Callable) -> None:
    mixed = choose(0.5, lambda kept: 3.0 - ("a" in kept) - 1.5 * ("b" in kept))
    assert mixed.keep_float == ("a", "b")
    assert (mixed.all_int8.drop, mixed.loss.drop) == (3.0, 0.5)
    assert [(step.layer, step.kept, step.loss.drop) for step in mixed.steps] == [("a", True, 2.0), ("b", True, 0.5)]


def test_a_layer_that_turns_out_to_be_needless_is_taken_back(choose: Callable) -> None:
    mixed = choose(0.5, lambda kept: 0.0 if {"a", "c"} <= kept else 2.0)
    assert mixed.keep_float == ("a", "c")
    assert [(step.layer, step.kept) for step in mixed.steps] == [("a", True), ("b", True), ("c", True), ("b", False)]
    assert choose(0.5, lambda kept: 0.0 if "c" in kept else 2.0).keep_float == ("c",)


def test_a_drop_that_no_choice_avoids_is_refused_with_the_figure(choose: Callable) -> None:
    with pytest.raises(GateError, match=r"with one layer left in int8 the drop is still 4.00 points, above 0.5, on 80"):
        choose(0.5, lambda kept: 4.0)
    with pytest.raises(GateError):
        choose(0.5, lambda kept: 0.0 if "d" in kept else 4.0)  # a, b, c and d: none would be left


def test_a_choice_on_a_real_run_keeps_its_promise(tiny_run: Run) -> None:
    mixed = auto_mixed(tiny_run, 100.0)
    assert mixed.keep_float == ()
    assert mixed.loss == mixed.all_int8
    assert mixed.steps == ()


def test_a_run_without_validation_clips_is_refused(tiny_copy: Run) -> None:
    splits = tiny_copy.folder / "splits.csv"
    splits.write_text(splits.read_text().replace(",validation", ",train"))
    with pytest.raises(InputError, match="no validation clips to measure on"):
        sensitivity(tiny_copy)


def test_an_unknown_recipe_is_refused(tiny_run: Run) -> None:
    with pytest.raises(UsageError, match=r"Unknown calibration recipe 'thorouh'. Did you mean 'thorough'"):
        sensitivity(tiny_run, "thorouh")


def test_sqnr_is_in_decibels_and_finite() -> None:
    expected = torch.tensor([[3.0, 4.0]])
    assert sqnr(expected, expected + torch.tensor([[0.3, -0.4]])) == pytest.approx(20)
    assert sqnr(expected, expected) == 120
