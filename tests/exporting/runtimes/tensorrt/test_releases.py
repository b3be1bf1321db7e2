"""Releases of TensorRT: which operator sets each reads, and what a target may ask of it."""

from __future__ import annotations

import pytest

from edgekd.exporting.runtimes.tensorrt.releases import (
    LANGUAGES,
    Installed,
    check_release,
    language_of,
    newest_opset,
    spoken_until,
)
from edgekd.exporting.targets import load_target


@pytest.mark.parametrize(
    ("version", "opset"), [("8.2", 13), ("8.4.3", 13), ("8.5.2", 17), ("8.6", 17), ("10.0", 20), ("11.4.1", 20)]
)
def test_a_release_reads_operator_sets_up_to_its_parsers(version: str, opset: int) -> None:
    assert newest_opset(Installed(version=version).release) == opset


def test_a_version_is_read_as_numbers() -> None:
    assert Installed(version="10.12.0").release == (10, 12, 0) > Installed(version="10.3").release


def test_languages_follow_one_another_and_each_is_spoken_until_the_next() -> None:
    assert [language.since for language in LANGUAGES] == sorted(language.since for language in LANGUAGES)
    assert [spoken_until(language) for language in LANGUAGES[:-1]] == [language.since for language in LANGUAGES[1:]]
    assert spoken_until(LANGUAGES[-1]) == (12,)
    assert language_of((8, 5, 2)).pins
    assert language_of((10, 16, 2)).precision["int8"] == ("--stronglyTyped",)
    assert language_of((11, 4, 1)).precision == {"int8": (), "fp16": (), "fp32": ()}


@pytest.mark.parametrize(
    ("name", "version", "dla", "words"),
    [
        ("jetson-orin-nx", "10.3", True, r"tensorrt\.dla: TensorRT 10\.3 is not asked to use an accelerator.*11\.4\.1"),
        ("jetson-agx-orin", "10.16.2", True, r"TensorRT 10\.16\.2 is not asked to use .*: leave dla out"),
        ("jetson-agx-orin", "8.6", False, r"opset = 20: TensorRT 8\.6 reads up to 17"),
        ("jetson-xavier-nx", "8.4", False, r"TensorRT 8\.4 is too old for 'int8' from Q/DQ pairs, which needs 8\.5"),
        ("jetson-nano", "8.0", False, r"tensorrt\.version = '8\.0': the oldest that bundles are made for is 8\.2"),
    ],
)
def test_what_a_release_cannot_do_is_refused(name: str, version: str, dla: bool, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_release(load_target(name), Installed(version=version, dla=dla))


def test_the_board_with_an_accelerator_is_served_with_and_without_it() -> None:
    for version, dla in (("11.4.1", True), ("11.4.1", False), ("10.3", False), ("10.16.2", False)):
        check_release(load_target("jetson-agx-orin"), Installed(version=version, dla=dla))
