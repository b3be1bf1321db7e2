from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekd.doctor import examine


def test_what_this_machine_can_do_fits_80_columns(
    edgekd: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / ("long" * 30)))
    shown = edgekd("doctor")
    assert (shown.code, shown.err) == (0, "")
    assert torch.__version__ in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_json_holds_every_fact(edgekd: Callable) -> None:
    facts = edgekd("doctor", "--json").json()
    assert facts.keys() == examine().keys()
    assert facts["torch"] == examine()["torch"]
