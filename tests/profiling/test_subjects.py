"""What a user names is found, runs where it was asked to, and is refused where it cannot be compared."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from edgekd.config import ProfileConfig
from edgekd.device import runner
from edgekd.errors import InputError, UsageError
from edgekd.exporting.manifest import Bundle
from edgekd.models.weights import read_weights, save_weights
from edgekd.profiling.accuracy import clips_of_run
from edgekd.profiling.backends import OnnxGraph
from edgekd.profiling.profiler import profile
from edgekd.profiling.subjects import Candidate, candidates
from edgekd.report.markdown import report_markdown
from edgekd.report.page import report_html
from edgekd.runs.run import Run
from edgekd.runs.thresholds import BEST_F1, ClassThreshold, Counts, Temperature, Thresholds, write_thresholds

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled


def find(*sources: Path, **settings: object) -> list[Candidate]:
    return candidates(list(sources), ProfileConfig.model_validate(settings))


def told(found: list[Candidate]) -> list[tuple[str, str, str]]:
    return [(one.name, one.role, one.model.backend) for one in found]


def test_a_run_is_its_teacher_and_both_students_as_they_ship(profiled: Profiled) -> None:
    assert told(find(profiled.run.folder)) == [
        ("teacher", "teacher", "torch"),
        ("student", "student", "onnxruntime"),
        ("int8", "int8", "onnxruntime"),
    ]


def test_a_student_is_measured_with_its_temperature_and_told_what_it_was_without(
    profiled: Profiled, tmp_path: Path
) -> None:
    run = Run.open(Path(shutil.copytree(profiled.run.folder, tmp_path / "run")))
    config = ProfileConfig(repetitions=10, seconds=0.2, batches=(1,), noise=None, memory=False, energy=False)
    found = {}
    for value in (1.0, 2.5):
        nothing = Counts(positives=0, found=0, false_alarms=0, other_hours=0)
        classes = {name: ClassThreshold(open=None, close=None, validation=nothing) for name in run.classes}
        temperature = Temperature(value=value, note="put in")
        kept = Thresholds(temperature=temperature, aim=BEST_F1, clips=0, hours=0.0, classes=classes)
        write_thresholds(run, "int8", kept)
        (subject,) = profile(run.folder / "int8", config).subjects
        assert subject.calibration is not None and subject.scores is not None
        assert subject.calibration.error == subject.scores.calibration_error
        assert subject.calibration.temperature == value
        found[value] = subject.calibration
    assert found[1.0].error_before is found[1.0].cross_entropy_before is None
    assert found[2.5].error_before == pytest.approx(found[1.0].error, abs=1e-3)
    assert found[2.5].cross_entropy_before == pytest.approx(found[1.0].cross_entropy, rel=1e-3)
    assert found[2.5].cross_entropy != pytest.approx(found[1.0].cross_entropy, rel=1e-2)


def test_a_teacher_without_a_head_is_timed_and_not_scored(profiled: Profiled, tmp_path: Path) -> None:
    run = Run.open(Path(shutil.copytree(profiled.run.folder, tmp_path / "run")))
    state = read_weights(run.weights("teacher"))
    save_weights(run.weights("teacher"), {name: each for name, each in state.items() if not name.startswith("head.")})
    run.update_report("training", {"teacher": {"name": "convnet", "scored": False}})
    run.warn("left out of the data: packed: unpack it (1: a.zip).")
    found = profile(
        run, ProfileConfig(repetitions=10, seconds=0.5, batches=(1,), noise=None, memory=False, energy=False)
    )
    teacher, student, _ = found.subjects
    assert (teacher.role, teacher.scores, found.baseline) == ("teacher", None, "teacher")
    assert teacher.latency.p50_ms > 0
    assert student.scores is not None and student.versus is not None
    assert student.versus.accuracy is None and student.versus.speedup is not None
    assert "accuracy" not in found.verdict[0] and "faster" in found.verdict[0]
    words = "has no head for these classes: it was timed, and not scored."
    assert [note for note in found.notes if note.endswith(words)]
    assert words in report_html(found) and words in report_markdown(found)
    warned = f"{run.folder}: left out of the data: packed: unpack it (1: a.zip)."
    assert warned in found.notes, "what training warned of"
    assert "packed: unpack it (1: a.zip)." in report_html(found)


def test_one_part_of_a_run_can_be_named(profiled: Profiled) -> None:
    assert told(find(profiled.run.folder / "int8")) == [("int8", "int8", "onnxruntime")]


def test_back_ends_stand_side_by_side_and_agree(profiled: Profiled) -> None:
    found = find(profiled.run.folder, backends=("onnxruntime", "torch"))
    assert [one.name for one in found] == ["teacher", "student, onnxruntime", "student, torch", "int8"]
    clips = clips_of_run(profiled.run)
    waveforms = clips.store.waveforms(clips.rows)
    in_onnxruntime, in_torch = (one.model.classify(waveforms) for one in found[1:3])
    torch.testing.assert_close(in_onnxruntime, in_torch, atol=1e-4, rtol=0)


def test_a_back_end_that_runs_none_of_them_is_named(profiled: Profiled) -> None:
    found = find(profiled.run.folder / "student", backends=("torch", "tensorrt-rtx"))
    assert [one.model.backend for one in found] == ["torch"]
    assert [note for note in found[0].notes if "--backend tensorrt-rtx runs none of these" in note]
    assert not any("--backend torch " in note for note in found[0].notes)


@pytest.mark.slow
def test_a_compiled_student_agrees(profiled: Profiled) -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU, and there is none")
    (eager,), (compiled,) = (
        find(profiled.run.folder / "student", backends=(name,)) for name in ("torch", "torch-compiled")
    )
    example = clips_of_run(profiled.run).first()
    torch.testing.assert_close(compiled.model.classify(example), eager.model.classify(example), atol=1e-4, rtol=0)
    assert set(compiled.model.timers(example)) == {"whole"}
    assert "compiled" in compiled.model.runtime


def test_runs_beside_each_other_have_names_of_their_own(profiled: Profiled, tmp_path: Path) -> None:
    other = Path(shutil.copytree(profiled.run.folder, tmp_path / "other"))
    names = [one.name for one in find(profiled.run.folder / "int8", other / "int8")]
    assert names == ["run/int8", "other/int8"]
    names = [one.name for one in find(profiled.run.folder / "int8", profiled.run.folder / "int8")]
    assert names == ["int8, onnxruntime 1", "int8, onnxruntime 2"]


def test_runs_are_scored_on_the_clips_that_both_test(profiled: Profiled, tmp_path: Path) -> None:
    other = Path(shutil.copytree(profiled.run.folder, tmp_path / "other"))
    splits = (other / "splits.csv").read_text().splitlines()
    place = next(number for number, line in enumerate(splits) if ",test" in line)
    splits[place] = splits[place].replace(",test", ",train")
    (other / "splits.csv").write_text("\n".join(splits) + "\n")
    first, second = find(profiled.run.folder / "student", other / "student")
    assert len(first.clips.rows) == len(second.clips.rows) == len(clips_of_run(profiled.run).rows) - 1
    assert first.clips.digest == second.clips.digest
    assert "on the test side of every run" in first.notes[0]


def test_a_bundle_is_scored_on_the_test_side_of_its_run(profiled: Profiled, bundle: Bundle) -> None:
    (found,) = find(bundle.folder)
    assert (found.name, found.kind, found.role) == ("bundle", "bundle", "int8")
    assert found.clips.digest == clips_of_run(profiled.run).digest
    assert any("no engine has been built" in note for note in found.notes)


def changed(bundle: Bundle, folder: Path, section: str, **values: str) -> Path:
    """A copy of a bundle whose manifest says something else of itself."""
    shutil.copytree(bundle.folder, folder)
    contents = json.loads((folder / "manifest.json").read_text())
    contents[section] |= values
    contents["sha256"] = runner.manifest_digest(contents)
    (folder / "manifest.json").write_text(json.dumps(contents))
    return folder


def test_a_bundle_far_from_its_run_is_scored_on_its_golden_examples(bundle: Bundle, tmp_path: Path) -> None:
    (found,) = find(changed(bundle, tmp_path / "far", "provenance", run=str(tmp_path / "gone")))
    assert found.clips.golden is not None
    assert len(found.clips.rows) == 6
    assert any("no such run folder" in note for note in found.notes)


def test_a_bundle_whose_run_is_gone_joins_the_others_with_a_warning(
    profiled: Profiled, bundle: Bundle, tmp_path: Path
) -> None:
    far = changed(bundle, tmp_path / "far", "provenance", run=str(tmp_path / "gone"))
    student, alone = find(profiled.run.folder / "student", far)
    assert alone.clips.digest == student.clips.digest
    assert any("may have been trained on clips that it was scored on" in note for note in alone.notes)
    assert not any("golden" in note for note in alone.notes)


def test_a_bundle_for_another_architecture_says_whose_times_these_are(bundle: Bundle, tmp_path: Path) -> None:
    here = platform.machine()
    for architecture in ("x86_64", "aarch64"):
        folder = changed(bundle, tmp_path / architecture, "target", architecture=architecture)
        (found,) = find(folder)
        notes = [note for note in found.notes if architecture in note and f"this machine ({here})" in note]
        assert [note.endswith("Times there: --host USER@DEVICE.") for note in notes] == [True] * (architecture != here)


def test_a_graph_alone_is_timed_and_beside_its_run_scored(profiled: Profiled, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(profiled.graphs["student"])
    (alone,) = find(path)
    assert (alone.name, alone.role, alone.clips) == ("mine", "model", None)
    assert alone.samples == clips_of_run(profiled.run).samples
    _, beside = find(profiled.run.folder / "int8", path)
    assert beside.clips.digest == clips_of_run(profiled.run).digest
    assert "does not say which clips it was trained on" in beside.notes[0]


def test_a_graph_that_fits_nothing_is_refused(profiled: Profiled, tmp_path: Path) -> None:
    float32 = onnx.TensorProto.FLOAT

    def written(name: str, samples: int, classes: int) -> Path:
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("MatMul", ["waveform", "weight"], ["scores"])],
            "g",
            [onnx.helper.make_tensor_value_info("waveform", float32, ["batch", samples])],
            [onnx.helper.make_tensor_value_info("scores", float32, ["batch", classes])],
            [onnx.numpy_helper.from_array(np.ones((samples, classes), np.float32), "weight")],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    (tmp_path / "text.onnx").write_text("no graph")
    samples = clips_of_run(profiled.run).samples
    student = profiled.run.folder / "student"
    for path, words in (
        (written("classes.onnx", samples, 5), "5 classes"),
        (written("samples.onnx", 7, 3), "hears 7 samples"),
        (tmp_path / "text.onnx", "not an ONNX file"),
        (tmp_path / "absent.onnx", "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            find(student, path)


def test_an_engine_wants_its_run_beside_it_and_tensorrt(profiled: Profiled, tmp_path: Path) -> None:
    path = tmp_path / "mine.engine"
    path.write_bytes(b"plan")
    with pytest.raises(InputError, match="Name the RUN or BUNDLE it is of beside it"):
        find(path)
    if shutil.which("trtexec") is None:
        with pytest.raises(InputError, match="TensorRT"):
            find(profiled.run.folder / "student", path)


def test_a_run_without_a_test_side_is_refused(profiled: Profiled, tmp_path: Path) -> None:
    other = Path(shutil.copytree(profiled.run.folder, tmp_path / "other"))
    splits = (other / "splits.csv").read_text()
    (other / "splits.csv").write_text(splits.replace(",test", ",train"))
    with pytest.raises(InputError, match="no clip is on the test side"):
        find(other)


def test_an_unfinished_run_is_refused(profiled: Profiled, tmp_path: Path) -> None:
    other = Path(shutil.copytree(profiled.run.folder, tmp_path / "other"))
    (other / "report.json").unlink()
    with pytest.raises(InputError, match="interrupted"):
        find(other)


def test_what_this_machine_lacks_is_refused(profiled: Profiled) -> None:
    with pytest.raises(UsageError, match="Unknown execution provider of the onnxruntime here 'CUDAExecutionProvide'"):
        find(profiled.run.folder / "student", provider="CUDAExecutionProvide")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            find(profiled.run.folder / "student", device="cuda")


def test_a_graph_in_one_piece_is_timed_as_a_whole_only(profiled: Profiled) -> None:
    """A second logarithm leaves no single place to cut at."""
    model = onnx.load_from_string(profiled.graphs["student"])
    last = model.graph.output[0].name
    (producer,) = (node for node in model.graph.node if last in node.output)
    producer.output[0] = "almost"
    model.graph.node.append(onnx.helper.make_node("Log", ["almost"], ["logarithm"]))
    model.graph.node.append(onnx.helper.make_node("Exp", ["logarithm"], [last]))
    example = clips_of_run(profiled.run).first()
    whole, parted = (OnnxGraph(graph, "float32") for graph in (model.SerializeToString(), profiled.graphs["student"]))
    assert set(whole.timers(example)) == {"whole"}
    assert set(parted.timers(example)) == {"whole", "front end", "network"}
    cost, known = whole.cost(example), parted.cost(example)
    assert cost.frontend_macs is None
    assert cost.macs == known.macs + known.frontend_macs


def test_a_bundle_whose_run_is_now_another_is_not_scored_on_that(
    profiled: Profiled, bundle: Bundle, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(profiled.run.folder, tmp_path / "run"))
    (other / "classes.json").write_text('["a", "b", "c"]')
    (found,) = find(changed(bundle, tmp_path / "bundle", "provenance", run=str(other)))
    assert found.clips.golden is not None
    assert "now another run" in found.clips.golden


def test_a_back_end_that_nobody_has_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown back end 'tensort'. Did you mean 'tensorrt'\?.*torch-compiled"):
        find(tmp_path / "nowhere", backends=("tensort",))
