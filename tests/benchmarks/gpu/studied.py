"""The ESC-10 study, with what time is left; see `study`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from edgekd.files.whole import write_json
from tests.benchmarks.gpu.parts import NotHere, Task

LEFT_FOR_THE_END = 4.0  # seconds
SILENCE = 5.0  # seconds between two lines


def run(task: Task) -> None:
    """What the cells so far say into `result["study"]`; `study.json` and its like stay in the folder `study`."""
    if task.data is None:
        raise NotHere("no --esc10 DIR")
    from tests.benchmarks.gpu import study

    said = [time.monotonic()]

    def progress(stage: str, done: int, total: int, /, **figures: float | str) -> None:
        if done == total or time.monotonic() - said[0] > SILENCE:
            said[0] = time.monotonic()
            task.log(f"study: {stage} {done}/{total}")

    folder = task.out / "study"
    folder.mkdir(exist_ok=True)
    seconds = task.left() - LEFT_FOR_THE_END
    task.result["study"] = study.run(folder, task.device, seconds, task.data, task.weights, progress)
    write_json(folder / "summary.json", task.result["study"])


def show(result: Mapping[str, Any]) -> Iterator[str]:
    if "study" in result:
        from tests.benchmarks.gpu.study_results import show as study_table

        yield from study_table(result["study"])
