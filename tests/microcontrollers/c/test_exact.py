"""The bits of the log-mel, whatever the compiler is told: products are never fused with sums, nor sums reordered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.device.c import SOURCES
from edgekd.errors import GateError
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.c.front_end import log_mel_constants
from edgekd.microcontrollers.integer.layers import Map
from edgekd.microcontrollers.integer.trained_log_mel import TrainedLogMel
from tests.microcontrollers.c.programs import needs_emulator, needs_host

RATE, FRAMES = 16_000, 32
AS_A_BUILDER_MAY = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-funsafe-math-optimizations")
_MAIN = """\
#include <string.h>

static float spectrum[POINTS + 2], row[BINS];

int main(void) {
    uint32_t mixed = 2166136261u, bits;
    for (int frame = 0; frame < FRAMES; frame++) {
        edgekd_log_mel_row(&front_end, sound + frame * 400, LENGTH, 0, 0, 0, spectrum, row);
        for (int i = 0; i < BINS; i++) {
            memcpy(&bits, &row[i], sizeof bits);
            mixed = (mixed ^ bits) * 16777619u;
        }
    }
    edgekd_report_number((long)(mixed >> 1));
    return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints a digest of the bits of frames of noise at all levels: 384 points, of radix 3 and 4."""
    place = tmp_path_factory.mktemp("exact")
    config, rng = FrontendConfig(n_fft=768).at(RATE), np.random.default_rng(0)
    ones = np.ones(config.n_mels)
    constants = log_mel_constants(
        TrainedLogMel(config, RATE, 1.7, ones, 0 * ones), Map("entry", 1, 64, 1, 1.0, 0), "front_end"
    )
    levels = np.repeat(2.0 ** rng.uniform(0, 14, FRAMES), 400)
    sound = np.round(levels * rng.uniform(-1, 1, len(levels))).astype(np.int16)
    sound = np.concatenate([sound, np.zeros(config.window_length, np.int16)])
    sizes = {"POINTS": config.n_fft, "BINS": config.n_mels, "FRAMES": FRAMES, "LENGTH": config.window_length}
    defined = "".join(f"#define {name} {value}\n" for name, value in sizes.items())
    text = '#include "edgekd_log_mel.h"\n#include "edgekd_report.h"\n' + defined
    (place / "main.c").write_text(text + constants + array("sound", sound) + _MAIN)
    for source in SOURCES.iterdir():
        if source.suffix in (".c", ".h", ".ld"):
            (place / source.name).write_bytes(source.read_bytes())
    (place / "edgekd_model.h").write_text('#include "edgekd_log_mel.h"\n')
    return place


def digest(folder: Path, flags: tuple[str, ...], core: str | None = None) -> str:
    program, board = folder / "digest", "host.c" if core is None else "emulator.c"
    sources = [folder / name for name in ("main.c", "edgekd_log_mel.c", board)]
    if core is None:
        toolchain.build(sources, program, flags)
        return toolchain.run(program)
    toolchain.cross_build(sources, program, CORES[core], flags)
    return toolchain.emulate(program, CORES[core])


@needs_host
def test_a_compiler_that_may_fuse_gives_the_same_bits(folder: Path) -> None:
    assert digest(folder, (*AS_A_BUILDER_MAY, "-march=native")) == digest(folder, ())


@needs_host
@needs_emulator
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
def test_a_cross_compiler_that_may_fuse_gives_the_same_bits(folder: Path, core: str) -> None:
    assert digest(folder, AS_A_BUILDER_MAY, core) == digest(folder, ())


@needs_host
def test_fast_arithmetic_is_refused(folder: Path) -> None:
    with pytest.raises(GateError, match="without -ffast-math"):
        digest(folder, ("-ffast-math",))


@needs_host
def test_floats_with_more_digits_are_refused(folder: Path) -> None:
    with pytest.raises(GateError, match="compile this file with -msse2 -mfpmath=sse"):
        digest(folder, ("-U__FLT_EVAL_METHOD__", "-D__FLT_EVAL_METHOD__=2"))
