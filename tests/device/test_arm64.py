"""A bundle on arm64 Linux, emulated: the instructions of a Raspberry Pi or a Jetson's CPU, not their speed.

Needs qemu-user and, in a folder of their own, a Debian arm64 Python with the aarch64 wheels of numpy and onnxruntime.
They are fetched once (about 110 MB, by apt-get and pip, without root and without a change to the system) into
`EDGEKD_ARM64_DIR`, by default under the user's cache; where that cannot be done the tests skip with the reason.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile

from edgekd.device.runner import Runner

LIBRARIES = ["libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5"]
PYTHON = ["libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal"]

# onnxruntime reads /proc/cpuinfo to learn which core it is on, and crashes on an x86 one: this is a Cortex-A76.
CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def done(command: Sequence[str | Path], folder: Path) -> None:
    """Run a step of the installation; the test skips with what it says where it fails."""
    try:
        step = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    except (OSError, subprocess.TimeoutExpired) as failure:
        pytest.skip(f"no arm64 system: {failure}")
    if step.returncode:
        reason = (step.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"no arm64 system: {command[0]} failed: {reason}")


def install(folder: Path) -> None:
    """Put `qemu`, and in `root` Python with its packages, into the new folder."""
    apt, wheels, root = folder / "apt", folder / "wheels", folder / "root"
    for path in (apt / "state/lists/partial", apt / "cache/archives/partial", wheels, root / "proc"):
        path.mkdir(parents=True)
    (apt / "status").touch()
    host = "amd64" if platform.machine() == "x86_64" else platform.machine()
    settings = {
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architecture": host,
        "APT::Architectures::1": host,
        "APT::Architectures::2": "arm64",
        "APT::Sandbox::User": "root",
        "Acquire::http::Timeout": 30,
        "Acquire::Retries": 1,
        "APT::Update::Error-Mode": "any",  # otherwise it is content without a network
    }
    command = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    done([*command, "update"], apt)
    present = shutil.which("qemu-aarch64-static")
    wanted = [f"{name}:arm64" for name in LIBRARIES + PYTHON] + ([] if present else ["qemu-user-static"])
    done([*command, "download", *wanted], apt)
    for package in sorted(apt.glob("*.deb")):
        done(["dpkg", "-x", package, apt / "host" if package.name.startswith("qemu") else root], apt)
    shutil.copy(present or apt / "host/usr/bin/qemu-aarch64-static", folder / "qemu")
    versions = [f"numpy=={np.__version__}", f"onnxruntime=={onnxruntime.__version__}"]
    kinds = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (28, 27, 17)]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *kinds]
    done([*pip, "--python-version=3.11", "--implementation=cp", f"--dest={wheels}", *versions], wheels)
    for wheel in wheels.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(root / "packages")
    (root / "proc/cpuinfo").write_text(CPUINFO)
    shutil.rmtree(apt)
    shutil.rmtree(wheels)


@pytest.fixture(scope="module")
def arm64() -> Run:
    """Runs Python on an emulated arm64 core, with numpy and onnxruntime and nothing else."""
    if platform.machine() == "aarch64":
        pytest.skip("this machine is arm64: the other tests have said it already")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("EDGEKD_ARM64_DIR") or Path(cache, "edgekd", "arm64"))
    system = folder / f"numpy-{np.__version__}-onnxruntime-{onnxruntime.__version__}"
    if not system.exists():
        part = folder / f".part-{os.getpid()}"
        try:
            install(part)
            part.rename(system)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    root = system / "root"
    paths = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(root / "packages"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, **paths, "OPENBLAS_NUM_THREADS": "1"}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [system / "qemu", "-L", root, root / "usr/bin/python3.11", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=250)

    return run


def test_the_emulated_machine_is_arm64(arm64: Run) -> None:
    outcome = arm64("-c", "import platform; print(platform.machine())")
    assert outcome.stdout == "aarch64\n", outcome.stderr


def test_a_bundle_verifies_on_arm64(
    arm64: Run, tiny_bundle: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    start = time.perf_counter()
    outcome = arm64(tiny_bundle / "edgekd_runner.py", "verify", "--json")
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert found["agrees"]
    assert found["largest_difference"] <= found["tolerance"]["probability"]
    record_testsuite_property("arm64_largest_difference", found["largest_difference"])
    record_testsuite_property("arm64_agreement", found["agreement"])
    record_testsuite_property("arm64_seconds", round(time.perf_counter() - start, 1))


def test_arm64_predicts_what_this_machine_predicts(arm64: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    runner = Runner(tiny_bundle)
    waveforms = {"golden.wav": (runner.golden_clips()[0][0], runner.sample_rate)}
    time_s = np.arange(2 * 44_100) / 44_100
    waveforms["chirp.wav"] = (0.3 * np.sin(2 * np.pi * 400 * time_s**2).astype(np.float32), 44_100)
    for name, (waveform, rate) in waveforms.items():
        soundfile.write(tmp_path / name, waveform, rate, subtype="FLOAT")
    files = [tmp_path / name for name in waveforms]
    outcome = arm64(tiny_bundle / "edgekd_runner.py", "predict", "--json", "--top", "99", *files)
    assert outcome.returncode == 0, outcome.stderr
    tolerance = runner.manifest["target"]["tolerance"]["probability"]
    for row, (waveform, rate) in zip(json.loads(outcome.stdout)["files"], waveforms.values(), strict=True):
        expected = runner.predict(waveform, rate)
        found = {entry["class"]: entry["score"] for entry in row["top"]}
        assert found == pytest.approx(dict(zip(runner.classes, expected.tolist(), strict=True)), abs=tolerance)
