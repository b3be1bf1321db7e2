"""Programs that run integer networks in C and compare every row of every map, and the scores, with numpy's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgekd.device.c import SOURCES
from edgekd.microcontrollers.c.constants import array, network_constants
from edgekd.microcontrollers.integer.layers import Convolution, IntegerNetwork, Lookup, Means, Product
from edgekd.microcontrollers.integer.memory import plan
from edgekd.microcontrollers.integer.reference import Values, every_map, run
from tests.microcontrollers.integer.random_networks import random_network

NETWORK_SOURCES = ("edgekd_network.c", "edgekd_kernels.c")
MOST_BYTES = 1 << 20  # of the constants of a program, of which a board under the emulator holds twice as many

Cases = list[tuple[IntegerNetwork, Values]]

_CHECK = """\
typedef struct { const edgekd_network *network; const int8_t *const *maps; const int32_t *scores; } test;

#define BEHIND 64 /* words that are no network's: the plan of its memory is too small where they change */
static uint32_t memory[%(words)d + BEHIND];

/* 0, or what differs: 1 + the number of the map, 997 for what lies behind the memory, 998 and 999 for the rows after
 * which a window is complete, or 1000 for the scores. */
static int differs(const test *t) {
    const edgekd_network *n = t->network;
    uint16_t before[256];
    const uint16_t *written = (const uint16_t *)(const void *)((uint8_t *)memory + n->progress);
    const uint16_t *done = written + n->maps;
    int32_t scores[64];
    uint32_t *behind = memory + n->memory_bytes / 4;
    int whole = 0;
    for (int i = 0; i < BEHIND; i++) behind[i] = 0x5EA1ED00u + (uint32_t)i;
    edgekd_network_start(n, memory);
    for (int r = 0; r < n->map[0].rows; r++) {
        int length = n->map[0].columns * n->map[0].channels;
        if (whole) return 999;
        memcpy(edgekd_network_entry(n, memory), t->maps[0] + r * length, (size_t)length);
        memcpy(before, written, 2 * n->maps);
        whole = edgekd_network_step(n, memory);
        for (int m = 0; m < n->maps; m++) {
            const edgekd_map *map = &n->map[m];
            int first = before[m], end = written[m], farthest = end;
            int wide = map->columns * map->channels;
            for (int i = 0; i < n->layers; i++) /* of a map in parts, one may be ahead */
                if (n->layer[i].target == m && map->rows > 1 && done[i] > farthest) farthest = done[i];
            if (first < farthest - map->ring) first = farthest - map->ring;
            for (int row = first; row < end; row++) {
                const int8_t *there = (const int8_t *)memory + map->place +
                    (row %% map->ring) * (map->left + map->columns + map->right) * map->channels;
                if (memcmp(there + map->left * map->channels, t->maps[m] + row * wide, (size_t)wide)) return m + 1;
            }
        }
    }
    edgekd_network_scores(n, memory, scores);
    for (int k = 0; k < n->classes; k++) if (scores[k] != t->scores[k]) return 1000;
    for (int i = 0; i < BEHIND; i++) if (behind[i] != 0x5EA1ED00u + (uint32_t)i) return 997;
    return whole ? 0 : 998;
}
"""


def program(cases: Sequence[tuple[IntegerNetwork, Values]]) -> str:
    """A program that prints the number of networks, and of each that differs its number and what differs."""
    parts, tests, words = [], [], 0
    for number, (network, values) in enumerate(cases):
        memory, name = plan(network), f"n{number}"
        words = max(words, memory.size // 4)
        parts.append(network_constants(network, memory, name))
        maps = every_map(network, values[None])
        parts += [array(f"{name}_m{place}", maps[each.name]) for place, each in enumerate(network.maps)]
        expected = run(network, values[None]).astype(np.int32)
        parts.append(array(f"{name}_scores", expected))
        names = ", ".join(f"{name}_m{place}" for place in range(len(network.maps)))
        parts.append(f"static const int8_t *const {name}_all[] = {{{names}}};\n")
        tests.append(f"    {{&{name}, {name}_all, {name}_scores}},\n")
    return "".join(
        [
            '#include <string.h>\n#include "edgekd_network.h"\n#include "edgekd_report.h"\n\n',
            *parts,
            _CHECK % {"words": words},
            f"static const test tests[] = {{\n{''.join(tests)}}};\n",
            "int main(void) {\n    int failed = 0;\n"
            f"    for (int i = 0; i < {len(cases)}; i++) {{\n        int what = differs(&tests[i]);\n"
            "        if (!what) continue;\n        failed = 1;\n"
            '        edgekd_report_number(i);\n        edgekd_report(": ");\n        edgekd_report_number(what);\n'
            '        edgekd_report("\\n");\n    }\n'
            f'    edgekd_report("{len(cases)} networks\\n");\n    return failed;\n}}\n',
        ]
    )


def write(folder: Path, cases: Sequence[tuple[IntegerNetwork, Values]], board: str = "host.c") -> list[Path]:
    """The program and the sources that it needs, in `folder`; returns what is to be compiled."""
    for source in SOURCES.iterdir():
        if source.suffix in (".c", ".h", ".ld"):
            (folder / source.name).write_bytes(source.read_bytes())
    (folder / "main.c").write_text(program(cases))
    return [folder / name for name in ("main.c", *NETWORK_SOURCES, board)]


def layers_of(cases: Sequence[tuple[IntegerNetwork, Values]]) -> int:
    """How many layers are compared, each network's classifier among them."""
    return sum(len(network.layers) + 1 for network, _ in cases)


def programs(seed: int, layers: int) -> Iterator[Cases]:
    """Random networks of so many layers or a few more, as many in each program as one holds."""
    random, cases, held, made = np.random.default_rng(seed), Cases(), 0, 0
    while made < layers:
        cases.append(random_network(random))
        made += layers_of(cases[-1:])
        held += _constant_bytes(cases[-1][0])
        if held > MOST_BYTES:
            yield cases
            cases, held = Cases(), 0
    if cases:
        yield cases


def _constant_bytes(network: IntegerNetwork) -> int:
    """Of a network's maps, weights and tables, about."""
    held = sum(each.size for each in network.maps) + network.classifier.weight.size
    for layer in network.layers:
        if isinstance(layer, Means):
            held += 0 if layer.table is None else layer.table.nbytes
        elif isinstance(layer, Convolution):
            held += layer.weight.size
        elif isinstance(layer, Lookup):
            held += layer.table.size
        elif isinstance(layer, Product):
            held += layer.tables.nbytes
    return held
