"""Releases of TensorRT: which operator sets each reads."""

from __future__ import annotations

import pytest

from edgekd.exporting.runtimes.tensorrt.releases import Installed, newest_opset


@pytest.mark.parametrize(
    ("version", "opset"), [("8.2", 13), ("8.4.3", 13), ("8.5.2", 17), ("8.6", 17), ("10.0", 20), ("11.4.1", 20)]
)
def test_a_release_reads_operator_sets_up_to_its_parsers(version: str, opset: int) -> None:
    assert newest_opset(Installed(version=version).release) == opset


def test_a_version_is_read_as_numbers() -> None:
    assert Installed(version="10.12.0").release == (10, 12, 0) > Installed(version="10.3").release
