"""Instructions of a frame's log-mel in C under the emulator, in float and in fixed point, beside kissfft.

    python -m tests.benchmarks.log_mel_instructions KISSFFT [--cores cortex-m0plus cortex-m4] [--points 512 1024]

KISSFFT is a folder with the sources of kissfft (github.com/mborgerding/kissfft), which are not in this project. All are
compiled with the same flags. "row" is the whole row of ours, window, filters and logarithms in it, and "no mels" what
of it is window, transform and powers; kissfft's transform of real samples (`kiss_fftr`) stands alone, in float and with
32 and 16 bits (FIXED_POINT). Counted by SysTick, over 20 frames. `--soft`: the core as it is without its FPU.
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
from edgekd.microcontrollers.c.cores import CORES, Core, core_of
from edgekd.microcontrollers.c.front_end import fixed_log_mel_constants, log_mel_constants
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.log_mel import fixed_log_mel

FRAMES = 20
KISS_BITS = (0, 32, 16)  # 0: float
_KISSFFT = ("kiss_fft.c", "kiss_fftr.c")
_MAIN = """\
#include <stddef.h>
#include "edgekd_model.h"
#include "edgekd_report.h"
#include "kiss_fftr.h"

#if EDGEKD_FIXED_POINT
#define ROW edgekd_fixed_log_mel_row
typedef edgekd_fixed_log_mel log_mel;
typedef int32_t level;
#else
#define ROW edgekd_log_mel_row
typedef edgekd_log_mel log_mel;
typedef float level;
#endif

%(constants)s
static int16_t samples[%(points)d];
static level spectrum[%(points)d + 2], row[64];
static kiss_fft_scalar heard[%(points)d];
static kiss_fft_cpx bins[%(points)d / 2 + 1];
static double memory[8192];

/* The library asks for memory only where none is given. */
void *malloc(size_t size) { (void)size; return 0; }
void free(void *memory) { (void)memory; }

static void row_of(const log_mel *front_end) { ROW(front_end, samples, %(points)d, 0, 0, 0, spectrum, row); }

int main(void) {
    log_mel bare = front_end;
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


def constants_of(points: int, convention: str, fixed: bool) -> str:
    """Of a front end of so many points and 64 mel filters."""
    rate, mels = 32_000 * points // 1024, 64
    if convention == "yamnet":
        config = FrontendConfig(convention="yamnet", n_fft=points, window_length=points, f_max=rate * 0.45).at(rate)
    else:
        config = FrontendConfig(n_fft=points, hop_length=points // 2, n_mels=mels, f_max=rate * 0.45)
    entry = Map("entry", 1, mels, 1, 0.5, 0)
    ones, zeros = np.ones(mels), np.zeros(mels)
    if fixed:
        return fixed_log_mel_constants(fixed_log_mel(config, rate, 1.0, ones, zeros, entry), "front_end")
    return log_mel_constants(config, rate, 1.0, ones, zeros, entry, "front_end")


def counted(kissfft: Path, core: Core, constants: str, points: int, kiss_bits: int, optimisation: str) -> list[int]:
    """Instructions a frame: the row, the row without filters, `kiss_fftr` of so many bits."""
    fixed = int("edgekd_fixed_log_mel" in constants)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in (*SOURCES.glob("*.[chl]*"), *kissfft.glob("*.[ch]")):
            if source.is_file():
                (folder / source.name).write_bytes(source.read_bytes())
        (folder / "main.c").write_text(_MAIN % {"constants": constants, "points": points, "frames": FRAMES})
        (folder / "edgekd_model.h").write_text(f'#define EDGEKD_FIXED_POINT {fixed}\n#include "edgekd_log_mel.h"\n')
        ours = ("edgekd_log_mel.c", "edgekd_log_mel_fixed.c")
        sources = [folder / source for source in ("main.c", *ours, *_KISSFFT, "emulator.c")]
        flags = (optimisation, "-DNDEBUG", "-w", *((f"-DFIXED_POINT={kiss_bits}",) if kiss_bits else ()))
        toolchain.cross_build(sources, folder / "count.elf", core, flags)
        ticks = re.findall(r"\d+", toolchain.emulate(folder / "count.elf", core))
    return [round(int(each) * core.emulated.instructions_a_tick / FRAMES) for each in ticks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kissfft", type=Path)
    parser.add_argument("--cores", nargs="+", choices=CORES, default=["cortex-m0plus", "cortex-m4"])
    parser.add_argument("--points", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--convention", choices=["panns", "yamnet"], default="panns")
    parser.add_argument("--soft", action="store_true")
    parser.add_argument("--optimisation", default="-O2")
    options = parser.parse_args()
    columns = ("float: row", "no mels", "fixed: row", "no mels", "kiss: float", "32 bits", "16 bits")
    print(f"{'core':<14}{'points':>7}{''.join(f'{column:>12}' for column in columns)}")
    for name in options.cores:
        core = core_of(name, fpu=False if options.soft else None)
        assert core is not None
        for points in options.points:
            ours = {fixed: constants_of(points, options.convention, fixed) for fixed in (False, True)}
            runs = [
                counted(options.kissfft, core, ours[bits == 32], points, bits, options.optimisation)
                for bits in KISS_BITS
            ]
            (row, bare, kiss), (fixed_row, fixed_bare, kiss_32), (*_, kiss_16) = runs
            figures = (row, bare, fixed_row, fixed_bare, kiss, kiss_32, kiss_16)
            print(f"{name:<14}{points:>7}{''.join(f'{figure:>12,}' for figure in figures)}", flush=True)


if __name__ == "__main__":
    main()
