from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from edgekd.data.index import Dropped
from edgekd.report.terminal import unlabelled_text
from edgekd.runs.run_report import read_report


def test_every_reason_for_which_a_clip_does_not_teach_is_read_and_told(tmp_path: Path) -> None:
    reasons = get_args(Dropped)
    audited = {"clips": 9, "used": 9 - len(reasons), "dropped": dict.fromkeys(reasons, 1)}
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"version": 1, "audit": {"unlabelled": audited}}), encoding="utf-8")
    told = unlabelled_text(read_report(file)["audit"]["unlabelled"])
    assert told.startswith("5 of 9 clips without labels teach; left out: 1 of a group that is scored, ")
    assert "1 lost when their channels are averaged" in told
