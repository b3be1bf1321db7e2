"""The gate lets noise through and nothing else, and compares like with like only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import GateError, InputError
from edgekd.number_formats import number, percent, ratio
from edgekd.report.gate import check_profile, regressions
from edgekd.report.results import Estimate, Profile, Subject, read_profile

Change = Callable[..., Profile]


@pytest.fixture
def idle(sample_profile: Profile) -> Profile:
    """A report from a machine with nothing else to do."""
    return sample_profile.model_copy(update={"machine": sample_profile.machine.model_copy(update={"busy": False})})


def changed(profile: Profile, name: str, /, **changes: Any) -> Profile:
    """`profile` with other values for the subject `name`."""
    subjects = [one.model_copy(update=changes) if one.name == name else one for one in profile.subjects]
    return profile.model_copy(update={"subjects": tuple(subjects)})


def only(profile: Profile, *names: str) -> Profile:
    return profile.model_copy(update={"subjects": tuple(one for one in profile.subjects if one.name in names)})


def slower(profile: Profile, name: str, factor: float, spread: float = 0.01) -> Profile:
    latency = profile.subject(name).latency
    p50 = factor * latency.p50_ms
    interval = ((1 - spread) * p50, (1 + spread) * p50)
    return changed(profile, name, latency=latency.model_copy(update={"p50_ms": p50, "p50_interval_ms": interval}))


def with_accuracy(profile: Profile, name: str, accuracy: float) -> Profile:
    scores = profile.subject(name).scores
    assert scores is not None
    return changed(profile, name, scores=type(scores).from_dict({**scores.to_dict(), "accuracy": accuracy}))


def with_speedup(profile: Profile, name: str, value: float, spread: float = 0.03) -> Profile:
    versus = profile.subject(name).versus
    assert versus is not None
    estimate = Estimate(value=value, low=(1 - spread) * value, high=(1 + spread) * value)
    return changed(profile, name, versus=versus.model_copy(update={"speedup": estimate}))


def accuracy_of(subject: Subject) -> float:
    assert subject.scores is not None
    return subject.scores.accuracy


def gate(new: Profile, old: Profile, max_drop: float = 0.5, max_slowdown: float = 1.1) -> list[str]:
    return regressions(new, old, max_drop=max_drop, max_slowdown=max_slowdown)


def test_a_report_against_itself_passes_with_nothing_allowed(sample_profile: Profile, idle: Profile) -> None:
    assert gate(idle, idle, max_drop=0, max_slowdown=1) == []
    assert gate(sample_profile, sample_profile, max_drop=0, max_slowdown=1) == []


def test_a_drop_of_accuracy_is_told_with_its_figures(idle: Profile) -> None:
    accuracy = accuracy_of(idle.subject("int8"))
    (told,) = gate(with_accuracy(idle, "int8", accuracy - 0.01), idle)
    assert told == (
        f"int8: accuracy fell by 1.00 points, {percent(accuracy)} to {percent(accuracy - 0.01)} on the same 80 clips"
        " (at most 0.5)"
    )
    assert gate(with_accuracy(idle, "int8", accuracy - 0.01), idle, max_drop=1) == []  # what is allowed is allowed
    assert gate(with_accuracy(idle, "int8", accuracy + 0.05), idle, max_drop=0) == []


def test_a_slowdown_is_told_with_its_figures(idle: Profile) -> None:
    (told,) = gate(slower(idle, "int8", 1.25), idle)
    p50 = idle.subject("int8").latency.p50_ms
    assert told == f"int8: 1.25 times as slow, {number(p50)} to {number(1.25 * p50)} ms (at most 1.1)"
    assert gate(slower(idle, "int8", 1.25), idle, max_slowdown=1.3) == []
    assert gate(slower(idle, "int8", 0.5), idle, max_slowdown=1) == []


def test_medians_whose_intervals_touch_are_noise(idle: Profile) -> None:
    assert gate(slower(idle, "int8", 1.25, spread=0.2), idle) == []


def test_all_that_is_worse_is_told(idle: Profile) -> None:
    worse = slower(with_accuracy(idle, "student", 0.1), "int8", 2)
    assert [told.split(":")[0] for told in gate(worse, idle)] == ["student", "int8"]


def test_a_teacher_is_not_what_ships(idle: Profile) -> None:
    assert gate(slower(with_accuracy(idle, "teacher", 0.1), "teacher", 2), idle) == []
    alone = only(idle, "teacher")
    assert len(gate(slower(alone, "teacher", 2), alone)) == 1
    first = idle.model_copy(update={"baseline": "student"})  # of two bundles, say, the first is the baseline
    assert len(gate(slower(first, "student", 2), first)) == 1


def test_on_another_machine_the_speedup_is_compared(idle: Profile) -> None:
    elsewhere = idle.model_copy(update={"machine": idle.machine.model_copy(update={"cpu": "another"})})
    elsewhere = only(elsewhere, "teacher", "student", "int8")
    assert gate(slower(elsewhere, "int8", 3), idle) == []  # a slower machine, with the same speedup
    versus = idle.subject("int8").versus
    assert versus is not None
    assert versus.speedup is not None
    speedup = versus.speedup.value
    (told,) = gate(with_speedup(elsewhere, "int8", speedup / 1.5), idle)
    assert told.startswith(f"int8: 1.50 times as slow beside teacher, which it was {ratio(speedup)} times as fast as")
    assert gate(with_speedup(elsewhere, "int8", speedup / 1.5, spread=0.6), idle) == []


def test_on_another_machine_without_a_speedup_times_are_refused(idle: Profile) -> None:
    board = idle.subject("int8 on pi@field-7")
    assert board.machine is not None
    moved = changed(idle, board.name, machine=board.machine.model_copy(update={"cpu": "Cortex-A53"}))
    with pytest.raises(InputError, match=r"pi@field-7: timed on Cortex-A53, in the earlier report on Cortex-A76"):
        gate(moved, idle)
    mode = changed(idle, board.name, machine=board.machine.model_copy(update={"power_mode": "7W"}))
    with pytest.raises(InputError, match="timed on Cortex-A76, 7W"):
        gate(mode, idle)


def test_another_baseline_is_no_yardstick(idle: Profile) -> None:
    elsewhere = only(idle, "teacher", "int8")
    elsewhere = elsewhere.model_copy(update={"machine": idle.machine.model_copy(update={"cpu": "another"})})
    with pytest.raises(InputError, match="no speedup over the same baseline in both"):
        gate(changed(elsewhere, "teacher", threads=2), idle)


def test_a_busy_machine_is_judged_by_speedups_and_said_to_be_busy(sample_profile: Profile, idle: Profile) -> None:
    assert sample_profile.machine.busy
    assert gate(slower(sample_profile, "int8", 1.5), idle) == []  # its neighbours slowed the teacher as much
    (told,) = gate(with_speedup(sample_profile, "int8", 1.0), idle)
    assert told.endswith("(at most 1.1; the machine was busy now)")
    alone = [only(profile, "int8") for profile in (sample_profile, idle)]
    alone = [changed(profile, "int8", versus=None) for profile in alone]
    (told,) = gate(slower(alone[0], "int8", 1.5), alone[1])
    assert told.endswith("ms (at most 1.1; the machine was busy now)")
    (told,) = gate(slower(alone[0], "int8", 1.5), alone[0])
    assert told.endswith("busy now and then)")


@pytest.mark.parametrize("changes", [{"threads": 4}, {"backend": "tensorrt", "threads": None}])
def test_other_threads_or_another_backend_are_refused(idle: Profile, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"int8: timed with .*, in the earlier report with onnxruntime on 1 thread"):
        gate(changed(idle, "int8", **changes), idle)


def test_other_test_clips_are_refused(idle: Profile) -> None:
    other = idle.model_copy(update={"clips_digest": "0" * 64, "clips": "the 79 clips of fold 2"})
    with pytest.raises(InputError, match=r"student: scored on other clips \(the 79 clips of fold 2\)"):
        gate(other, idle)
    unknown = idle.model_copy(update={"clips_digest": None})
    with pytest.raises(InputError, match="scored on other clips"):
        gate(unknown, idle)
    assert gate(unknown, unknown) == []


def test_accuracy_on_one_side_only_is_refused(idle: Profile) -> None:
    for new, old, which in (
        (changed(idle, "int8", scores=None), idle, "this report has no accuracy"),
        (idle, changed(idle, "int8", scores=None), "the earlier one has no accuracy"),
    ):
        with pytest.raises(InputError, match=f"int8: {which}"):
            gate(new, old)
    unscored = changed(only(idle, "int8"), "int8", scores=None)
    assert gate(unscored, unscored) == []


def test_a_subject_with_another_name_is_found_by_what_it_is(idle: Profile) -> None:
    renamed = changed(only(idle, "teacher", "int8"), "int8", name="release candidate")
    assert gate(slower(renamed, "release candidate", 2), only(idle, "teacher", "int8"))[0].startswith("release cand")


def test_reports_without_a_common_subject_are_refused(idle: Profile) -> None:
    with pytest.raises(InputError, match=r"has student; none of it is in this one: int8\. Compare like with like"):
        gate(only(idle, "int8"), only(idle, "student"))


def test_a_report_that_was_written_and_read_is_the_same_to_the_gate(idle: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(idle.model_dump_json())
    assert gate(idle, read_profile(path), max_drop=0, max_slowdown=1) == []
    assert len(gate(slower(idle, "student", 1.2), read_profile(path))) == 1


def test_what_is_refused_is_told_in_one_line(idle: Profile) -> None:
    worse = slower(with_accuracy(idle, "student", 0.1), "int8", 2)
    with pytest.raises(GateError, match=r"^student: accuracy fell .*; int8: 2\.00 times as slow.*\.$"):
        check_profile(worse, idle, max_drop=0.5, max_slowdown=1.1)
    check_profile(worse, None, max_drop=0.5, max_slowdown=1.1)  # there is nothing to be worse than
    check_profile(idle, idle, max_drop=0, max_slowdown=1)


def test_golden_examples_that_do_not_agree_are_refused_without_an_earlier_report(idle: Profile) -> None:
    golden = idle.subject("int8").golden
    assert golden is not None
    wrong = changed(idle, "int8", golden=golden.model_copy(update={"agrees": False}))
    with pytest.raises(GateError, match=r"^int8 does not agree with the golden examples\.$"):
        check_profile(wrong, None, max_drop=0.5, max_slowdown=1.1)


def test_a_host_that_failed_is_an_error_but_what_is_worse_comes_first(idle: Profile) -> None:
    failed = idle.model_copy(update={"failures": ("pi@gone: does not answer.", "pi@off: no route.")})
    with pytest.raises(InputError, match=r"^pi@gone: does not answer\. pi@off: no route\.$"):
        check_profile(failed, idle, max_drop=0.5, max_slowdown=1.1)
    with pytest.raises(GateError, match="int8"):
        check_profile(slower(failed, "int8", 2), idle, max_drop=0.5, max_slowdown=1.1)
