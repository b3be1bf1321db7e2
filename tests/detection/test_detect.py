"""Tables of events, one or one a recording; going on where one stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import edgekd
from edgekd.detection.detect import Found, detect
from edgekd.errors import InputError, UsageError
from edgekd.events.names import RecordingNames
from edgekd.events.tables import read_events
from edgekd.runs.run import Run
from tests.detection.conftest import RATE, restless

Detect = Callable[..., Found]


@pytest.fixture
def run(tiny_bundle: Path, recordings: Path, thresholds: dict[str, float]) -> Detect:
    """`detect` of the recordings with such thresholds."""

    def call(out: Path | None = None, **asked: Any) -> Found:
        return detect(tiny_bundle, [recordings], out, **{"thresholds": thresholds, "hop_s": 0.25, **asked})

    return call


@pytest.fixture
def listened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are listened to from now on."""
    from edgekd.detection import detect as module

    files: list[str] = []

    def hear_file(predictor: Any, rule: Any, path: Path, *arguments: Any) -> Any:
        files.append(path.name)
        return original(predictor, rule, path, *arguments)

    original = module.hear_file
    monkeypatch.setattr(module, "hear_file", hear_file)
    return files


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.txt"])
def test_a_table_of_all_is_read_again(run: Detect, recordings: Path, tmp_path: Path, name: str) -> None:
    found = run(tmp_path / name)
    assert found.tables == (tmp_path / name,)
    events = read_events(tmp_path / name)
    assert {event.recording for event in events} == {f"{recordings}/a.wav", f"{recordings}/night/b.wav"}
    assert [(e.recording, e.label, e.score) for e in events] == [(e.recording, e.label, e.score) for e in found.events]
    times = [(event.start, event.end) for event in events]
    np.testing.assert_allclose(times, [(event.start, event.end) for event in found.events], atol=2e-6)


@pytest.mark.parametrize(
    ("format_", "names"),
    [
        ("csv", ["a.csv", "night/b.csv"]),
        ("raven", ["a.selections.txt", "night/b.selections.txt"]),
        ("audacity", ["a.txt", "night/b.txt"]),
        ("jsonl", ["a.jsonl", "night/b.jsonl"]),
    ],
)
def test_a_table_a_recording(run: Detect, tmp_path: Path, format_: str, names: list[str]) -> None:
    found = run(tmp_path / "tables", format_=format_)
    assert found.tables == tuple(tmp_path / "tables" / name for name in names)
    for table, heard in zip(found.tables, found.recordings, strict=True):
        events = read_events(table)
        assert len(events) == len(heard.events) > 0
        assert [event.label for event in events] == [event.label for event in heard.events]
    assert len(read_events(tmp_path / "tables")) == len(found.events)


def test_the_columns_are_those_that_opensoundscape_reads(run: Detect, tmp_path: Path) -> None:
    run(tmp_path / "d.csv")
    header = (tmp_path / "d.csv").read_text().splitlines()[0].split(",")
    assert {"audio_file", "annotation", "start_time", "end_time", "low_f", "high_f"} <= set(header)
    run(tmp_path / "d.txt")
    header = (tmp_path / "d.txt").read_text().splitlines()[0].split("\t")
    wanted = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")
    assert header[:7] == list(wanted)
    assert {"Begin File", "File Offset (s)", "Begin Path", "Annotation"} <= set(header)


def test_without_a_table_events_are_returned_and_recordings_told(run: Detect, tmp_path: Path) -> None:
    told: list[str] = []
    progress: list[tuple[int, int]] = []
    found = edgekd.detect is detect and run(
        report=lambda heard: told.append(heard.recording),
        progress=lambda _, done, total: progress.append((done, total)),
    )
    assert found
    assert [heard.recording for heard in found.recordings] == told
    assert found.seconds == 60.0
    assert progress[0] == (0, 60)
    assert progress[-1] == (60, 60)
    assert progress == sorted(progress)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]


def test_a_run_is_listened_with_too(tiny_run: Run, recordings: Path) -> None:
    found = detect(tiny_run.folder, [recordings / "a.wav"], thresholds=[(None, 0.0)])
    (first, *_) = found.events
    assert (first.start, first.end) == (0.0, 30.0)
    assert [event.label for event in found.events] == [name for name in tiny_run.classes if name != "background"]


