"""The whole room on a small real run, and on a bundle of it with and without that run at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from edgekd.errors import InputError
from edgekd.export.bundle import Bundle, Classifier, Findings, GoldenExamples, Parity, Provenance, write_bundle
from edgekd.export.targets import load_target
from edgekd.export.verify import session
from edgekd.models.weights import read_weights
from edgekd.profiling import Profile, profile, report
from edgekd.profiling.accuracy import clips_of_run
from edgekd.training.run import Run

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled


def test_teacher_and_both_students_stand_side_by_side(profiled: Profiled) -> None:
    rows = profiled.profile.rows()
    assert [row["subject"] for row in rows] == ["teacher", "student", "int8"]
    assert [row["architecture"] for row in rows] == ["convnet", "hltdnn_ds", "hltdnn_ds"]
    assert [str(row["runtime"]).partition(" ")[0] for row in rows] == ["PyTorch", "ONNX", "ONNX"]
    for row in rows:
        assert (
            0 <= float(row["accuracy_low"] or 0) <= float(row["accuracy"] or 0) <= float(row["accuracy_high"] or 0) <= 1
        )
        assert row["real_time_factor"] == pytest.approx(float(row["p50_ms"] or 0) / 500, abs=1e-6)


def test_sizes_are_those_of_the_files(profiled: Profiled) -> None:
    teacher, student, int8 = (subject.cost for subject in profiled.profile.subjects)
    assert teacher.file_bytes == (profiled.run.folder / "teacher" / "best.safetensors").stat().st_size
    assert student.file_bytes == len(profiled.graphs["student"])
    assert int8.file_bytes == len(profiled.graphs["int8"]) < student.file_bytes
    assert student.macs == int8.macs
    assert teacher.macs > student.macs
    weights = read_weights(profiled.run.folder / "student" / "best.safetensors")
    learned = [
        name for name in weights if name.startswith("network.") and "running" not in name and "num_b" not in name
    ]
    assert student.parameters == sum(weights[name].numel() for name in learned)


def test_both_parts_of_a_student_are_timed(profiled: Profiled) -> None:
    for subject in profiled.profile.subjects:
        assert subject.frontend_ms is not None
        assert subject.network_ms is not None
        assert subject.frontend_ms > 0
        assert subject.latency.repetitions == 10


def test_the_profile_is_in_the_report_of_the_run(profiled: Profiled) -> None:
    contents = json.loads((profiled.run.folder / "report.json").read_text())
    assert contents["profile"] == json.loads(json.dumps(profiled.profile.to_dict()))
    assert contents["profile"]["version"] == 1
    assert contents["profile"]["subjects"]["int8"]["scores"]["clips"] == contents["test"]["int8"]["clips"]


def test_a_run_without_a_student_is_an_input_error(profiled: Profiled, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    shutil.copytree(profiled.run.folder, unfinished)
    (unfinished / "report.json").unlink()
    with pytest.raises(InputError, match="interrupted"):
        profile(Run.open(unfinished))


@pytest.fixture(scope="module")
def bundle(profiled: Profiled, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What export makes of the run, from the int8 graph that was profiled."""
    run, graph = profiled.run, profiled.graphs["int8"]
    clips = clips_of_run(run)
    rows = clips.rows[:6]
    waveforms = clips.store.waveforms(rows).numpy()
    scale = np.abs(waveforms).max(axis=1).astype(np.float32)
    integers = np.round(waveforms / scale[:, None] * 32767).astype(np.int16)
    exact = integers * scale[:, None] / np.float32(32767)
    data = run.config.data
    return write_bundle(
        tmp_path_factory.mktemp("bundle") / "bundle",
        {"int8": graph},
        classifier=Classifier(
            student="hltdnn_ds",
            classes=run.classes,
            sample_rate=data.sample_rate,
            clip_samples=waveforms.shape[1],
            padding=data.padding,
            frontend=run.config.frontend,
            gain=1.0,
        ),
        provenance=Provenance(run=str(run.folder), dataset="folder", fold=None, seed=0, test_accuracy=None),
        findings=Findings(Parity(clips=64, agreement=1.0, largest_difference=0.0)),
        golden=GoldenExamples(
            waveform=integers,
            scale=scale,
            probabilities=session(graph).run(None, {"waveform": exact.astype(np.float32)})[0],
            labels=np.array(clips.labels[:6], dtype=np.int64),
        ),
        target=load_target("jetson"),
    )


def subject_of(profile: Profile) -> dict[str, str | int | float | None]:
    (row,) = profile.rows()
    return row


def test_a_bundle_is_scored_on_the_test_side_of_its_run(profiled: Profiled, bundle: Bundle) -> None:
    measured = profile(bundle)
    row, of_run = subject_of(measured), profiled.profile.rows()[-1]
    for figure in ("subject", "accuracy", "macro_f1", "parameters", "macs", "frontend_macs", "file_bytes"):
        assert row[figure] == of_run[figure], figure
    assert measured.subjects[0].cost.file_bytes == (bundle.folder / "model.onnx").stat().st_size
    assert any("bench" in note for note in measured.notes)  # a Jetson's times are not this machine's


def test_a_bundle_far_from_its_run_is_scored_on_its_golden_examples(
    bundle: Bundle, profiled: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(folder: Path) -> Run:
        raise InputError(f"{folder}: no such run folder.")

    monkeypatch.setattr(Run, "open", missing)
    measured = profile(bundle)
    assert measured.subjects[0].scores.clips == 6
    assert "golden" in measured.clips
    assert any("no such run folder" in note for note in measured.notes)


def test_profiling_leaves_a_bundle_as_it_is(bundle: Bundle) -> None:
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    profile(bundle)
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before


def test_a_graph_in_one_piece_is_timed_as_a_whole_only(profiled: Profiled) -> None:
    """A second logarithm leaves no single place to cut at."""
    model = onnx.load_from_string(profiled.graphs["student"])
    last = model.graph.output[0].name
    (producer,) = (node for node in model.graph.node if last in node.output)
    producer.output[0] = "almost"
    model.graph.node.append(onnx.helper.make_node("Log", ["almost"], ["logarithm"]))
    model.graph.node.append(onnx.helper.make_node("Exp", ["logarithm"], [last]))
    example = clips_of_run(profiled.run).first()
    subject = report._graph_subject("whole", "x", "float32", model.SerializeToString(), None, example)
    assert subject.front_end is None
    assert subject.cost.frontend_macs is None
    assert subject.cost.macs == sum(
        cost or 0 for cost in (profiled.profile.subjects[1].cost.macs, profiled.profile.subjects[1].cost.frontend_macs)
    )
