from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekd.cli import doctor


def test_what_this_machine_can_do_fits_80_columns(
    edgekd: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / ("long" * 30)))
    shown = edgekd("doctor")
    assert (shown.code, shown.err) == (0, "")
    assert torch.__version__ in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_json_holds_every_fact(edgekd: Callable, own_cache: Path) -> None:
    facts = edgekd("doctor", "--json").json()
    assert {"python", "cpus", "cuda", "trtexec", "cache", *doctor.PACKAGES} <= set(facts)
    assert facts["cache"].startswith(f"{own_cache}, ")


def test_a_missing_package_is_told_with_the_way_to_get_it(edgekd: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("edgekd-no-such-package",))
    assert edgekd("doctor", "--json").json()["edgekd-no-such-package"] == "missing: pip install edgekd-no-such-package"
