"""A profile as files: `report.html`, `report.json`, `report.md`, `report.csv`."""

from __future__ import annotations

import json
from pathlib import Path

from edgekd.errors import InputError
from edgekd.files.whole import sweep, write_together
from edgekd.report.csv_table import report_csv
from edgekd.report.markdown import report_markdown
from edgekd.report.page import report_html
from edgekd.report.results import Profile

FILES = ("report.html", "report.json", "report.md", "report.csv")


def write_report(profile: Profile, folder: Path) -> None:
    """Write `profile` into `folder`: as a page to read, JSON for programs, Markdown for a pull request, and CSV.

    The folder is made where it does not exist. Raises `InputError` where it cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise InputError(f"{folder}: cannot be made: {failure.strerror}. Name another folder (--out).") from None
    texts = (
        report_html(profile),
        json.dumps(profile.to_dict(), indent=2, ensure_ascii=False) + "\n",
        report_markdown(profile),
        report_csv(profile),
    )
    sweep(folder)
    write_together(folder, {name: text.encode() for name, text in zip(FILES, texts, strict=True)})


def report_folder(subject: Path) -> Path:
    """Where the report of `subject` goes unless somebody names a folder: `profile/` in a run or bundle, for a part of a
    run in its run; `NAME-profile/` beside a file."""
    if subject.is_file():
        return subject.with_name(f"{subject.stem}-profile")
    part_of_run = (subject.parent / "config.toml").is_file() and not (subject / "config.toml").is_file()
    return (subject.parent if part_of_run else subject) / "profile"
