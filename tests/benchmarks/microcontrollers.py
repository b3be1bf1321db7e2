"""Instructions that a classifier in C takes on emulated cores, layer by layer, beside plain C on the same core.

    python -m tests.benchmarks.microcontrollers BUNDLE [CORE...] [--optimise O2]

BUNDLE was exported for a target of runtime `c`. Each core (all where none is named) runs a window of the first golden
recording under QEMU, which counts instructions, not cycles. Prints a line a core and kernel: instructions of a window,
log-mel and all; of a frame of the log-mel; of the network, and these a MAC; then instructions a MAC of each layer, or
thousands where a layer has no MACs; and a line a kind of layer, with the rest: what finds out which rows can be made,
and makes ready for a window. "plain" is what the compiler makes of the simplest C.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgekd.device.c import HEADERS, LIBRARY, text
from edgekd.exporting.manifest import read_bundle
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES, Core
from edgekd.microcontrollers.c.folder import GOLDEN_HEADER, write
from edgekd.microcontrollers.c.model import HEADER, MODEL, sizes_of
from edgekd.microcontrollers.c.packages import find

FRAMES, COUNTS = 20, 4096
PLAIN = Path(__file__).with_name("plain_kernels.c")
HOOKS = """\
#include <stdint.h>
extern uint32_t ticks[64], times[64], since;
uint32_t edgekd_count(void);
#define EDGEKD_LAYER_BEGINS(number) (since = edgekd_count())
#define EDGEKD_LAYER_ENDS(number) (ticks[number] += edgekd_count() - since, times[number]++)
"""
MAIN = (
    (
        """\
#include <string.h>
#include "edgekd.h"
#include "edgekd_report.h"
#include "golden.h"

uint32_t ticks[64], times[64], since;
static edgekd_t classifier;
static uint32_t memory[EDGEKD_MEMORY_WORDS];

static void say(const char *what, uint32_t number) {
    edgekd_report(what);
    edgekd_report(" ");
    edgekd_report_number((long)number);
    edgekd_report("\\n");
}

int main(void) {
    const edgekd_network *network = &edgekd_model_network;
    uint32_t begun, spent;
    edgekd_count_start();
    begun = edgekd_count();
    edgekd_init(&classifier);
    edgekd_push(&classifier, golden_pcm[0], EDGEKD_WINDOW_SAMPLES);
    say("window", edgekd_count() - begun);
    begun = edgekd_count();
    for (int i = 0; i < FRAMES; i++)
        EDGEKD_ROW(&edgekd_model_log_mel, golden_pcm[0] + i * EDGEKD_FRAME_SAMPLES, EDGEKD_FRAME_SAMPLES, 0, 0, 0,
                   classifier.spectrum, classifier.row);
    say("frames", edgekd_count() - begun);
    memset(ticks, 0, sizeof ticks);
    for (int i = 0; i < COUNTS; i++) { /* what counting itself takes */
        since = edgekd_count();
        ticks[0] += edgekd_count() - since;
    }
    say("counting", ticks[0]);
    ticks[0] = 0;
    memset(times, 0, sizeof times);
    begun = edgekd_count();
    edgekd_network_start(network, memory);
    spent = edgekd_count() - begun;
    for (int row = 0; row < network->map[0].rows; row++) {
        memcpy(edgekd_network_entry(network, memory), golden_pcm[0] + 32 * row, EDGEKD_BINS);
        begun = edgekd_count();
        edgekd_network_step(network, memory);
        spent += edgekd_count() - begun;
    }
    say("network", spent);
    for (int i = 0; i < network->layers; i++) say("layer", ticks[i]), say("times", times[i]);
    return 0;
}
"""
    )
    .replace("COUNTS", str(COUNTS), 1)
    .replace("FRAMES", str(FRAMES), 1)
)


def counted(bundle: Path, core: Core, optimise: str, plain: bool, hooked: bool) -> dict[str, list[float]]:
    """Instructions by what the program names; with hooks in the layers, those of each layer without the hooks'."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shipped = {file: find(bundle, file).read_text() for file in (MODEL, HEADER, GOLDEN_HEADER)}
        ours = {file: text(file) for file in (*LIBRARY, *HEADERS, "edgekd_report.h", "emulator.c", "emulator.ld")}
        if plain:
            ours["edgekd_kernels.c"] = PLAIN.read_text()
        before = HOOKS if hooked else ""
        write(folder, {**ours, **shipped, "main.c": MAIN, "before.h": before})
        sources = [folder / file for file in ("main.c", "emulator.c", *LIBRARY, MODEL)]
        flags = [f"-{optimise}", "-include", str(folder / "before.h")]
        toolchain.cross_build(sources, folder / "count.elf", core, flags)
        said = toolchain.emulate(folder / "count.elf", core)
    found: dict[str, list[float]] = {}
    for what, number in re.findall(r"^(\w+) (\d+)$", said, re.MULTILINE):
        found.setdefault(what, []).append(int(number) * core.emulated.instructions_a_tick)
    hook = found["counting"][0] / COUNTS / core.emulated.instructions_a_tick
    found["layer"] = [all_ - each * hook for all_, each in zip(found["layer"], found["times"], strict=True)]
    return found


