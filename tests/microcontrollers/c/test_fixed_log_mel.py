"""The log-mel in integers in C: that of numpy bit for bit, here and on cores without an FPU, with no float."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.device.c import LIBRARY, SOURCES
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import Core, core_of
from edgekd.microcontrollers.c.front_end import fixed_log_mel_constants
from edgekd.microcontrollers.integer.log_mel import FixedLogMel
from edgekd.microcontrollers.integer.log_mel_reference import rows
from tests.microcontrollers.c.programs import needs_emulator, needs_host
from tests.microcontrollers.c.test_network import SANITIZED
from tests.microcontrollers.integer.test_log_mel import CONFIGS, frames, made

SOURCE = "edgekd_log_mel_fixed.c"
MODEL = '#define EDGEKD_FIXED_POINT 1\n#include "edgekd_log_mel.h"\n'
NARROW = "-DEDGEKD_NARROW=1"  # the products of a core that has none of 64 bits
WITHOUT_FPU = ("cortex-m0plus", "cortex-m33")
_MAIN = """\
#include "edgekd_model.h"
#include "edgekd_report.h"

static int32_t spectrum[8194], row[256];
static int differ;

static void compare(const edgekd_fixed_log_mel *front_end, int frames, const int16_t *heard, const int32_t *expected) {
    int length = front_end->window_length, bins = front_end->mels / front_end->bins_per_step;
    for (int i = 0; i < frames; i++) {
        edgekd_fixed_log_mel_row(front_end, heard + i * length, length, 0, 0, 0, spectrum, row);
        for (int k = 0; k < bins; k++) differ += row[k] != expected[i * bins + k];
    }
}

