"""A classifier that hears pieces of any sizes, from none to all at once, under sanitizers and on emulated cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.device.c import HEADERS, LIBRARY, text
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c import folder, toolchain
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.c.host import HostClassifier, in_16_bits
from edgekd.microcontrollers.c.model import MODEL, model_files
from tests.microcontrollers.c.programs import needs_emulator, needs_host
from tests.microcontrollers.c.test_host import RATE, SAMPLES, quantised_student
from tests.microcontrollers.c.test_network import SANITIZED

HOP = 1_111  # no whole number of frames: three windows at once, which share none
CONFIG = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900).at(RATE)
_MAIN = """\
#include "edgekd.h"
#include "edgekd_report.h"
#include "sound.h"

static edgekd_t classifier;
static uint32_t state;

static uint32_t below(uint32_t most) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % most;
}

int main(void) {
    int failed = 0;
    for (uint32_t seed = 0; seed < SEEDS; seed++) {
        uint32_t at = 0, largest, windows = 0, next = 0;
        state = seed;
        largest = 1u << below(13);
        edgekd_init(&classifier);
        while (at < SOUND) {
            int32_t scores[EDGEKD_CLASSES];
            uint32_t count = seed ? below(largest + 1) : SOUND;
            uint32_t complete;
            if (count > SOUND - at) count = SOUND - at;
            complete = (uint32_t)edgekd_push(&classifier, sound + at, count);
            at += count;
            while (next * HOP + EDGEKD_WINDOW_SAMPLES <= at) next++;
            windows += complete;
            if (windows != next) failed |= 1;
            if (!complete) continue;
            edgekd_scores(&classifier, scores);
            for (int k = 0; k < EDGEKD_CLASSES; k++)
                if (scores[k] != expected[(windows - 1) * EDGEKD_CLASSES + k]) failed |= 2;
        }
    }
    edgekd_report_number(failed);
    return failed;
}
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of a classifier, two and a half windows of sound, and what the windows score alone."""
    rng = np.random.default_rng(3)
    sound = in_16_bits((0.1 * rng.standard_normal(5 * SAMPLES // 2)).astype(np.float32))
    clips = torch.from_numpy(sound[: 2 * SAMPLES].reshape(2, SAMPLES).astype(np.float32) / 32768)
    student, network = quantised_student(CONFIG, clips)
    model = model_files(student, network, SAMPLES, HOP)
    hear = HostClassifier(model)
    alone = [hear.window(sound[start : start + SAMPLES]) for start in range(0, len(sound) - SAMPLES + 1, HOP)]
    place = tmp_path_factory.mktemp("push")
    names = (*LIBRARY, *HEADERS, "edgekd_report.h", "emulator.c", "emulator.ld", "host.c")
    constants = f"#define SOUND {len(sound)}\n#define HOP {HOP}\n#include <stdint.h>\n"
    constants += array("sound", sound) + array("expected", np.concatenate(alone).astype(np.int32))
    folder.write(place, {**model, **{name: text(name) for name in names}, "sound.h": constants, "main.c": _MAIN})
    return place


@needs_host
def test_pieces_of_any_sizes_give_the_scores_of_windows_alone(sources: Path) -> None:
    program = sources / "main"
    flags = (*SANITIZED, "-DSEEDS=40")
    toolchain.build([sources / name for name in ("main.c", "host.c", *LIBRARY, MODEL)], program, flags)
    assert toolchain.run(program) == "0"


@needs_emulator
@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m4", "cortex-m55"])
def test_pieces_of_any_sizes_give_the_scores_of_windows_alone_on_a_core(name: str, sources: Path) -> None:
    program, core = sources / name, CORES[name]
    files = [sources / file for file in ("main.c", "emulator.c", *LIBRARY, MODEL)]
    toolchain.cross_build(files, program, core, ("-DSEEDS=3",))
    assert toolchain.emulate(program, core) == "0"