def layers_of(model: str) -> list[tuple[str, int]]:
    """The kind of each layer and its MACs, by the constants of a bundle."""
    maps = [
        tuple(int(number) for number in found)
        for found in re.findall(r"\.rows = (\d+), \.columns = (\d+), \.channels = (\d+)", model)
    ]
    layers = []
    for kind, source, target, rest in re.findall(
        r"\.kind = EDGEKD_(\w+), \.source = (\d+), \.target = (\d+), (.*)", model
    ):
        kernel = re.search(r"\.kernel_rows = (\d+), \.kernel_columns = (\d+)", rest)
        rows, columns, channels = maps[int(target)]
        each = (
            0 if kernel is None or kind == "MAX_POOL" else int(kernel[1]) * int(kernel[2]) * rows * columns * channels
        )
        macs = each * (maps[int(source)][2] if kind == "CONVOLUTION" else 1)
        named = (
            "pointwise" if kind == "CONVOLUTION" and kernel and kernel[0].endswith("1, .kernel_columns = 1") else kind
        )
        layers.append((named.lower(), macs))
    return layers


def by_kind(layers: Sequence[tuple[str, int]], parts: Sequence[float], network: float) -> Iterator[str]:
    """A line a kind of layer, and the rest of the `network`: instructions, their share, and a MAC."""
    for kind in dict.fromkeys(kind for kind, _ in layers):
        macs = sum(share for each, share in layers if each == kind)
        count = sum(part for part, (each, _) in zip(parts, layers, strict=True) if each == kind)
        yield _line(kind, count, network) + (f" {count / macs:>6.2f} a MAC of {macs:,}" if macs else "")
    yield _line("the rest", network - sum(parts), network)


def _line(kind: str, count: float, network: float) -> str:
    return f"    {kind:<14} {count:>11,.0f} {count / network:>6.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("core", nargs="*", choices=[*CORES, []], default=[])
    parser.add_argument("--optimise", default="O2")
    asked = parser.parse_args()
    read_bundle(asked.bundle)
    model = find(asked.bundle, MODEL).read_text()
    macs, layers = sizes_of(find(asked.bundle, HEADER).read_text())["MACS"], layers_of(model)
    print(f"{'core':<14} {'kernels':<8} {'window':>12} {'a frame':>9} {'network':>11} {'a MAC':>6}   layers")
    for name in asked.core or CORES:
        for plain in (True, False):
            whole = counted(asked.bundle, CORES[name], asked.optimise, plain, hooked=False)
            parts = counted(asked.bundle, CORES[name], asked.optimise, plain, hooked=True)["layer"]
            each = [
                f"{count / share:.2f}" if share else f"{count / 1e3:.0f}k"
                for count, (_, share) in zip(parts, layers, strict=True)
            ]
            network = whole["network"][0]
            print(
                f"{name:<14} {'plain' if plain else 'its own':<8} {whole['window'][0]:>12,.0f} "
                f"{whole['frames'][0] / FRAMES:>9,.0f} {network:>11,.0f} {network / macs:>6.2f}   {' '.join(each)}",
                flush=True,
            )
            print(*by_kind(layers, parts, network), sep="\n", flush=True)


if __name__ == "__main__":
    main()
