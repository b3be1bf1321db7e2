"""Fixtures every room's tests may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgekd.config import DistillConfig
    from edgekd.training import Run

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does; before torch is loaded
if "PYTEST_XDIST_WORKER" in os.environ:  # a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data beside a checkout; the test skips where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs real clips in ../shared, which this checkout does not have")
    return SHARED


@pytest.fixture(scope="session")
def esc10(shared: Path) -> Path:
    """ESC-10 in ESC-50's layout: 398 real clips."""
    return shared / "data" / "esc10"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Clips are cached in a temporary folder, never in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DistillConfig]:
    """`tiny_config(out, **sections)`: the smallest run that goes through every stage, on 75 clips of simulated sonar.

    A keyword replaces keys of a section (`training={"epochs": 1}`) or a top-level setting (`student="hltdnn"`).
    """
    from edgekd.config import DistillConfig

    data_dir = tmp_path_factory.mktemp("sonar_sim") / "recordings"

    def build(out: Path, **changes: object) -> DistillConfig:
        values: dict[str, object] = {
            "out": out,
            "seed": 3,
            "device": "cpu",
            "data": {
                "dataset": "sonar_sim",
                "data_dir": data_dir,
                "sample_rate": 4_000,
                "clip_seconds": 1.0,
                "simulation": {"vessels_per_class": 5, "windows_per_vessel": 3, "snr_db": (15.0, 25.0)},
            },
            "frontend": {"n_fft": 256, "hop_length": 128, "n_mels": 32, "f_max": 1_900.0},
            "teacher": {"name": "convnet", "adaptation": "full", "epochs": 4, "batch_size": 5, "learning_rate": 3e-3},
            "augment": {"shifts_per_clip": 2, "mixes_per_clip": 1, "time_mask_frames": 6},
            "loss": {"weighting": "learned", "texture_share": 1.0},
            "training": {"epochs": 8, "batch_size": 5, "learning_rate": 3e-3},
            "quantize": {"epochs": 3, "frozen_epochs": 1},
        }
        for name, change in changes.items():
            section = values.get(name)
            values[name] = {**section, **change} if isinstance(section, dict) and isinstance(change, dict) else change
        return DistillConfig.model_validate(values)

    return build


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., DistillConfig]) -> Run:
    """A finished run, distilled and quantised once for all tests. Read-only: copy its folder to change it."""
    import torch

    from edgekd.quantization import quantize
    from edgekd.training import distill

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the runs it is compared with: sums in another order end in other bits
    try:
        return quantize(distill(tiny_config(tmp_path_factory.mktemp("runs") / "tiny")))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def graph_of_tiny_run() -> Callable[..., bytes]:
    """Stands in for `quantized_onnx` in tests of `tiny_run`: the same, but called once a flavour, as it takes long."""
    from edgekd.export.onnx_graph import quantized_onnx

    graphs: dict[tuple[object, ...], bytes] = {}

    def once(student: object, network: object, *settings: object) -> bytes:
        if settings not in graphs:
            graphs[settings] = quantized_onnx(student, network, *settings)
        return graphs[settings]

    return once


@pytest.fixture(scope="session")
def float_graph_of_tiny_run() -> Callable[..., bytes]:
    """The same for `float_onnx`."""
    from edgekd.export.onnx_graph import float_onnx

    graphs: dict[tuple[object, ...], bytes] = {}

    def once(student: object, *settings: object, half: bool = False) -> bytes:
        if (settings, half) not in graphs:
            graphs[settings, half] = float_onnx(student, *settings, half=half)
        return graphs[settings, half]

    return once


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_run: Run, graph_of_tiny_run: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle of `tiny_run` for the target `cpu`. Read-only: copy it to change it."""
    from edgekd.export import export, pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "quantized_onnx", graph_of_tiny_run)
        return export(tiny_run, "cpu", tmp_path_factory.mktemp("bundles") / "cpu").folder


@pytest.fixture
def tiny_copy(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of `tiny_run` that a test may change."""
    import shutil

    from edgekd.training import Run

    return Run.open(shutil.copytree(tiny_run.folder, tmp_path / "copy"))
