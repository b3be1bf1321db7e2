"""A small package named `torchaudio` stands for the real one, so that each way of failing is seen on any machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekd import _torchaudio

PACKAGE_ROOT = Path(_torchaudio.__file__).resolve().parents[1]
REPORT = """
from edgekd import _torchaudio
import torchaudio
print(_torchaudio.functional is torchaudio.functional, _torchaudio.functional.compiled, _torchaudio.functional.align())
"""


def import_beside(folder: Path, extension: str, code: str = REPORT) -> subprocess.CompletedProcess[str]:
    package = folder / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text("from . import _extension\nfrom . import functional, transforms\n")
    (package / "_extension.py").write_text(extension)
    (package / "functional.py").write_text(
        "from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE as compiled, fail_if_no_align\n"
        "@fail_if_no_align\ndef align(): return 'aligned'\n"
    )
    (package / "models.py").write_text("")
    (package / "transforms.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{PACKAGE_ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=folder
    )


def test_a_torchaudio_that_imports_is_used_as_it_is(tmp_path: Path) -> None:
    extension = "_IS_TORCHAUDIO_EXT_AVAILABLE = True\nfail_if_no_align = lambda function: function\n"
    done = import_beside(tmp_path, extension)
    assert done.stdout.split() == ["True", "True", "aligned"], done.stderr


@pytest.mark.parametrize(
    "failure", ["OSError('libc10_cuda.so')", "RuntimeError('CUDA 13.0')", "ImportError('Failed to load libtorchaudio')"]
)
def test_an_extension_that_cannot_load_is_stood_in_for(tmp_path: Path, failure: str) -> None:
    done = import_beside(tmp_path, f"raise {failure}\n")
    assert "torchaudio.functional.align needs torchaudio's compiled extension" in done.stderr, done.stderr


def test_a_teacher_of_the_users_own_may_import_torchaudio_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from torchaudio import functional\ndef teacher(): return functional.compiled\n")
    call = "find_factory('Teacher', 'mine:teacher', None, '')"
    code = "from edgekd.own_code import trust; trust(['mine:teacher']);"
    code += f"from edgekd.models.factories import find_factory; print({call}())"
    done = import_beside(tmp_path, "raise OSError('libc10_cuda.so')\n", code)
    assert done.stdout == "False\n", done.stderr


def test_a_torchaudio_with_a_part_missing_says_which(tmp_path: Path) -> None:
    done = import_beside(tmp_path, "import torchaudio_part_that_is_missing\n")
    assert "ModuleNotFoundError: No module named 'torchaudio_part_that_is_missing'" in done.stderr


def test_the_python_part_works_here() -> None:
    tone = torch.sin(torch.arange(4800) * 0.05)
    assert _torchaudio.functional.resample(tone, 48_000, 16_000).shape == (1600,)
    banks = _torchaudio.functional.melscale_fbanks(513, 50.0, 14_000.0, 64, 32_000)
    assert banks.shape == (513, 64)
    assert _torchaudio.transforms.FrequencyMasking(8)(torch.ones(1, 64, 100)).shape == (1, 64, 100)
