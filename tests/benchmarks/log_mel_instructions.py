"""Instructions of a frame's log-mel in C under the emulator, beside kissfft built the same way.

    python -m tests.benchmarks.log_mel_instructions KISSFFT [--cores cortex-m4 cortex-m7] [--points 512 1024]

KISSFFT is a folder with the sources of kissfft (github.com/mborgerding/kissfft), which are not in this project. Both
are compiled with the same flags; kissfft's transform of real samples (`kiss_fftr`, float) stands against the whole row
of ours, window, filters and logarithms in it, and against the row with no mel filters: window, transform and powers.
Counted by SysTick, over 20 frames.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import numpy as np

from edgekd.device.c import SOURCES
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES, Core
from edgekd.microcontrollers.c.front_end import log_mel_constants
from edgekd.microcontrollers.integer.layers import Map

FRAMES = 20
_KISSFFT = ("kiss_fft.c", "kiss_fftr.c")
_MAIN = """\
#include <stddef.h>
#include "edgekd_log_mel.h"
#include "edgekd_report.h"
#include "kiss_fftr.h"

%(constants)s
static int16_t samples[%(points)d];
static float spectrum[%(points)d + 2], row[64], heard[%(points)d];
static kiss_fft_cpx bins[%(points)d / 2 + 1];
static double memory[8192];

/* The library asks for memory only where none is given. */
void *malloc(size_t size) { (void)size; return 0; }
void free(void *memory) { (void)memory; }

static void row_of(const edgekd_log_mel *front_end) {
    edgekd_log_mel_row(front_end, samples, %(points)d, 0, 0, 0, spectrum, row);
}

int main(void) {
    edgekd_log_mel bare = front_end;
    size_t size = sizeof memory;
    kiss_fftr_cfg config = kiss_fftr_alloc(%(points)d, 0, memory, &size);
    uint32_t random = 1, a, b, c, d;
    if (!config) return 3;
    bare.mels = 0;
    for (int i = 0; i < %(points)d; i++) {
        random = random * 1664525u + 1013904223u;
        samples[i] = (int16_t)(random >> 16);
        heard[i] = samples[i];
    }
    edgekd_count_start();
    a = edgekd_count();
    for (int i = 0; i < %(frames)d; i++) row_of(&front_end);
    b = edgekd_count();
    for (int i = 0; i < %(frames)d; i++) row_of(&bare);
    c = edgekd_count();
    for (int i = 0; i < %(frames)d; i++) kiss_fftr(config, heard, bins);
    d = edgekd_count();
    edgekd_report_number((long)(b - a)), edgekd_report(" ");
    edgekd_report_number((long)(c - b)), edgekd_report(" ");
    edgekd_report_number((long)(d - c)), edgekd_report("\\n");
    return 0;
}
"""


def counted(kissfft: Path, core: Core, points: int, optimisation: str) -> list[int]:
    """Instructions a frame: the row, the row without filters, `kiss_fftr`."""
    rate, mels = 32_000 * points // 1024, 64
    config = FrontendConfig(n_fft=points, hop_length=points // 2, n_mels=mels, f_max=rate * 0.45)
    entry = Map("entry", 1, mels, 1, 1.0, 0)
    constants = log_mel_constants(config, rate, 1.0, np.ones(mels), np.zeros(mels), entry, "front_end")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in (*SOURCES.glob("*.[chl]*"), *kissfft.glob("*.[ch]")):
            if source.is_file():
                (folder / source.name).write_bytes(source.read_bytes())
        (folder / "main.c").write_text(_MAIN % {"constants": constants, "points": points, "frames": FRAMES})
        sources = [folder / source for source in ("main.c", "edgekd_log_mel.c", *_KISSFFT, "emulator.c")]
        toolchain.cross_build(sources, folder / "count.elf", core, (optimisation, "-DNDEBUG", "-w"))
        ticks = re.findall(r"\d+", toolchain.emulate(folder / "count.elf", core))
    return [round(int(each) * core.emulated.instructions_a_tick / FRAMES) for each in ticks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kissfft", type=Path)
    parser.add_argument(
        "--cores", nargs="+", choices=[name for name in CORES if CORES[name].fpu], default=["cortex-m4"]
    )
    parser.add_argument("--points", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--optimisation", default="-O2")
    options = parser.parse_args()
    print(f"{'core':<12}{'points':>7}{'row':>9}{'no mels':>9}{'kiss_fftr':>10}")
    for core in options.cores:
        for points in options.points:
            row, bare, kiss = counted(options.kissfft, CORES[core], points, options.optimisation)
            print(f"{core:<12}{points:>7}{row:>9}{bare:>9}{kiss:>10}", flush=True)


if __name__ == "__main__":
    main()
