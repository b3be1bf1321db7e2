"""Instructions a MAC of single layers in C on emulated cores, by kernel.

    python -m tests.benchmarks.layers [--cores cortex-m4 cortex-m55] [--layers pointwise-32 depthwise-16]
        [--optimise O2]

A layer alone, with random weights and values: `pointwise-C` is 1 x 1 from C to C channels and `depthwise-C` 3 x 3, each
on a map of 16 x 16; `conv-C` is 3 x 3 from C to C channels on 32 x 32; `stem-C` is 3 x 3 from 1 to C channels with
stride 2 on 32 x 64. QEMU counts instructions, not cycles; what leads rows to the kernels is counted with them. Each
layer's output is compared with numpy's, bit for bit. `tests.benchmarks.peers.cmsis_nn` has the same layers in CMSIS-NN.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import SOURCES
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import array, network_constants
from edgekd.microcontrollers.c.cores import CORES, Core
from edgekd.microcontrollers.integer.fixed_point import CONVOLUTION_EXPONENT, factors
from edgekd.microcontrollers.integer.layers import Classifier, Convolution, IntegerNetwork, Map, Means
from edgekd.microcontrollers.integer.memory import plan
from edgekd.microcontrollers.integer.reference import every_map

CHANNELS = (8, 16, 24, 32, 64, 128)
NAMES = (
    *(f"pointwise-{channels}" for channels in CHANNELS),
    *(f"depthwise-{channels}" for channels in CHANNELS),
    *("conv-16", "conv-32", "stem-8"),
)
PLAIN = Path(__file__).with_name("plain_kernels.c")
_HOOKS = """\
#include <stdint.h>
#include "edgekd_network.h"
extern const edgekd_network measured;
extern uint32_t taken, since;
uint32_t edgekd_count(void);
#define EDGEKD_LAYER_BEGINS(number) (since = edgekd_count())
#define EDGEKD_LAYER_ENDS(number) (taken += (number) == measured.layers - 1 ? 0 : edgekd_count() - since)
"""
_MAIN = """\
#include <string.h>
#include "edgekd_network.h"
#include "edgekd_report.h"

%(constants)s
uint32_t taken, since;
static uint32_t memory[%(words)d];

