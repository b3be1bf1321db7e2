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
    assert {"python", "cpus", "cuda", "cache", *doctor.PACKAGES, *doctor.MODULES, *doctor.PROGRAMS} <= set(facts)
    assert facts["cache"].startswith(f"{own_cache}, ")


def test_a_missing_package_is_told_with_the_way_to_get_it(edgekd: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("edgekd-no-such-package",))
    assert edgekd("doctor", "--json").json()["edgekd-no-such-package"] == "missing: pip install edgekd-no-such-package"


def test_absent_back_ends_are_told_with_what_they_are_for_and_how_to_get_them(
    edgekd: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {name: ("edgekd_no_such_module", advice) for name, (_, advice) in doctor.MODULES.items()}
    monkeypatch.setattr(doctor, "MODULES", absent)
    monkeypatch.setenv("PATH", "")
    shown = " ".join(edgekd("doctor").out.split())
    for extra in ("tensorrt", "torch-tensorrt", "rtx"):
        assert f"pip install 'edgekd[{extra}]'" in shown
    assert "qemu-aarch64-static not found;" in shown
    assert "sudo apt install qemu-user-static" in shown


def test_an_installed_back_end_is_told_by_its_version_and_a_broken_one_as_broken(
    edgekd: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "edgekd_whole.py").write_text("__version__ = '10.3.0'")
    (tmp_path / "edgekd_broken.py").write_text("raise ImportError('libnvinfer.so.10: cannot open\\nshared object')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "MODULES", {"whole": ("edgekd_whole", ""), "broken": ("edgekd_broken", "")})
    facts = edgekd("doctor", "--json").json()
    assert facts["whole"] == "10.3.0"
    assert facts["broken"] == "installed, but broken: libnvinfer.so.10: cannot open shared object"


def test_a_program_is_told_by_where_it_is(edgekd: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "trtexec"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert edgekd("doctor", "--json").json()["trtexec"] == str(program)
