"""Manifests, digests and the choice of an engine, as they are and as a careless hand leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekd.device.runner.classifier import Runner
from edgekd.device.runner.errors import RunnerError

if TYPE_CHECKING:
    from tests.device.conftest import Toy
    from tests.device.runner.conftest import StandInTensorRT


@pytest.mark.parametrize(
    "edit",
    [
        ('"precision": "int8"', '"precision": "fp32"'),
        ('"input": "waveform"', '"input": "log_mel"'),
        ('"gain": 0.7', '"gain": 0.8'),
        ('"probability": 0.05', '"probability": 0.5'),
        ('"hop_samples": 300', '"hop_samples": 400'),
    ],
)
def test_a_manifest_edited_by_hand_is_refused(bundle: Path, edit: tuple[str, str]) -> None:
    path = bundle / "manifest.json"
    text = path.read_text()
    assert edit[0] in text
    path.write_text(text.replace(*edit))
    with pytest.raises(RunnerError, match=r"manifest\.json: changed since the bundle was written"):
        Runner(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", "not the manifest"),
        (b"{}", "not the man"),
    ],
)
def test_a_manifest_that_is_something_else_is_refused(bundle: Path, content: bytes, message: str) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(RunnerError, match=message):
        Runner(bundle)


def test_a_manifest_of_another_format_points_to_its_own_runner(toy: Toy, bundle: Path) -> None:
    toy.sign(bundle, format=2)
    with pytest.raises(RunnerError, match="format 2, this runner reads 1"):
        Runner(bundle)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"precision": "fp8"}', '{"precision": ["int8"]}', "\0\1"])
def test_a_choice_that_was_edited_by_hand_is_refused(
    toy: Toy, jetson: Path, tensorrt: StandInTensorRT, content: str
) -> None:
    toy.build(jetson, "int8")
    (jetson / "engine.json").write_text(content)
    with pytest.raises(RunnerError, match=r"engine\.json: not what `choose` writes\. Next: python3 edgekd_runner\.py"):
        Runner(jetson)


def test_a_chosen_engine_that_is_gone_is_named(toy: Toy, jetson: Path, tensorrt: StandInTensorRT) -> None:
    toy.build(jetson, "int8")
    (jetson / "engine.json").write_text('{"precision": "fp16"}')
    with pytest.raises(RunnerError, match=r"model-fp16\.engine was chosen and is gone"):
        Runner(jetson)
    assert Runner(jetson, precision="int8").verify()["agrees"]


def test_what_is_heard_is_of_the_type_that_it_is_to_have_or_not_there(toy: Toy, bundle: Path) -> None:
    classifier = json.loads((bundle / "manifest.json").read_text())["classifier"]
    for name in ("channel", "full_scale", "trim_silence"):
        toy.sign(bundle, classifier={key: value for key, value in classifier.items() if key != name})
        Runner(bundle)  # of an older version
        for odd in (None, -1, "2", {}, float("nan"), 10**301, 0.5 if name != "full_scale" else 0):
            toy.sign(bundle, classifier={**classifier, name: odd})
            with pytest.raises(RunnerError, match=rf"classifier\.{name} = "):
                Runner(bundle)
    toy.sign(bundle, classifier={**classifier, "channel": 1, "full_scale": 32768, "trim_silence": True})
    assert Runner(bundle).channel == 1
