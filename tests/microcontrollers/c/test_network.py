"""The integer network in C, row by row: every row of every map and all scores are numpy's, bit for bit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.c import SOURCES
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.integer.layers import SHARE
from edgekd.microcontrollers.integer.memory import LARGEST_KERNEL
from edgekd.microcontrollers.integer.tables import REST, SIXTYFOURTHS, WHOLE
from edgekd.microcontrollers.integer.transform import LARGEST_RADIX
from tests.benchmarks.layers import alone
from tests.microcontrollers.c.bare import Cases, programs, write
from tests.microcontrollers.c.programs import needs_emulator, needs_host

SANITIZED = ("-O1", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover")
FEW, MANY = 200, 10_000  # layers
QUICK = ("cortex-m0plus", "cortex-m4", "cortex-m55")


def on_host(folder: Path, cases: Cases, flags: Sequence[str] = SANITIZED) -> None:
    toolchain.build(write(folder, cases), folder / "main", flags)
    assert toolchain.run(folder / "main") == f"{len(cases)} networks\n"


def on_core(folder: Path, cases: Cases, name: str) -> None:
    sources = write(folder, cases, "emulator.c")
    toolchain.cross_build(sources, folder / name, CORES[name], ["-Werror"])
    assert toolchain.emulate(folder / name, CORES[name]) == f"{len(cases)} networks\n"


@needs_host
def test_random_layers_are_those_of_numpy_on_this_machine(tmp_path: Path) -> None:
    for cases in programs(0, FEW):
        on_host(tmp_path, cases)


@needs_emulator
@pytest.mark.parametrize("name", QUICK)
def test_random_layers_are_those_of_numpy_on_an_emulated_core(name: str, tmp_path: Path) -> None:
    for cases in programs(1, FEW):
        on_core(tmp_path, cases, name)


SCRATCH = ("stem-16", "stem-20", "pointwise-8", "conv-4")


@needs_emulator
@pytest.mark.parametrize("name", QUICK)
def test_kernels_write_into_the_scratch_that_is_planned_and_no_further(name: str, tmp_path: Path) -> None:
    layers = map(alone, SCRATCH)  # nothing else of these networks asks for more
    on_core(tmp_path, [(each.network, each.values) for each in layers], name)


@pytest.mark.slow
@needs_host
@pytest.mark.parametrize("flags", [(), SANITIZED], ids=["plain", "sanitized"])
def test_10_000_random_layers_are_those_of_numpy_on_this_machine(flags: Sequence[str], tmp_path: Path) -> None:
    for cases in programs(100, MANY):
        on_host(tmp_path, cases, flags)


@pytest.mark.slow
@needs_emulator
@pytest.mark.parametrize("name", CORES)
def test_10_000_random_layers_are_those_of_numpy_on_an_emulated_core(name: str, tmp_path: Path) -> None:
    for cases in programs(100, MANY):
        on_core(tmp_path, cases, name)


def test_numbers_that_c_and_the_plan_both_have_are_the_same() -> None:
    texts = {path.name: path.read_text() for path in SOURCES.glob("*.[ch]")}
    found: dict[str, set[int]] = {}
    for text in texts.values():
        for name, number in re.findall(r"#define (?:EDGEKD_)?(LARGEST_KERNEL|LARGEST_RADIX|ONE) (\d+)\b", text):
            found.setdefault(name, set()).add(int(number))
    assert found == {"LARGEST_KERNEL": {LARGEST_KERNEL}, "LARGEST_RADIX": {LARGEST_RADIX}, "ONE": {SHARE}}


@pytest.mark.parametrize(("name", "table"), [("WHOLE", WHOLE), ("PARTS", SIXTYFOURTHS), ("REST", REST)])
def test_the_tables_of_the_softmax_are_those_of_numpy(name: str, table: np.ndarray) -> None:
    text = (SOURCES / "edgekd_exp.h").read_text()
    defined = re.search(rf"#define EDGEKD_EXP_{name} \\\n((?:.*\\\n)*.*)\n", text)
    assert defined is not None
    assert [int(number) for number in re.findall(r"(\d+)u", defined[1])] == table.tolist()
