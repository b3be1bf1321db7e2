from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.config import QuantizeConfig
from edgekd.data.clip_store import ClipStore
from edgekd.errors import InputError, UsageError
from edgekd.experiments.thresholds import choose
from edgekd.models.weights import read_weights, save_weights
from edgekd.quantization import qat
from edgekd.quantization.int8_student import load_int8, quantized_network
from edgekd.quantization.prepare import QuantizedNetwork
from edgekd.quantization.qat import quantize
from edgekd.runs.predictions import read_predictions
from edgekd.runs.run import Run
from edgekd.runs.thresholds import BEST_F1, Aim, read_thresholds
from edgekd.scoring.probabilities import predict_probabilities
from edgekd.scoring.scores import score
from edgekd.training import outcome


@pytest.fixture(autouse=True)
def one_thread_and_no_pictures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, as the runs it is compared with; pictures take most of the time of a run this small."""
    monkeypatch.setattr(outcome, "plot_confusion", lambda *_: None)
    monkeypatch.setattr(outcome, "plot_curves", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Interrupted(Exception):
    pass


def interrupting(stage: str, done: int) -> Callable[..., None]:
    def progress(current: str, units: int, total: int, /, **_: float | str) -> None:
        if (current, units) == (stage, done):
            raise Interrupted

    return progress


def probabilities(run: Run, logits: Callable[[Tensor], Tensor]) -> Tensor:
    """On the test side, `(N, K)`."""
    data = run.open_data()
    return torch.from_numpy(predict_probabilities(logits, data.store, data.split.test))


def test_stored_scores_are_those_of_the_student_read_back(tiny_run: Run) -> None:
    student = load_int8(tiny_run)
    assert isinstance(student.network, QuantizedNetwork)
    assert not any(module.training for module in student.modules())
    data = tiny_run.open_data()
    index = data.index
    rows = data.split.test
    labels, groups = [index.clips[row].label for row in rows], [index.clips[row].group for row in rows]
    found = probabilities(tiny_run, lambda clips: student(clips).logits).numpy()
    stored = tiny_run.report()["test"]["int8"]
    scores = score(found, labels, groups, tiny_run.classes, tiny_run.config.seed)
    assert json.loads(json.dumps(scores.to_dict())) == stored


def test_the_int8_student_says_nearly_what_the_float_one_does(tiny_run: Run) -> None:
    """It was trained for some more epochs, so not exactly."""
    floating, rounded = tiny_run.student(), load_int8(tiny_run)
    difference = (
        probabilities(tiny_run, lambda clips: floating(clips).logits)
        - probabilities(tiny_run, lambda clips: rounded(clips).logits)
    ).abs()
    assert 0 < difference.mean() < 0.1
    test = tiny_run.report()["test"]
    assert abs(test["int8"]["accuracy"] - test["student"]["accuracy"]) <= 0.4  # 6 of 15 clips


def test_quantising_again_gives_the_same_student(tiny_copy: Run, tiny_run: Run) -> None:
    torch.manual_seed(123)
    quantize(tiny_copy)
    best = "int8/best.safetensors"
    assert (tiny_copy.folder / best).read_bytes() == (tiny_run.folder / best).read_bytes()
    assert tiny_copy.report()["test"]["int8"] == tiny_run.report()["test"]["int8"]
    assert (tiny_copy.folder / "student" / "best.safetensors").read_bytes() == (
        tiny_run.folder / "student" / "best.safetensors"
    ).read_bytes()


def test_other_settings_replace_the_student_and_are_recorded(tiny_copy: Run, tiny_run: Run) -> None:
    config = QuantizeConfig(epochs=1, frozen_epochs=0, learning_rate=1e-3)
    quantize(tiny_copy, config)
    assert tiny_copy.metrics().last_epoch("int8") == 1
    assert "learning_rate = 0.001" in (tiny_copy.folder / "int8" / "quantize.toml").read_text()
    best = "int8/best.safetensors"
    assert (tiny_copy.folder / best).read_bytes() != (tiny_run.folder / best).read_bytes()
    assert load_int8(tiny_copy).network is not None


def test_thresholds_are_chosen_again_for_what_they_were_chosen_for(tiny_copy: Run) -> None:
    aim = Aim(by="max-false-alarms", an_hour=500.0)
    choose(tiny_copy, aim)
    quantize(tiny_copy, QuantizeConfig(method="ptq"))
    found = read_thresholds(tiny_copy, "int8")
    assert found is not None and found.aim == aim
    (tiny_copy.folder / "student" / "thresholds.json").write_text("{")
    quantize(tiny_copy, QuantizeConfig(method="ptq"))
    found = read_thresholds(tiny_copy, "int8")
    assert found is not None and found.aim == BEST_F1


def test_scales_stand_still_in_the_last_epochs_and_the_teacher_teaches(
    tiny_copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales: list[list[Any]] = []
    norms: list[bool] = []
    set_frozen, fit = qat.set_frozen, qat.fit

    def watched_fit(stage: Any, *rest: Any) -> None:
        begin = stage.step.begin

        def watched(epoch: int) -> frozenset[str]:
            needs = begin(epoch)
            norms.append(stage.model.norm.training)
            buffers = stage.model.network.named_buffers()
            scales.append([buffer.tolist() for name, buffer in buffers if name.endswith(".scale")])
            return needs

        stage.step.begin = watched
        fit(stage, *rest)

    frozen: list[bool] = []
    monkeypatch.setattr(qat, "fit", watched_fit)
    monkeypatch.setattr(qat, "set_frozen", lambda network, on: frozen.append(on) or set_frozen(network, on))
    quantize(tiny_copy, QuantizeConfig(epochs=4, frozen_epochs=2))
    assert frozen[:4] == [False, False, True, True]
    assert norms == [False] * 4
    assert len(scales[0]) > 5
    assert scales[0] != scales[1] != scales[2], "scales are trained in the first epochs"
    assert scales[2] == scales[3]
    rows = [row for row in tiny_copy.metrics().rows if row["stage"] == "int8"]
    assert all(float(row["distillation"]) > 0 and float(row["structural"]) > 0 for row in rows)


def test_the_terms_go_on_from_the_weights_that_distillation_left(tiny_run: Run) -> None:
    rows = tiny_run.metrics().rows
    last = next(row for row in reversed(rows) if row["stage"] == "student")
    first = next(row for row in rows if row["stage"] == "int8")
    for term in ("classification", "statistical", "structural", "distillation"):
        assert float(first[f"weight_{term}"]) == pytest.approx(float(last[f"weight_{term}"]), rel=0.02)
        assert float(first[f"weight_{term}"]) != pytest.approx(1, rel=1e-3)


def test_an_interrupted_requantisation_is_not_taken_for_a_finished_one(tiny_copy: Run) -> None:
    """The scores of the student that was replaced are gone with it."""
    with pytest.raises(Interrupted):
        quantize(tiny_copy, progress=interrupting("int8", 1))
    with pytest.raises(InputError, match=r"was interrupted after epoch 1 of its int8 training\. First: .* --resume"):
        load_int8(tiny_copy)


def test_resuming_goes_on_with_the_settings_that_were_begun_with(tiny_copy: Run) -> None:
    config = QuantizeConfig(epochs=2, frozen_epochs=0, learning_rate=1e-3)
    with pytest.raises(Interrupted):
        quantize(tiny_copy, config, interrupting("int8", 1))
    quantize(tiny_copy, resume=True)
    assert tiny_copy.metrics().last_epoch("int8") == 2
    assert "learning_rate = 0.001" in (tiny_copy.folder / "int8" / "quantize.toml").read_text()


def test_an_unknown_recipe_leaves_the_int8_student_alone(tiny_copy: Run) -> None:
    with pytest.raises(UsageError, match="defalt"):
        quantize(tiny_copy, QuantizeConfig(recipe="defalt"))
    assert load_int8(tiny_copy).network is not None


def test_a_run_without_a_finished_student_cannot_be_quantised(tiny_copy: Run) -> None:
    report = tiny_copy.report()
    del report["test"]["student"]
    (tiny_copy.folder / "report.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"interrupted, after epoch 8 of 8 of the student.*--resume"):
        quantize(tiny_copy)
    assert (tiny_copy.folder / "int8" / "best.safetensors").is_file()


def test_a_state_holds_scales_and_folded_weights(tiny_run: Run) -> None:
    state = read_weights(tiny_run.folder / "int8" / "best.safetensors")
    assert "gain" in state
    assert any(name.endswith(".scale") for name in state)
    network = [name for name in state if name.startswith("network.")]
    assert not any("running_mean" in name for name in network), "batch norms are folded away"


def test_calibration_alone_needs_no_teacher_and_leaves_no_trace_of_training(tiny_copy: Run, tiny_run: Run) -> None:
    shutil.rmtree(tiny_copy.folder / "teacher")
    (tiny_copy.folder / "student" / "last.pt").unlink()
    quantize(tiny_copy, QuantizeConfig(method="ptq"))
    left = sorted(path.name for path in (tiny_copy.folder / "int8").iterdir())
    assert left == ["best.safetensors", "quantize.toml", "thresholds.json", "validation.csv"]
    assert tiny_copy.metrics().last_epoch("int8") == 0
    assert tiny_copy.metrics().last_epoch("student") == tiny_run.metrics().last_epoch("student")
    assert 'method = "ptq"' in (tiny_copy.folder / "int8" / "quantize.toml").read_text()
    assert tiny_copy.report()["training"]["int8"]["method"] == "ptq"

    floating, rounded = tiny_copy.student(), load_int8(tiny_copy)
    difference = (
        probabilities(tiny_copy, lambda clips: floating(clips).logits)
        - probabilities(tiny_copy, lambda clips: rounded(clips).logits)
    ).abs()
    assert 0 < difference.max() < 0.1  # only rounded
    said = read_predictions(tiny_copy.folder, "int8", tiny_copy.classes).probabilities
    found = probabilities(tiny_copy, lambda clips: rounded(clips).logits).numpy()
    np.testing.assert_allclose(found, said, atol=1e-5)


def test_a_calibrated_student_can_be_made_again_and_resumed(tiny_copy: Run) -> None:
    best = tiny_copy.folder / "int8" / "best.safetensors"
    quantize(tiny_copy, QuantizeConfig(method="ptq", recipe="fast"))
    once = best.read_bytes()
    quantize(tiny_copy, resume=True)
    assert best.read_bytes() == once
    assert 'recipe = "fast"' in (tiny_copy.folder / "int8" / "quantize.toml").read_text()
    quantize(tiny_copy, QuantizeConfig(epochs=1, frozen_epochs=0))
    assert tiny_copy.metrics().last_epoch("int8") == 1
    assert best.read_bytes() != once


def test_a_calibration_that_was_interrupted_says_how_to_go_on(tiny_copy: Run) -> None:
    with pytest.raises(Interrupted):
        quantize(tiny_copy, QuantizeConfig(method="ptq"), interrupting("test", 15))
    with pytest.raises(InputError, match=r"has no int8 student\. First: edgekd quantize .*/copy --ptq$"):
        load_int8(tiny_copy)


@pytest.mark.parametrize("method", ["ptq", "qat"])
def test_layers_kept_in_float_are_stored_and_read_back(tiny_copy: Run, method: Literal["ptq", "qat"]) -> None:
    kept = ("stem.0", "classifier")
    quantize(tiny_copy, QuantizeConfig(method=method, epochs=1, frozen_epochs=0, keep_float=kept))
    rounded = load_int8(tiny_copy)
    assert quantized_network(rounded).float_layers() == ["stem.0", "classifier"]
    said = read_predictions(tiny_copy.folder, "int8", tiny_copy.classes).probabilities
    found = probabilities(tiny_copy, lambda clips: rounded(clips).logits).numpy()
    np.testing.assert_allclose(found, said, atol=1e-5)
    classifier = "network.classifier.weight"
    stored = read_weights(tiny_copy.folder / "int8" / "best.safetensors")
    trained = not torch.equal(stored[classifier], tiny_copy.student().state_dict()[classifier])
    assert trained == (method == "qat")


def test_resuming_with_other_settings_is_refused(tiny_copy: Run) -> None:
    before = (tiny_copy.folder / "int8" / "best.safetensors").read_bytes()
    other = tiny_copy.config.quantize.model_copy(update={"learning_rate": 1e-3, "keep_float": ("stem.0",)})
    with pytest.raises(UsageError, match=r"but these differ: keep_float, learning_rate\. Leave them out"):
        quantize(tiny_copy, other, resume=True)
    assert (tiny_copy.folder / "int8" / "best.safetensors").read_bytes() == before
    quantize(tiny_copy, tiny_copy.config.quantize, resume=True)  # the same, spelled out


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (QuantizeConfig(keep_float=("stem",)), UsageError, r"Unknown layer 'stem'. Did you mean 'stem.0'"),
        (QuantizeConfig(recipe="fats"), UsageError, r"Unknown calibration recipe 'fats'. Did you mean 'fast'"),
    ],
)
def test_a_refusal_leaves_the_int8_student_there(
    tiny_copy: Run, config: QuantizeConfig, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        quantize(tiny_copy, config)
    assert load_int8(tiny_copy).network is not None


def test_training_clips_that_are_silent_are_refused_and_leave_the_int8_student(
    tiny_copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveforms = ClipStore.waveforms
    monkeypatch.setattr(ClipStore, "waveforms", lambda store, rows: torch.zeros_like(waveforms(store, rows)))
    with pytest.raises(InputError, match="Calibration heard only silence"):
        quantize(tiny_copy, QuantizeConfig(method="ptq"))
    monkeypatch.undo()
    assert load_int8(tiny_copy).network is not None


@pytest.mark.parametrize("name", ["network.blocks.1.1.0.weight", "norm.running_var"])
def test_a_student_with_nan_is_refused_with_the_name_of_the_layer(tiny_copy: Run, name: str) -> None:
    path = tiny_copy.folder / "student" / "best.safetensors"
    state = read_weights(path)
    state[name].view(-1)[0] = float("nan")
    save_weights(path, state)
    with pytest.raises(InputError, match=f"The student's '{name.removeprefix('network.')}' holds NaN or infinite"):
        quantize(tiny_copy)