%s
int main(void) {
%s    edgekd_report_number(differ);
    return differ != 0;
}
"""


def write(folder: Path, cases: Sequence[tuple[FixedLogMel, NDArray[np.int16]]]) -> list[Path]:
    """A program that counts the numbers in which C differs from numpy, but for what stands for a board."""
    for source in SOURCES.iterdir():
        if source.suffix in (".c", ".h", ".ld"):
            (folder / source.name).write_bytes(source.read_bytes())
    constants, calls = "", ""
    for number, (front_end, heard) in enumerate(cases):
        expected = rows(front_end, heard).astype(np.int32)
        constants += fixed_log_mel_constants(front_end, f"front_end_{number}")
        constants += array(f"heard_{number}", heard) + array(f"expected_{number}", expected)
        calls += f"    compare(&front_end_{number}, {len(heard)}, heard_{number}, expected_{number});\n"
    (folder / "main.c").write_text(_MAIN % (constants, calls))
    (folder / "edgekd_model.h").write_text(MODEL)
    return [folder / "main.c", folder / SOURCE]


@needs_host
@pytest.mark.parametrize("flags", [(), (NARROW,)], ids=["wide", "narrow"])
def test_every_row_is_that_of_numpy(flags: tuple[str, ...], tmp_path: Path) -> None:
    sources = write(tmp_path, cases(6))
    toolchain.build([*sources, tmp_path / "host.c"], tmp_path / "main", (*SANITIZED, "-Werror", *flags))
    assert toolchain.run(tmp_path / "main") == "0"


def cases(noises: int) -> list[tuple[FixedLogMel, NDArray[np.int16]]]:
    """Every kind of front end, and what it hears."""
    here = [(config.at(rate), rate) for config, rate in CONFIGS]
    return [(made(config, rate), frames(config.window_length, noises)) for config, rate in here]


def core_without(name: str) -> Core:
    core = core_of(name, fpu=False)
    assert core is not None
    return core


@needs_emulator
@pytest.mark.parametrize("name", WITHOUT_FPU)
def test_every_row_is_that_of_numpy_on_a_core(name: str, tmp_path: Path) -> None:
    core = core_without(name)
    sources = write(tmp_path, cases(4))
    toolchain.cross_build([*sources, tmp_path / "emulator.c"], tmp_path / "main.elf", core, ("-Werror",))
    assert toolchain.emulate(tmp_path / "main.elf", core) == "0"


@needs_emulator
@pytest.mark.parametrize("name", WITHOUT_FPU)
def test_nothing_in_the_object_code_is_a_float(name: str, tmp_path: Path) -> None:
    (tmp_path / "edgekd_model.h").write_text(WHOLE_MODEL)
    sources = [SOURCES / source for source in LIBRARY]
    toolchain.cross_objects(sources, tmp_path, core_without(name), ("-O1", f"-I{tmp_path}", f"-I{SOURCES}"))
    symbols = subprocess.run(
        ["arm-none-eabi-nm", *map(str, tmp_path.glob("*.o"))], capture_output=True, text=True, check=True
    ).stdout
    assert "edgekd_fixed_log_mel_row" in symbols
    names = [line.split()[-1] for line in symbols.splitlines() if line]
    assert not [name for name in names if "__aeabi_f" in name or "__aeabi_d" in name or "2f" in name]


WHOLE_MODEL = """\
#define EDGEKD_FIXED_POINT 1
#define EDGEKD_CLASSES 2
#define EDGEKD_WINDOW_SAMPLES 4000
#define EDGEKD_HOP_SAMPLES 2000
#define EDGEKD_WINDOWS 2
#define EDGEKD_FRAME_SAMPLES 512
#define EDGEKD_FRAME_HOP 160
#define EDGEKD_CENTRED 1
#define EDGEKD_FRAMES 25
#define EDGEKD_FRAMES_PER_STEP 2
#define EDGEKD_BINS 64
#define EDGEKD_SPECTRUM 514
#define EDGEKD_MEMORY_WORDS 100
#include "edgekd_log_mel.h"
#include "edgekd_network.h"
extern const edgekd_fixed_log_mel edgekd_model_log_mel;
extern const edgekd_network edgekd_model_network;
"""


@needs_host
def test_samples_beyond_the_ends_are_reflected_and_a_ring_begins_anywhere(tmp_path: Path) -> None:
    config = CONFIGS[0][0].at(CONFIGS[0][1])
    front_end, length = made(config, 16_000), config.window_length
    sources = write(tmp_path, [])
    toolchain.build([*sources[1:], constants_of(tmp_path, front_end)], tmp_path / "a.so", ("-shared", "-fPIC"))
    library = ctypes.CDLL(str(tmp_path / "a.so"))
    row_of, tables = library.edgekd_fixed_log_mel_row, ctypes.byref(ctypes.c_char.in_dll(library, "front_end"))
    sound = np.round(3_000 * np.random.default_rng(4).standard_normal(2 * length)).astype(np.int16)
    around = np.pad(sound, length // 2, mode="reflect")
    for start in (-length // 2, -3, 0, 77, len(sound) - length, len(sound) - length // 2):
        before, after = max(0, -start), max(0, start + length - len(sound))
        ring = np.zeros(length, np.int16)
        for place in range(max(0, start - 1), min(len(sound), start + length + (before > 0))):
            if start + (start < 0) <= place or after:
                ring[place % length] = sound[place]
        row, spectrum = np.zeros(64, np.int32), np.zeros(2 * front_end.points + 2, np.int32)
        taken, working, into = (each.ctypes.data_as(ctypes.c_void_p) for each in (ring, spectrum, row))
        row_of(tables, taken, length, start % length, before, after, working, into)
        frame = around[start + length // 2 :][:length]
        assert np.array_equal(row, rows(front_end, frame[None])[0]), start


@needs_host
def test_weights_whose_sum_wraps_to_nothing_have_a_logarithm(tmp_path: Path) -> None:
    front_end = made(CONFIGS[0][0].at(16_000), 16_000)
    sources = write(tmp_path, [])
    tables = array("logarithms", front_end.logarithms) + array("roots", front_end.square_roots)
    sources[0].write_text(_WRAPS % tables)
    toolchain.build([sources[0], tmp_path / "host.c"], tmp_path / "main", SANITIZED)
    assert toolchain.run(tmp_path / "main") == ""


_WRAPS = """\
#include "edgekd_log_mel_fixed.c"
%s
static const uint16_t none[1] = {0}, two[1] = {2}, weights[2] = {65535, 49153}; /* 7 / 4 of 2^31, and 2^29 */
static const edgekd_fixed_log_mel front_end = {
    .points = 1, .bins_per_step = 1, .logarithms = logarithms, .roots = roots, .first = none, .count = two,
    .filters = weights, .least = 1 << 15, .least_exponent = 14,
};
int main(void) {
    int32_t spectrum[4] = {0, 1 << 30, 0, 1 << 30}, row[1] = {0};
    of_magnitudes(&front_end, 1, spectrum, 0, row);
    return row[0] != 0;
}
"""


def constants_of(folder: Path, front_end: FixedLogMel) -> Path:
    written = folder / "front_end.c"
    written.write_text(f'#include "edgekd_log_mel.h"\n{fixed_log_mel_constants(front_end, "front_end")}')
    return written


def test_tables_end_where_their_functions_do() -> None:
    front_end = made(CONFIGS[0][0].at(16_000), 16_000)
    assert front_end.logarithms[[0, 32, 64]].tolist() == [0, round(math.log2(1.5) * 65536), 65535]
    assert front_end.square_roots[[0, 96]].tolist() == [32768, 65535]
