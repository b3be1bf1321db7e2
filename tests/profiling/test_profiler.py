"""The whole room on a small real run: what was planted shows, what is equal looks equal, and all of it is written."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from torch import Tensor

import edgekd
from edgekd.config import ProfileConfig
from edgekd.device.runner import machine_state
from edgekd.errors import UsageError
from edgekd.exporting.manifest import Bundle
from edgekd.models.weights import read_weights
from edgekd.profiling import profiler
from edgekd.profiling.accuracy import clips_of_run
from edgekd.profiling.backends import OnnxGraph
from edgekd.profiling.cost import module_macs
from edgekd.profiling.profiler import Remote, profile, profile_candidates
from edgekd.profiling.subjects import Candidate
from edgekd.profiling.visit import HostFailure, HostResult
from edgekd.report.results import read_profile
from edgekd.report.write import write_report

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled

QUICKEST = ProfileConfig(repetitions=10, seconds=0.5, batches=(), noise=None, memory=False, energy=False)


def test_teacher_and_both_students_stand_side_by_side(profiled: Profiled) -> None:
    found = profiled.profile
    assert [subject.name for subject in found.subjects] == ["teacher", "student", "int8"] != found.baseline == "teacher"
    assert [subject.architecture for subject in found.subjects] == ["convnet", "hltdnn_ds", "hltdnn_ds"]
    assert [subject.runtime.partition(" ")[0] for subject in found.subjects] == ["PyTorch", "ONNX", "ONNX"]
    for subject in found.subjects:
        assert subject.scores.accuracy_interval[0] <= subject.scores.accuracy <= subject.scores.accuracy_interval[1]
        assert subject.latency.real_time_factor == pytest.approx(subject.latency.p50_ms / 500, abs=1e-6)
        assert subject.latency.frontend_ms > 0
        assert subject.latency.repetitions == 10
        assert subject.energy is not None
        assert {one.batch for one in subject.throughput} == {1, 4}
        assert len(subject.robustness.noise) == 6
        assert subject.cost.traffic_bytes > subject.cost.activation_bytes > 0


def test_everything_is_scored_as_the_run_recorded_it(profiled: Profiled) -> None:
    recorded = profiled.run.report()["test"]
    for subject in profiled.profile.subjects:
        assert subject.scores.confusion == tuple(map(tuple, recorded[subject.name]["confusion"]))


def test_sizes_are_those_of_the_files(profiled: Profiled) -> None:
    teacher, student, int8 = (subject.cost for subject in profiled.profile.subjects)
    assert teacher.file_bytes == (profiled.run.folder / "teacher" / "best.safetensors").stat().st_size
    assert student.file_bytes == len(profiled.graphs["student"])
    assert int8.file_bytes == len(profiled.graphs["int8"]) < student.file_bytes
    assert student.macs == int8.macs < teacher.macs
    log_mel = profiled.student.log_mel(clips_of_run(profiled.run).first())
    assert student.macs == module_macs(profiled.student.network, log_mel), "PyTorch counts the same"
    assert student.parameters == _learned(profiled.run.folder / "student" / "best.safetensors")
    assert profiled.profile.subject("int8").versus.smaller == teacher.file_bytes / int8.file_bytes


def _learned(weights: Path) -> int:
    return sum(
        tensor.numel()
        for name, tensor in read_weights(weights).items()
        if name.startswith("network.") and "running" not in name and "num_b" not in name
    )


class Slow(OnnxGraph):
    """The student, 5 ms late."""

    def timers(self, example: Tensor) -> dict:
        timer = super().timers(example)["whole"]

        def late() -> float:
            time.sleep(0.005)
            return timer() + 0.005

        return {"whole": late}


def test_a_planted_sleep_shows(profiled: Profiled) -> None:
    clips = clips_of_run(profiled.run)
    models = {"quick": OnnxGraph(profiled.graphs["int8"], "int8"), "late": Slow(profiled.graphs["int8"], "int8")}
    planted = [
        Candidate(name, "run", "int8", profiled.run.folder, "hltdnn_ds", model, clips.samples, clips)
        for name, model in models.items()
    ]
    found = profile_candidates(planted, QUICKEST)
    quick, late = found.subjects
    assert late.latency.p50_ms - quick.latency.p50_ms > 4  # a sleep is never shorter
    assert found.baseline == "quick"
    assert late.versus.speedup.value < 1


def test_a_student_equal_to_its_teacher_shows_no_difference(profiled: Profiled) -> None:
    found = profile([profiled.run.folder / "int8", profiled.run.folder / "int8"], QUICKEST)
    difference = found.subjects[1].versus.accuracy
    assert (difference.accuracy, difference.only_first, difference.only_second, difference.mcnemar) == (0, 0, 0, 1)
    assert difference.accuracy_interval[0] < 0 < difference.accuracy_interval[1], "not even twins are proved equal"
    assert f"{difference.recordings} recordings are too few to tell less than" in found.verdict[0]


def test_few_recordings_come_with_their_caveat(profiled: Profiled) -> None:
    assert any("Only 6 recordings were tested" in note for note in profiled.profile.notes)


def test_a_battery_lasts_as_long_as_its_watts_say(profiled: Profiled) -> None:
    config = QUICKEST.model_copy(update={"battery_wh": 24.0, "active_watts": 1.0, "idle_watts": 1.0})
    (subject,) = profile(profiled.run.folder / "int8", config).subjects
    assert subject.energy.source == "stated"
    assert subject.battery.days == pytest.approx(1.0)


def test_a_device_stands_beside_what_was_measured_here(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[tuple] = []

    def profile_hosts(folder: Path, hosts: tuple[str, ...], **settings: object) -> list[HostResult | HostFailure]:
        reached.append((folder, hosts, settings["python"]))
        verified = {"agrees": True, "clips": 6, "agreement": 1.0, "largest_difference": 0.0}
        disagrees = verified | {"agrees": False, "agreement": 0.5}
        return [
            HostResult("me@there", verified, _bench()),
            HostResult("me@other", disagrees, _bench(), ("me@other: disagrees.",)),
            HostFailure("me@gone", "me@gone: does not answer."),
        ]

    monkeypatch.setattr(profiler, "profile_hosts", profile_hosts)
    found = profile(bundle, QUICKEST, remote=Remote(("me@there", "me@gone"), python="py"))
    assert reached == [(bundle.folder, ("me@there", "me@gone"), "py")]
    here, there, other = found.subjects
    assert (there.host, there.latency.p50_ms, there.golden.agrees) == ("me@there", 2.0, True)
    assert there.scores == here.scores
    assert other.scores is None, "what computes something else was not scored"
    assert "me@other: disagrees." in found.notes
    assert there.versus is None, "times of two machines are no ratio of two models"
    assert found.failures == ("me@gone: does not answer.",)


def _bench() -> dict:
    figures = dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "p99_ms"), 2.0)
    return figures | {
        "engine": "onnxruntime",
        "engine_version": "1.23.0",
        "precision": "int8",
        "threads": 1,
        "runs": 10,
        "settled": True,
        "p50_interval_ms": [1.9, 2.1],
        "spread_ms": 0.1,
        "quantiles_ms": [2.0] * 101,
        "front_end_ms": None,
        "network_ms": None,
        "real_time_factor": 0.004,
        "memory_bytes": 1 << 26,
        "peak_memory_bytes": 1 << 26,
        "load_average": 0.0,
        "machine": machine_state(Path("/nowhere")) | {"cpu": "Cortex-A76", "cpus": 4},
    }


def test_a_run_cannot_be_copied_to_a_device(profiled: Profiled) -> None:
    with pytest.raises(UsageError, match="only a bundle"):
        profile(profiled.run.folder / "int8", QUICKEST, remote=Remote(("me@there",)))


def test_profiling_leaves_a_bundle_as_it_is(bundle: Bundle) -> None:
    before = {path.name: path.read_bytes() for path in bundle.folder.iterdir()}
    profile(bundle, QUICKEST)
    assert {path.name: path.read_bytes() for path in bundle.folder.iterdir()} == before


def test_a_user_profiles_a_run_and_writes_the_files(profiled: Profiled, tmp_path: Path) -> None:
    measured = edgekd.profile(profiled.run.folder / "int8", QUICKEST)
    write_report(measured, tmp_path / "report")
    assert read_profile(tmp_path / "report" / "report.json") == measured
    assert measured.verdict[0] in (tmp_path / "report" / "report.html").read_text()


def test_a_folder_whose_name_is_not_utf_8_is_profiled_and_its_report_read(profiled: Profiled, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(profiled.run.folder, folder)
    measured = profile([folder / "int8", profiled.run.folder / "int8"], QUICKEST)
    assert measured.subjects[0].name == "caf\\udce9/int8"
    write_report(measured, tmp_path / "report")
    assert read_profile(tmp_path / "report" / "report.json") == measured


def test_equal_candidates_are_not_confused(profiled: Profiled) -> None:
    names = [subject.name for subject in profile([profiled.run, profiled.run], QUICKEST).subjects]
    assert len(set(names)) == len(names) == 6