@pytest.mark.parametrize("name", ["d.csv", "tables"])
def test_what_was_listened_to_is_not_again(
    run: Detect, listened: list[str], recordings: Path, tmp_path: Path, name: str
) -> None:
    first = run(tmp_path / name)
    soundfile.write(recordings / "c.wav", restless(3), RATE)
    again = run(tmp_path / name)
    assert listened == ["a.wav", "b.wav", "c.wav"]
    assert [heard for heard in again.recordings if not heard.recording.endswith("c.wav")] == list(first.recordings)
    assert len(read_events(tmp_path / name)) == len(again.events) > len(first.events)


def test_a_recording_that_was_changed_is_listened_to_again(
    run: Detect, listened: list[str], recordings: Path, tmp_path: Path
) -> None:
    run(tmp_path / "d.csv")
    soundfile.write(recordings / "a.wav", restless(4, seconds=20), RATE)
    found = run(tmp_path / "d.csv")
    assert listened == ["a.wav", "b.wav", "a.wav"]
    assert found.seconds == 50


@pytest.mark.parametrize("name", ["d.csv", "tables"])
def test_what_is_broken_off_goes_on_and_leaves_whole_files(
    run: Detect, recordings: Path, tmp_path: Path, name: str
) -> None:
    def stop(stage: str, done: int, _: int, /, **__: object) -> None:
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / name, progress=stop)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".wav")]
    journal, *tables = sorted(left, key=lambda path: (not path.name.endswith(".edgekd-detect"), path))
    assert [path.name for path in tables] == ([] if name == "d.csv" else ["a.csv"])
    journal.write_text(journal.read_text() + '{"path": "/half')  # what a power failure leaves
    files: list[str] = []
    found = run(tmp_path / name, progress=lambda _, done, total: files.append(f"{done}/{total}"))
    assert files[0] == "30/60"
    assert found.recordings == run().recordings


def test_a_table_that_somebody_has_gone_through_is_left_as_it_is(run: Detect, tmp_path: Path) -> None:
    tables = run(tmp_path / "tables").tables
    tables[0].write_text("mine")
    tables[1].unlink()
    run(tmp_path / "tables")
    assert tables[0].read_text() == "mine"
    assert tables[1].exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"hop_s": 0.5}, r"was begun with --hop \(in samples\) 1024, not 2048"),
        ({"thresholds": {"tug": 0.123}}, "was begun with thresholds "),
        ({"gap_s": 1.0}, r"was begun with --gap \(in samples\) 0, not 4000"),
        ({"exclusive": True}, "was begun with --exclusive False, not True"),
    ],
)
def test_other_settings_are_not_mixed_in(run: Detect, tmp_path: Path, asked: dict[str, Any], words: str) -> None:
    run(tmp_path / "d.csv")
    before = (tmp_path / "d.csv").read_bytes()
    with pytest.raises(UsageError, match=words):
        run(tmp_path / "d.csv", **asked)
    assert (tmp_path / "d.csv").read_bytes() == before
    run(tmp_path / "d.csv", **asked, overwrite=True)
    assert (tmp_path / "d.csv").read_bytes() != before


def test_another_model_is_not_mixed_in(run: Detect, tiny_run: Run, recordings: Path, tmp_path: Path) -> None:
    run(tmp_path / "d.csv")
    with pytest.raises(UsageError, match="was begun with another model"):
        detect(tiny_run.folder, [recordings], tmp_path / "d.csv")


