from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.errors import InputError, UsageError
from edgekd.exporting.export import export
from edgekd.exporting.folders import kind_of
from edgekd.runs.run import Run


def test_importing_the_room_and_its_targets_loads_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "onnxscript"}
    code = f"import sys, edgekd.exporting, edgekd.exporting.targets; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bundle_goes_into_its_run_under_the_targets_own_name(tiny_copy: Run) -> None:
    bundle = export(tiny_copy, "pc")
    assert bundle.folder == tiny_copy.folder / "bundle-cpu"
    assert kind_of(bundle.folder) == "bundle"
    with pytest.raises(UsageError, match=r"bundle-cpu: already exists"):
        export(tiny_copy, "cpu")


def test_an_unknown_target_is_refused(tiny_run: Run) -> None:
    with pytest.raises(UsageError, match="Did you mean 'cpu'"):
        export(tiny_run, "cpv")


def test_a_folder_is_told_by_what_describes_it(tiny_run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    assert (kind_of(tiny_run.folder), kind_of(tiny_bundle)) == ("run", "bundle")
    (tmp_path / "file").touch()
    for folder, words in (
        (tmp_path, "neither a run folder"),
        (tmp_path / "file", "file: a file"),
        (tmp_path / "no", "no such folder"),
    ):
        with pytest.raises(InputError, match=words):
            kind_of(folder)
