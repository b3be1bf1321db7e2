"""Being alone with a run folder, from the first file that is written to the last.

Of several processes that share a run the first holds the lock for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from edgekd import processes
from edgekd.config import DistillConfig
from edgekd.exact_float32 import exact_float32
from edgekd.files import folders
from edgekd.runs.run import Run

Work = TypeVar("Work", bound=Callable[..., Any])


@contextmanager
def at_work(folder: Path, device: str) -> Iterator[None]:
    """Be alone with a run folder, which need not be there yet, in all processes that compute on `device`; float32 is
    then exact.

    Raises `UsageError` that names the process that has it.
    """
    processes.join(device)
    with exact_float32(), ExitStack() as stack:

        def hold() -> None:
            stack.enter_context(folders.held(folder))

        processes.from_first(hold)
        yield


def makes_run(work: Work) -> Work:
    """A decorator of what makes the run of a `config`: it is alone, and what it has made takes its place."""

    @wraps(work)
    def alone(*arguments: Any, **named: Any) -> Run:
        config: DistillConfig = arguments[0] if arguments else named["config"]
        with at_work(config.out, config.device):
            run: Run = work(*arguments, **named)
            return processes.from_first(run.take_place)

    return cast(Work, alone)


def changes_run(work: Work) -> Work:
    """A decorator of what writes into a `run`: it is alone with it."""

    @wraps(work)
    def alone(*arguments: Any, **named: Any) -> Any:
        run: Run = arguments[0] if arguments else named["run"]
        with at_work(run.folder, run.config.device):
            processes.from_first(lambda: folders.tidy(run.folder))
            return work(*arguments, **named)

    return cast(Work, alone)
