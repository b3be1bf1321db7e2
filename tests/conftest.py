"""Fixtures every room's tests may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgekd.config import DistillConfig
    from edgekd.report.results import Profile
    from edgekd.runs.run import Run

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # as the command line does, both
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # before torch is loaded
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


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """A test that draws without a seed draws the same, whichever tests this worker ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`small_disk(kib, *options)`: a file system of that size; called again, the same one at another size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = False

    def mount(kib: int, *options: str) -> Path:
        nonlocal mounted
        settings = ",".join([f"size={kib}k", *options, *(["remount"] if mounted else [])])
        try:
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", settings, "tmpfs", str(disk)],
                capture_output=True,
                check=False,
                timeout=10,
            )
        except OSError as failure:
            pytest.skip(f"cannot mount a small disk: {failure}")
        if done.returncode:
            pytest.skip(f"cannot mount a small disk: {done.stderr.decode().strip()}")
        mounted = True
        return disk

    yield mount
    if mounted:
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


@pytest.fixture(autouse=True)
def nothing_trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What one test names of the user's own, and imports from a folder of its own, is not there for the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.own_code._NAMED", {})
        before = set(sys.modules)
        yield
    scratch = tmp_path_factory.getbasetemp()
    for name in set(sys.modules) - before:
        if scratch in Path(getattr(sys.modules[name], "__file__", None) or "").parents:
            del sys.modules[name]


@pytest.fixture
def own_code_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every factory may be imported, from where its settings say: for tests of what comes of one."""

    def here(subject: str, name: str, stored: Path | None) -> Path:
        return (stored or Path.cwd()).absolute()

    monkeypatch.setattr("edgekd.models.factories.trusted_folder", here)


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

    from edgekd.quantization.qat import quantize
    from edgekd.training.distill import distill

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the runs it is compared with: sums in another order end in other bits
    try:
        return quantize(distill(tiny_config(tmp_path_factory.mktemp("runs") / "tiny")))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `tiny_run` for the target `cpu`. Read-only: copy it to change it."""
    from edgekd.exporting.export import export

    return export(tiny_run, "cpu", tmp_path_factory.mktemp("bundles") / "cpu").folder


@pytest.fixture(scope="session")
def several_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of a second of any of three tones at once, or of none, and the table that says which: 72 of them."""
    import numpy as np
    import soundfile

    root, rng = tmp_path_factory.mktemp("several"), np.random.default_rng(7)
    tones, time = {"low": 300.0, "middle": 700.0, "high": 1_500.0}, np.arange(4_000) / 4_000
    kinds = [("low",), ("middle",), ("low", "high"), ("middle", "high"), ("low", "middle", "high"), ()]
    lines = ["path,label,group"]
    for number in range(72):
        names = kinds[number % len(kinds)]
        sound = rng.normal(0, 0.02, 4_000)
        for name in names:
            sound += 0.1 * np.sin(2 * np.pi * tones[name] * rng.uniform(0.95, 1.05) * time + rng.uniform(0, 6))
        soundfile.write(root / f"{number}.wav", sound, 4_000)
        lines.append(f"{number}.wav,{';'.join(names) or 'none'},{number // 2}")
    (root / "manifest.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="session")
def several_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., DistillConfig], several_data: Path
) -> Run:
    """`tiny_run` where clips are of several classes. Read-only."""
    import torch

    from edgekd.quantization.qat import quantize
    from edgekd.training.distill import distill

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = tiny_config(
        tmp_path_factory.mktemp("runs") / "several",
        data={"dataset": None, "data_dir": several_data, "split": (0.6, 0.2, 0.2)},
        loss={"weighting": "fixed", "terms": ("classification", "distillation")},
        training={"sampling": "balanced", "epochs": 16, "learning_rate": 1e-2},
        augment={"shifts_per_clip": 1, "mixes_per_clip": 0},
    )
    try:
        return quantize(distill(config))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def several_bundle(several_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `several_run` for the target `cpu`. Read-only."""
    from edgekd.exporting.export import export

    return export(several_run, "cpu", tmp_path_factory.mktemp("bundles") / "several").folder


