"""Layers of a TensorRT engine, from what a stand-in for trtexec writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgekd.device import runner
from edgekd.errors import InputError
from edgekd.profiling.engine_layers import engine_layers, trtexec_layers

PROFILE = """[
  { "count" : 812 }
, { "name" : "stem/conv + stem/relu", "timeMs" : 8.12, "averageMs" : 0.01, "medianMs" : 0.0099, "percentage" : 10 }
, { "name" : "body/conv + body/relu", "timeMs" : 64.96, "averageMs" : 0.08, "medianMs" : 0.08, "percentage" : 80 }
, { "name" : "Reformatting CopyNode for Input Tensor 0", "timeMs" : 8.12, "averageMs" : 0.01, "percentage" : 10 }
]
"""
INFO: dict[str, Any] = {
    "Layers": [
        {
            "Name": "stem/conv + stem/relu",
            "LayerType": "CaskConvolution",
            "Outputs": [{"Name": "b", "Dimensions": [1, 16, 20, 20], "Format/Datatype": "Half"}],
        },
        {
            "Name": "body/conv + body/relu",
            "LayerType": "CaskConvolution",
            "Outputs": [
                {
                    "Name": "d",
                    "Dimensions": [1, 32, 20, 20],
                    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
                }
            ],
        },
    ],
    "Bindings": ["x", "y"],
}


def test_trtexecs_profile_is_read_with_what_it_tells_of_the_layers(convolutions: onnx.ModelProto) -> None:
    found = trtexec_layers(PROFILE, json.dumps(INFO), convolutions.SerializeToString())
    assert (found[0].name, found[0].ms, found[0].share) == ("body/conv + body/relu", 0.08, pytest.approx(0.8))
    assert (found[0].operator, found[0].precision, found[0].output_bytes) == ("CaskConvolution", "int8", 32 * 400)
    assert found[0].macs == 32 * 20 * 20 * 16
    stem = next(layer for layer in found if layer.name.startswith("stem"))
    assert (stem.precision, stem.output_bytes) == ("float16", 2 * 16 * 400)


def test_an_engine_that_tells_names_only_is_read_too() -> None:
    found = trtexec_layers(PROFILE, json.dumps({"Layers": ["stem/conv + stem/relu"], "Bindings": []}))
    assert len(found) == 3
    assert {(layer.operator, layer.precision, layer.macs) for layer in found} == {("", None, None)}


@pytest.mark.parametrize("text", ["", "{}[", '["a"]', '[{"averageMs": 1}]', "3"])
def test_what_is_no_profile_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="not the JSON that --exportProfile writes"):
        trtexec_layers(text)


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trtexec where NVIDIA's packages put it."""
    monkeypatch.setattr(runner.trtexec, "TRTEXEC", str(tmp_path / "absent" / "trtexec"))


@pytest.fixture
def trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in on PATH that knows these options only, and writes a profile; returns the log of its arguments."""
    log = tmp_path / "calls"
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    cases = "\n".join(
        [
            f"--loadEngine={tmp_path}/model.engine|--dumpProfile|--separateProfileRun|--useDLACore=0) ;;",
            f"--exportProfile=*) printf '%s' '{PROFILE}' >\"${{argument#*=}}\" ;;",
            f"--exportLayerInfo=*) printf '%s' '{json.dumps(INFO)}' >\"${{argument#*=}}\" ;;",
            '*) echo "[01/01/2026-00:00:00] [E] Unknown option: $argument"; exit 1 ;;',
        ]
    )
    begin = f'echo "[TensorRT ${{PRINTS:-v100300}}]"; [ "$1" != --help ] || exit 0; echo "$@" >{log}'
    program.write_text(f"#!/bin/sh\n{begin}\nfor argument; do case $argument in\n{cases}\nesac; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return log


def test_an_engine_is_profiled_by_trtexec(trtexec: Path, tmp_path: Path) -> None:
    found = engine_layers(tmp_path / "model.engine")
    assert [layer.precision for layer in found[:1]] == ["int8"]
    assert trtexec.read_text().split()[1:] == [
        "--exportProfile=profile.json",
        "--exportLayerInfo=layers.json",
        "--dumpProfile",
        "--separateProfileRun",
    ]


def test_from_11_on_the_layers_have_a_run_of_their_own_without_asking(
    trtexec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRINTS", "v110401")
    engine_layers(tmp_path / "model.engine")
    assert trtexec.read_text().split()[-1] == "--dumpProfile"


def test_an_engine_for_an_accelerator_is_run_on_it(trtexec: Path, tmp_path: Path) -> None:
    engine_layers(tmp_path / "model.engine", on_dla=True)
    assert "--useDLACore=0" in trtexec.read_text().split()


def test_trtexecs_own_error_is_passed_on(trtexec: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other\.engine: trtexec cannot run it: Unknown option: --loadEngine"):
        engine_layers(tmp_path / "other.engine")


def test_without_trtexec_the_error_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no trtexec on PATH or in .*absent, which.*leave --layers out"):
        engine_layers(tmp_path / "model.engine")
