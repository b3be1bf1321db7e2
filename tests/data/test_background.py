from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgekd.config import DataConfig, DistillConfig, SimulationConfig, parse
from edgekd.data.background import background_of
from edgekd.data.load import load_index
from edgekd.errors import InputError, UsageError


@pytest.mark.parametrize(
    ("classes", "named", "background"),
    [
        (("background", "tug"), None, "background"),
        (("Background ", "tug"), None, "Background "),
        (("noise", "tug"), None, None),
        (("noise", "tug"), "Noise", "noise"),
        (("background", "noise"), "noise", "noise"),
    ],
)
def test_it_is_the_class_that_is_called_so_or_named(
    classes: tuple[str, ...], named: str | None, background: str | None
) -> None:
    assert background_of(classes, named) == background


def test_a_folder_and_a_table_have_it_as_a_class(tmp_path: Path) -> None:
    for name in ("noise", "tug"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.full(8_000, 0.1), 8_000)
    (tmp_path / "table.csv").write_text("path,label\nnoise/a.wav,Background\ntug/a.wav,tug\n")
    folder = load_index(DataConfig(data_dir=tmp_path, background="noise"))
    assert background_of(folder.classes, "noise") == "noise"
    assert background_of(load_index(DataConfig(data_dir=tmp_path / "table.csv")).classes) == "Background"
    with pytest.raises(InputError, match=r"data.background = 'sea' is none of its classes \(noise, tug\)"):
        load_index(DataConfig(data_dir=tmp_path, background="sea"))


def test_the_simulator_has_it(tmp_path: Path) -> None:
    config = DataConfig(
        dataset="sonar_sim",
        data_dir=tmp_path / "sea",
        sample_rate=2_000,
        clip_seconds=1.0,
        simulation=SimulationConfig(vessels_per_class=5, windows_per_vessel=1),
    )
    assert background_of(load_index(config).classes) == "background"


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.background"):
        parse(DistillConfig, {"data": {"background": ""}}, "test")