@pytest.fixture
def bare_metal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Puts a runtime for microcontrollers into the table; returns the TOML of a board that runs it."""
    from importlib.util import module_from_spec, spec_from_file_location

    from edgekd.exporting.runtimes import RUNTIMES

    spec = spec_from_file_location("bare_metal", Path(__file__).parent / "exporting" / "runtimes" / "bare_metal.py")
    assert spec is not None and spec.loader is not None
    file = module_from_spec(spec)
    spec.loader.exec_module(file)
    monkeypatch.setitem(RUNTIMES, file.BareMetal.name, file.BareMetal())
    (tmp_path / "m4.toml").write_text(file.BOARD)
    return tmp_path / "m4.toml"


@pytest.fixture
def tiny_copy(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of `tiny_run` that a test may change."""
    import shutil

    from edgekd.runs.run import Run

    return Run.open(shutil.copytree(tiny_run.folder, tmp_path / "copy"))


def sample_calibration(name: str, error: float) -> dict[str, Any]:
    """Calibration of a subject of `sample_profile`: all but the teacher have a temperature."""
    values = {"temperature": 1.0, "error": error, "error_interval": (0.7 * error, 1.5 * error), "cross_entropy": 0.5}
    if name == "teacher":
        return values
    return values | {
        "temperature": 0.72,
        "error_before": 1.4 * error,
        "error_before_interval": (error, 2 * error),
        "cross_entropy_before": 0.6,
    }


