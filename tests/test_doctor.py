from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.doctor import MODULES, PACKAGES, PROGRAMS, examine


def test_every_fact_is_there(own_cache: Path) -> None:
    facts = examine()
    assert {"python", "cpus", "cuda", "cache", *PACKAGES, *MODULES, *PROGRAMS} <= set(facts)
    assert facts["cache"].startswith(f"{own_cache}, ")


def test_a_missing_package_is_told_with_the_way_to_get_it() -> None:
    facts = examine(packages=("edgekd-no-such-package",), modules={}, programs={})
    assert facts["edgekd-no-such-package"] == "missing: pip install edgekd-no-such-package"


def test_absent_back_ends_are_told_with_what_they_are_for_and_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {name: ("edgekd_no_such_module", advice) for name, (_, advice) in MODULES.items()}
    monkeypatch.setenv("PATH", "")
    facts = examine(packages=(), modules=absent)
    for name, extra in (("tensorrt", "tensorrt"), ("torch-tensorrt", "torch-tensorrt"), ("tensorrt-rtx", "rtx")):
        assert facts[name].startswith("not installed; ")
        assert f"pip install 'edgekd[{extra}]'" in facts[name]
    assert facts["qemu-aarch64-static"].startswith("not found;")
    assert "sudo apt install qemu-user-static" in facts["qemu-aarch64-static"]


def test_an_installed_back_end_is_told_by_its_version_and_a_broken_one_as_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edgekd_whole.py").write_text("__version__ = '10.3.0'")
    (tmp_path / "edgekd_broken.py").write_text("raise ImportError('libnvinfer.so.10: cannot open\\nshared object')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "edgekd_loud.py").write_text("print('import error')\nraise Exception('no library')")
    modules = {name: (f"edgekd_{name}", "") for name in ("whole", "broken", "loud")}
    facts = examine((), modules, {})
    assert capsys.readouterr().out == ""
    assert facts["loud"] == "installed, but broken: no library"
    assert facts["whole"] == "10.3.0"
    assert facts["broken"] == "installed, but broken: libnvinfer.so.10: cannot open shared object"


def test_a_program_is_told_by_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "trtexec"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert examine((), {})["trtexec"] == str(program)


def test_compilers_of_c_are_told_by_version_and_absent_ones_with_what_they_are_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "my-cc"
    program.write_text("#!/bin/sh\necho my-cc 3.14.15\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("CC", "my-cc -m32")
    monkeypatch.setattr("edgekd.microcontrollers.c.toolchain.EMULATOR", "no-such-qemu")
    facts = examine((), {}, {})
    assert facts["c compiler"] == "my-cc -m32, 3.14.15"
    assert facts["no-such-qemu"].startswith(
        "no-such-qemu is not installed; checks C for a Cortex-M at export: apt install"
    )
