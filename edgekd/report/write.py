"""A profile as files: `report.html`, `report.json`, `report.md`, `report.csv`."""

from __future__ import annotations

import json
from pathlib import Path

from edgekd.errors import InputError
from edgekd.files.whole import write_text
from edgekd.report.page import report_html
from edgekd.report.results import Profile
from edgekd.report.tables import report_csv, report_markdown

FILES = ("report.html", "report.json", "report.md", "report.csv")


def write_report(found: Profile, folder: Path) -> None:
    """Write `report.html`, `report.json`, `report.md` and `report.csv` into `folder`. Raises `InputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise InputError(f"{folder}: cannot be made: {failure.strerror}. Name another folder (--out).") from None
    texts = (
        report_html(found),
        json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n",
        report_markdown(found),
        report_csv(found),
    )
    for name, text in zip(FILES, texts, strict=True):
        write_text(folder / name, text)
