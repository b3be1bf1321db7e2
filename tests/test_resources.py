from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edgekd import resources


def test_boards_and_recipes_are_found_beside_the_package() -> None:
    assert {"cpu", "jetson-orin-nano", "raspberry-pi-5"} <= set(resources.named_resources("targets"))
    assert "default" in resources.named_resources("calibration")


@pytest.mark.parametrize("kind", ["targets", "calibration"])
def test_every_shipped_file_is_toml(kind: str) -> None:
    for name, path in resources.named_resources(kind).items():  # type: ignore[arg-type]
        assert path.stem == name
        assert tomllib.loads(path.read_text())


def test_an_installed_package_uses_the_files_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "edgekd"
    inside = package / "_resources" / "targets"
    inside.mkdir(parents=True)
    (inside / "board.toml").write_text("")
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "other.toml").write_text("")
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.named_resources("targets") == {"board": inside / "board.toml"}
