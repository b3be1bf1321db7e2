from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.data.splits import recordings_on
from edgekd.runs.run import Run

TRUTH = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin File\t"
    "File Offset (s)\tSpecies\n"
)
FOUND = "Start (s),End (s),Scientific name,Common name,Confidence,File\n"


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Raven's truth of two recordings in a sequence, BirdNET's detections, and the audio with a third."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        Path("audio").mkdir(exist_ok=True)
        soundfile.write(f"audio/{name}.wav", np.zeros(60_000, dtype=np.int16), 1_000)
    rows = [("a", 0, 10, "tug"), ("a", 0, 30, "whale"), ("b", 60, 20, "tug"), ("b", 60, 50, "whale")]
    lines = [
        f"{n}\tSpectrogram 1\t1\t{file_at + at}\t{file_at + at + 4}\t100\t900\t{file}.wav\t{at}\t{label}\n"
        for n, (file, file_at, at, label) in enumerate(rows, 1)
    ]
    Path("true.txt").write_text(TRUTH + "".join(lines))
    found = [("a", 10.5, "tug", 0.9), ("a", 30, "tug", 0.4), ("b", 20, "tug", 0.8), ("b", 50, "whale", 0.7)]
    found.append(("c", 5, "tug", 0.2))
    Path("found.csv").write_text(
        FOUND + "".join(f"{at},{at + 4},Genus,{label},{score},/data/{file}.wav\n" for file, at, label, score in found)
    )
    return tmp_path


def test_figures_of_anybodys_tables_are_shown(edgekd: Callable, tables: Path) -> None:
    shown = edgekd("score", "found.csv", "true.txt", "--audio", "audio")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("3 recordings, 1 without a true event; 0.0500 h, 0.0456 h of background.")
    assert lines[1] == "Right: intersection over union of 30.0% or more, one detection an event."
    rows = [line.split() for line in lines]
    assert ["tug", "2", "4", "2", "50.0%", "100.0%", "66.7%", "40.0"] in rows
    assert ["whale", "2", "1", "1", "100.0%", "50.0%", "66.7%", "0"] in rows
    assert ["precision", "60.0%"] in [row[:2] for row in rows]
    assert ["false", "alarms/h,", "background", "22.0"] in [row[:4] for row in rows]
    assert "Best F1 from a score of 0.7; chosen on these very events, it flatters." in shown.out
    assert max(map(len, lines[2:])) <= 80


def test_figures_as_json(edgekd: Callable, tables: Path) -> None:
    call = ["score", "found.csv", "true.txt", "--audio", "audio", "--json"]
    scores = edgekd(*call).json()
    assert (scores["detections"], scores["truth"]) == ("found.csv", "true.txt")
    assert (scores["overall"]["right"], scores["overall"]["precision"]["value"]) == (3, 0.6)
    assert scores["overall"]["an_hour"]["value"] == pytest.approx(2 / 0.05)
    assert scores["overall"]["background_an_hour"]["value"] == pytest.approx(1 / (164 / 3600))
    assert [point["threshold"] for point in scores["curve"]] == [0.9, 0.8, 0.7, 0.4, 0.2]
    assert scores["best_threshold"] == 0.7
    above = edgekd(*call, "--threshold", "0.3", "--threshold", "tug=0.85").json()
    assert (above["overall"]["detections"], above["overall"]["right"]) == (2, 2)
    assert edgekd(*call, "--class", "whale").json()["overall"]["detections"] == 1


def test_tolerance_and_its_share_decide_what_is_right(edgekd: Callable, tables: Path) -> None:
    call = ["score", "found.csv", "true.txt", "--json"]
    assert edgekd(*call, "--tolerance", "0.4", "--tolerance-share", "0").json()["overall"]["right"] == 2
    assert edgekd(*call, "--tolerance", "0.5").json()["overall"]["right"] == 3
    assert edgekd(*call, "--overlap", "0.9").json()["overall"]["right"] == 2


def test_hours_give_rates_without_intervals(edgekd: Callable, tables: Path) -> None:
    shown = edgekd("score", "found.csv", "true.txt", "--hours", "0.05")
    assert "A rate has no interval where the length of each recording is not known (--audio)." in shown.out
    assert edgekd("score", "found.csv", "true.txt", "--hours", "0.05", "--json").json()["overall"]["an_hour"] == {
        "value": pytest.approx(40),
        "interval": None,
    }
    shown = edgekd("score", "found.csv", "true.txt").out
    assert "No false alarms an hour: how long the recordings are is not known (--audio or --hours)." in shown


