"""What stands for a board under the emulator: faults where the core has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.device.c import SOURCES
from edgekd.errors import GateError
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES
from tests.microcontrollers.c.programs import needs_emulator

_MAIN = """\
#include <stdint.h>
static uint32_t words[2] = {0x03020100, 0x07060504};
int main(void) {
    const uint8_t *volatile odd = (const uint8_t *)words + 1;
    return *(const volatile uint32_t *)(const void *)odd != 0x04030201;
}
"""


def read_at_an_odd_place(name: str, folder: Path) -> str:
    for file in ("emulator.c", "emulator.ld", "edgekd_report.h"):
        (folder / file).write_bytes((SOURCES / file).read_bytes())
    (folder / "main.c").write_text(_MAIN)
    core = CORES[name]
    toolchain.cross_build([folder / "main.c", folder / "emulator.c"], folder / "odd.elf", core)
    return toolchain.emulate(folder / "odd.elf", core)


@needs_emulator
def test_a_word_at_an_odd_place_faults_on_a_core_that_reads_none(tmp_path: Path) -> None:
    assert read_at_an_odd_place("cortex-m4", tmp_path) == ""
    with pytest.raises(GateError, match=r"on an emulated cortex-m0plus failed: fault\."):
        read_at_an_odd_place("cortex-m0plus", tmp_path)
