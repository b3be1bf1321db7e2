"""What is wrong, where, and what to do next: one line for a person, and an exit code for a program."""

from __future__ import annotations

import os
import re
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


def plain(text: object) -> str:
    """One line for a terminal: what is in names and files neither ends it nor moves the cursor."""
    spaced = re.sub("[\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]", " ", str(text))
    codes = "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
    return re.sub(codes, lambda found: f"\\u{ord(found[0]):04x}", spaced)


def complain(message: str, failure: RunnerError | None = None) -> None:
    """A line on standard error; with `EDGEKD_DEBUG=1` also where `failure` came from."""
    if failure is not None and os.environ.get("EDGEKD_DEBUG") == "1":
        traceback.print_exception(type(failure), failure, failure.__traceback__)
    print(f"edgekd_runner: {plain(message)}", file=sys.stderr, flush=True)
