"""What is written beside a student's constants: the sources that all have, recordings with the scores that are expected
of them, a Makefile. `edgekd.microcontrollers.c.packages` says where in a bundle each lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import HEADERS, LIBRARY, text
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import Core
from edgekd.microcontrollers.c.model import CLASSES, HEADER, MODEL, class_names
from edgekd.microcontrollers.c.packages import place
from edgekd.microcontrollers.c.toolchain import CROSS_COMPILER, EMULATOR, FLAGS, emulator_arguments, linked_for

GOLDEN_HEADER = "golden.h"
_EMULATOR = ("emulator.c", "emulator.ld")
EMULATED = ("main_verify.c", "emulator.c")
"""What is compiled for the emulator beside the classifier."""
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
        _of_clip(number, array(f"golden_pcm_{number}", samples) + array(f"golden_scores_{number}", expected))
        for number, (samples, expected) in enumerate(zip(recordings, scores, strict=True))
    )
    lists = "".join(
        f"static const {kind} *const golden_{what}[GOLDEN_CLIPS] = {{\n"
        + "".join(_of_clip(number, f"    golden_{what}_{number},\n") for number in range(clips))
        + "};\n"
        for kind, what in (("int16_t", "pcm"), ("int32_t", "scores"))
    )
    return _GOLDEN.format(clips=clips, arrays=arrays, lists=lists)


def _of_clip(number: int, text: str) -> str:
    """What is left out where fewer clips are asked for."""
    return text if number == 0 else f"#if GOLDEN_CLIPS > {number}\n{text}#endif\n"


_GOLDEN = """\
/* Recordings, and the scores that they get. Where flash holds fewer, define GOLDEN_CLIPS. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <stdint.h>

#ifndef GOLDEN_CLIPS
#define GOLDEN_CLIPS {clips}
#endif

{arrays}
{lists}
#endif
"""


def makefile(core: Core | None) -> str:
    """`make verify`, `make stream` and `make library` on this machine; for a `core`, the library and `make emulate` by
    its compiler."""
    sources = " ".join(map(place, (*LIBRARY, MODEL)))
    headers = " ".join(map(place, (*HEADERS, HEADER)))
    parts = [_MAKEFILE.format(flags=" ".join(FLAGS), sources=sources, headers=headers)]
    if core is None:
        parts.append(_LIBRARY)
    else:
        parts.append(
            _CROSS.format(
                name=core.name,
                compiler=CROSS_COMPILER,
                flags=" ".join(("-mthumb", *core.flags)),
                linked=" ".join(linked_for(core, place("emulator.ld"))),
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
VERIFY = examples/Verify/main_verify.c
GOLDEN = examples/Verify/golden.h examples/Verify/edgekd_report.h
PATHS = -Isrc -Iexamples/Verify

verify: verify-host
\t./verify-host

verify-host: $(VERIFY) extras/host.c $(GOLDEN) $(SOURCES) $(HEADERS)
\t$(CC) $(CFLAGS) $(PATHS) -o $@ $(VERIFY) extras/host.c $(SOURCES) -lm

stream: extras/main_stream.c src/edgekd_classes.h $(SOURCES) $(HEADERS)
\t$(CC) $(CFLAGS) $(PATHS) -o $@ extras/main_stream.c $(SOURCES) -lm

clean:
\trm -f verify-host stream verify.elf libedgekd.a *.o

.PHONY: verify clean
"""
_LIBRARY = """
# make library: libedgekd.a by CC and AR, those of another processor too.
library: libedgekd.a

libedgekd.a: $(SOURCES) $(HEADERS)
\t$(CC) $(CFLAGS) -Isrc -c $(SOURCES)
\t$(AR) rcs $@ $(notdir $(SOURCES:.c=.o))

.PHONY: library
"""
_CROSS = """
# make library: libedgekd.a for a {name}. make emulate: as verify, for that core under QEMU.
CROSS_CC = {compiler}
CORE = {flags}

library: libedgekd.a

libedgekd.a: $(SOURCES) $(HEADERS)
\t$(CROSS_CC) $(CFLAGS) $(CORE) -ffunction-sections -fdata-sections -c $(SOURCES)
\t$(CROSS_CC:gcc=ar) rcs $@ $(notdir $(SOURCES:.c=.o))

emulate: verify.elf
\t{emulator} -kernel verify.elf

verify.elf: $(VERIFY) extras/emulator.c extras/emulator.ld $(GOLDEN) $(SOURCES) $(HEADERS)
\t$(CROSS_CC) $(CFLAGS) $(CORE) $(PATHS) {linked} -o $@ $(VERIFY) extras/emulator.c $(SOURCES) -lm

.PHONY: library emulate
"""
