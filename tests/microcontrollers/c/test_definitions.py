"""Constants of C read back: what was written, and nothing that a compiler would read otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgekd.device.c import SOURCES, text
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.c.definitions import bytes_of, read, structures
from tests.microcontrollers.c.programs import needs_emulator

MAPS = "static const edgekd_map maps[] = {\n    {.rows = 3, .zero_point = -128, .beyond = row},\n};\n"
LAYERS = "static const edgekd_layer layers[] = {\n    {.kind = EDGEKD_MEANS, .table = 0},\n};\n"
TEXT = f"""{array("row", np.array([-128, 0, 127], np.int8))}
{array("numbers", np.array([-7, 2**31 - 1], np.int32))}
{MAPS}
{LAYERS}
const edgekd_network network = {{
    .maps = 1, .layers = 1, .map = maps,
    .layer = layers, .parameters = numbers,
}};
"""
ASKED = {"network": "edgekd_network"}


def test_what_was_written_is_read() -> None:
    network = read(TEXT, ASKED)["network"]
    assert (network.maps, network.exponent, network.weights) == (1, 0, None)
    assert network.parameters.tolist() == [-7, 2**31 - 1]
    assert network.map[0].beyond.tolist() == [-128, 0, 127]
    assert (network.map[0].zero_point, network.map[0].ring) == (-128, 0)
    assert (network.layer[0].kind, network.layer[0].table) == (3, None)


def test_single_precision_keeps_its_bits() -> None:
    values = np.array([1 / 3, -2e-38, 3e38, 1e-45], np.float32)
    shape = "const edgekd_log_mel front_end = {\n    .window = values,\n};\n"
    found = read(array("values", values) + shape, {"front_end": "edgekd_log_mel"})["front_end"]
    assert np.array_equal(found.window, values)


def test_the_fields_are_those_of_the_headers() -> None:
    layer = structures()["edgekd_layer"]
    assert (layer["kernel_rows"].kind, layer["weights"].points, layer["place"].kind) == ("uint8_t", True, "uint32_t")
    declared = re.search(r"typedef struct \{([^}]*)\} edgekd_layer;", text("edgekd_network.h"))
    assert declared is not None
    assert len(layer) == len(re.findall(r"\w(?=[,;])", re.sub(r"/\*.*?\*/", "", declared[1], flags=re.DOTALL)))


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("-128, 0, 127", "-128, 0, 128", "row has no number of int8 where it has '128'"),
        ("-128, 0, 127", "-128, 010, 127", "row has no number of int8 where it has '010'"),
        ("-128, 0, 127", "-128, 0 127", "row has no number of int8 where it has '0 127'"),
        ("-128, 0, 127", "-128, f(0), 127", "row has no number of int8"),
        ("-128, 0, 127", "-128, 0, 127, 1", r"row\[3\] has 4 numbers"),
        ("-128, 0, 127,", "-128, 0, 127", "row does not end with a comma"),
        (".rows = 3", ".rows = 65539", "maps.rows has no number of uint16 where it has '65539'"),
        (".rows = 3", ".rows = 3, .rows = 4", "maps has other fields than an edgekd_map"),
        (".rows = 3", ".lines = 3", "maps has other fields than an edgekd_map"),
        (".rows = 3", ".rows = 3 + 1", "maps has other fields than an edgekd_map"),
        (".beyond = row", ".beyond = numbers", "maps.beyond points to no int8_t"),
        (".beyond = row", ".beyond = 7", "maps.beyond points to no int8_t"),
        (".map = maps", ".map = layers", "network.map points to no edgekd_map"),
        ("edgekd_network network", "edgekd_network other", "edgekd_network network is missing"),
        ("const edgekd_network", "int here(void) { return 1; }\nconst edgekd_network", "line 17 defines no constants"),
        ("const edgekd_network", '#include "/etc/hostname"\nconst edgekd_network', "line 17 defines no constants"),
        ("static const int32_t", "static const size_t", "numbers is of an unknown type, size_t"),
        ("static const int32_t numbers", "static const int32_t row", "row is there twice"),
    ],
)
def test_anything_else_is_refused(old: str, new: str, wrong: str) -> None:
    assert TEXT.count(old) >= 1
    with pytest.raises(ValueError, match=wrong):
        read(TEXT.replace(old, new), ASKED)


@needs_emulator
def test_structures_take_what_the_compiler_of_a_core_says(tmp_path: Path) -> None:
    sizes = "".join(
        f"typedef char size_of_{kind}[sizeof({kind}) == {bytes_of(kind)} ? 1 : -1];\n" for kind in structures()
    )
    (tmp_path / "sizes.c").write_text(f'#include "edgekd_log_mel.h"\n#include "edgekd_network.h"\n{sizes}')
    toolchain.cross_objects([tmp_path / "sizes.c"], tmp_path, CORES["cortex-m4"], [f"-I{SOURCES}"])


@pytest.mark.parametrize("number", ["1.5f", "0x1.8p+200f", "nan", "-INFINITY", "1e3", "0x1.8p+2"])
def test_a_number_that_is_none_of_single_precision_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="has no number of single precision"):
        read(f"static const float x[1] = {{\n    {number},\n}};\n", {})
