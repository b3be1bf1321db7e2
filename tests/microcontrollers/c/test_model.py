"""A student as sources of C: names of classes, sizes, hops."""

from __future__ import annotations

import pytest

from edgekd.exporting.budget import untrained
from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c.model import HEADER, MODEL, Hearing, sources, whole_frames

FRONT_END = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    deployable = untrained(("hltdnn_micro", 1.0), 4, FRONT_END, 4_000, 3_000, "int8")
    assert deployable.network is not None
    hearing = Hearing(("crying baby", '3"?\\', "crying-baby", "鯨"), 4_000, 3_000, 1_500)
    return sources(deployable.student, deployable.network, hearing)


def test_classes_are_numbered_under_names_that_c_has(written: dict[str, str]) -> None:
    numbers = [line for line in written[HEADER].splitlines() if line.startswith("#define EDGEKD_CLASS_")]
    names = ["CRYING_BABY_0 0", "3 1", "CRYING_BABY_2 2", "3_ 3"]
    assert numbers == [f"#define EDGEKD_CLASS_{name}" for name in names]


def test_class_names_keep_their_letters(written: dict[str, str]) -> None:
    assert '    "3\\042\\077\\134",\n' in written[MODEL]
    assert '    "\\351\\257\\250",\n' in written[MODEL]


def test_sources_are_ascii(written: dict[str, str]) -> None:
    assert all(text.isascii() for text in written.values())


def test_a_hop_is_brought_to_whole_frames() -> None:
    assert [whole_frames(samples, FRONT_END) for samples in (1, 1_500, 1_536, 3_000)] == [128, 1_536, 1_536, 2_944]
