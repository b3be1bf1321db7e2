"""An int8 student as what the peers take: arrays in a file that needs no package of ours, and its C as a library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import SOURCES
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import network_constants
from edgekd.microcontrollers.integer.layers import Convolution, IntegerNetwork, Means
from edgekd.microcontrollers.integer.memory import Memory, plan
from edgekd.microcontrollers.integer.reference import every_map, logits
from edgekd.microcontrollers.integer.tables import sigmoid, softmax

_DRIVER = """\
#include <string.h>
#include "edgekd_network.h"

%(constants)s
static uint32_t memory[%(words)d];

void infer(const int8_t *values, int32_t *scores) {
    const edgekd_map *entry = &student.map[0];
    size_t length = (size_t)(entry->columns * entry->channels);
    edgekd_network_start(&student, memory);
    for (int row = 0; row < entry->rows; row++) {
        memcpy(edgekd_network_entry(&student, memory), values + row * length, length);
        edgekd_network_step(&student, memory);
    }
    edgekd_network_scores(&student, memory, scores);
}
"""


def write(folder: Path, network: IntegerNetwork, values: NDArray[np.int8]) -> Memory:
    """`network.npz` and `network.so`; `values (N, rows, columns, channels)` enter. Returns the memory of C."""
    memory = plan(network)
    (folder / "driver.c").write_text(
        _DRIVER % {"constants": network_constants(network, memory, "student"), "words": memory.size // 4}
    )
    sources = [folder / "driver.c", *(SOURCES / name for name in ("edgekd_network.c", "edgekd_kernels.c"))]
    toolchain.build(sources, folder / "network.so", ("-shared", "-fPIC", f"-I{SOURCES}"))
    found = []
    for part in np.array_split(values, max(1, len(values) // 16)):
        maps = every_map(network, part)
        found.append(logits(network.classifier, maps[network.classifier.source.name]))
    arrays = {"values": values, "logits": np.concatenate(found)}
    arrays["scores"] = (sigmoid if network.classifier.several else softmax)(arrays["logits"]).astype(np.int32)
    facts, more = _facts(network)
    np.savez(folder / "network.npz", facts=json.dumps(facts), **arrays, **more)  # type: ignore[arg-type]
    return memory


def _facts(network: IntegerNetwork) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    layers, arrays = [], {}
    for number, layer in enumerate(network.layers):
        ends = {"source": layer.source.name, "target": layer.target.name}
        assert isinstance(layer, Convolution | Means), "the students here have no other layers"
        arrays[f"{number}_factor"], arrays[f"{number}_bias"] = layer.factors.real(), layer.bias
        if isinstance(layer, Convolution):
            arrays[f"{number}_weight"] = layer.weight
            arrays[f"{number}_sums"] = layer.weight.reshape(len(layer.weight), -1).sum(axis=1, dtype=np.int64)
            shape = {"kernel": layer.kernel, "stride": layer.stride, "padding": layer.padding}
            assert (layer.low, layer.high) == (-128, 127), "a range that is no whole one has no operator here"
            layers.append({"kind": "convolution", **ends, **shape, "depthwise": layer.depthwise})
            continue
        cells = (len(layer.row_cells), len(layer.column_cells))
        table = layer.table is not None
        layers.append({"kind": "means", **ends, "start": layer.start, "cells": cells, "bins": table and layer.bins})
        if layer.table is not None:
            arrays[f"{number}_table"] = layer.table
        else:
            plain = layer.source.scale / layer.target.scale / layer.places
            assert np.allclose(layer.factors.real(), plain, rtol=1e-6), "means that are scaled have no operator here"
    classifier = network.classifier
    arrays |= {"weight": classifier.weight, "bias": classifier.bias, "factor": classifier.factors.real()}
    maps = [
        {"name": each.name, "shape": each.shape, "scale": each.scale, "zero_point": each.zero_point}
        for each in network.maps
    ]
    return {
        "maps": maps,
        "layers": layers,
        "source": classifier.source.name,
        "classes": len(classifier.weight),
        "several": classifier.several,
    }, arrays
