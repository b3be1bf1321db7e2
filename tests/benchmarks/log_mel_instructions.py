"""Instructions of a frame's log-mel in C under the emulator, beside kissfft and CMSIS-DSP built the same way.

    python -m tests.benchmarks.log_mel_instructions [--kissfft FOLDER] [--cmsis-dsp FOLDER] [--cores cortex-m4]
        [--points 512 1024] [--convention yamnet] [--without-fpu] [--optimise O2]

The folders hold sources that are not in this project: those of kissfft (Debian's source package `kissfft`), and the
unpacked source distribution of `cmsisdsp` on PyPI, whose C it is. All are compiled with the same flags, and counted by
SysTick over 20 frames:

    row            ours in float: window, transform, powers, mel filters and logarithms
    no mels        ours in float: window, transform and powers
    fixed, no mels    the same two in fixed point
    kiss_fftr      kissfft's transform of real samples, alone, in float and (32, 16) with so many bits
    rfft_f32       CMSIS-DSP's arm_rfft_fast_f32, alone
    f32, q31       CMSIS-DSP: 16-bit samples widened, window, transform and powers, in float and in 32 bits
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgekd.device.c import SOURCES
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES, Core, core_of
from edgekd.microcontrollers.c.front_end import fixed_log_mel_constants, log_mel_constants
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.log_mel import fixed_log_mel
from edgekd.microcontrollers.integer.trained_log_mel import TrainedLogMel

FRAMES = 20
_KISSFFT = ("kiss_fft.c", "kiss_fftr.c")
_CMSIS_DSP = (
    *(
        f"TransformFunctions/arm_{name}.c"
        for name in (
            *("rfft_fast_f32", "rfft_fast_init_f32", "cfft_f32", "cfft_init_f32", "cfft_radix8_f32"),
            *("rfft_q31", "rfft_init_q31", "cfft_q31", "cfft_init_q31", "cfft_radix4_q31"),
            *("bitreversal", "bitreversal2"),
        )
    ),
    *(f"CommonTables/arm_{name}.c" for name in ("common_tables", "const_structs", "mve_tables")),
    *(f"BasicMathFunctions/arm_{name}.c" for name in ("mult_f32", "mult_q31", "shift_q31", "scale_f32")),
    *(f"SupportFunctions/arm_{name}.c" for name in ("q15_to_float", "q15_to_q31")),
    *(f"ComplexMathFunctions/arm_{name}.c" for name in ("cmplx_mag_squared_f32", "cmplx_mag_squared_q31")),
)
# Of CMSIS's core headers, which are no part of that distribution, what those sources ask for.
_CMSIS_COMPILER = """\
#include <arm_acle.h>
#define __ASM __asm__
#define __ALIGNED(bytes) __attribute__((aligned(bytes)))
#define __STATIC_FORCEINLINE __attribute__((always_inline)) static inline
#define __STATIC_INLINE static inline
#define __WEAK __attribute__((weak))
#define __CLZ(value) ((uint8_t)((value) ? __builtin_clz(value) : 32))
#ifdef __ARM_FEATURE_SAT
#define __SSAT __ssat
#define __USAT __usat
#else
__STATIC_FORCEINLINE int32_t __SSAT(int32_t value, uint32_t bits) {
    int32_t most = (int32_t)((1u << (bits - 1)) - 1);
    return value > most ? most : value < -most - 1 ? -most - 1 : value;
}
__STATIC_FORCEINLINE uint32_t __USAT(int32_t value, uint32_t bits) {
    int32_t most = (int32_t)((1u << bits) - 1);
    return (uint32_t)(value > most ? most : value < 0 ? 0 : value);
}
#endif
#ifdef __ARM_FEATURE_SIMD32
#define __QADD __qadd
#define __QSUB __qsub
#define __QADD8 __qadd8
#define __QSUB8 __qsub8
#define __QADD16 __qadd16
#define __QSUB16 __qsub16
#define __SHADD16 __shadd16
#define __SHSUB16 __shsub16
#define __QASX __qasx
#define __QSAX __qsax
#define __SHASX __shasx
#define __SHSAX __shsax
#define __SMLAD __smlad
#define __SMLADX __smladx
#define __SMLALD __smlald
#define __SMLALDX __smlaldx
#define __SMLSDX __smlsdx
#define __SMUAD __smuad
#define __SMUADX __smuadx
#define __SMUSD __smusd
#define __SMUSDX __smusdx
#define __SXTB16 __sxtb16
#define __PKHBT(low, high, by) (((low) & 0xFFFFu) | (((uint32_t)(high) << (by)) & 0xFFFF0000u))
#define __PKHTB(high, low, by) (((high) & 0xFFFF0000u) | (((int32_t)(low) >> (by)) & 0xFFFFu))
__STATIC_FORCEINLINE int32_t __SMMLA(int32_t a, int32_t b, int32_t sum) {
    return (int32_t)(((int64_t)a * b + ((int64_t)sum << 32)) >> 32);
}
#endif
"""
_COUNTED = """\
#include "edgekd_report.h"
#define FRAMES %(frames)d
#define POINTS %(points)d

