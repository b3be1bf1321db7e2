"""Convolutions of a student on emulated cores: our C beside what bakenn makes of the same weights and scales."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import SOURCES
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import CORES, Core
from edgekd.microcontrollers.integer.layers import Convolution, IntegerNetwork, Means
from edgekd.microcontrollers.integer.memory import plan
from edgekd.microcontrollers.integer.reference import every_map
from tests.benchmarks.layers import counted, with_an_end

FLAGS = ("-O2",)
FORMS = {
    "cortex-m0plus": ("portable",),
    "cortex-m4": ("portable", "m4", "cmsis-nn"),
    "cortex-m55": ("portable",),
}
COMPARED = """\
    for (int i = 0; i < (int)sizeof made; i++) {
        int apart = made[i] < expected[i] ? expected[i] - made[i] : made[i] - expected[i];
        differ += apart != 0;
        if (apart > largest) largest = apart;
    }
    edgekd_report_number((long)(ended - begun)), edgekd_report(" ");
    edgekd_report_number(differ), edgekd_report(" ");
    edgekd_report_number(largest), edgekd_report("\\n");
    return 0;
}
"""
"""The end of a `main` in C: how long it took, how many of the outputs `made` are not those `expected`, by how much."""
_MAIN = """\
#include "bknn_net.h"
#include "edgekd_report.h"
%(constants)s
static uint8_t arena[BKNN_NET_ARENA_SIZE + 16] __attribute__((aligned(16)));
static int8_t made[BKNN_NET_OUTPUT_BYTES];

int main(void) {
    uint32_t begun, ended;
    int differ = 0, largest = 0;
    edgekd_count_start();
    begun = edgekd_count();
    bknn_net_infer(arena, values, made);
    ended = edgekd_count();
"""


def convolutions_of(network: IntegerNetwork) -> IntegerNetwork:
    """Those one behind the other that the first means are taken of."""
    wanted = next(layer.source for layer in network.layers if isinstance(layer, Means))
    kept: list[Convolution] = []
    for layer in reversed(network.layers):
        if layer.target is wanted or layer.target == wanted:
            assert isinstance(layer, Convolution), "the peer gets convolutions alone"
            kept.insert(0, layer)
            wanted = layer.source
    return with_an_end(*kept)


def beside(network: IntegerNetwork, values: NDArray[np.int8], forms: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each core and form: instructions a MAC, memory for maps, what its values are apart from ours.

    `values (rows, columns, channels)` of a window; `forms` are what `in_bakenn.py` prints. Memory holds what enters and
    what comes out too.
    """
    ours = convolutions_of(network)
    layers = [layer for layer in ours.layers if isinstance(layer, Convolution)]
    last, macs = layers[-1].target, sum(layer.macs for layer in layers)
    expected = every_map(ours, values[None])[last.name][0].astype(np.int8)
    found = []
    for name, kinds in FORMS.items():
        core = CORES[name]
        instructions = counted(ours, values, expected, core, FLAGS)
        found.append({"core": name, "form": "c", "a_mac": instructions / macs, "memory_bytes": plan(ours).size})
        for kind in kinds:
            form = forms[kind]
            instructions, differ, largest = _of_bakenn(form, values, expected, core)
            memory = form["arena_bytes"] + values.size + expected.size
            line = {"core": name, "form": f"bakenn {kind}", "a_mac": instructions / macs, "memory_bytes": memory}
            found.append({**line, "differ": differ, "largest": largest})
    return found


def _of_bakenn(
    form: dict[str, Any], values: NDArray[np.int8], expected: NDArray[np.int8], core: Core
) -> tuple[float, float, int]:
    theirs = Path(form["folder"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in SOURCES.iterdir():
            if source.suffix in (".c", ".h", ".ld"):
                (folder / source.name).write_bytes(source.read_bytes())
        constants = "\n".join([array("values", values), array("expected", expected)])
        (folder / "main.c").write_text((_MAIN + COMPARED) % {"constants": constants})
        sources = [folder / "main.c", folder / "emulator.c", *(theirs / source for source in form["sources"])]
        headers = [f"-I{theirs / header}" for header in form["headers"]]
        apart = ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
        memory = ["-DBAKENN_CMSIS_NN_BUILTIN_MEMORY"]
        flags = [*FLAGS, "-std=gnu11", "-w", *headers, *apart, *memory]
        toolchain.cross_build(sources, folder / "net.elf", core, flags)
        ticks, differ, largest = map(int, re.findall(r"\d+", toolchain.emulate(folder / "net.elf", core)))
    return ticks * core.emulated.instructions_a_tick, differ / expected.size, largest
