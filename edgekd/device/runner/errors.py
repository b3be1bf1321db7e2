"""What is wrong, where, and what to do next: one line for a person, and an exit code for a program."""

from __future__ import annotations

import os
import sys
import traceback

WRONG_USAGE, BAD_INPUT, DISAGREES, INTERRUPTED = 2, 3, 4, 130


class RunnerError(Exception):
    """What is wrong, where, and what to do next, in one line."""

    exit_code = BAD_INPUT


class WrongUsage(RunnerError):
    """Asked for in a way that cannot be done."""

    exit_code = WRONG_USAGE


class BadSamples(RunnerError):
    """These samples cannot be classified; others may."""


def complain(message: str, failure: RunnerError | None = None) -> None:
    """A line on standard error; with `EDGEKD_DEBUG=1` also where `failure` came from."""
    if failure is not None and os.environ.get("EDGEKD_DEBUG") == "1":
        traceback.print_exception(type(failure), failure, failure.__traceback__)
    print(f"edgekd_runner: {message}", file=sys.stderr, flush=True)
