"""What lies in a folder of C beside a student's constants: the sources that all have, recordings with the scores that
are expected of them, a Makefile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import HEADERS, LIBRARY, text
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import Core
from edgekd.microcontrollers.c.model import CLASSES, HEADER, MODEL, class_names
from edgekd.microcontrollers.c.toolchain import CROSS_COMPILER, EMULATOR, FLAGS, emulator_arguments, linked_for

GOLDEN_HEADER = "golden.h"
_EMULATOR = ("emulator.c", "emulator.ld")
EMULATED = ("main_verify.c", "emulator.c", *LIBRARY, MODEL)
"""What is compiled for the emulator."""
LARGEST_GOLDEN = 1 << 20  # bytes of recordings, which lie in flash while they are compared


def all_sources(
    classes: Sequence[str],
    heard_from: Mapping[str, float],
    core: Core | None,
    recordings: NDArray[np.int16],
    scores: NDArray[np.int32],
) -> dict[str, str]:
    """Every file by name: `recordings (N, S)` and the `scores (N, K)` that they must get are in one, and in another
    from which score each of the `classes` is heard, but for the background."""
    written = {
        **verification(recordings, scores),
        **{name: text(name) for name in ("host.c", "main_stream.c")},
        CLASSES: class_names(classes, heard_from),
        "Makefile": makefile(core),
    }
    return {name: content for name, content in written.items() if core is not None or name not in _EMULATOR}


def verification(recordings: NDArray[np.int16], scores: NDArray[np.int32]) -> dict[str, str]:
    """What compares `recordings (N, S)` with their `scores (N, K)`, on a core under the emulator too."""
    names = (*LIBRARY, *HEADERS, "main_verify.c", "edgekd_report.h", *_EMULATOR)
    return {**{name: text(name) for name in names}, GOLDEN_HEADER: golden_header(recordings, scores)}


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Each file into `folder`."""
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


def how_many(clip_samples: int, clips: int) -> int:
    """Of the recordings of a bundle, that C compares: as many as 1 MiB holds, up to four."""
    return max(1, min(clips, 4, LARGEST_GOLDEN // (2 * clip_samples)))


def golden_header(recordings: NDArray[np.int16], scores: NDArray[np.int32]) -> str:
    """`golden.h`: recordings `(N, S)` and scores `(N, K)` in units of 1 / EDGEKD_ONE."""
    clips = len(recordings)
    arrays = "\n".join(
        [
            *(array(f"golden_pcm_{number}", samples) for number, samples in enumerate(recordings)),
            *(array(f"golden_scores_{number}", expected) for number, expected in enumerate(scores)),
        ]
    )
    pcm, expected = (", ".join(f"golden_{what}_{number}" for number in range(clips)) for what in ("pcm", "scores"))
    return (
        "/* Recordings, and the scores that they get. */\n#ifndef GOLDEN_H\n#define GOLDEN_H\n\n#include <stdint.h>\n\n"
        f"#define GOLDEN_CLIPS {clips}\n\n{arrays}\n"
        f"static const int16_t *const golden_pcm[GOLDEN_CLIPS] = {{{pcm}}};\n"
        f"static const int32_t *const golden_scores[GOLDEN_CLIPS] = {{{expected}}};\n\n#endif\n"
    )


def makefile(core: Core | None) -> str:
    """`make verify` and `make stream` on this machine; for a `core`, `make library` and `make emulate` too."""
    sources = " ".join((*LIBRARY, MODEL))
    headers = " ".join((*HEADERS, HEADER))
    parts = [_MAKEFILE.format(flags=" ".join(FLAGS), sources=sources, headers=headers)]
    if core is not None:
        parts.append(
            _CROSS.format(
                name=core.name,
                compiler=CROSS_COMPILER,
                flags=" ".join(("-mthumb", *core.flags)),
                linked=" ".join(linked_for(core, "emulator.ld")),
                emulator=" ".join((EMULATOR, *emulator_arguments(core))),
            )
        )
    return "".join(parts)


_MAKEFILE = """\
# make verify: do the compiler and the processor here give what was found at export?
# make stream: ./stream classifies 16-bit samples from its standard input.
CFLAGS = {flags}
SOURCES = {sources}
HEADERS = {headers}

verify: verify-host
\t./verify-host

verify-host: main_verify.c host.c golden.h edgekd_report.h $(SOURCES) $(HEADERS)
\t$(CC) $(CFLAGS) -o $@ main_verify.c host.c $(SOURCES) -lm

stream: main_stream.c edgekd_classes.h $(SOURCES) $(HEADERS)
\t$(CC) $(CFLAGS) -o $@ main_stream.c $(SOURCES) -lm

clean:
\trm -f verify-host stream verify.elf libedgekd.a *.o

.PHONY: verify clean
"""
_CROSS = """
# make library: libedgekd.a for a {name}. make emulate: as verify, for that core under QEMU.
CROSS_CC = {compiler}
CORE = {flags}

library: libedgekd.a

libedgekd.a: $(SOURCES) $(HEADERS)
\t$(CROSS_CC) $(CFLAGS) $(CORE) -ffunction-sections -fdata-sections -c $(SOURCES)
\t$(CROSS_CC:gcc=ar) rcs $@ $(SOURCES:.c=.o)

emulate: verify.elf
\t{emulator} -kernel verify.elf

verify.elf: main_verify.c emulator.c emulator.ld golden.h edgekd_report.h $(SOURCES) $(HEADERS)
\t$(CROSS_CC) $(CFLAGS) $(CORE) {linked} -o $@ main_verify.c emulator.c $(SOURCES) -lm

.PHONY: library emulate
"""
