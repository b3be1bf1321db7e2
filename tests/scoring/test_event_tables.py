"""Tables that go together, and those that do not: with each other, with the audio, with what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.errors import InputError, UsageError
from edgekd.events.event import Event
from edgekd.events.matching import Overlap, Tolerance
from edgekd.events.tables import read_events
from edgekd.scoring.event_tables import ScoredTables, lengths, score_tables

RATE = 1_000


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Three recordings of 60, 30 and 45 s; the last without an event."""
    folder = tmp_path / "audio"
    for name, seconds in (("site1/a.wav", 60), ("site1/b.flac", 30), ("site2/a.wav", 45)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(seconds * RATE, dtype=np.int16), RATE)
    return folder


def found(*events: tuple[str, float, float, str, float]) -> list[Event]:
    return [Event(*event, where=f"found.csv, line {number}") for number, event in enumerate(events, 2)]


def true(*events: tuple[str, float, float, str]) -> list[Event]:
    return [Event(*event, where=f"true.txt, line {number}") for number, event in enumerate(events, 2)]


TRUTH = true(("site1/a.wav", 10, 20, "tug"), ("site1/b.flac", 5, 9, "whale"))
FOUND = found(("site1/a.wav", 11, 21, "tug", 0.9), ("site2/a.wav", 1, 4, "whale", 0.3))


def scored(detections: Sequence[Event] = FOUND, truth: Sequence[Event] = TRUTH, **more: object) -> ScoredTables:
    return score_tables(detections, truth, more.pop("criterion", Overlap()), **more)


def test_the_lengths_of_the_audio_make_the_hours_and_recordings_without_events_count(audio: Path) -> None:
    assert lengths(audio) == {"site1/a.wav": 60.0, "site1/b.flac": 30.0, "site2/a.wav": 45.0}
    scores = scored(audio=audio).scores
    assert (scores.recordings, scores.recordings_without_events) == (3, 1)
    assert (scores.hours, scores.background_hours) == pytest.approx((135 / 3600, (135 - 14) / 3600))
    assert scores.overall.background_an_hour is not None
    assert scores.overall.background_an_hour.value == pytest.approx(3600 / (135 - 14))


def test_one_file_is_audio_too(audio: Path) -> None:
    truth, detections = true(("a", 10, 20, "tug")), found(("/data/site1/a.wav", 11, 21, "tug", 0.9))
    assert scored(detections, truth, audio=audio / "site1" / "a.wav").scores.overall.right == 1


def test_names_from_other_machines_are_those_of_the_audio_or_of_the_truth(audio: Path) -> None:
    detections = found(("D:\\rec\\SITE1\\A.WAV", 11, 21, "tug", 0.9), ("b", 5, 9, "whale", 0.8))
    for more in ({"audio": audio}, {}):
        assert scored(detections, **more).scores.overall.right == 2


def test_without_audio_a_detection_of_a_recording_without_events_is_a_false_alarm_of_its_own(audio: Path) -> None:
    scores = scored().scores
    assert (scores.recordings, scores.overall.detections, scores.overall.right) == (3, 2, 1)


@pytest.mark.parametrize(
    ("detections", "truth", "told"),
    [
        (
            FOUND,
            true(("site1/a.wav", 50, 61, "tug")),
            r"true\.txt, line 2: ends at 61 s of site1/a\.wav, which is 60\.000",
        ),
        (
            FOUND,
            true(("site1/a.wav", 600, 601, "tug")),
            r"true\.txt, line 2: begins at 600 s of site1/a\.wav, which is 60",
        ),
        (
            found(("b", 31, 32, "tug", 1)),
            TRUTH,
            r"found\.csv, line 2: begins at 31 s of site1/b\.flac, which is 30\.000 s",
        ),
        (
            found(("c.wav", 1, 2, "tug", 1)),
            TRUTH,
            r"found\.csv, line 2: 'c\.wav': no such recording in .* \(1 missing in",
        ),
        (
            FOUND,
            true(("a.wav", 1, 2, "tug")),
            r"true\.txt, line 2: 'a\.wav' may be site1/a\.wav or site2/a\.wav\. Name it",
        ),
    ],
)
def test_what_does_not_go_with_the_audio_is_refused_with_its_line(
    audio: Path, detections: list[Event], truth: list[Event], told: str
) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        scored(detections, truth, audio=audio)


