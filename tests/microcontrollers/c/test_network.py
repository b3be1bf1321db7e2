"""The integer network in C, row by row: every row of every map and all scores are numpy's, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.c import SOURCES
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.integer.tables import REST, SIXTYFOURTHS, WHOLE
from tests.microcontrollers.c.bare import write
from tests.microcontrollers.c.programs import needs_emulator, needs_host
from tests.microcontrollers.integer.random_networks import random_network

SANITIZED = ("-O1", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover")
MANY = 100  # programs of 50 networks each, of 2.5 layers beside the means


def on_host(folder: Path, seed: int, networks: int) -> None:
    random = np.random.default_rng(seed)
    sources = write(folder, [random_network(random) for _ in range(networks)])
    toolchain.build(sources, folder / "main", SANITIZED)
    assert toolchain.run(folder / "main") == f"{networks} networks\n"


def on_core(folder: Path, name: str, seed: int, networks: int) -> None:
    random = np.random.default_rng(seed)
    sources = write(folder, [random_network(random) for _ in range(networks)], "emulator.c")
    toolchain.cross_build(sources, folder / name, CORES[name], ["-Werror"])
    assert toolchain.emulate(folder / name, CORES[name]) == f"{networks} networks\n"


@needs_host
def test_random_networks_are_those_of_numpy_on_this_machine(tmp_path: Path) -> None:
    on_host(tmp_path, 0, 40)


@needs_emulator
@pytest.mark.parametrize("name", ["cortex-m0plus", "cortex-m4", "cortex-m55"])
def test_random_networks_are_those_of_numpy_on_an_emulated_core(name: str, tmp_path: Path) -> None:
    on_core(tmp_path, name, 1, 12)


@pytest.mark.slow
@needs_host
def test_many_random_networks_are_those_of_numpy_on_this_machine(tmp_path: Path) -> None:
    for seed in range(MANY):
        on_host(tmp_path, 100 + seed, 50)


@pytest.mark.slow
@needs_emulator
@pytest.mark.parametrize("name", CORES)
def test_many_random_networks_are_those_of_numpy_on_an_emulated_core(name: str, tmp_path: Path) -> None:
    for seed in range(MANY):
        on_core(tmp_path, name, 1000 + seed, 50)


@pytest.mark.parametrize(("name", "table"), [("WHOLE", WHOLE), ("PARTS", SIXTYFOURTHS), ("REST", REST)])
def test_the_tables_of_the_softmax_are_those_of_numpy(name: str, table: np.ndarray) -> None:
    text = (SOURCES / "edgekd_exp.h").read_text()
    defined = re.search(rf"#define EDGEKD_EXP_{name} \\\n((?:.*\\\n)*.*)\n", text)
    assert defined is not None
    assert [int(number) for number in re.findall(r"(\d+)u", defined[1])] == table.tolist()
