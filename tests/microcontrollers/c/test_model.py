"""A student as constants of C: names of classes, sizes, hops."""

from __future__ import annotations

import re
from pathlib import Path

from edgekd.exporting.budget import untrained
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.model import HEADER, MODEL, class_names, model_files, sizes_of, whole_frames
from tests.microcontrollers.c.programs import needs_host

FRONT_END = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)
NAMES = ("crying baby", '3"?\\', "crying-baby", "鯨")


def test_classes_are_numbered_under_names_that_c_has() -> None:
    numbers = re.findall(r"#define EDGEKD_CLASS_(\w+) (\d)\n", class_names(NAMES, {}))
    assert numbers == [("CRYING_BABY_0", "0"), ("3", "1"), ("CRYING_BABY_2", "2"), ("3_", "3")]


def test_a_class_called_as_the_list_of_all_is_told_apart() -> None:
    text = class_names(("names", "NAMES", "classes"), {})
    assert re.findall(r"#define EDGEKD_CLASS_(\w+)", text) == ["NAMES_0", "NAMES_1", "CLASSES", "NAMES"]
    assert "#define EDGEKD_CLASS_NAMES_ 0\n" in class_names(("names",), {})


@needs_host
def test_every_name_compiles_and_prints_as_it_is(tmp_path: Path) -> None:
    odd = ['"', "\\", "??/", "%s%n", "a\nb", "*/", "/* ", "'", "//", "鯨 🐋", "é", "\x7f", "names", "1", "_", "#define"]
    names = odd + [f"class {number}" for number in range(5_000)]
    (tmp_path / "edgekd_classes.h").write_text(class_names(names, {}), encoding="utf-8")
    (tmp_path / "main.c").write_text(_PRINTS)
    toolchain.build([tmp_path / "main.c"], tmp_path / "main", ("-Werror", "-pedantic", "-trigraphs"))
    assert toolchain.run(tmp_path / "main").split("\0")[:-1] == [*names, "5010", "5016"]


_PRINTS = """\
#include <stdio.h>
#include "edgekd_classes.h"
static const char *const names[] = EDGEKD_CLASS_NAMES;
static const long heard_from[] = EDGEKD_HEARD_FROM;
int main(void) {
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) printf("%s%c", names[i], 0);
    printf("%d%c%u%c", EDGEKD_CLASS_CLASS_4994, 0, (unsigned)(sizeof heard_from / sizeof *heard_from), 0);
    return 0;
}
"""


def test_class_names_keep_their_letters() -> None:
    text = class_names(NAMES, {})
    assert '    "3\\042\\077\\134", \\\n' in text
    assert '    "\\351\\257\\250" \\\n' in text
    assert text.isascii()


def test_a_class_is_heard_from_the_first_score_that_reaches_its_threshold() -> None:
    text = class_names(NAMES, {"crying baby": 0.5, "crying-baby": 0.50001, "鯨": 1.0})
    scores = text[text.index("#define EDGEKD_HEARD_FROM {") :]
    assert re.findall(r"^    (\d+)", scores, re.MULTILINE) == ["16384", "32769", "16385", "32768"]


def test_sizes_are_those_of_the_student() -> None:
    deployable = untrained(("hltdnn_micro", 1.0), 4, FRONT_END, 4_000, 3_000, "int8")
    assert deployable.network is not None
    files = model_files(deployable.student, deployable.network, 3_000, 1_536)
    sizes = sizes_of(files[HEADER])
    expected = {"CLASSES": 4, "WINDOW_SAMPLES": 3_000, "HOP_SAMPLES": 1_536, "FRAMES": 24, "BINS": 32, "CENTRED": 1}
    assert expected.items() <= sizes.items()
    layers = [layer.layer for layer, _ in deployable.network.layers()]
    assert sizes["PARAMETERS"] == sum(layer.weight.numel() for layer in layers)
    numbers = re.findall(r"static const int8_t \w+_weights\[(\d+)\]", files[MODEL])
    assert sum(map(int, numbers)) >= sizes["PARAMETERS"]


def test_a_hop_is_brought_to_whole_frames() -> None:
    assert [whole_frames(samples, FRONT_END) for samples in (1, 1_500, 1_536, 3_000)] == [128, 1_536, 1_536, 2_944]
