"""The log-mel with vectors, on a Cortex-M55: bit for bit that without them, whatever is heard and at every length."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.device.c import SOURCES
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.c.front_end import log_mel_constants
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.trained_log_mel import TrainedLogMel
from tests.microcontrollers.c.programs import needs_emulator, needs_host

FRONT_ENDS = {
    "512": (FrontendConfig(), 16_000),
    "1024": (FrontendConfig(n_mels=62), 32_000),  # a stage of radix 2, and two filters behind the last four
    "1408": (FrontendConfig(n_mels=40, bins_per_step=2), 44_100),  # a stage of radix 11
    "1536": (FrontendConfig(n_mels=48, bins_per_step=3), 48_000),
    "2048": (FrontendConfig(n_fft=1024, window_length=1001), 32_000),  # zeros behind an odd window
    "768": (FrontendConfig(n_fft=384), 32_000),
    "yamnet": (FrontendConfig(convention="yamnet"), 16_000),
    "120": (FrontendConfig(n_mels=9, n_fft=120, hop_length=40, f_max=1_000), 2_000),  # blocks of four that are no pair
    "70": (FrontendConfig(n_mels=16, n_fft=70, hop_length=20, f_max=1_000), 2_000),  # no vector is ever full
    "16": (FrontendConfig(n_mels=8, n_fft=16, hop_length=16, f_max=1_000), 2_000),
}
LONGEST = 2048
_MAIN = """\
#include <string.h>

static float spectrum[LONGEST + 2], row[64];

/* Frames that begin anywhere in the ring, and such as lie beyond either end of the sound. */
static void tell(const edgekd_log_mel *front_end, int sound_number, const int16_t *heard) {
    uint32_t mixed = 2166136261u, bits;
    int length = front_end->window_length, rows = front_end->mels / front_end->bins_per_step;
    const int starts[] = {0, 37 % length, 74 % length, length - 8, length / 2, 5, 5}, beyond = length / 3;
    for (int frame = 0; frame < 7; frame++) {
        edgekd_log_mel_row(front_end, heard, length, starts[frame], frame == 5 ? beyond : 0, frame == 6 ? beyond : 0,
                           spectrum, row);
        for (int i = 0; i < rows; i++) {
            memcpy(&bits, &row[i], sizeof bits);
            mixed = (mixed ^ bits) * 16777619u;
        }
    }
    edgekd_report_number((long)(mixed >> 1)), edgekd_report(sound_number == SOUNDS - 1 ? "\\n" : " ");
}

int main(void) {
    for (unsigned i = 0; i < sizeof front_ends / sizeof *front_ends; i++)
        for (int k = 0; k < SOUNDS; k++) tell(front_ends[i], k, sounds + k * LONGEST);
    return 0;
}
"""


def sounds() -> NDArray[np.int16]:
    """`(sounds, LONGEST)`: noise at three levels, and what leaves many numbers zero or nearly so."""
    time, random = np.arange(LONGEST), np.random.default_rng(0)
    noise = [np.round(level * random.uniform(-1, 1, LONGEST)) for level in (32_767, 300, 3)]
    impulses = [where * (time % 64 == at) for where, at in ((32_767, 0), (-1, 33))]
    steady = [np.full(LONGEST, -32_768), time % 2 * 2 - 1, np.zeros(LONGEST), 100 * (time % 8 < 4)]
    tone = np.round(20_000 * np.sin(2 * np.pi * time / 16))
    return np.stack([*noise, *impulses, *steady, tone]).astype(np.int16)


def digests(folder: Path, core: str | None, flags: tuple[str, ...] = ()) -> list[str]:
    """Of the bits of all frames, a line for each front end and in it a number for each sound."""
    heard, parts = sounds(), ['#include "edgekd_log_mel.h"\n#include "edgekd_report.h"\n']
    parts.append(f"#define LONGEST {LONGEST}\n#define SOUNDS {len(heard)}\n" + array("sounds", heard.ravel()))
    for number, (config, rate) in enumerate(FRONT_ENDS.values()):
        here = config.at(rate)
        bins = here.n_mels // here.bins_per_step
        normal = np.random.default_rng(number).uniform(0.5, 2, (2, bins))
        entry = Map("entry", 1, bins, 1, 0.7, 3)
        parts.append(log_mel_constants(TrainedLogMel(here, rate, 1.7, *normal), entry, f"front_end_{number}"))
    names = ", ".join(f"&front_end_{number}" for number in range(len(FRONT_ENDS)))
    parts.append(f"static const edgekd_log_mel *const front_ends[] = {{{names}}};\n")
    (folder / "main.c").write_text("".join(parts) + _MAIN)
    (folder / "edgekd_model.h").write_text('#include "edgekd_log_mel.h"\n')
    for source in SOURCES.iterdir():
        if source.suffix in (".c", ".h", ".ld"):
            (folder / source.name).write_bytes(source.read_bytes())
    board = "host.c" if core is None else "emulator.c"
    sources, program = [folder / name for name in ("main.c", "edgekd_log_mel.c", board)], folder / "digests"
    if core is None:
        toolchain.build(sources, program, flags)
        told = toolchain.run(program)
    else:
        toolchain.cross_build(sources, program, CORES[core], flags)
        told = toolchain.emulate(program, CORES[core])
    return re.findall(r"[\d ]+", told)


@needs_host
@needs_emulator
@pytest.mark.parametrize("optimisation", ["-O2", pytest.param("-O0", marks=pytest.mark.slow)])
def test_every_bit_is_that_of_the_code_without_vectors(tmp_path: Path, optimisation: str) -> None:
    expected, found = digests(tmp_path, None), digests(tmp_path, "cortex-m55", (optimisation, "-Werror"))
    assert len(expected) == len(FRONT_ENDS)
    assert len(set(expected[0].split())) >= len(sounds()) - 1  # half the rate lies above all filters, as silence does
    assert dict(zip(FRONT_ENDS, found, strict=True)) == dict(zip(FRONT_ENDS, expected, strict=True))
