"""Constants of a bundle that may come from anybody: a number that would lead the C out of its memory is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.exporting.budget import untrained
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c.bounds import check_model
from edgekd.microcontrollers.c.constants import network_constants
from edgekd.microcontrollers.c.definitions import read
from edgekd.microcontrollers.c.model import HEADER, MODEL, model_files
from edgekd.microcontrollers.c.network_bounds import check_network
from edgekd.microcontrollers.integer.layers import IntegerNetwork
from edgekd.microcontrollers.integer.memory import padded, plan
from tests.microcontrollers.integer.random_networks import random_network

PANNS = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)
YAMNET = FrontendConfig(convention="yamnet", n_mels=32, f_min=50, f_max=1_900, frames_per_step=3, bins_per_step=2)
RATE, SAMPLES = 4_000, 3_000


def files_of(config: FrontendConfig, *, fixed_point: bool = False) -> dict[str, str]:
    deployable = untrained(("hltdnn_micro", 0.5), 5, config.at(RATE), RATE, SAMPLES, "int8")
    assert deployable.network is not None
    return model_files(deployable.student, deployable.network, SAMPLES, SAMPLES, fixed_point=fixed_point)


@pytest.fixture(scope="module")
def model() -> dict[str, str]:
    return files_of(PANNS)


@pytest.mark.parametrize("fixed_point", [False, True])
@pytest.mark.parametrize("config", [PANNS, YAMNET])
def test_what_was_written_passes(config: FrontendConfig, fixed_point: bool) -> None:
    check_model(files_of(config, fixed_point=fixed_point), "bundle")


def test_networks_of_all_shapes_pass() -> None:
    random = np.random.default_rng(7)
    for _ in range(25):
        network, _ = random_network(random)
        memory = plan(network)
        constants = read(network_constants(network, memory, "n"), {"n": "edgekd_network"})["n"]
        check_network(constants, sizes_for(network))


def sizes_for(network: IntegerNetwork) -> dict[str, int]:
    """What `edgekd_model.h` would say of a network."""
    return {
        "CLASSES": len(network.classifier.weight),
        "MEMORY_WORDS": plan(network).size // 4,
        "FRAMES": network.entry.rows,
        "FRAMES_PER_STEP": 1,
        "BINS": network.entry.columns * network.entry.channels,
    }


OTHERS = {
    "MAXIMA": [("start", "9000", "makes more than its map has"), ("place", "0", "lies where something else does")],
    "DEVIATIONS": [("doublings", "40", "doubles a root too often"), ("parameters", "0", "parameters has 0")],
    "LOOK_UP": [("start", "9000", "makes more than its map has"), ("weights", "0", "table has 0 numbers")],
    "ADD": [
        ("exponent", "-1", "exponent out of range"),
        ("other", "200", "goes from map 200"),
        ("start", "1", "makes"),
    ],
    "MULTIPLY": [("table", "0", "table has 0 numbers where 512 are read"), ("parameters", "0", "parameters has 0")],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_layers_of_every_kind_are_looked_at(kind: str) -> None:
    random = np.random.default_rng(0)
    network, text = next(
        (network, text)
        for network, _ in iter(lambda: random_network(random), None)
        for text in (network_constants(network, plan(network), "n"),)
        if f"EDGEKD_{kind}," in text
    )
    sizes = sizes_for(network)
    check_network(read(text, {"n": "edgekd_network"})["n"], sizes)
    begin = text.index(f"EDGEKD_{kind},")
    end = text.index("}", begin)
    for field, to, wrong in OTHERS[kind]:
        line, count = re.subn(rf"\.{field} = [\w-]+", f".{field} = {to}", text[begin:end])
        line = line if count else f"{line}, .{field} = {to}"
        constants = read(text[:begin] + line + text[end:], {"n": "edgekd_network"})["n"]
        with pytest.raises(ValueError, match=wrong):
            check_network(constants, sizes)


def changed(model: dict[str, str], pattern: str, to: str) -> dict[str, str]:
    """The model with the first of the numbers that `pattern` has a group for replaced."""
    for name, text in model.items():
        found = re.search(pattern, text, re.DOTALL)
        if found is not None:
            return {**model, name: text[: found.start(1)] + to + text[found.end(1) :]}
    raise AssertionError(f"{pattern} is in none of the files")


DEPTHWISE, MEANS, LAST = r"\{.kind = EDGEKD_DEPTHWISE[^}]*", r"\{.kind = EDGEKD_MEANS[^}]*", r".maps = \d+[^}]*"


@pytest.mark.parametrize(
    ("pattern", "to", "wrong"),
    [
        (r".ring = (3)", "2", "map 0 keeps 2 rows where 3 are needed"),
        (r".ring = (3)", "0", "map 0 keeps 0 rows where 3 are needed"),
        (r".ring = (3)", "30", "map 1 lies where something else does"),
        (r".columns = (32)", "64", "the first map is not that of the log-mel"),
        (r".rows = (24)", "65535", "the first map is not that of the log-mel"),
        (r".rows = 24.*?.rows = (12)", "24", "layer 0: rows are 24, which 24 do not give"),
        (r".left = (1)", "0", "layer 0 has more padding than its map"),
        (r"\.channels = 24, .left = 1, .right = (1)", "0", "has too few columns of padding"),
        (r".parts = (1)", "2", "map 0 is written in 1 parts, not 2"),
        (r".channels = (4)", "5", "layer 0: weights has 52 numbers where 64 are read"),
        (r".beyond = (\w+)", "0", "map 0 has no row of padding"),
        (r".place = 0\}.*?.place = (\d+)", "4294967292", "reaches beyond the memory"),
        (r".place = 0\}.*?.place = (\d+)", "4", "map 1 lies where something else does"),
        (r".place = (0)\}", "2", "map 0 begins at no whole word"),
        (r"_0_weights\[\d+\] = \{\n    (-?\d+)", "-128", "layer 0 has a weight of -128"),
        (r"_1_weights\[\d+\] = \{\n    (-?\d+)", "-128", "layer 1 has a weight of -128"),
        (r".kernel_rows = (3)", "17", "layer 0 has a kernel of 17 rows"),
        (r".kernel_rows = (3)", "4", "layer 0: weights has 52 numbers where 64 are read"),
        (r".stride_rows = (2)", "0", "layer 0 has a kernel or a stride of 0"),
        (r".stride_columns = (2)", "1", "layer 0: columns are 16, which 32 do not give"),
        (r".top = (1)", "200", "layer 0: rows are 12, which 24 do not give"),
        (rf"{DEPTHWISE}.target = (\d+)", "250", "layer 1 goes from map 1 to 250"),
        (rf"{DEPTHWISE}.source = (\d+)", "2", "layer 1 goes from map 2 to 2"),
        (rf"{DEPTHWISE}.exponent = (-?\d+)", "-31", "layer 1 has an exponent out of range"),
        (r".kind = (EDGEKD_DEPTHWISE)", "9", "layer 1 is of no kind"),
        (rf"{MEANS}.start = (\d+)", "9000", "makes more than its map has"),
        (r".table = edgekd_model_network_13_table, .bins = (\d+)", "5", "layer 13: table has"),
        (rf"{MEANS}.row_cells = (\d+)", "3", "edges of cells has"),
        (rf"{MEANS}.place = (\d+)", "0", "the sums of layer 12 lies where something else does"),
        (r"_13_columns\[\d+\] = \{\n    \d+, (\d+)", "99", "layer 13 has a cell beyond its map"),
        (rf"{LAST}.source = (\d+)", "0", "the classifier reads a map that is no vector"),
        (rf"{LAST}.classes = (\d+)", "6", "EDGEKD_CLASSES is not .classes"),
        (rf"{LAST}.progress = (\d+)", "0", "lies where something else does"),
        (rf"{LAST}.scratch = (\d+)", "400000", "what lies under the kernels reaches beyond the memory"),
        (rf"{LAST}.memory_bytes = (\d+)", "8", "EDGEKD_MEMORY_WORDS is not .memory_bytes"),
        (r".points = (\d+)", "127", "EDGEKD_SPECTRUM is not that of .points"),
        (r"_radices\[\d+\] = \{\n    (\d)", "2", "the product of the radices is not .points"),
        (r"_order\[\d+\] = \{\n    (\d)", "128", "order has a place beyond .points"),
        (r"_first\[\d+\] = \{\n    (\d)", "129", "a filter hears bins beyond the spectrum"),
        (r"_count\[\d+\] = \{\n    (\d)", "9", "filters has"),
        (r".bins_per_step = (1)", "0", "EDGEKD_BINS is not that of .mels"),
        (r"EDGEKD_FRAMES (\d+)", "25", "EDGEKD_FRAMES reach beyond the window"),
        (r"EDGEKD_FRAME_SAMPLES (\d+)", "512", "EDGEKD_FRAME_SAMPLES is not .window_length"),
        (r"EDGEKD_WINDOW_SAMPLES (\d+)", "100", "EDGEKD_FRAMES reach beyond the window"),
        (r"EDGEKD_MEMORY_WORDS (\d+)", "9", "EDGEKD_MEMORY_WORDS is not .memory_bytes"),
        (r"EDGEKD_HOP_SAMPLES (\d+)", "0", "EDGEKD_HOP_SAMPLES is missing or 0"),
        (r"EDGEKD_WINDOW_SAMPLES (\d+)", "999999999", "none that a board has"),
    ],
)
def test_a_single_number_that_would_lead_astray_is_refused(
    pattern: str, to: str, wrong: str, model: dict[str, str]
) -> None:
    with pytest.raises(InputError, match=f"^bundle: {MODEL} is not one that this edgekd wrote: .*{wrong}") as refused:
        check_model(changed(model, pattern, to), "bundle")
    assert "\n" not in str(refused.value)


def test_weights_with_nothing_behind_them_are_those_of_an_older_bundle(model: dict[str, str]) -> None:
    older, count = re.subn(
        r"_0_weights\[52\] = \{\n(.*?)(?:0,\s+){3}0,\n\};", r"_0_weights[48] = {\n\1\n};", model[MODEL], flags=re.DOTALL
    )
    assert count == 1
    check_model({**model, MODEL: older}, "bundle")


def test_a_vector_of_the_last_weights_is_among_them() -> None:
    random = np.random.default_rng(8)
    for _ in range(20):
        network, _ = random_network(random)
        for layer in read(network_constants(network, plan(network), "n"), {"n": "edgekd_network"})["n"].layer or []:
            if layer.kind == 0:
                source, target = (network.maps[number].shape[2] for number in (layer.source, layer.target))
                each = layer.kernel_rows * padded(layer.kernel_columns * source)
                assert len(layer.weights) == (target - 1) * each + -(-each // 16) * 16


def test_a_count_of_bins_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"\.count_bits is more than a count has"):
        check_model(changed(files_of(PANNS, fixed_point=True), r".count_bits = (\d+)", "99"), "bundle")


@pytest.mark.parametrize("line", ["#include <stdlib.h>", "int here;"])
def test_more_than_numbers_in_the_header_is_refused(line: str, model: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"{HEADER} is not one that this edgekd wrote"):
        check_model({**model, HEADER: model[HEADER].replace("#endif", f"{line}\n#endif")}, "bundle")
