"""Errors a user can cause, each with the exit code the command line ends with.

A message is written for a person at a terminal: what is wrong, where (file, key, value), what to do next.
Anything that is not an `EdgekdError` is a bug and exits with 1.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Callable, Iterable

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk that is full, or of which no more may be had
LONGEST_SHOWN = 160  # letters of a value in a message


class EdgekdError(Exception):
    """Base of every error that is shown without a traceback."""

    exit_code = 1


class UsageError(EdgekdError):
    """Wrong usage or configuration: an unknown name, a key that does not exist, a value out of range."""

    exit_code = 2


class InputError(EdgekdError):
    """Bad or missing input: data, weights, a run folder, a bundle."""

    exit_code = 3


class GateError(EdgekdError):
    """A gate refused: parity, accuracy drop, memory budget, a leaking split."""

    exit_code = 4


def explained(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for what ended a process."""
    if isinstance(error, EdgekdError):
        return f"error: {error}", error.exit_code
    if isinstance(error, OSError) and error.errno is not None:  # the machine refused; without errno, a library did
        where = f"{error.filename}: " if error.filename else ""
        advice = "Check the path, its permissions and the space on its disk."
        return f"error: {where}{error.strerror}. {advice}", InputError.exit_code
    return f"unforeseen failure: {type(error).__name__}: {error} (EDGEKD_DEBUG=1 shows where)", 1


def shown(value: object) -> str:
    """A value in a message: on one line, and only how it begins where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python prints no integer of more than 4,300 digits
        return f"a value too large to print ({type(value).__name__})"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """The error for a name that is not in a table: the nearest valid one and the whole list."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"Unknown {kind} '{name}'.{hint} Valid: {', '.join(names)}.")


def check_all(checks: Iterable[Callable[[], object]]) -> None:
    """Call every check, and raise one `UsageError` for all that raise one; anything else is raised at once."""
    mistakes = []
    for check in checks:
        try:
            check()
        except UsageError as mistake:
            mistakes.append(str(mistake))
    if mistakes:
        raise UsageError(" ".join(mistakes))
