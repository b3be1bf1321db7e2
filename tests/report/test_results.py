"""The schema of `report.json`: every key is in it, and another version or a damaged file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.report.results import Profile, read_profile


def test_a_profile_reads_back_as_it_was_written(sample_profile: Profile, bare_profile: Profile, tmp_path: Path) -> None:
    for profile in (sample_profile, bare_profile):
        (tmp_path / "report.json").write_text(json.dumps(profile.to_dict()))
        assert read_profile(tmp_path / "report.json") == profile


def test_another_schema_or_a_damaged_report_is_refused(sample_profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    values = sample_profile.to_dict()
    for text, words in (
        (json.dumps(values | {"version": 1}), "schema version 1; this edgekd reads 3"),
        (json.dumps(values | {"machine": {"cpus": "two"}}), "machine.cpu"),
        (json.dumps({"version": 3}), "not the report.json of a profile"),
        ("{", "cannot be read as JSON"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_profile(path)
    with pytest.raises(InputError, match="No such file"):
        read_profile(tmp_path / "absent.json")


def test_a_report_of_version_2_is_read(sample_profile: Profile, tmp_path: Path) -> None:
    values = sample_profile.to_dict() | {"version": 2}
    for subject in values["subjects"]:
        del subject["calibration"]
    (tmp_path / "report.json").write_text(json.dumps(values))
    found = read_profile(tmp_path / "report.json")
    assert found.version == 3
    assert found.subjects[0].calibration is None
    assert found.subjects[0].scores == sample_profile.subjects[0].scores


def test_the_schema_names_every_key(sample_profile: Profile) -> None:
    schema = Profile.model_json_schema()
    assert set(sample_profile.to_dict()) == set(schema["properties"])
    assert set(sample_profile.to_dict()["subjects"][0]) == set(schema["$defs"]["Subject"]["properties"])


def test_a_subject_is_found_by_its_name(sample_profile: Profile) -> None:
    assert sample_profile.subject("int8") is sample_profile.subjects[2]
    with pytest.raises(KeyError):
        sample_profile.subject("int4")
