"""What a run is to tell the unknown by, as it keeps it for its next export: `RUN/reject.json`."""

from __future__ import annotations

from typing import Literal

from edgekd.config import Section, parse
from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.json_files import read_json
from edgekd.runs.run import Run
from edgekd.scoring.familiarity import SHARE

Score = Literal["energy", "mahalanobis"]
SCORES: tuple[Score, ...] = ("energy", "mahalanobis")
SETTING = "reject.json"
AGAIN = "Export the run again with --reject."


class Rejection(Section):
    """What is to tell the unknown, as a run keeps it. `share` of known clips may be rejected."""

    score: Score
    share: float = SHARE

    @classmethod
    def named(cls, score: str, share: float | None = None) -> Rejection:
        """Raises `UsageError` for a score that there is not, and for a share that is none."""
        if score not in SCORES:
            raise unknown_name("score", score, (*SCORES, "off"))
        chosen = SHARE if share is None else share
        if not 0 <= chosen < 1:
            raise UsageError(f"--reject-share {chosen:g}: a share of the known clips, from 0 to below 1.")
        return cls(score=score, share=chosen)


def kept_rejection(run: Run) -> Rejection | None:
    """What a run was told to reject the unknown by; None where it was not."""
    path = run.folder / SETTING
    if not path.is_file():
        return None
    try:
        return parse(Rejection, read_json(path, AGAIN), str(path))
    except UsageError as failure:
        raise InputError(f"{failure}. {AGAIN}") from None
