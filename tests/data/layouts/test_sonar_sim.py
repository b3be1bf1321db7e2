"""Simulated sonar: made once, then read like recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from edgekd.config import DataConfig, SimulationConfig
from edgekd.data.layouts.sonar_sim import settings_key
from edgekd.data.load import load_index, recognise
from edgekd.data.simulation import ocean, sonar, vessels
from edgekd.errors import InputError

RATE = 8_000
SIMULATION = SimulationConfig(vessels_per_class=5, windows_per_vessel=2)


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A cache folder of the test's own, and the folders that are simulated into, as a list that grows."""
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path / "cache"))
    made: list[Path] = []
    simulate = sonar.simulate

    def counted(folder: Path, *arguments: object) -> None:
        made.append(folder)
        simulate(folder, *arguments)

    monkeypatch.setattr(sonar, "simulate", counted)
    return made


def config(**changes: object) -> DataConfig:
    values = {"dataset": "sonar_sim", "sample_rate": RATE, "clip_seconds": 0.5, "simulation": SIMULATION}
    return DataConfig(**{**values, **changes})


def test_sonar_is_simulated_once_into_the_cache(simulated: list[Path], tmp_path: Path) -> None:
    index = load_index(config())
    assert load_index(config()) == index
    assert [folder.parent for folder in simulated] == [tmp_path / "cache"]
    assert (index.dataset, len(index)) == ("sonar_sim", 5 * 5 * 2)
    assert index.classes == ("background", "cargo", "passengership", "tanker", "tug")
    assert len({clip.group for clip in index}) == 25


@pytest.mark.parametrize(
    "change",
    [{"simulation": SIMULATION.model_copy(update={"seed": 1})}, {"sample_rate": 4_000}, {"clip_seconds": 0.25}],
)
def test_other_settings_are_simulated_apart(simulated: list[Path], change: dict[str, object]) -> None:
    load_index(config())
    load_index(config(**change))
    assert len(set(simulated)) == 2


def test_other_code_is_simulated_apart() -> None:
    assert settings_key(config(), (sonar, ocean)) != settings_key(config(), (sonar, vessels))


def test_all_the_code_that_makes_the_recordings_is_in_the_key() -> None:
    """A module of the simulator that this does not know would change recordings that stay in the cache."""
    folder = Path(sonar.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", "ocean", "sonar", "vessels"}
    imported = {
        line.split()[1]
        for path in folder.glob("*.py")
        for line in path.read_text().splitlines()
        if "from edgekd.data" in line
    }
    assert imported <= {
        "edgekd.data.fourier",
        "edgekd.data.simulation",
        *(f"edgekd.data.simulation.{name}" for name in ("ocean", "vessels")),
    }


@pytest.mark.parametrize("exists", [False, True])
def test_sonar_is_simulated_into_a_folder_given_and_read_from_there(
    simulated: list[Path], tmp_path: Path, exists: bool
) -> None:
    folder = tmp_path / "new" / "sonar"
    if exists:
        folder.mkdir(parents=True)
    index = load_index(config(data_dir=folder))
    assert load_index(config(data_dir=folder)) == index
    assert simulated == [folder]
    assert index.root == folder
    assert [path.name for path in folder.parent.iterdir()] == ["sonar"]
    assert recognise(folder).name == "folder"


def test_sonar_is_not_simulated_over_other_files(simulated: list[Path], tmp_path: Path) -> None:
    for name in ("cargo", "tug"):
        (tmp_path / "ships" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "ships" / name / "a.wav", [0.1] * RATE, RATE)
    words = r"not in the layout of 'sonar_sim': expected recordings.csv .*--dataset folder"
    with pytest.raises(InputError, match=words):
        load_index(config(data_dir=tmp_path / "ships"))
    assert not simulated


def test_a_folder_that_cannot_be_written_is_named(simulated: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/sonar"):
        load_index(config(data_dir=tmp_path / "file" / "sonar"))
