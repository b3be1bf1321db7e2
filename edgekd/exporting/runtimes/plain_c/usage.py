"""The part of a bundle's README.md that says how its C is checked and used."""

from __future__ import annotations

from edgekd.microcontrollers.c.cores import Core
from edgekd.microcontrollers.c.toolchain import CROSS_COMPILER


def usage(rate: int, core: Core | None, *, fixed_point: bool, arduino: bool) -> str:
    """Markdown, for a classifier that hears `rate` samples a second on `core`, or where None on a machine with an
    operating system. `fixed_point`: so is its log-mel. `arduino`: there is a sketch that hears a microphone."""
    emulate = "" if core is None else _EMULATE.format(core=core.name)
    flags = "" if core is None else " " + " ".join(("-mthumb", *core.flags))
    compiler = "cc" if core is None else CROSS_COMPILER
    microphone = "; `Microphone` hears the board's own microphone, by Arduino's PDM library" if arduino else ""
    return _USAGE.format(
        rate=rate,
        emulate=emulate,
        flags=flags,
        compiler=compiler,
        microphone=microphone,
        bits=_IN_INTEGERS if fixed_point else _IN_FLOAT,
    )


_EMULATE = """
    make emulate         # for a {core}: arm-none-eabi-gcc, newlib and qemu-system-arm"""
_IN_INTEGERS = """\
All is in integers, the log-mel too: the bits are the same with every compiler, at every level of optimisation."""
_IN_FLOAT = """\
The log-mel is in floating point, and has the same bits on all processors only where no product is fused with a sum. GCC
fuses unless told not to, and Arduino does not let a library tell it: so `src/edgekd_exact.h` does, for GCC and clang,
and stops at `-ffast-math`. Of another compiler, and of a core whose floating point is not IEEE 754 (numbers below 1e-38
taken for zero, divisions that are not rounded), only the check above tells. A score that differs by that alone is no
fault of the network, which is in integers."""
_USAGE = """\
## Check

    make verify          # with the C compiler here{emulate}

hears the recordings of `examples/Verify/golden.h` in uneven pieces and compares every score with that found at export.
Exit code 0: all are the same, bit for bit; 4: one is not. On your board it is the sketch `examples/Verify`, the
application `zephyr/verify`, or `examples/Verify/main_verify.c` with an `edgekd_report` of your own. `-DGOLDEN_CLIPS=1`
leaves out all recordings but the first, where flash holds no more.

## Build

Everything of the library lies in `src`. This folder is, as it is:

| for | what you do |
|---|---|
| Arduino | put it into the sketchbook's `libraries`, its name of letters, digits, `-`, `_`; `#include <edgekd.h>` |
| PlatformIO | put it into the project's `lib`, or name it in `lib_deps` as `symlink://PATH` |
| Zephyr | `-DEXTRA_ZEPHYR_MODULES=PATH` (before 3.4: `ZEPHYR_EXTRA_MODULES`), and `CONFIG_EDGEKD=y` |
| ESP-IDF | put it into the project's `components`, under a name without spaces, and name that in `REQUIRES` |
| CMake | `add_subdirectory(PATH edgekd)`, `target_link_libraries(YOURS edgekd)` |
| make | `make library`, or compile `src/*.c` into your program: |

    {compiler} -std=c99 -O2 -ffp-contract=off{flags} -Isrc -c src/*.c

The sketch `Scores` says how long the board takes for a second of sound, and scores samples from the serial
port{microphone}.

{bits}

## Use

```c
#include "edgekd.h"
#include "edgekd_classes.h"

static edgekd_t classifier;                  /* all that it needs beside the stack */
static int16_t buffer[2][EDGEKD_FRAME_HOP];  /* the DMA fills one half while the other is heard */
static volatile uint32_t filled;             /* halves */
static const int32_t heard_from[] = EDGEKD_HEARD_FROM;

void microphone_half_done(void) {{ filled++; }}  /* your driver calls them: {rate} Hz, one channel, 16 bits */
void microphone_done(void) {{ filled++; }}

int main(void) {{
    int32_t scores[EDGEKD_CLASSES];
    edgekd_init(&classifier);
    for (uint32_t half = 0;; half++) {{
        while (half == filled) sleep_until_interrupt();  /* __WFE() on Arm */
        if (filled - half > 1) report_late();            /* that half has been written over: too slow */
        if (!edgekd_push(&classifier, buffer[half % 2], EDGEKD_FRAME_HOP)) continue;
        edgekd_scores(&classifier, scores);
        for (int k = 0; k < EDGEKD_CLASSES; k++)
            if (scores[k] >= heard_from[k]) report(k);
    }}
}}
```

A half of the buffer lasts as long as the classifier may take for a frame: where `report_late` is called, make it
longer, in multiples of `EDGEKD_FRAME_HOP`. The microphone's rate has to be {rate} Hz: nothing is resampled. A window
begins every `EDGEKD_HOP_SAMPLES` (`src/edgekd_model.h`), which is yours to change. `make stream` makes a program for
this machine that does the same:

    arecord -f S16_LE -r {rate} -t raw | ./stream
"""
