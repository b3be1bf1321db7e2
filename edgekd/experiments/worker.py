"""The process that trains cells: `python -P -m edgekd.experiments.worker`, started by `pool`.

It takes a job, a line of JSON on standard input, trains, and writes `done` on standard output; the next line is the
next job. A job that fails ends it, with the error as the last line on standard error and the exit code of its kind.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from edgekd.errors import explained
from edgekd.escaping import terminal_text
from edgekd.experiments.pool import DONE, INTERRUPTED
from edgekd.process_setup import keep_freed_memory, set_up_threads

if TYPE_CHECKING:
    from edgekd.experiments.grid import Job


def main() -> None:
    """Do the jobs of standard input until it closes."""
    set_up_threads()  # before torch is loaded
    keep_freed_memory()
    try:
        for line in jobs(sys.stdin, sys.stdout):
            from edgekd.experiments.grid import Job  # loads torch

            train(Job.from_line(line))
    except BaseException as error:  # SystemExit of code of the user's own too
        if os.environ.get("EDGEKD_DEBUG") == "1":
            raise
        line, exit_code = explained(error)
        print(terminal_text(f"edgekd: {line}", sys.stderr), file=sys.stderr)
        sys.exit(exit_code)


def train(job: Job) -> None:
    """Train the student of `job`, or only its teacher, going on with what is there."""
    from edgekd.experiments.chain import distill_and_quantize
    from edgekd.experiments.grid import scores_of
    from edgekd.experiments.unknown import measure_unknown
    from edgekd.own_code import trust
    from edgekd.quantization.qat import quantize
    from edgekd.runs.run import Run, can_go_on
    from edgekd.training.distill import adapt_teacher

    trust(job.trust)
    config, resume = job.config, can_go_on(job.config)
    if not job.student:
        adapt_teacher(config, resume=resume, overwrite=not resume)
    elif "student" not in scores_of(config):
        lender = None if job.teacher is None else Run.open(job.teacher)
        distill_and_quantize(config, int8=job.quantize, resume=resume, overwrite=not resume, teacher_run=lender)
    elif job.quantize and "int8" not in scores_of(config):
        quantize(Run.open(config.out), resume=True)
    if job.student and config.data.leave_out:
        measure_unknown(Run.open(config.out))


def jobs(lines: IO[str], answers: IO[str]) -> Iterator[str]:
    """The jobs that `lines` holds, in the order they come, each answered as done when the next is asked for."""
    waiting: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in lines:
            waiting.put(line)
        os._exit(INTERRUPTED)  # files are written whole or not at all, so a job may be left anywhere

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()
        answers.write(DONE + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
