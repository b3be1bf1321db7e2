"""The process that works on the device, started anew where it died or does not come back, without what it died in.

What a device cannot take back ends a process: an illegal address in a kernel, after which every call fails, or a
kernel that never ends, in which Python has no turn. So the work is done by a process of its own. It writes down what
it begins, and this one, which knows nothing of the device, ends it where it should long have been back, and has the
rest done by another.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.files.whole import write_json

MOST = 8  # processes
GRACE = 15.0  # seconds after its time that a part is waited for
AT_WORK = "at work"
LOST = "lost"
"""States of a part or check: begun, and begun by a process that is no more."""


def work(command: Sequence[str], results: Path, call: str, ends: float, grace: float = GRACE) -> int:
    """Run `command`, which writes `results` with the name of this `call`, to its end, and again after what it died in;
    its exit code.

    `ends`: a time (`time.time`) at which all should be over. A process that ends without such results is not
    started again.
    """
    for _ in range(MOST):
        process = subprocess.Popen(command)
        try:
            why = _ended(process, results, call, ends, grace)
        finally:
            process.kill()
            process.wait()
        found = read_results(results, call)
        if found is None:
            return process.returncode or 1
        if "exit_code" in found:
            return int(found["exit_code"])
        lose(found["parts"], why or f"its process ended with exit code {process.returncode}")
        write_json(results, found)
    return 1


def read_results(results: Path, call: str) -> dict[str, Any] | None:
    """What has been found in this `call`; None where nothing was written yet."""
    try:
        found: dict[str, Any] = json.loads(results.read_text())
    except (OSError, ValueError):
        return None
    return found if found.get("call") == call else None


def lose(parts: Mapping[str, dict[str, Any]], why: str) -> None:
    """Write down that the process is no more: in the check that it was at, so that the rest of its part can still be
    done, and in the part where that has none."""
    for part in parts.values():
        if part["state"] == AT_WORK:
            part.pop("until", None)  # the next process has to begin first
            checks = part["result"].get("checks", {})
            begun = [check for check in checks.values() if check["state"] == AT_WORK]
            for each in begun or ([] if checks else [part]):
                each |= {"state": LOST, "why": why}


def unfinished(part: Mapping[str, Any]) -> bool:
    """Whether a later call has something to do in a part."""
    checks = part.get("result", {}).get("checks", {}).values()
    return part["state"] != "done" or any(check["state"] not in ("done", "not here") for check in checks)


def known(part: Mapping[str, Any], *, same_call: bool) -> dict[str, Any]:
    """What was found in a part, with the checks that are not done again: in the same call all that were begun, in a
    later one those that came to an end."""
    result = part.get("result", {})
    checks = {name: check for name, check in result.get("checks", {}).items() if same_call or check["state"] == "done"}
    return {**result, "checks": checks}


def _ended(process: subprocess.Popen[bytes], results: Path, call: str, ends: float, grace: float) -> str:
    """Wait for `process`; why it is no longer waited for, empty where it ended by itself."""
    while True:
        try:
            process.wait(min(1.0, grace / 4))
            return ""
        except subprocess.TimeoutExpired:
            parts = (read_results(results, call) or {"parts": {}})["parts"].values()
            until = min((part["until"] for part in parts if part["state"] == AT_WORK and "until" in part), default=ends)
            if time.time() > until + grace:
                return f"it did not come back for {grace:.0f} s after its time, and its process was ended"
