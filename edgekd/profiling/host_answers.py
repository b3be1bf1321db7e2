"""What comes back from a host, with its types and bounds checked: the news of the program there, the runner's JSON.

The host may be anybody's machine, and the runner in a bundle may be of another version than this edgekd.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.device import host_agent
from edgekd.errors import InputError, shown
from edgekd.json_files import Amount, Count
from edgekd.profiling.machine import from_bench
from edgekd.report.results import Golden, Latency

Step = Literal["build", "verify", "bench"]
Engine = Literal["onnxruntime", "tensorrt", "tensorrt-rtx", "trtexec"]
Precision = Literal["fp32", "fp16", "int8", "fp16-dla"]


class _Told(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Ended(_Told):
    """How a step ended: its exit code, what it printed, the last lines of what it said."""

    ended: Step
    code: int
    output: str
    said: list[str]
    late: bool


class _Failure(_Told):
    """Why the bundle could not be copied."""

    failure: str
    errno: int | None


class _State(_Told):
    """Where the program is, what it is at, and that it has tidied up."""

    folder: str = ""
    machine: str = ""
    trtexec: bool = False
    step: Step = "verify"
    says: str = ""
    removed: bool = False


class _Answer(_Told):
    engine: Engine
    precision: Precision


class _Verified(_Answer):
    agrees: bool


class _Timed(_Answer):
    settled: bool
    engine_version: str | None
    threads: int = Field(ge=1)
    memory_bytes: Count | None
    peak_memory_bytes: Count | None
    load_average: Amount | None


def news_in(line: bytes) -> dict[str, Any] | None:
    """What a line of the program there tells; None for any other line, and for what is no news of its own."""
    _, mark, text = line.decode(errors="replace").partition(host_agent.MARK)
    if not mark:
        return None
    try:
        told = json.loads(text)
        model = _Ended if "ended" in told else _Failure if "failure" in told else _State
        model.model_validate(told)
    except (ValueError, TypeError, RecursionError):  # torn by the end of the connection, or another's
        return None
    return dict(told)


def answer_in(step: str, line: str) -> dict[str, Any]:
    """The JSON that the runner printed in `verify` or `bench`. Raises `InputError` where it is not what that prints."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError("printed no result that can be read.") from None
    try:
        if step == "verify":
            _Verified.model_validate(answer)
            golden_of(answer)
        else:
            _Timed.model_validate(answer)
            latency_of(answer)
            from_bench(answer)
    except KeyError as failure:
        raise InputError(f"printed no {failure.args[0]}. Export the bundle again.") from None
    except ValidationError as failure:
        mistake = failure.errors(include_url=False)[0]
        name = ".".join(str(part) for part in mistake["loc"]) or "its JSON"
        value = shown(mistake["input"])
        raise InputError(f"printed {name} = {value}: {mistake['msg']}. Export the bundle again.") from None
    return dict(answer)


def golden_of(verified: Mapping[str, Any]) -> Golden:
    """What `verify` found."""
    return Golden(**{name: verified[name] for name in ("agrees", "clips", "agreement", "largest_difference")})


def latency_of(timed: Mapping[str, Any]) -> Latency:
    """The times that `bench` found."""
    same = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "spread_ms", "settled", "network_ms", "real_time_factor")
    intervals = {name: _tuple(timed[name]) for name in ("p50_interval_ms", "quantiles_ms")}
    return Latency(
        **{name: timed[name] for name in same},
        **intervals,
        repetitions=timed["runs"],
        frontend_ms=timed["front_end_ms"],
    )


def _tuple(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else values
