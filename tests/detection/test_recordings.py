"""Files, folders and patterns."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.detection.recordings import check_tables, find
from edgekd.errors import InputError, UsageError


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.wav", "a.flac", "night/a.wav", "notes.txt", "odd.dat"):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "site"


def names(*paths: str) -> list[tuple[str, str]]:
    return [(source.name, source.below) for source in find(paths)]


@pytest.mark.usefixtures("site")
def test_a_folder_is_all_audio_in_it() -> None:
    expected = [("site/a.flac", "a.flac"), ("site/b.wav", "b.wav"), ("site/night/a.wav", "night/a.wav")]
    assert names("site") == expected


@pytest.mark.usefixtures("site")
def test_a_pattern_is_what_matches_it() -> None:
    assert names("site/*.wav") == [("site/b.wav", "b.wav")]
    assert names("site/**/*.wav") == [("site/b.wav", "b.wav"), ("site/night/a.wav", "night/a.wav")]
    assert names("si?e") == [(name, name) for name, _ in names("site")]


def test_a_pattern_may_be_absolute(site: Path) -> None:
    assert [source.path for source in find([f"{site}/*.flac"])] == [site / "a.flac"]


@pytest.mark.usefixtures("site")
def test_a_file_is_taken_whatever_it_is_called_and_nothing_twice() -> None:
    assert names("site/odd.dat", "site/b.wav", "site") == [
        ("site/odd.dat", "odd.dat"),
        ("site/b.wav", "b.wav"),
        ("site/a.flac", "a.flac"),
        ("site/night/a.wav", "night/a.wav"),
    ]


def test_a_name_with_brackets_is_a_file_where_one_is(tmp_path: Path) -> None:
    path = tmp_path / "[1].wav"
    path.touch()
    assert [source.path for source in find([path])] == [path]


def test_where_nothing_is_there_is_an_error(site: Path) -> None:
    (site / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no recordings here"):
        find([site / "empty"])
    with pytest.raises(InputError, match=r"\*\.mp3: no file matches"):
        find([f"{site}/*.mp3"])


@pytest.mark.usefixtures("site")
def test_two_recordings_do_not_share_a_table() -> None:
    check_tables(find(["site"]))
    with pytest.raises(UsageError, match=r"site/a\.flac, site/night/a\.wav: would have one table, a"):
        check_tables(find(["site/a.flac", "site/night/a.wav"]))


def test_recorders_that_name_their_files_alike_have_tables_of_their_own(site: Path) -> None:
    (site / "day").mkdir()
    (site / "day" / "a.wav").touch()
    for pattern in ("site/*/a.wav", "site/*y/*.wav"):
        check_tables(find([pattern, "site/night"]))
    assert names("site/*/*.wav") == [("site/day/a.wav", "day/a.wav"), ("site/night/a.wav", "night/a.wav")]
