"""Work on many items in threads, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def threaded(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """`(item, work(item))` about in the order they finish; the first exception ends it and nothing more is started.

    Threads, not processes: decoding, matrix products and checksums all let go of the interpreter lock. Only a few
    items are handed out ahead, and a result is forgotten once it was yielded: memory does not grow with their number.
    """
    threads = len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(max_workers=threads)
    left = iter(items)
    try:
        running: dict[Future[Result], Item] = {pool.submit(work, item): item for item in islice(left, 8 * threads)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item, result = running.pop(future), future.result()
                running.update((pool.submit(work, following), following) for following in islice(left, 1))
                yield item, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
