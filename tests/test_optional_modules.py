"""Modules that may be absent or broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.optional_modules import import_optional


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise Exception('no libnvinfer.so.11\\n  Search paths: []')", "no libnvinfer.so.11 Search paths: []"),
        ("raise RuntimeError('no driver')", "no driver"),
        ("raise OSError('libcuda.so.1: cannot open')", "libcuda.so.1: cannot open"),
        ("raise ValueError", "ValueError"),
        ("import edgekd_no_such_module", "No module named 'edgekd_no_such_module'"),
    ],
)
def test_whatever_an_import_raises_is_an_import_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: str, reason: str
) -> None:
    (tmp_path / "edgekd_broken_for_a_test.py").write_text(f"print('loud')\n{code}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as refusal:
        import_optional("edgekd_broken_for_a_test")
    assert str(refusal.value) == reason
    assert capsys.readouterr().out == ""


def test_a_whole_module_is_imported() -> None:
    import json

    assert import_optional("json") is json
