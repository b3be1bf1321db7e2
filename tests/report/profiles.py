"""Profiles that are hard to show."""

from __future__ import annotations

from edgekd.report.results import Profile, Subject

HARD = "<script>document.title='taken'</script>&\"' | `é`"
LONG = "runs/a-very-long-name-of-a-run-2026-11-20-with-no-space-in-it/student-number-"


def crowded(profile: Profile) -> Profile:
    """Eight subjects with long names, one of them hard, of which two score and take the same."""
    subjects: list[Subject] = []
    for place in range(8):
        one = profile.subjects[place % 4]
        subjects.append(one.model_copy(update={"name": f"{HARD}{place}" if place == 1 else f"{LONG}{place}"}))
    return profile.model_copy(update={"subjects": tuple(subjects), "verdict": profile.verdict * 4})
