"""A reader is warned of what was planted, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from edgekd.profiling.accuracy import FEW_GROUPS, ScoredClips
from edgekd.profiling.backends import Model
from edgekd.profiling.notes import reader_notes, recording_notes
from edgekd.profiling.robustness import MOST_CLIPS
from edgekd.profiling.subjects import Candidate
from edgekd.report.results import Machine, Profile
from edgekd.scoring.probabilities import Waveforms

IDLE = Machine(cpu="x", cpus=2, busy=False)


def test_a_busy_machine_comes_first(sample_profile: Profile) -> None:
    busy = IDLE.model_copy(update={"busy": True, "cpus_used_by_others": 1.4, "throttled": ("hot",)})
    notes = reader_notes((), sample_profile.subjects, busy)
    assert notes[0].startswith("The machine was busy (others used 1.40 of 2 CPUs)")
    assert notes[1].startswith("The machine was held back: hot.")
    averaged = busy.model_copy(update={"cpus_used_by_others": None, "load_average": 3.0})
    assert reader_notes((), sample_profile.subjects, averaged)[0].startswith("The machine was busy (load average 3.00)")
    assert reader_notes((), sample_profile.subjects, IDLE) == []


def test_times_that_had_not_settled_and_modelled_energy_are_told(sample_profile: Profile) -> None:
    first, second, *_ = sample_profile.subjects
    assert second.energy
    restless = first.model_copy(update={"latency": first.latency.model_copy(update={"settled": False})})
    modelled = second.model_copy(update={"energy": second.energy.model_copy(update={"source": "model"})})
    notes = reader_notes((), (restless, modelled), IDLE)
    assert notes[0] == "Had not settled before it was timed: teacher. Is something else running?"
    assert notes[1].startswith("Energy was not measured but modelled, a lower bound: ")


def test_few_recordings_and_clips_that_depend_on_one_another_are_told() -> None:
    few = [f"recording {clip}" for clip in range(FEW_GROUPS - 1)]
    assert [note.partition(" recordings")[0] for note in recording_notes(few, 2)] == [f"Only {FEW_GROUPS - 1}"]
    many = [*few, "another"]
    assert recording_notes(many, 2) == []
    (dependent,) = recording_notes([*many, *many], 2)
    assert dependent.startswith("McNemar's p takes clips of one recording for independent")
    assert recording_notes([*many, *many], 1) == [], "with nothing to compare it with"


def test_noise_on_some_of_the_clips_is_told_where_it_was_tried(sample_profile: Profile) -> None:
    clips = ScoredClips(
        description="made up",
        dataset="none",
        store=cast(Waveforms, None),
        rows=range(MOST_CLIPS + 1),
        names=[("clip", 0)] * (MOST_CLIPS + 1),
        labels=[0] * (MOST_CLIPS + 1),
        groups=[str(clip) for clip in range(MOST_CLIPS + 1)],
        classes=("a",),
        sample_rate=8000,
        clip_seconds=1.0,
        padding="zeros",
        seed=0,
    )
    candidate = Candidate("int8", "run", "int8", Path("run"), None, cast(Model, None), 8000, clips)
    subject = sample_profile.subject("int8")
    assert reader_notes([candidate], [subject], IDLE) == ["Noise and length were tried on 400 of the 401 clips."]
    assert reader_notes([candidate], [subject.model_copy(update={"robustness": None})], IDLE) == []