static int16_t samples[POINTS];
static uint32_t begun;

static void begin(void) {
    uint32_t random = 1;
    for (int i = 0; i < POINTS; i++) {
        random = random * 1664525u + 1013904223u;
        samples[i] = (int16_t)(random >> 16);
    }
    edgekd_count_start();
    begun = edgekd_count();
}

static void tell(void) {
    edgekd_report_number((long)(edgekd_count() - begun)), edgekd_report("\\n");
    begun = edgekd_count();
}
"""
_OURS = """\
#include "edgekd_model.h"
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
static level spectrum[POINTS + 2], row[64];

static void rows_of(const log_mel *front_end) {
    for (int i = 0; i < FRAMES; i++) ROW(front_end, samples, POINTS, 0, 0, 0, spectrum, row);
    tell();
}

int main(void) {
    log_mel bare = front_end;
    bare.mels = 0;
    begin();
    rows_of(&front_end);
    rows_of(&bare);
    return 0;
}
"""
_OF_KISSFFT = """\
#include <stddef.h>
#include "kiss_fftr.h"
static kiss_fft_scalar heard[POINTS];
static kiss_fft_cpx bins[POINTS / 2 + 1];
static double memory[8192];

/* The library asks for memory only where none is given. */
void *malloc(size_t size) { (void)size; return 0; }
void free(void *memory) { (void)memory; }

int main(void) {
    size_t size = sizeof memory;
    kiss_fftr_cfg config = kiss_fftr_alloc(POINTS, 0, memory, &size);
    if (!config) return 3;
    begin();
    for (int i = 0; i < POINTS; i++) heard[i] = samples[i];
    begun = edgekd_count();
    for (int i = 0; i < FRAMES; i++) kiss_fftr(config, heard, bins);
    tell();
    return 0;
}
"""
_OF_CMSIS_DSP = """\
#include "arm_math.h"
static float window[POINTS], heard[POINTS], bins[POINTS], powers[POINTS / 2];
static int32_t fixed_window[POINTS], fixed[POINTS], fixed_bins[2 * POINTS], fixed_powers[POINTS / 2 + 1];

