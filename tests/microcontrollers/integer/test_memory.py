"""Rows of maps that are kept while a window is computed, and where they lie."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edgekd.errors import GateError
from edgekd.exporting.budget import untrained
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.integer.fixed_point import factors
from edgekd.microcontrollers.integer.layers import Classifier, Convolution, IntegerNetwork, Map, MaxPool
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.memory import plan, sums_of
from tests.microcontrollers.integer.random_networks import random_network

ENTRY = Map("entry", 20, 6, 4, 1.0, -128)


def network(*layers: Convolution | MaxPool) -> IntegerNetwork:
    weight, bias = np.zeros((2, layers[-1].target.size), np.int8), np.zeros(2, np.int32)
    return IntegerNetwork(ENTRY, layers, Classifier(layers[-1].target, weight, bias, factors([1.0, 1.0])))


def convolution(source: Map, kernel: int, stride: int = 1) -> Convolution:
    ahead = kernel // 2
    rows = (source.rows + 2 * ahead - kernel) // stride + 1
    weight = np.zeros((4, kernel, kernel, 4), np.int8)
    target = Map(f"after {source.name}", rows, 6, 4, 1.0, -128)
    padding = (ahead, ahead, ahead, ahead)
    bias = np.zeros(4, np.int32)
    return Convolution(source, target, weight, bias, factors(np.ones(4)), (stride, 1), padding, -128, 127)


def test_as_many_rows_are_kept_as_a_kernel_is_high() -> None:
    first = convolution(ENTRY, 3)
    second = convolution(first.target, 5, stride=2)
    rings = plan(network(first, second)).rings
    assert [ring.rows for ring in rings] == [3, 6, 1]  # one more: of the last row of all two come at once
    assert [(ring.left, ring.right) for ring in rings] == [(1, 1), (2, 2), (0, 0)]


def test_a_map_is_kept_for_the_slowest_of_its_readers() -> None:
    first, high = convolution(ENTRY, 3), convolution(ENTRY, 7)
    assert plan(network(first, replace(high, target=replace(high.target, name="other")))).rings[0].rows == 7


def test_places_do_not_overlap() -> None:
    for seed in range(20):
        given, _ = random_network(np.random.default_rng(seed))
        memory = plan(given)
        taken = [(ring.place, ring.rows * ring.row_bytes) for ring in memory.rings]
        taken += [(place, 4 * sums_of(given.layers[number])) for number, place in memory.sums.items()]  # type: ignore[arg-type]
        taken += [(memory.progress, 2 * len(given.maps) + 4 * len(given.layers)), (memory.scratch, 4)]
        taken.sort()
        assert all(end[0] >= start + size for (start, size), end in pairwise(taken))
        assert all(place % 4 == 0 for place, _ in taken)
        assert taken[-1][0] + 4 <= memory.size


def test_the_small_student_takes_a_few_kilobytes_for_five_seconds() -> None:
    front_end = FrontendConfig().at(16_000)
    deployable = untrained(("hltdnn_micro", 1.0), 10, front_end, 16_000, 80_000, "int8")
    assert deployable.network is not None
    memory = plan(lower(deployable.network, *front_end.shape(80_000)))
    assert memory.size < 11_000
    assert max(ring.rows for ring in memory.rings) == 4


def test_a_kernel_that_is_too_high_is_refused() -> None:
    with pytest.raises(GateError, match=r"a kernel of 'after entry' spans 17 frames, 16 at most"):
        plan(network(convolution(ENTRY, 17)))


def test_pooling_of_both_signs_with_padding_is_refused() -> None:
    source = replace(ENTRY, zero_point=0)
    pool = MaxPool(source, replace(source, name="pooled"), (3, 3), (1, 1), (1, 1, 1, 1))
    with pytest.raises(GateError, match="'pooled' pools values of both signs with padding"):
        plan(replace(network(pool), entry=source))
