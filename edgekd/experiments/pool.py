"""Processes that do one job after another, each job a line of text.

A worker says `done` after each job. One that ends instead has failed its job: its exit code and the last line it wrote
to standard error say why, and the next job gets a new process. So a job that crashes, or is killed for the memory it
takes, costs itself alone, and the seconds torch takes to load are paid once a worker and not once a job.

A worker ends at once when its standard input closes. The kernel closes that however the parent ends, so none is left
behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import IO, Protocol

from edgekd.process_setup import python_environment

COMMAND = (sys.executable, "-P", "-m", "edgekd.experiments.worker")
"""Starts a worker; `-P` keeps the current folder, which may be a data set with a `torch.py` in it, off its path."""

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
        lines = [line for line in log.splitlines() if line.strip()]
        return Failure(exit_code or 1, lines[-1] if lines else f"its process ended with exit code {exit_code}", log)

    def close(self) -> None:
        """End the process, in the midst of a job too."""
        self._closed = True
        process = self._process
        if process is not None:
            process.terminate()
            process.wait()


class Hand(Protocol):
    """What does jobs: a `Worker`."""

    def do(self, job: str, /) -> Failure | None: ...

    def close(self) -> None: ...


Start = Callable[[Sequence[str], Mapping[str, str], IO[bytes]], Hand]
"""How a hand is come by: `Worker`, or what stands for it."""


@contextmanager
def open_pool(workers: int, cuda: bool, start: Start = Worker) -> Iterator[Callable[[str], Future[Failure | None]]]:
    """A function that hands a job to a worker that is free, or the next that will be; all are ended on the way out.

    With `cuda` they share the CUDA devices out among them.
    """
    with ExitStack() as stack:
        free: SimpleQueue[Hand] = SimpleQueue()
        hands = [
            start(COMMAND, environment, stack.enter_context(tempfile.TemporaryFile()))
            for environment in environments(workers, cuda)
        ]
        for hand in hands:
            free.put(hand)

        def work(job: str) -> Failure | None:
            hand = free.get()
            try:
                return hand.do(job)
            finally:
                free.put(hand)

        threads = ThreadPoolExecutor(workers)
        try:
            yield lambda job: threads.submit(work, job)
        finally:
            for hand in hands:
                hand.close()
            threads.shutdown(cancel_futures=True)


def environments(workers: int, cuda: bool) -> list[dict[str, str]]:
    """The environment of each worker: its share of the processor cores and, in turn, one of the CUDA devices."""
    cores = max(1, len(os.sched_getaffinity(0)) // workers)
    shared = {"OMP_NUM_THREADS": str(cores), **python_environment()}
    devices = _cuda_devices() if cuda else []
    if len(devices) < 2:
        return [dict(shared) for _ in range(workers)]
    return [{**shared, "CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} for number in range(workers)]


def _cuda_devices() -> list[str]:
    import torch

    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible or [str(number) for number in range(torch.cuda.device_count())]
