"""What has been listened to already, so that nothing is listened to twice: a file of JSON lines beside the tables.

Its first line says by which classifier and by which rule; each other one is a recording, with its size and time, and
its events and its tables; of several lines of one the last counts. A line that was being written when the process ended
is dropped. Size and time are those from before it was listened to: a recorder may still write the file, or somebody
replace it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from edgekd.detection.listening import Heard
from edgekd.errors import InputError, UsageError, shown
from edgekd.escaping import legible
from edgekd.events.event import Event
from edgekd.files.whole import to_disk, write_text

FORMAT = 1
NAME = ".edgekd-detect"  # in a folder of tables, and behind the name of a single one

_ASKED = {  # by which option somebody would have changed a setting
    "hop_samples": "--hop (in samples)",
    "open": "thresholds",
    "minimum_samples": "--minimum (in samples)",
    "gap_samples": "--gap (in samples)",
    "exclusive": "--exclusive",
    "time_zone": "--time-zone",
    "time_pattern": "--time-pattern",
}


class Journal:
    """The journal at `path`, of `made_by`: the classifier's digest, and settings."""

    def __init__(self, path: Path, done: dict[str, dict[str, Any]]) -> None:
        self._path, self._done = path, done
        self._tables: dict[str, list[str]] = {key: line.get("tables", []) for key, line in done.items()}

    @classmethod
    def open(cls, path: Path, made_by: Mapping[str, Any], out: Path, *, anew: bool) -> Self:
        """Go on with the one that is there, or begin one, without the tables of the one that is there. Raises
        `UsageError` where that one is of another classifier or of other settings, `InputError` where it cannot be read
        or written."""
        done: dict[str, dict[str, Any]] = {}
        head = {"format": FORMAT, **made_by}
        if path.exists() and anew:
            _remove_tables(path)
        if path.exists() and not anew:
            before, *lines = _lines(path)
            if lines:
                _check_same(before, head, out)
            done = {line["path"]: line for line in lines}
        write_text(path, "".join(f"{json.dumps(line)}\n" for line in (head, *done.values())))
        return cls(path, done)

    def heard(self, path: Path, name: str) -> Heard | None:
        """What was heard of the recording at `path`, in its present state; None: nothing yet."""
        found = self._done.get(_key(path))
        if found is None or found["state"] != state_of(path):
            return None
        return _heard(found, name)

    def add(self, path: Path, state: list[int] | None, heard: Heard) -> None:
        """Note, on the disk, what was heard of the recording at `path`, which was in this `state` before. Raises
        `InputError`."""
        key = _key(path)
        line = {
            "path": key,
            "state": state,
            "seconds": heard.seconds,
            "missed": heard.missed,
            "failed": heard.failed,
            "events": [[event.start, event.end, event.label, event.score] for event in heard.events],
            "tables": self._tables.get(key, []),
        }
        self._append(line)

    def wrote(self, path: Path, table: Path) -> None:
        """Note that `table`, as its path is below the folder that the journal is in, is of the recording at `path`."""
        key = _key(path)
        tables = self._tables.setdefault(key, [])
        if str(table) not in tables:
            tables.append(str(table))
            if key in self._done:  # else the line comes when the recording is done
                self._append({**self._done[key], "tables": tables})

    def _append(self, line: dict[str, Any]) -> None:
        """Raises `InputError`."""
        try:
            with open(self._path, "ab") as file:
                file.write(f"{json.dumps(line)}\n".encode())
                file.flush()
                to_disk(file.fileno())
        except OSError as failure:
            raise InputError(f"{self._path}: cannot be written: {failure.strerror}.") from None
        self._done[line["path"]] = line


def _remove_tables(path: Path) -> None:
    """Delete what the journal at `path` says was written beside it: what comes may have other names."""
    with suppress(InputError):  # no journal says nothing
        for line in _lines(path)[1:]:
            for name in map(Path, line.get("tables", [])):
                if not name.is_absolute() and ".." not in name.parts:
                    (path.parent / name).unlink(missing_ok=True)


def _key(path: Path) -> str:
    return legible(str(path.absolute()))


def state_of(path: Path) -> list[int] | None:
    """Size and time of a file: another one has others. None for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _heard(line: Mapping[str, Any], name: str) -> Heard:
    """Raises `ValueError`, `TypeError` or `LookupError` for a line that is none of ours."""
    events = tuple(
        Event(name, float(start), float(end), str(label), float(score)) for start, end, label, score in line["events"]
    )
    return Heard(name, float(line["seconds"]), events, line["missed"], line["failed"])


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"{path}: cannot be read: {failure}. Begin anew: --overwrite.") from None
    whole = text[: text.rfind("\n") + 1].splitlines()
    try:
        lines = [json.loads(line) for line in whole]
        if not lines or lines[0]["format"] != FORMAT:
            raise ValueError
        for line in lines[1:]:
            if not isinstance(line["path"], str) or "state" not in line:
                raise ValueError
            _heard(line, "")
            if not all(isinstance(table, str) for table in line.get("tables", [])):
                raise ValueError
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InputError(f"{path}: not what 'edgekd detect' writes. Begin anew: --overwrite.") from None
    return lines


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    advice = "Name another --out, or begin anew: --overwrite."
    if before.get("model") != now["model"]:
        raise UsageError(f"{out}: was begun with another model. {advice}")
    was, is_ = before.get("settings") or {}, now["settings"]
    for name in {**was, **is_}:
        if was.get(name) != is_.get(name):
            raise UsageError(
                f"{out}: was begun with {_ASKED.get(name, name)} {shown(was.get(name))}, not {shown(is_.get(name))}. "
                f"{advice}"
            )