def test_another_table_is_not_replaced(run: Detect, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("mine")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.csv").write_text("mine")
    for name in ("d.csv", "tables"):
        with pytest.raises(UsageError, match="already exists"):
            run(tmp_path / name)
    assert (tmp_path / "tables" / "a.csv").read_text() == "mine"
    run(tmp_path / "d.csv", overwrite=True)
    assert read_events(tmp_path / "d.csv")


def test_what_cannot_be_read_or_heard_is_told_and_the_rest_goes_on(
    run: Detect, recordings: Path, tmp_path: Path
) -> None:
    soundfile.write(recordings / "flat.wav", np.zeros(RATE), RATE)
    (recordings / "page.wav").write_text("<html>404</html>" * 100)
    spoilt = restless(5)
    spoilt[4 * RATE] = np.nan
    soundfile.write(recordings / "spoilt.wav", spoilt, RATE, subtype="FLOAT")
    for _ in range(2):  # the second time what is known of them is told again
        found = run(tmp_path / "d.csv")
        by_name = {Path(heard.recording).name: heard for heard in found.recordings}
        assert (by_name["flat.wav"].missed, by_name["flat.wav"].failed) == (
            "silent: all its samples have one value",
            False,
        )
        page, spoilt_one = by_name["page.wav"], by_name["spoilt.wav"]
        assert page.failed and page.missed is not None and page.missed.startswith("not an audio file")
        assert spoilt_one.failed and spoilt_one.missed is not None
        assert spoilt_one.missed.startswith("4 of 115 windows could not be scored, the first at 3.072 s: some samples")
        assert spoilt_one.events
        assert not by_name["a.wav"].failed


def test_where_nothing_can_be_heard_no_table_says_that_nothing_was_there(tiny_bundle: Path, tmp_path: Path) -> None:
    found = detect(tiny_bundle, [tmp_path / "gone.wav"], tmp_path / "d.csv")
    assert found.recordings[0].missed == "no such file."
    assert found.tables == ()
    assert not (tmp_path / "d.csv").exists()


def test_what_cannot_be_done_is_refused_at_once(run: Detect, tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"d\.xlsx: end its name in \.csv, \.jsonl, \.txt"):
        run(tmp_path / "d.xlsx")
    with pytest.raises(UsageError, match="a label file of Audacity is of one recording"):
        run(tmp_path / "d.txt", format_="audacity")
    with pytest.raises(UsageError, match="'orca': this class is not there"):
        run(tmp_path / "d.csv", thresholds={"orca": 0.5})
    with pytest.raises(UsageError, match="--format excel"):
        run(tmp_path / "d.csv", format_="excel")
    with pytest.raises(InputError, match="neither a run folder"):
        detect(tmp_path, [tmp_path])
    assert not [path for path in tmp_path.iterdir() if path.name != "site"]


def test_a_journal_of_another_program_is_refused(run: Detect, tmp_path: Path) -> None:
    run(tmp_path / "d.csv")
    (tmp_path / ".d.csv.edgekd-detect").write_text('{"format": 99}\n')
    with pytest.raises(InputError, match=r"not what 'edgekd detect' writes\. Begin anew: --overwrite"):
        run(tmp_path / "d.csv")
    run(tmp_path / "d.csv", overwrite=True)


def test_tables_may_be_moved_with_what_is_known_of_them(run: Detect, listened: list[str], tmp_path: Path) -> None:
    run(tmp_path / "tables")
    shutil.move(tmp_path / "tables", tmp_path / "moved")
    run(tmp_path / "moved")
    assert len(listened) == 2


@pytest.mark.parametrize("change", ["grows", "is replaced"])
def test_a_recording_that_changes_while_it_is_listened_to_is_listened_to_again(
    run: Detect, recordings: Path, tmp_path: Path, change: str
) -> None:
    other = tmp_path / "other.wav"
    soundfile.write(other, restless(6, seconds=40), RATE)

    def meddle(stage: str, done: int, _: int, /, **__: object) -> None:
        if 0 < done < 100 and other.exists():
            other.replace(recordings / "a.wav") if change == "is replaced" else other.unlink()
            if change == "grows":
                soundfile.write(recordings / "a.wav", restless(1, seconds=160), RATE)

    soundfile.write(recordings / "a.wav", restless(1, seconds=120), RATE)
    run(tmp_path / "d.csv", progress=meddle)
    assert not other.exists()
    again = run(tmp_path / "d.csv")
    assert again.recordings == run().recordings
    assert again.seconds == (190 if change == "grows" else 70)


def test_a_table_is_there_before_its_recording_counts_as_done(
    run: Detect, listened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.detection import detect as module

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_events", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "tables")
    assert len(run(tmp_path / "tables").tables) == 2
    assert listened == ["a.wav", "a.wav", "b.wav"]


def test_tables_that_are_replaced_do_not_stay_in_another_format(run: Detect, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "tables"

    def names() -> list[str]:
        return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file() and file.name[0] != ".")

    run(out)
    run(out, format_="audacity")
    (out / "notes.txt").write_text("of a person")
    assert names() == ["a.csv", "a.txt", "night/b.csv", "night/b.txt", "notes.txt"], "in both, as was asked for"
    (recordings / "night" / "b.wav").rename(recordings / "night" / "c.wav")
    run(out, format_="raven", overwrite=True)
    assert names() == ["a.selections.txt", "night/c.selections.txt", "notes.txt"]


def test_a_journal_deletes_nothing_elsewhere(run: Detect, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "tables", tmp_path / "mine.csv"
    run(out)
    elsewhere.write_text("of a person")
    journal = out / ".edgekd-detect"
    text = journal.read_text().replace('["a.csv"]', f'["../mine.csv", "{elsewhere}"]')
    assert "mine.csv" in text
    journal.write_text(text)
    run(out, overwrite=True)
    assert elsewhere.exists()


def test_a_recording_is_not_replaced_by_its_table(run: Detect, recordings: Path, tmp_path: Path) -> None:
    before = (recordings / "a.wav").read_bytes()
    (tmp_path / "link.csv").symlink_to(recordings / "a.wav")
    for out in (recordings / "a.wav", tmp_path / "link.csv"):
        with pytest.raises(UsageError, match="is a recording to listen to"):
            run(out, format_="csv", overwrite=True)
    assert (recordings / "a.wav").read_bytes() == before


@pytest.mark.parametrize(
    "wrong", [{"path": ["a"]}, {"state": 1}, {"events": [[1]]}, {"seconds": "x"}, {"events": None}, {"tables": [1]}]
)
def test_a_line_of_a_journal_that_is_none_is_refused(run: Detect, tmp_path: Path, wrong: dict[str, Any]) -> None:
    run(tmp_path / "d.csv")
    journal = tmp_path / ".d.csv.edgekd-detect"
    head, first, *_ = journal.read_text().splitlines()
    line = json.loads(first) | wrong
    if wrong == {"state": 1}:
        del line["state"]
    journal.write_text(f"{head}\n{json.dumps(line)}\n")
    with pytest.raises(InputError, match=r"not what 'edgekd detect' writes\. Begin anew: --overwrite"):
        run(tmp_path / "d.csv")


@pytest.mark.parametrize("format_", ["csv", "jsonl", "raven", "audacity"])
def test_odd_names_of_recordings_are_found_again(
    tiny_bundle: Path, thresholds: dict[str, float], tmp_path: Path, format_: str
) -> None:
    odd = ["x\t1\n.wav", " lead.wav", "trail .wav", "b\\s.wav", "\\u00e9.wav", 'u\u0308/e\u0301, "q".wav', "=1+1.wav"]
    odd.append(os.fsdecode(b"\xff.wav"))
    for name in odd:
        (tmp_path / "rec" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(os.fsencode(tmp_path / "rec" / name), restless(1, seconds=3), RATE)
    found = detect(tiny_bundle, [tmp_path / "rec"], tmp_path / "tables", format_=format_, thresholds=[(None, 0.0)])
    assert len({event.recording for event in found.events}) == len(odd)
    known = RecordingNames(odd)
    meant = [(known.find(event.recording), event.label) for event in read_events(tmp_path / "tables")]
    expected = [(event.recording.removeprefix(f"{tmp_path}/rec/"), event.label) for event in found.events]
    assert sorted(meant, key=str) == sorted(expected, key=str)


def test_where_nobody_has_chosen_thresholds_it_is_told(tiny_copy: Run, recordings: Path) -> None:
    """As of a run of an older version."""
    assert detect(tiny_copy.folder, [recordings]).notes == ()
    (tiny_copy.folder / "int8" / "thresholds.json").unlink()
    told: list[str] = []
    detect(tiny_copy.folder, [recordings], tell=told.append)
    assert told == [
        f"{tiny_copy.folder}: no thresholds were chosen, so each class is heard from 0.5 on. 'edgekd thresholds RUN'"
        " chooses them."
    ]
    assert detect(tiny_copy.folder, [recordings], thresholds={"tug": 0.7}).notes == ()
