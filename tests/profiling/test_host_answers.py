"""What a host says may be anything: it is used where it is what the runner prints, else told in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekd.device import edgekd_runner, host_agent
from edgekd.errors import InputError
from edgekd.exporting.manifest import Bundle
from edgekd.profiling.host_answers import answer_in, golden_of, latency_of, news_in
from edgekd.profiling.remote import profile_hosts
from edgekd.profiling.visit import HostFailure

VERIFIED: dict[str, Any] = {"agrees": True, "clips": 6, "agreement": 1.0, "largest_difference": 0.01}
VERIFIED |= {"engine": "onnxruntime", "precision": "int8"}
TIMED: dict[str, Any] = {"engine": "trtexec", "engine_version": None, "precision": "fp16", "threads": 1, "runs": 50}
TIMED |= dict.fromkeys(("mean_ms", "p50_ms", "p95_ms", "p99_ms", "spread_ms", "real_time_factor"), 2.0)
TIMED |= {"p50_interval_ms": [1.9, 2.1], "quantiles_ms": [2.0] * 101, "settled": True, "load_average": 0.1}
TIMED |= {"front_end_ms": None, "network_ms": None, "memory_bytes": 1, "peak_memory_bytes": 2}
TIMED |= {"machine": edgekd_runner.machine_state()}
NEWS: tuple[dict[str, Any], ...] = (
    {"folder": "/scratch/edgekd-x", "machine": "x86_64", "trtexec": False},
    {"step": "verify", "says": "x"},
    {"ended": "verify", "code": 0, "output": json.dumps(VERIFIED), "said": ["x"], "late": False},
    {"failure": "No space left on device", "errno": 28},
    {"removed": True},
)
ODD: tuple[Any, ...] = (None, "x", -3, float("nan"), 10**400, [], [[]], {}, {"a": 1})


def spoilt(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`values` with one entry another, and the name of that entry."""
    for name in values:
        for odd in ODD:
            changed = copy.deepcopy(values)
            changed[name] = odd
            yield name, changed


def test_what_the_runner_prints_is_taken_as_it_is() -> None:
    assert answer_in("verify", json.dumps(VERIFIED)) == VERIFIED
    assert answer_in("bench", json.dumps(TIMED)) == TIMED
    on_dla = {**TIMED, "precision": "fp16-dla"}
    assert answer_in("bench", json.dumps(on_dla)) == on_dla
    assert latency_of(TIMED).repetitions == 50
    assert golden_of(VERIFIED).agrees


@pytest.mark.parametrize(("step", "good"), [("verify", VERIFIED), ("bench", TIMED)])
def test_an_answer_is_one_that_the_report_can_hold_or_an_error(step: str, good: dict[str, Any]) -> None:
    refused = set()
    for name, answer in spoilt(good):
        try:
            found = answer_in(step, json.dumps(answer))
        except InputError as failure:
            assert "\n" not in str(failure)
            refused.add(name)
            continue
        golden_of(found) if step == "verify" else latency_of(found)
    assert refused == set(good)
    for line in ("[" * 100_000, "{", "{}", "[]", "null", '{"engine": ' + "7" * 5_000 + "}"):
        with pytest.raises(InputError):
            answer_in(step, line)


def test_an_answer_names_what_is_wrong_with_it() -> None:
    with pytest.raises(InputError, match=r"^printed p50_ms = -1: .* Export the bundle again\.$"):
        answer_in("bench", json.dumps({**TIMED, "p50_ms": -1}))
    with pytest.raises(InputError, match=r"^printed no quantiles_ms\. Export the bundle again\.$"):
        answer_in("bench", json.dumps({name: value for name, value in TIMED.items() if name != "quantiles_ms"}))
    with pytest.raises(InputError, match="printed agrees = 'no'"):
        answer_in("verify", json.dumps({**VERIFIED, "agrees": "no"}))


def test_news_of_another_shape_are_no_news() -> None:
    for told in NEWS:
        assert news_in(said(told)) == told
        for name, odd in spoilt(told):
            if type(odd[name]) is not type(told[name]) and (name, odd[name]) != ("errno", None):
                assert news_in(said(odd)) is None, odd
    for text in ("[1]", "3", "null", "{", "[" * 100_000, "7" * 5_000):
        assert news_in((host_agent.MARK + text).encode()) is None
    assert news_in(b"Welcome to the buoy\n") is None
    assert news_in(said({"step": "dance"})) is None


def said(told: dict[str, Any]) -> bytes:
    return (host_agent.MARK + json.dumps(told) + "\n").encode()


def test_a_host_that_answers_anything_is_a_line_of_the_report(product: Bundle, tmp_path: Path) -> None:
    ended = {"ended": "verify", "code": 0, "output": json.dumps({"agrees": True}), "said": [], "late": False}
    # More than a pipe holds, before anything that was sent to it is read.
    (tmp_path / "said").write_bytes(b"Welcome!\n" * 50_000 + said(NEWS[0]) + said(ended) + said({"removed": True}))
    [found] = profile_hosts(product.folder, ["pi"], ssh=("sh", "-c", f"cat {tmp_path}/said"))
    assert isinstance(found, HostFailure)
    assert found.reason.startswith("pi: ")
    assert "bench" in found.reason or "verify printed" in found.reason