int main(void) {
    const edgekd_map *map = &measured.map[measured.maps - 2];
    int length = measured.map[0].columns * measured.map[0].channels, wide = map->columns * map->channels, made = 0;
    const uint16_t *written = (const uint16_t *)(const void *)((uint8_t *)memory + measured.progress);
    edgekd_count_start();
    edgekd_network_start(&measured, memory);
    for (int row = 0; row < measured.map[0].rows; row++) {
        memcpy(edgekd_network_entry(&measured, memory), values + row * length, (size_t)length);
        edgekd_network_step(&measured, memory);
        for (; made < written[measured.maps - 2]; made++) {
            if (made < written[measured.maps - 2] - map->ring) continue;
            const int8_t *there = (const int8_t *)memory + map->place +
                (made %% map->ring) * (map->left + map->columns + map->right) * map->channels;
            if (memcmp(there + map->left * map->channels, expected + made * wide, (size_t)wide)) return 1;
        }
    }
    edgekd_report_number((long)taken);
    edgekd_report("\\n");
    return 0;
}
"""


@dataclass(frozen=True)
class Alone:
    """A layer, `values (rows, columns, channels)` that enter it, and `expected` ones, as numpy has them.

    `bias` is without what the source's zero point adds, and `real` are the factors of its channels.
    """

    layer: Convolution
    values: NDArray[np.int8]
    expected: NDArray[np.int8]
    bias: NDArray[np.int32]
    real: NDArray[np.float64]

    @property
    def network(self) -> IntegerNetwork:
        return with_an_end(self.layer)


def with_an_end(*layers: Convolution) -> IntegerNetwork:
    """The layers, one behind the other, with means and a classifier that no one asks for."""
    last = layers[-1].target
    vector = Map("vector", 1, 1, last.channels, 1.0, 0)
    by = factors(np.full(last.channels, 1 / last.rows / last.columns))
    cells = ((0, last.rows),), ((0, last.columns),)
    means = Means(last, vector, 0, *cells, None, np.zeros(last.channels, np.int32), by)
    weight = np.ones((2, last.channels), np.int8)
    classifier = Classifier(vector, weight, np.zeros(2, np.int32), factors([0.1, 0.1]))
    return IntegerNetwork(layers[0].source, (*layers, means), classifier)


def alone(name: str) -> Alone:
    """The layer of that name; the same each time."""
    kind, _, number = name.partition("-")
    channels, random = int(number), np.random.default_rng(int(number))
    rows, columns, inputs = {"conv": (32, 32, channels), "stem": (32, 64, 1)}.get(kind, (16, 16, channels))
    size, step = (1 if kind == "pointwise" else 3), (2 if kind == "stem" else 1)
    each = 1 if kind == "depthwise" else inputs
    weight = random.integers(-127, 128, (channels, size, size, each)).astype(np.int8)
    source = Map("entry", rows, columns, inputs, 1.0, 0 if kind == "stem" else -128)
    bias = random.integers(-2000, 2000, channels).astype(np.int32)
    real = random.uniform(0.3, 1, channels) / (60 * np.sqrt(size * size * each))
    layer = Convolution(
        source=source,
        target=Map("target", rows // step, columns // step, channels, 1.0, -128),
        weight=weight,
        bias=(bias - source.zero_point * weight.reshape(channels, -1).sum(axis=1, dtype=np.int32)).astype(np.int32),
        factors=factors(real, CONVOLUTION_EXPONENT),
        stride=(step, step),
        padding=(0, 0, 0, 0) if size == 1 else (1, 1, 1, 1) if step == 1 else (1, 0, 1, 0),
        low=-128,
        high=127,
        depthwise=kind == "depthwise",
    )
    values = random.integers(-128, 128, (rows, columns, inputs)).astype(np.int8)
    found = Alone(layer, values, np.zeros(0, np.int8), bias, real)
    expected = every_map(found.network, values[None])["target"][0]
    return Alone(layer, values, expected.astype(np.int8), bias, real)


def instructions(layer: Alone, core: Core, flags: Sequence[str] = ("-O2",), kernels: Path | None = None) -> float:
    """Of the whole layer, with our kernels or another file's. Raises `GateError` where a value is not numpy's."""
    return counted(layer.network, layer.values, layer.expected, core, flags, kernels)


def counted(
    network: IntegerNetwork,
    values: NDArray[np.int8],
    expected: NDArray[np.int8],
    core: Core,
    flags: Sequence[str],
    kernels: Path | None = None,
) -> float:
    """Instructions of all layers but the last, of which the one before makes what is `expected`."""
    memory = plan(network)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in SOURCES.iterdir():
            if source.suffix in (".c", ".h", ".ld"):
                (folder / source.name).write_bytes(source.read_bytes())
        constants = [
            network_constants(network, memory, "measured"),
            array("values", values),
            array("expected", expected),
        ]
        (folder / "main.c").write_text(_MAIN % {"constants": "\n".join(constants), "words": memory.size // 4})
        (folder / "hooks.h").write_text(_HOOKS)
        if kernels is not None:
            (folder / "edgekd_kernels.c").write_bytes(kernels.read_bytes())
        sources = [folder / file for file in ("main.c", "edgekd_network.c", "edgekd_kernels.c", "emulator.c")]
        hooks = ["-include", str(folder / "hooks.h"), f"-I{folder}"]
        toolchain.cross_build(sources, folder / "layer.elf", core, [*flags, *hooks])
        (ticks,) = re.findall(r"\d+", toolchain.emulate(folder / "layer.elf", core))
    return int(ticks) * core.emulated.instructions_a_tick


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", nargs="+", choices=CORES, default=["cortex-m4", "cortex-m55"])
    parser.add_argument("--layers", nargs="+", default=NAMES)
    parser.add_argument("--optimise", default="O2")
    options = parser.parse_args()
    print(f"{'layer':<15}{'core':<15}{'plain':>7}{'its own':>9}")
    for name in options.layers:
        layer = alone(name)
        for core in options.cores:
            flags = [f"-{options.optimise}"]
            plain, own = (
                instructions(layer, CORES[core], flags, kernels) / layer.layer.macs for kernels in (PLAIN, None)
            )
            print(f"{name:<15}{core:<15}{plain:>7.2f}{own:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