def test_columns_and_formats_can_be_named(edgekd: Callable, tables: Path) -> None:
    Path("mine.csv").write_text("file,start,end,kind,how sure\na.wav,10,14,tug,0.5\n")
    call = ["score", "mine.csv", "true.txt", "--json"]
    told = edgekd("score", "mine.csv", "true.txt").refusal(3)
    assert told.startswith("mine.csv: no known column holds the labels. Name it (--label, --truth-label, ")
    scores = edgekd(*call, "--label", "kind", "--score", "how sure", "--format", "csv", "--truth-label", "species")
    assert scores.json()["best_threshold"] == 0.5
    told = edgekd(*call, "--label", "sort").refusal(3)
    assert told == "mine.csv: no column 'sort' for the label. There are: file, start, end, kind, how sure."
    assert "no column 'name' for the label" in edgekd(*call, "--label", "kind", "--truth-label", "name").refusal(3)
    assert "Unknown format 'raven2'" in edgekd(*call, "--truth-format", "raven2", "--label", "kind").refusal(2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--audio", "audio", "--hours", "1"], "--audio, --hours: one of the two"),
        (["--overlap", "0.5", "--tolerance", "1"], "--overlap, --tolerance: a detection is right by one of the two."),
        (["--tolerance-share", "0.5"], "--tolerance-share: goes with --tolerance SECONDS."),
        (["--threshold", "high"], "--threshold 'high': write a number, or CLASS=NUMBER."),
        (["--threshold", "nan"], "--threshold 'nan': write a number, or CLASS=NUMBER."),
        (["--threshold", "=0.5"], "--threshold '=0.5': write a number, or CLASS=NUMBER."),
        (["--threshold", "0.5", "--threshold", "0.6"], "--threshold '0.6': there is another one for all classes."),
        (["--threshold", "tug=1", "--threshold", "tug=2"], "--threshold 'tug=2': there is another one for tug."),
        (["--class", "whale", "--threshold", "tug=0.5"], "--threshold tug=...: 'tug' is not scored. Add --class tug"),
        (["--class", "tugg"], "Unknown class 'tugg'. Did you mean 'tug'? Valid: tug, whale."),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    edgekd: Callable, tables: Path, options: list[str], told: str
) -> None:
    assert edgekd("score", "found.csv", "true.txt", *options).refusal(2).startswith(told)


@pytest.mark.parametrize("value", ["0", "1.5", "nan"])
def test_an_overlap_that_no_pair_or_every_pair_has_is_refused(edgekd: Callable, tables: Path, value: str) -> None:
    assert edgekd("score", "found.csv", "true.txt", "--overlap", value).code == 2


def test_a_mistake_in_a_table_is_one_line_with_its_place(edgekd: Callable, tables: Path) -> None:
    Path("found.csv").write_text(Path("found.csv").read_text().replace("20,24", "24,20"))
    told = edgekd("score", "found.csv", "true.txt").refusal(3)
    assert told == "found.csv, line 4: ends at 20 s, before it begins (24 s). Are the two reversed?"
    assert edgekd("score", "gone.csv", "true.txt").refusal(3) == "gone.csv: no such file."


def test_names_cannot_move_the_cursor(edgekd: Callable, tables: Path) -> None:
    Path("found.csv").write_text(f"{FOUND}1,2,Genus,\x1b[31mred,0.5,a.wav\n")
    shown = edgekd("score", "found.csv", "true.txt")
    assert shown.code == 0
    assert "\x1b" not in shown.out + shown.err


def test_what_a_run_has_learnt_may_be_left_out(edgekd: Callable, tiny_run: Run, tmp_path: Path) -> None:
    test = recordings_on(tiny_run.folder / "splits.csv", "test")
    learnt = recordings_on(tiny_run.folder / "splits.csv", "train")
    header = "audio_file,start_time,end_time,annotation\n"
    (tmp_path / "true.csv").write_text(header + "".join(f"{name},0,1,tug\n" for name in [*test, *learnt]))
    (tmp_path / "found.csv").write_text(header + f"{test[0]},0,1,tug\n{learnt[0]},0,1,tug\n")
    call = ["score", tmp_path / "found.csv", tmp_path / "true.csv", "--hours", "1", "--json", "--test-of"]
    scores = edgekd(*call, tiny_run.folder).json()
    assert (scores["overall"]["events"], scores["overall"]["detections"]) == (len(test), 1)
    assert edgekd(*call, tmp_path).refusal(3).startswith(f"{tmp_path}: not a run folder")
