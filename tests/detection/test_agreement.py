"""The desk, the runner and a stream find the same events in the same recording: one rule, one part of the program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.detection.detect import detect
from edgekd.events.event import Event
from edgekd.events.tables import read_events
from tests.detection.conftest import restless


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


def test_a_bundle_says_what_makes_an_event(tiny_bundle: Path) -> None:
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    classes = manifest["classifier"]["classes"]
    assert classes[0] == "background"
    assert manifest["detection"] == {
        "hop_samples": manifest["classifier"]["clip_samples"] // 4,
        "open": dict.fromkeys(classes[1:], 0.5),
        "close": dict.fromkeys(classes[1:], 0.4),
        "minimum_s": 0.0,
        "gap_s": 0.0,
        "exclusive": False,
        "background": "background",
        "chosen": None,
    }


def compared(events: list[Event]) -> list[tuple[float, float, str]]:
    return sorted((event.start, event.end, event.label) for event in events)


def scores(events: list[Event]) -> list[float | None]:
    return [event.score for event in sorted(events, key=lambda each: (each.start, each.end, each.label))]
