from __future__ import annotations

import os

import pytest

from edgekd.files.threads import threaded


def test_only_a_few_items_are_handed_out_ahead_of_those_that_were_taken() -> None:
    begun: list[int] = []
    results = threaded(lambda item: begun.append(item) or -item, range(10_000))
    taken = [next(results) for _ in range(100)]
    assert all(result == -item for item, result in taken)
    assert 100 <= len(begun) <= 100 + 8 * len(os.sched_getaffinity(0))
    results.close()
    rest = dict(threaded(lambda item: -item, range(1000)))
    assert rest == {item: -item for item in range(1000)}


def test_nothing_is_begun_after_a_failure_but_what_was_handed_out() -> None:
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 50:
            raise LookupError("fifty")

    with pytest.raises(LookupError, match="fifty"):
        list(threaded(work, range(10_000)))
    assert len(begun) <= 51 + 8 * len(os.sched_getaffinity(0))
