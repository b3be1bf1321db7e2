"""The desk, the runner and a stream find the same events in the same recording: one rule, one part of the program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.detection.detect import detect, detect_piped
from edgekd.errors import GateError
from edgekd.events.event import Event
from edgekd.events.tables import read_events
from edgekd.exporting import detection
from edgekd.exporting.detection import detection_of, with_hops
from edgekd.exporting.predict import open_predictor
from edgekd.runs.run import Run
from edgekd.runs.thresholds import read_thresholds, write_thresholds
from tests.detection.conftest import RATE, restless


@pytest.mark.parametrize("rate", [4_000, 11_025])
def test_desk_runner_and_stream_find_the_same_events(
    tiny_bundle: Path, thresholds: dict[str, float], tmp_path: Path, rate: int
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, restless(1, rate=rate), rate)
    asked = [f"--threshold={name}={score}" for name, score in thresholds.items()]
    asked += ["--hop", "0.25", "--gap", "0.25", "--minimum", "0.5", "--exclusive"]
    runner = [sys.executable, str(tiny_bundle / "edgekd_runner.py")]

    desk = detect(
        tiny_bundle, [path], hop_s=0.25, gap_s=0.25, minimum_s=0.5, exclusive=True, thresholds=thresholds
    ).events
    subprocess.run([*runner, "detect", str(path), *asked, "--out", str(tmp_path / "a.jsonl")], check=True)
    samples, _ = soundfile.read(path, dtype="int16")
    stream = subprocess.run(
        [*runner, "stream", "--events", "--rate", str(rate), *asked],
        input=samples.tobytes(),
        capture_output=True,
        check=True,
    )
    (tmp_path / "stream.jsonl").write_bytes(stream.stdout)

    assert len(desk) > 5
    assert len({event.label for event in desk}) > 1
    found = {name: read_events(tmp_path / f"{name}.jsonl") for name in ("a", "stream")}
    assert compared(found["a"]) == compared(desk)
    assert compared(found["stream"]) == compared(desk)
    np.testing.assert_allclose(scores(found["a"]), scores(desk), atol=1e-4)
    np.testing.assert_allclose(scores(found["stream"]), scores(desk), atol=1e-4)


def test_a_bundle_says_what_makes_an_event(tiny_run: Run, tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    chosen = read_thresholds(tiny_run, "int8")
    assert chosen is not None
    events = {name: each for name, each in chosen.classes.items() if name != "background"}
    assert manifest["detection"] == {
        "hop_samples": 1_024,  # a quarter of a clip is 1000, and a map has a column every 1024
        "shared_samples": [128, 256, 512, 1_024, 2_048],
        "open": {name: each.open for name, each in events.items()},
        "close": {name: each.close for name, each in events.items()},
        "minimum_s": 0.0,
        "gap_s": 0.0,
        "exclusive": False,
        "background": "background",
        "chosen": "best F1, on the validation side: 15 clips, 0.00417 h",
        "reject": None,
    }
    assert manifest["classifier"]["temperature"] == chosen.temperature.value


def test_a_run_hears_by_its_thresholds_as_its_bundle_does(tiny_run: Run, tiny_bundle: Path) -> None:
    desk, shipped = (open_predictor(folder) for folder in (tiny_run.folder, tiny_bundle))
    for hop_s in (None, 0.5, 0.25, 0.3):
        assert desk.rule(hop_s=hop_s).settings() == shipped.rule(hop_s=hop_s).settings()


def test_a_hop_that_is_moved_is_told_in_the_same_words(tiny_run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", restless(2, seconds=3), RATE)
    command = [sys.executable, str(tiny_bundle / "edgekd_runner.py"), "detect", str(tmp_path / "a.wav"), "--hop", "0.5"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for model in (tiny_run.folder, tiny_bundle):
        told: list[str] = []
        found = detect(model, [tmp_path / "a.wav"], hop_s=0.5, tell=told.append)
        assert found.notes == tuple(told) != ()
        with (tmp_path / "a.wav").open("rb") as file:
            piped: list[str] = []
            found, _ = detect_piped(model, file.fileno(), hop_s=0.5, note=piped.append)
        assert found.notes == tuple(piped) == tuple(told)
        assert told[0].startswith("--hop 0.5: windows come every 0.512 s, ")
        assert done.stderr.splitlines()[0].endswith(told[0])
        assert detect(model, [tmp_path / "a.wav"], hop_s=0.512).notes == ()


def test_the_log_mel_is_shared_of_a_student_that_is_no_graph(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def onnx_of(*_: object) -> bytes:
        raise GateError("no ONNX")

    monkeypatch.setattr(detection, "onnx_of", onnx_of)
    found = with_hops(detection_of(tiny_run, "int8"), tiny_run)
    assert (found.hop_samples, found.shared_samples) == (1_024, (128,))


def test_where_nobody_has_chosen_there_are_defaults(tiny_copy: Run) -> None:
    (tiny_copy.folder / "int8" / "thresholds.json").unlink()
    found = detection_of(tiny_copy, "int8")
    events = [name for name in tiny_copy.classes if name != "background"]
    assert (found.open, found.close) == (dict.fromkeys(events, 0.5), dict.fromkeys(events, 0.4))
    assert (found.chosen, found.background) == (None, "background")


def test_a_class_that_nothing_was_chosen_for_has_the_default(tiny_copy: Run) -> None:
    kept = read_thresholds(tiny_copy, "int8")
    assert kept is not None
    nothing = kept.classes["tug"].model_copy(update={"open": None, "close": None})
    write_thresholds(tiny_copy, "int8", kept.model_copy(update={"classes": {**kept.classes, "tug": nothing}}))
    found = detection_of(tiny_copy, "int8")
    assert (found.open["tug"], found.close["tug"]) == (0.5, 0.4)
    assert found.open["cargo"] == kept.classes["cargo"].open


def compared(events: list[Event]) -> list[tuple[float, float, str]]:
    return sorted((event.start, event.end, event.label) for event in events)


def scores(events: list[Event]) -> list[float | None]:
    return [event.score for event in sorted(events, key=lambda each: (each.start, each.end, each.label))]
