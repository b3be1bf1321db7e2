from __future__ import annotations

import unicodedata

import pytest

from edgekd.errors import InputError
from edgekd.events.names import RecordingNames, recording_of_table

KNOWN = (
    "site1/a.wav",
    "site2/a.wav",
    "site1/b.flac",
    "site1/b.wav",
    "c.Wav",
    "size/é 1.wav",
    "x.y/20240501_120000.wav",
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("site1/a.wav", "site1/a.wav"),
        ("/data/2024/site2/a.wav", "site2/a.wav"),
        ("C:\\rec\\site1\\A.WAV", "site1/a.wav"),
        ("site1/a", "site1/a.wav"),
        ("b.wav", "site1/b.wav"),
        ("C.wav", "c.Wav"),
        ("c", "c.Wav"),
        ("deep/c.wav", "c.Wav"),
        (unicodedata.normalize("NFD", "é 1.wav"), "size/é 1.wav"),
        ("20240501_120000", "x.y/20240501_120000.wav"),
        ("site3/a.wav", None),
        ("d.wav", None),
        ("b.mp3", None),
        ("", None),
    ],
)
def test_a_name_means_the_recording_that_ends_like_it(name: str, meant: str | None) -> None:
    assert RecordingNames(KNOWN).find(name) == meant


@pytest.mark.parametrize("name", ["a.wav", "a", "site1/b"])
def test_a_name_that_may_be_two_recordings_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Name it with its folder"):
        RecordingNames(KNOWN).find(name)


def test_the_longest_ending_in_common_decides() -> None:
    names = RecordingNames(["a.wav", "site1/a.wav"])
    assert names.find("/data/site1/a.wav") == "site1/a.wav"
    assert names.find("/data/site2/a.wav") == "a.wav"


def test_known_names_without_an_ending_are_found_by_those_with_one() -> None:
    assert RecordingNames(["labels/a", "b"]).find("a.wav") == "labels/a"


@pytest.mark.parametrize(
    ("table", "recording"),
    [
        ("a.txt", "a"),
        ("a.wav.txt", "a.wav"),
        ("s/a.Table.1.selections.txt", "s/a"),
        ("a.selections.txt", "a"),
        ("a.BirdNET.results.txt", "a"),
        ("a.BirdNET.selection.table.txt", "a"),
        ("a_labels.txt", "a"),
        ("20240501_120000.csv", "20240501_120000"),
    ],
)
def test_tables_are_named_after_their_recording(table: str, recording: str) -> None:
    assert recording_of_table(table) == recording


@pytest.mark.parametrize(
    ("name", "folder", "meant"),
    [
        ("a.wav", "site2", "site2/a.wav"),
        ("A.WAV", "site2/labels/anna", "site2/a.wav"),
        ("a", "site1", "site1/a.wav"),
        ("site1/a.wav", "site2", "site1/a.wav"),
        ("c.wav", "site2", "c.Wav"),
    ],
)
def test_of_two_alike_the_one_beside_the_table_is_meant(name: str, folder: str, meant: str) -> None:
    assert RecordingNames(KNOWN).find(name, folder) == meant


def test_a_table_that_lies_beside_neither_does_not_tell_which_is_meant() -> None:
    for folder in ("site3", "labels/site1"):
        with pytest.raises(InputError, match="Name it with its folder"):
            RecordingNames(KNOWN).find("a.wav", folder)


def test_the_nearest_of_three_alike_is_meant() -> None:
    names = RecordingNames(["a.wav", "site/a.wav", "site/old/a.wav"])
    assert names.find("a.wav", "site") == "site/a.wav"
    assert names.find("a.wav", "site/old") == "site/old/a.wav"
    assert names.find("a.wav", "other") == "a.wav"