@pytest.fixture(scope="session")
def sample_profile() -> Profile:
    """A profile with everything in it: a teacher, its student, its int8 student, and that on a board.

    Scores and differences are those of made-up probabilities on 80 clips of 62 recordings; the rest is believable.
    """
    import numpy as np

    from edgekd.report import results
    from edgekd.runs.predictions import Predictions
    from edgekd.scoring.differences import difference
    from edgekd.scoring.scores import score

    rng = np.random.default_rng(4)
    classes = ("dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing")
    classes += ("clock_tick", "helicopter", "chainsaw")
    labels = np.arange(80) % 10
    groups = tuple(f"recording {min(clip, 61)}" for clip in range(80))
    ease = np.eye(10)[labels] * rng.uniform(3.2, 7.5, (80, 1))
    noise = rng.normal(0, 1, (80, 10))

    def predictions(confusing: float, own: float) -> Predictions:
        """Logits share their noise, as classifiers find the same clips hard."""
        logits = ease + confusing * noise + rng.normal(0, own, (80, 10))
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return Predictions(tuple(range(80)), groups, labels, shares.astype(np.float32))

    said = {"teacher": predictions(1.3, 0.3), "student": predictions(1.6, 0.7)}
    said["int8"] = predictions(1.6, 0.9)
    said["int8 on pi@field-7"] = said["int8"]

    def quantiles(median: float) -> tuple[float, ...]:
        levels = np.linspace(0, 1, 101)
        return tuple(float(ms) for ms in median * (0.93 + 0.12 * levels + 0.02 * levels**8 + 0.5 * levels**40))

    def latency(median: float, frontend: float) -> results.Latency:
        found = quantiles(median)
        return results.Latency(
            mean_ms=sum(found) / 101,
            p50_ms=found[50],
            p50_interval_ms=(0.99 * found[50], 1.012 * found[50]),
            p95_ms=found[95],
            p99_ms=found[99],
            spread_ms=found[75] - found[25],
            repetitions=412,
            settled=True,
            quantiles_ms=found,
            frontend_ms=frontend,
            network_ms=median - frontend,
            real_time_factor=found[50] / 5000,
        )

    def cost(parameters: int, macs: int, file_bytes: int) -> results.Cost:
        return results.Cost(
            parameters=parameters,
            macs=macs,
            frontend_macs=14_300_000,
            file_bytes=file_bytes,
            traffic_bytes=file_bytes + macs // 4,
            arithmetic_intensity=(macs + 14_300_000) / (file_bytes + macs // 4),
            activation_bytes=3_276_800,
            measured_activation_bytes=4_100_096,
            process_bytes=61_800_448,
            peak_process_bytes=78_643_200,
        )

    def layers(total_ms: float, precision: str) -> tuple[results.Layer, ...]:
        parts = {"frontend/dft/MatMul": 0.31, "block1/depthwise/Conv": 0.19, "block1/pointwise/Conv": 0.14}
        parts |= {"frontend/mel/MatMul": 0.11, "block2/depthwise/Conv": 0.09, "block2/pointwise/Conv": 0.07}
        parts |= {"histogram/Exp": 0.05, "head/MatMul": 0.03, "head/Softmax": 0.01}
        return tuple(
            results.Layer(
                name=name,
                operator=name.rsplit("/", maxsplit=1)[1],
                ms=share * total_ms,
                share=share,
                macs=int(share * 8e6) if "Conv" in name or "MatMul" in name else None,
                output_bytes=int(share * 1e6),
                precision="float32" if name.startswith(("frontend", "histogram")) else precision,
            )
            for name, share in parts.items()
        )

    def robustness(clean: float, falls: float) -> results.Robustness:
        def point(value: float, accuracy: float) -> results.Point:
            low, high = max(0.0, accuracy - 0.09), min(1.0, accuracy + 0.08)
            return results.Point(value=value, accuracy=accuracy, accuracy_interval=(low, high))

        steps = (20.0, 15.0, 10.0, 5.0, 0.0, -5.0)
        return results.Robustness(
            noise=tuple(point(snr, 0.1 + (clean - 0.1) / (1 + np.exp((falls - snr) / 3.5))) for snr in steps),
            length=tuple(point(seconds, clean * (seconds / 5) ** 0.18) for seconds in (5.0, 2.5, 1.25, 0.625)),
        )

    def subject(name: str, median: float, frontend: float, sizes: tuple[int, int, int], **more: Any) -> results.Subject:
        role, host = name.partition(" on ")[::2]
        scores = score(said[name].probabilities, labels.tolist(), groups, classes)
        paired = difference({("test", 0): said[name]}, {("test", 0): said["teacher"]}, 10)
        speedup = 23.9 / median
        versus = results.Versus(
            baseline="teacher",
            accuracy=paired,
            speedup=None if host else results.Estimate(value=speedup, low=0.97 * speedup, high=1.03 * speedup),
            smaller=15_105_320 / sizes[2],
        )
        joules = median * 0.0043
        values: dict[str, Any] = {
            "name": name,
            "kind": "bundle" if host else "run",
            "role": role,
            "source": "bundles/pi" if host else "runs/esc10",
            "host": host or None,
            "architecture": "yamnet" if role == "teacher" else "hltdnn_ds",
            "precision": "int8" if role == "int8" else "float32",
            "backend": "torch" if role == "teacher" else "onnxruntime",
            "runtime": "PyTorch 2.13.0, CPU" if role == "teacher" else "onnxruntime 1.32.0, CPUExecutionProvider",
            "threads": 1,
            "scores": scores,
            "calibration": sample_calibration(name, scores.calibration_error),
            "latency": latency(median, frontend),
            "throughput": tuple(
                results.Throughput(batch=batch, threads=threads, clips_per_second=1000 / median * threads**0.8 * gain)
                for threads in (1, 2)
                for batch, gain in ((1, 1.0), (8, 1.24), (32, 1.31))
            ),
            "cost": cost(*sizes),
            "energy": results.Energy(
                joules_per_clip=joules,
                watts=4.3,
                idle_watts=1.9,
                source="rapl",
                measured=True,
                how="RAPL package domain over 412 clips, less the idle power before them.",
            ),
            "battery": results.Battery(
                watt_hours=50.0,
                duty_cycle=0.1,
                mean_watts=1.9 + 0.1 * joules / 5,
                days=50 / (1.9 + 0.1 * joules / 5) / 24,
                how="50 Wh, listening 10 % of the time, 1.9 W otherwise.",
            ),
            "layers": layers(median, "int8" if role == "int8" else "float32"),
            "robustness": robustness(scores.accuracy, 1.0 if role == "teacher" else 4.0),
            "versus": None if name == "teacher" else versus,
        }
        return results.Subject.model_validate(values | more)

    def sentence(one: results.Subject) -> str:
        against = one.versus
        assert against is not None and against.speedup is not None and against.accuracy is not None
        (low, high), faster = against.accuracy.accuracy_interval, against.speedup
        return (
            f"{one.name} is {faster.value:.1f} times faster than teacher ({faster.low:.1f} to {faster.high:.1f}) and "
            f"{against.smaller:.0f} times smaller; its accuracy is {-100 * against.accuracy.accuracy:.1f} points lower "
            f"({-100 * high:.1f} to {-100 * low:.1f})."
        )

    board = results.Machine(cpu="Cortex-A76", cpus=4, governor="ondemand", load_average=0.1, busy=False)
    golden = results.Golden(agrees=True, clips=16, agreement=1.0, largest_difference=0.0021)
    small = (25_482, 31_900_000)
    subjects = (
        subject("teacher", 23.9, 2.1, (3_751_370, 69_200_000, 15_105_320)),
        subject("student", 3.4, 2.2, (*small, 310_412)),
        subject("int8", 2.6, 2.2, (*small, 236_804), golden=golden),
        subject("int8 on pi@field-7", 9.8, 7.9, (*small, 236_804), golden=golden, machine=board),
    )
    return results.Profile(
        edgekd="0.1.0",
        created="2026-11-20T09:30:00Z",
        command=("edgekd", "profile", "runs/esc10", "bundles/pi", "--host", "pi@field-7", "--layers"),
        environment={"python": "3.11.2", "system": "Linux 6.1.0 x86_64", "torch": "2.13.0", "onnxruntime": "1.32.0"},
        dataset="esc10",
        clips="80 clips of 62 recordings, the test side of runs/esc10",
        clips_digest="9f2c" * 16,
        clip_seconds=5.0,
        sample_rate=32_000,
        noise="white noise, its power set against that of each clip",
        baseline="teacher",
        machine=results.Machine(
            cpu="Intel(R) Xeon(R) Processor @ 2.70GHz",
            cpus=2,
            governor="performance",
            mhz=(2700, 2698),
            max_mhz=3500,
            temperatures={"package": 61.0},
            load_average=1.7,
            cpus_used_by_others=0.9,
            busy=True,
        ),
        verdict=tuple(sentence(one) for one in subjects[1:3]),
        notes=(
            "The machine was busy: others used 0.9 of 2 CPUs. Times are too long; ratios suffer less.",
            "macro-F1 is the mean over classes.",
        ),
        subjects=subjects,
    )


@pytest.fixture(scope="session")
def bare_profile(sample_profile: Profile) -> Profile:
    """As little of `sample_profile` as the schema allows: one subject, of which only times and a size are known."""
    from edgekd.report.results import Machine

    missing = {"scores", "calibration", "energy", "battery", "robustness", "versus", "golden"}
    missing |= {"host", "machine", "architecture", "threads"}
    unknown = {"parameters", "macs", "frontend_macs", "traffic_bytes", "arithmetic_intensity", "activation_bytes"}
    unknown |= {"measured_activation_bytes", "process_bytes", "peak_process_bytes"}
    parts = dict.fromkeys(("frontend_ms", "network_ms", "device_ms", "real_time_factor"))
    whole = sample_profile.subjects[0]
    subject = whole.model_copy(
        update={
            **dict.fromkeys(missing),
            "throughput": (),
            "layers": (),
            "cost": whole.cost.model_copy(update=dict.fromkeys(unknown)),
            "latency": whole.latency.model_copy(update=parts),
        }
    )
    changes: dict[str, object] = dict.fromkeys(
        ("dataset", "clips_digest", "noise", "baseline", "clip_seconds", "sample_rate")
    )
    changes |= {"verdict": (), "notes": (), "environment": {}, "machine": Machine(cpu=None, cpus=1, busy=False)}
    return sample_profile.model_copy(update=changes | {"subjects": (subject,)})
