"""Compilers of PyTorch modules: which packages they need, and the one line where those are missing or do not go."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import ProfileConfig
from edgekd.errors import InputError, UsageError
from edgekd.profiling import compilers
from edgekd.profiling.backends import TorchModel
from edgekd.profiling.compilers import BY_TENSORRT, check_compiler, compiled
from edgekd.profiling.subjects import candidates

if TYPE_CHECKING:
    from tests.profiling.conftest import Profiled

HERE = ".".join(torch.__version__.split(".")[:2])
Install = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts packages where they are found; `torch_tensorrt` compiles nothing, and keeps what it was asked."""

    def put(**versions: str) -> list[dict[str, Any]]:
        def version(package: str) -> str:
            if package.replace("-", "_") not in versions:
                raise metadata.PackageNotFoundError(package)
            return versions[package.replace("-", "_")]

        asked: list[dict[str, Any]] = []

        def compile_(module: nn.Module, **options: Any) -> nn.Module:
            asked.append(options)
            return module

        monkeypatch.setattr(compilers.metadata, "version", version)
        monkeypatch.setattr(torch, "compile", compile_)
        monkeypatch.setitem(sys.modules, "torch_tensorrt", ModuleType("torch_tensorrt"))
        return asked

    return put


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, waveforms: Tensor) -> Any:
        return type("Output", (), {"logits": self.layer(waveforms)})


@pytest.mark.parametrize("package", BY_TENSORRT)
def test_a_module_is_compiled_by_its_package_and_told_by_its_version(
    package: str, install: Install, tmp_path: Path
) -> None:
    asked = install(**{package.replace("-", "_"): f"{HERE}.0"})
    (tmp_path / "weights").write_bytes(b"")
    module = Student()
    model = TorchModel(module, front_end=None, network=None, learned=module, file=tmp_path / "weights", backend=package)
    assert (model.backend, model.runtime.split(", ")[1]) == (package, f"{package} {HERE}.0")
    (options,) = asked
    assert options["backend"] == "tensorrt"
    assert options["options"]["disable_tf32"]
    assert options["options"]["pass_through_build_failures"], "else PyTorch would be timed in its name"
    example = torch.ones(2, 4)
    torch.testing.assert_close(model.classify(example), module(example).logits.softmax(dim=1))
    assert set(model.timers(example)) == {"whole"}


@pytest.mark.parametrize("package", BY_TENSORRT)
def test_a_package_that_is_missing_is_named(package: str, install: Install) -> None:
    install()
    with pytest.raises(
        InputError,
        match=rf"--backend {package}: {package} is not installed\. Next: pip install '{package}=={HERE}\.\*'$",
    ):
        check_compiler(package, "cuda")


def test_the_package_in_its_place_is_named(install: Install) -> None:
    install(torch_tensorrt_rtx=f"{HERE}.0")
    with pytest.raises(InputError, match="an environment of its own: torch-tensorrt-rtx has the same module"):
        check_compiler("torch-tensorrt", "cuda")


def test_a_release_for_another_pytorch_is_refused_before_it_is_imported(install: Install) -> None:
    install(torch_tensorrt="1.4.0")
    with pytest.raises(InputError, match=rf"1\.4\.0 goes with torch 1\.4, and here is torch {HERE}"):
        check_compiler("torch-tensorrt", "cuda")


def test_it_compiles_for_a_gpu_alone(install: Install) -> None:
    install(torch_tensorrt=f"{HERE}.0")
    with pytest.raises(UsageError, match=r"--backend torch-tensorrt: it compiles for a GPU\. Add --device cuda"):
        check_compiler("torch-tensorrt", "cpu")
    check_compiler("torch-tensorrt", "cuda")
    check_compiler("torch-compiled", "cpu")
    check_compiler("onnxruntime", "cpu")


@pytest.mark.parametrize(
    "failure",
    [
        "Exception('Could not find libnvinfer.so.11\\n  Search paths: []')",
        "RuntimeError('Found no NVIDIA driver on your system.')",
        "OSError('libtorch_cuda.so: cannot open shared object file')",
    ],
)
def test_a_package_that_does_not_load_is_one_line_whatever_it_raises(
    failure: str, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(torch_tensorrt=f"{HERE}.0")
    monkeypatch.delitem(sys.modules, "torch_tensorrt")
    (tmp_path / "torch_tensorrt.py").write_text(f"print('import error')\nraise {failure}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"torch-tensorrt .* does not load: \w.*[^.]\. Leave it out") as refusal:
        compiled(Student(), "torch-tensorrt")
    assert "\n" not in str(refusal.value)
    assert capsys.readouterr().out == "", "what it prints would be taken for the profile's JSON"


def test_a_profile_is_refused_before_anything_is_opened(profiled: Profiled, install: Install) -> None:
    install(torch_tensorrt=f"{HERE}.0")
    with pytest.raises(UsageError, match="--device cuda"):
        candidates([profiled.run.folder], ProfileConfig(backends=("torch-tensorrt",)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("package", BY_TENSORRT)
def test_on_a_gpu_a_compiled_student_agrees(profiled: Profiled, package: str) -> None:
    try:
        check_compiler(package, "cuda")
    except InputError as reason:
        pytest.skip(str(reason))
    found = candidates([profiled.run.folder / "student"], ProfileConfig(backends=("torch", package), device="cuda"))
    clips = found[0].clips
    assert clips is not None
    eager, by_tensorrt = (one.model.classify(clips.first()) for one in found)
    torch.testing.assert_close(by_tensorrt, eager, atol=1e-3, rtol=0)
