"""Real processes, but of the standard library alone: they start in a blink."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekd.experiments.pool import Failure, Worker, environments, open_pool

SCRIPT = """
import os, sys, time
from edgekd.experiments.worker import jobs
for job in jobs(sys.stdin, sys.stdout):
    print("a library says something")
    print(os.getpid(), os.environ.get("NAME"), "at", job, end="", file=sys.stderr, flush=True)
    exec(job)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with open(tmp_path / "errors", "w+b") as errors:
        worker = Worker((sys.executable, "-c", SCRIPT), {**os.environ, "NAME": "first"}, errors)
        yield worker
        worker.close()


@pytest.fixture
def said(tmp_path: Path) -> Callable[[], str]:
    return (tmp_path / "errors").read_text


def test_one_process_does_job_after_job(worker: Worker, said: Callable[[], str]) -> None:
    assert worker.do("pass") is None
    process = said().split()[0]
    assert said() == f"{process} first at pass\n"
    assert worker.do("time.sleep(0)") is None
    assert said() == f"{process} first at time.sleep(0)\n", "what the job before wrote is gone"


def test_a_job_that_ends_its_process_fails_and_the_next_gets_another(worker: Worker, said: Callable[[], str]) -> None:
    assert worker.do("pass") is None
    process = said().split()[0]
    job = "print('x' * 100_000, 'edgekd: error: no such folder.', '', sep='\\n', file=sys.stderr); sys.exit(3)"
    failure = worker.do(job)
    assert failure is not None
    assert (failure.exit_code, failure.line) == (3, "edgekd: error: no such folder.")
    assert failure.log == said()
    assert worker.do("pass") is None
    assert said().split()[0] != process


@pytest.mark.parametrize(
    ("job", "code", "line"),
    [
        ("os.kill(os.getpid(), 9)", 1, "its process was ended by SIGKILL: out of memory?"),
        ("os.abort()", 1, "its process was ended by SIGABRT"),
        ("os.ftruncate(2, 0); os._exit(0)", 1, "its process ended with exit code 0"),
        ("raise ValueError('a bug')", 1, "ValueError: a bug"),
    ],
)
def test_a_job_that_dies_says_how(worker: Worker, job: str, code: int, line: str) -> None:
    failure = worker.do(job)
    assert failure is not None
    assert (failure.exit_code, failure.line) == (code, line)


def test_closing_ends_a_job_in_its_midst_and_no_other_is_begun(worker: Worker) -> None:
    found: list[Failure | None] = []
    thread = threading.Thread(target=lambda: found.append(worker.do("time.sleep(60)")))
    thread.start()
    time.sleep(0.5)
    started = time.monotonic()
    worker.close()
    thread.join(10)
    assert time.monotonic() - started < 10
    assert found[0] is not None
    late = worker.do("pass")
    assert late is not None
    assert late.line == "interrupted"


def test_a_worker_ends_with_its_parent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("time.sleep(60)\n")
    process.stdin.flush()
    assert "time.sleep" in process.stderr.readline(), "it is at work"
    process.stdin.close()  # as the kernel does when the parent is killed
    assert process.wait(10) == 130
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_workers_share_the_cores_unless_the_user_says_how_many(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    share = max(1, len(os.sched_getaffinity(0)) // workers)
    assert [each["OMP_NUM_THREADS"] for each in environments(workers, False)] == [str(share)] * workers
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert [each["OMP_NUM_THREADS"] for each in environments(workers, False)] == ["5"] * workers


def test_workers_take_turns_with_the_cuda_devices_they_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments(3, True)] == ["4", "6", "4"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments(3, False)] == ["4,6"] * 3


class Slow:
    """A hand that takes a job only when the test lets it."""

    def __init__(self, let: threading.Semaphore) -> None:
        self.let, self.done, self.closed = let, list[str](), False

    def do(self, job: str, /) -> None:
        self.let.acquire(timeout=10)
        self.done.append(job)

    def close(self) -> None:
        self.closed = True


def test_a_pool_gives_a_job_to_a_hand_that_is_free_and_closes_all() -> None:
    let, hands = threading.Semaphore(0), list[Slow]()

    def start(*_: object) -> Slow:
        hands.append(Slow(let))
        return hands[-1]

    with open_pool(2, False, start) as submit:
        submitted = [submit(str(number)) for number in range(6)]
        assert not any(future.done() for future in submitted)
        let.release(6)
        assert [future.result(10) for future in submitted] == [None] * 6
    assert sorted(job for hand in hands for job in hand.done) == list("012345")
    assert [hand.closed for hand in hands] == [True, True]