def test_an_end_that_was_rounded_or_is_in_the_next_file_is_cut(audio: Path) -> None:
    truth = true(("site1/a.wav", 50, 60.009, "tug"))
    truth.append(Event("site1/b.flac", 25, 40, "tug", ends_in="c.flac"))
    tables = scored(found(("site1/a.wav", 50, 60, "tug", 1), ("site1/b.flac", 25, 30, "tug", 1)), truth, audio=audio)
    assert (tables.scores.overall.right, tables.notes) == (2, ())


def test_a_detection_that_reaches_behind_the_end_is_cut_and_told(audio: Path) -> None:
    tables = scored(found(("site1/a.wav", 57, 62, "tug", 1)), true(("site1/a.wav", 57, 60, "tug")), audio=audio,
                    criterion=Tolerance(0.1, 0))  # fmt: skip
    assert tables.scores.overall.right == 1
    assert tables.notes == ("1 detection(s) reach behind the end of their recording, and end there.",)


@pytest.mark.parametrize(
    ("detections", "truth", "told"),
    [
        (
            FOUND,
            true(("c.wav", 1, 2, "tug")),
            r"the tables have no recording in common: 'site1/a\.wav' of the detections",
        ),
        ([], [], r"neither table has an event"),
        ([*FOUND, *FOUND[:1]], TRUTH, r"found\.csv, line 2: 'tug' from 11 to 21 s of site1/a\.wav again"),
        (FOUND, [*TRUTH, *TRUTH[:1]], r"true\.txt, line 2: 'tug' from 10 to 20 s of site1/a\.wav again"),
        (FOUND, true(("site1/a.wav", 1, 2, "Tug ")), r"found\.csv, line 2: class 'tug' is 'Tug ' in true\.txt"),
        (
            FOUND,
            true(("site1/a.wav", 1, 1, "tug")),
            r"true\.txt, line 2: 'tug' is a point at 1 s, which nothing overlaps",
        ),
        (found(("site1/a.wav", 11, 11, "tug", 1)), TRUTH, r"found\.csv, line 2: 'tug' is a point at 11 s"),
        ([*FOUND, Event("x", 1, 2, "tug")], TRUTH, r"x, 1 s: has no score, but found\.csv, line 2 has one"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(detections: list[Event], truth: list[Event], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        scored(detections, truth)


def test_a_copy_under_another_name_of_the_recording_is_one() -> None:
    twice = found(("site1/a.wav", 11, 21, "tug", 0.9), ("x/site1/a.wav", 11, 21, "tug", 0.9))
    with pytest.raises(InputError, match=r"^found\.csv, line 3: 'tug' from 11 to 21 s of site1/a\.wav again"):
        scored(twice)


def test_points_are_scored_by_tolerance() -> None:
    assert scored(
        found(("a", 1.1, 1.1, "tug", 1)), true(("a", 1, 1, "tug")), criterion=Tolerance(0.2)
    ).scores.overall.right


def test_thresholds_need_scores_and_classes_that_are_there() -> None:
    unscored = [Event("site1/a.wav", 11, 21, "tug", where="found.csv, line 2")]
    with pytest.raises(InputError, match=r"^found\.csv, line 2: has no score, so no threshold can be set"):
        scored(unscored, threshold=0.5)
    assert scored(unscored).scores.overall.right == 1
    with pytest.raises(UsageError, match=r"Unknown class 'tugg'\. Did you mean 'tug'\?"):
        scored(class_thresholds={"tugg": 0.5})
    with pytest.raises(UsageError, match=r"Unknown class 'cargo'\."):
        scored(classes=["cargo"])
    by_class = scored(threshold=0.1, class_thresholds={"tug": 0.95}).scores.classes
    assert (by_class["tug"].detections, by_class["whale"].detections) == (0, 1)


def test_chosen_classes_alone_are_scored() -> None:
    scores = scored(classes=["tug"]).scores
    assert list(scores.classes) == ["tug"]
    assert (scores.overall.detections, scores.overall.right, scores.macro_f1.value) == (1, 1, 1)


def test_what_a_reader_should_know_is_told() -> None:
    truth = [*TRUTH, *true(("site1/a.wav", 15, 25, "whale"))]
    notes = scored([*FOUND, *found(("site1/a.wav", 1, 2, "ghost", 0.1))], truth).notes
    assert notes[0].startswith("1 detection(s) are of classes that the truth never has (ghost), and false alarms")
    assert notes[1] == (
        "true events of two classes overlap, such as tug and whale at 15 s of site1/a.wav: each is to be found."
    )
    assert scored().notes == ()


def test_background_is_no_event_unless_it_is_asked_for(audio: Path) -> None:
    truth = [*TRUTH, *true(("site2/a.wav", 0, 45, "Background"))]
    tables = scored(truth=truth, audio=audio)
    assert tables.scores == scored(audio=audio).scores
    assert "1 line(s) say Background, where nothing is to be found" in " ".join(tables.notes)
    assert scored(truth=truth).scores.recordings == 3
    assert scored(truth=truth, audio=audio, classes=["Background"]).scores.overall.events == 1


def test_some_recordings_alone_are_scored(audio: Path) -> None:
    tables = scored(audio=audio, only=["/data/site1/b.flac", "site2/a.wav"])
    assert (tables.scores.recordings, tables.scores.overall.events, tables.scores.overall.detections) == (2, 1, 1)
    assert tables.scores.hours == pytest.approx(75 / 3600)
    assert "2 recordings are scored; 2 line(s) of others are left out." in tables.notes
    with pytest.raises(InputError, match=r"'c\.wav': no such recording here \(1 of the 2 that are"):
        scored(audio=audio, only=["c.wav", "site2/a.wav"])
    assert scored(only=["c.wav", "site2/a.wav"]).scores.recordings == 1


def test_hours_that_are_less_than_the_events_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--hours 0\.001: true events alone take 0\.00389 h"):
        scored(hours=0.001)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").touch()
    with pytest.raises(InputError, match=r"no recordings here\. Found: in a format that is not read \(\.m4a\)"):
        scored(audio=tmp_path)
    with pytest.raises(InputError, match="gone: no such file or folder"):
        scored(audio=tmp_path / "gone")


def test_a_recording_that_cannot_be_read_is_named(audio: Path) -> None:
    (audio / "site2" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"site2/a\.wav: "):
        scored(audio=audio)


@pytest.mark.parametrize("with_audio", [True, False])
def test_truth_in_the_folders_of_two_recorders_that_name_their_files_alike(
    audio: Path, tmp_path: Path, with_audio: bool
) -> None:
    for site, begin in (("site1", 10), ("site2", 20)):
        table = tmp_path / "truth" / site / "a.Table.1.selections.txt"
        table.parent.mkdir(parents=True)
        table.write_text(
            f"Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tSpecies\n1\t{begin}\t{begin + 5}\ta.wav\ttug\n"
        )
    detections = found(("site1/a.wav", 10, 15, "tug", 0.9), ("site2/a.wav", 20, 25, "tug", 0.8))
    truth = read_events(tmp_path / "truth", audio=audio)
    assert scored(detections, truth, audio=audio if with_audio else None).scores.overall.right == 2


def test_one_table_among_the_recordings_is_of_the_one_beside_it(audio: Path) -> None:
    table = audio / "site2" / "a.txt"
    table.write_text("20\t25\ttug\n")
    truth = read_events(table, audio=audio)
    assert scored(found(("site2/a.wav", 20, 25, "tug", 0.8)), truth, audio=audio).scores.overall.right == 1
