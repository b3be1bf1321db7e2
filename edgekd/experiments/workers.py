"""Processes that do one job after another, each job told as a line of text.

A worker says `done` after each job. One that ends instead has failed its job: its exit code and the last line it wrote
to standard error say why, and the next job gets a new process. So a job that crashes, or is killed for the memory it
takes, costs itself alone, and the seconds torch takes to load are paid once a worker and not once a job.

A worker ends at once when its standard input closes. The kernel closes that however the parent ends, so none is left
behind.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

DONE = "done"
INTERRUPTED = 130


@dataclass(frozen=True)
class Failure:
    """Why a job failed: the exit code of its process, the line that says why, and all it wrote to standard error."""

    exit_code: int
    line: str
    log: str


class Worker:
    """One process at a time that runs `command`, started when there is a job for it.

    `errors` is a file open for writing and reading, which takes what the process writes to standard error.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], errors: IO[bytes]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._errors = errors
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def do(self, job: str) -> Failure | None:
        """Hand the job, a text of one line, to the process and wait for its end; None when it went well."""
        self._errors.seek(0)  # for the process too: it has the same place in the file
        self._errors.truncate()
        if self._process is None and not self._closed:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,  # Ctrl-C is the parent's affair: it closes the workers
            )
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return Failure(INTERRUPTED, "interrupted", "")
        try:
            process.stdin.write(job + "\n")
            process.stdin.flush()
            if any(line == DONE + "\n" for line in process.stdout):
                return None
        except (BrokenPipeError, ValueError):  # it has ended, or was closed
            pass
        self._process = None
        exit_code = process.wait()
        self._errors.seek(0)
        log = self._errors.read().decode(errors="replace")
        if exit_code < 0:
            name = signal.Signals(-exit_code).name
            hint = ": out of memory?" if name == "SIGKILL" else ""
            return Failure(1, f"its process was ended by {name}{hint}", log)
        said = [line for line in log.splitlines() if line.strip()]
        return Failure(exit_code or 1, said[-1] if said else f"its process ended with exit code {exit_code}", log)

    def close(self) -> None:
        """End the process, in the midst of a job too."""
        self._closed = True
        process = self._process
        if process is not None:
            process.terminate()
            process.wait()


def jobs(told: IO[str], answers: IO[str]) -> Iterator[str]:
    """The worker's side: the jobs `told`, in the order they come, each answered as done when the next is asked for."""
    waiting: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in told:
            waiting.put(line)
        os._exit(INTERRUPTED)  # files are written whole or not at all, so a job may be left anywhere

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()
        answers.write(DONE + "\n")
        answers.flush()