int main(void) {
    arm_rfft_fast_instance_f32 in_float;
    arm_rfft_instance_q31 in_fixed;
    uint32_t alone = 0;
    if (arm_rfft_fast_init_%(points)d_f32(&in_float) || arm_rfft_init_%(points)d_q31(&in_fixed, 0, 1)) return 3;
    for (int i = 0; i < POINTS; i++) window[i] = 0.5f, fixed_window[i] = 1 << 30;
    begin();
    for (int i = 0; i < FRAMES; i++) { /* the transform overwrites what it reads */
        uint32_t from;
        arm_q15_to_float(samples, heard, POINTS);
        from = edgekd_count();
        arm_rfft_fast_f32(&in_float, heard, bins, 0);
        alone += edgekd_count() - from;
    }
    begun = edgekd_count() - alone;
    tell();
    for (int i = 0; i < FRAMES; i++) {
        arm_q15_to_float(samples, heard, POINTS);
        arm_mult_f32(heard, window, heard, POINTS);
        arm_rfft_fast_f32(&in_float, heard, bins, 0);
        arm_cmplx_mag_squared_f32(bins, powers, POINTS / 2);
    }
    tell();
    for (int i = 0; i < FRAMES; i++) {
        arm_q15_to_q31(samples, fixed, POINTS);
        arm_mult_q31(fixed, fixed_window, fixed, POINTS);
        arm_rfft_q31(&in_fixed, fixed, fixed_bins);
        arm_cmplx_mag_squared_q31(fixed_bins, fixed_powers, POINTS / 2 + 1);
    }
    tell();
    return 0;
}
"""


def counted(main: str, sources: Iterable[Path], points: int, core: Core, flags: Iterable[str]) -> list[int]:
    """Instructions a frame, of each part that the program tells of. Raises `GateError` as the toolchain does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in SOURCES.glob("*.[chl]*"):
            (folder / source.name).write_bytes(source.read_bytes())
        fixed = int("edgekd_fixed_log_mel front_end" in main)
        (folder / "edgekd_model.h").write_text(f'#define EDGEKD_FIXED_POINT {fixed}\n#include "edgekd_log_mel.h"\n')
        (folder / "main.c").write_text(_COUNTED % {"points": points, "frames": FRAMES} + main)
        (folder / "cmsis_compiler.h").write_text(_CMSIS_COMPILER)
        every = [folder / "main.c", folder / "emulator.c", *sources]
        kept = ["-DNDEBUG", "-w", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", f"-I{folder}"]
        toolchain.cross_build(every, folder / "count.elf", core, (*flags, *kept))
        ticks = re.findall(r"\d+", toolchain.emulate(folder / "count.elf", core))
    return [round(int(each) * core.emulated.instructions_a_tick / FRAMES) for each in ticks]


def ours(points: int, convention: str, fixed: bool) -> str:
    rate, mels = 32_000 * points // 1024, 64
    settings = {"n_fft": points, "window_length": points, "hop_length": points // 2, "n_mels": mels}
    config = FrontendConfig.model_validate({**settings, "convention": convention, "f_max": rate * 0.45}).at(rate)
    entry = Map("entry", 1, mels, 1, 0.5, 0)
    trained = TrainedLogMel(config, rate, 1.0, np.ones(mels), np.zeros(mels))
    if fixed:
        constants = fixed_log_mel_constants(fixed_log_mel(trained, entry), "front_end")
    else:
        constants = log_mel_constants(trained, entry, "front_end")
    return _OURS % {"constants": constants}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kissfft", type=Path)
    parser.add_argument("--cmsis-dsp", type=Path)
    parser.add_argument("--cores", nargs="+", choices=CORES, default=["cortex-m4", "cortex-m55"])
    parser.add_argument("--points", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--convention", choices=["panns", "yamnet"], default="panns")
    parser.add_argument("--without-fpu", action="store_true", help="cores as they are without one")
    parser.add_argument("--optimise", default="O2")
    options = parser.parse_args()
    kissfft, dsp = options.kissfft, options.cmsis_dsp
    names = [
        "row",
        "no mels",
        "fixed",
        "no mels",
        *(["kiss_fftr", "32", "16"] if kissfft else []),
        *(["rfft_f32", "f32", "q31"] if dsp else []),
    ]
    print(f"{'core':<14}{'points':>7}" + "".join(f"{name:>11}" for name in names))
    for core in options.cores:
        here = core_of(core, fpu=False if options.without_fpu else None)
        assert here is not None
        for points in options.points:
            flags, found = (f"-{options.optimise}",), []
            for fixed, source in ((False, "edgekd_log_mel.c"), (True, "edgekd_log_mel_fixed.c")):
                mine = (*flags, f"-I{SOURCES}")
                found += counted(ours(points, options.convention, fixed), [SOURCES / source], points, here, mine)
            if kissfft:
                sources = [kissfft.resolve() / name for name in _KISSFFT]
                for kind in ((), ("-DFIXED_POINT=32",), ("-DFIXED_POINT=16",)):
                    theirs = (*flags, f"-I{kissfft.resolve()}", *kind)
                    found += counted(_OF_KISSFFT, sources, points, here, theirs)
            if dsp:
                sources = [each for name in _CMSIS_DSP if (each := dsp.resolve() / "Source" / name).exists()]
                places = [f"-I{dsp.resolve() / each}" for each in ("Include", "PrivateInclude")]
                more = (*flags, "-std=gnu99", *places)
                found += counted(_OF_CMSIS_DSP % {"points": points}, sources, points, here, more)
            print(f"{core:<14}{points:>7}" + "".join(f"{each:>11,}" for each in found), flush=True)


if __name__ == "__main__":
    main()
