from __future__ import annotations

from dataclasses import replace

from edgekd.runs.run import Run
from edgekd.training.outcome import warn_of_weaker_teacher


def test_a_teacher_worse_than_its_student_is_warned_of_once(tiny_copy: Run) -> None:
    run = tiny_copy
    run.forget("warnings")
    log = run.metrics()
    for stage, accuracy in (("teacher", 0.9), ("student", 0.5)):
        log.truncate(stage, 0)
        log.append(stage, 1, validation_accuracy=accuracy)

    def scored(teacher: float, student: float) -> list[str]:
        tested = run.report()["test"]
        run.update_report("test", {"teacher": {**tested["teacher"], "accuracy": teacher}})
        run.update_report("test", {"student": {**tested["student"], "accuracy": student}})
        warn_of_weaker_teacher(run)
        return run.report().get("warnings", [])

    assert scored(0.8, 0.8) == []
    (warning,) = scored(0.7, 0.75)
    assert warning.startswith("the teacher is worse than its student (70.0% against 75.0% on the test side)")
    epochs = run.config.teacher.epochs
    assert warning.endswith(f"Try a stronger one, or more epochs of it than {epochs} (--set teacher.epochs=...).")
    assert scored(0.7, 0.75) == [warning]
    run.forget("warnings")
    teacher = run.config.teacher.model_copy(update={"adaptation": "head"})
    warn_of_weaker_teacher(replace(run, config=run.config.model_copy(update={"teacher": teacher})))
    assert run.report()["warnings"][0].endswith("Try a stronger one, or --adaptation full.")
    run.forget("warnings")
    log.append("student", 2, validation_accuracy=0.95)
    (warning,) = scored(0.8, 0.8)
    assert "90.0% against 95.0% on the validation side" in warning
