"""A profile in files: all four, in a folder that is made, and where they go by default."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.report.results import Profile, read_profile
from edgekd.report.write import FILES, report_folder, write_report


def test_it_is_written_in_every_form_and_read_back(sample_profile: Profile, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_report(sample_profile, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert read_profile(folder / "report.json") == sample_profile
    with open(folder / "report.csv", newline="") as file:
        assert [line["subject"] for line in csv.DictReader(file)] == [one.name for one in sample_profile.subjects]
    for name in ("report.html", "report.md"):
        assert sample_profile.verdict[0].partition(";")[0] in (folder / name).read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made_is_named(sample_profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/report: cannot be made: .*\(--out\)"):
        write_report(sample_profile, tmp_path / "file" / "report")


def test_a_report_goes_into_the_run_or_bundle_or_beside_the_file(tmp_path: Path) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    for folder in (run / "teacher", bundle):
        folder.mkdir(parents=True)
    (run / "config.toml").touch()
    (bundle / "model.onnx").touch()
    assert report_folder(run) == report_folder(run / "teacher") == run / "profile"
    assert report_folder(bundle) == bundle / "profile"
    assert report_folder(bundle / "model.onnx") == bundle / "model-profile"
