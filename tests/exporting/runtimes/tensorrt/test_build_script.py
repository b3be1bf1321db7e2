"""`build_engine.sh`, run with a stand-in for `trtexec` that knows which flags a release has and refuses all others."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.exporting.runtimes.tensorrt.build_script import build_script, precision_flags, trtexec_arguments
from edgekd.exporting.runtimes.tensorrt.releases import Installed
from edgekd.exporting.targets import Precision

MODELS: dict[Precision, str] = {"int8": "model.onnx", "fp16": "model-fp16.onnx", "fp32": "model-fp32.onnx"}
PINNED = ("frontend/conv", "frontend/mul_2")

# What `trtexec --help` of a release lists, of the flags that matter here.
ALWAYS = {"onnx", "saveEngine", "noTF32", "timingCacheFile", "minShapes", "optShapes", "maxShapes"}
FLAGS = {
    "8.2": ALWAYS | {"fp16", "int8", "workspace", "buildOnly", "precisionConstraints"},
    "8.5": ALWAYS
    | {"fp16", "int8", "memPoolSize", "buildOnly", "precisionConstraints", "layerPrecisions", "layerOutputTypes"},
    "8.6": ALWAYS
    | {"fp16", "int8", "memPoolSize", "skipInference", "precisionConstraints", "layerPrecisions", "layerOutputTypes"},
    "10.3": ALWAYS | {"fp16", "int8", "memPoolSize", "skipInference", "stronglyTyped"},
    "10.12": ALWAYS | {"memPoolSize", "skipInference", "stronglyTyped"},
    "11.4.1": ALWAYS | {"memPoolSize", "skipInference"},
}
PRINTED = {"8.2": "v8201", "8.5": "v8502", "8.6": "v8601", "10.3": "v100300", "10.12": "v101200", "11.4.1": "v110401"}

TRTEXEC = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT $PRINTED]"
printf '%s\\n' "$*" >> "$RECORD"
engine=
for argument in "$@"; do
    name=${argument%%=*}
    name=${name#--}
    case " $KNOWN " in
        *" $name "*) ;;
        *) echo "unknown flag $name"; exit 1 ;;
    esac
    case $argument in
        --saveEngine=*) engine=${argument#*=} ;;
        --onnx=*) [ -f "${argument#*=}" ] || exit 1 ;;
        --layerPrecisions=*) case $* in *--precisionConstraints=obey*) ;; *) exit 1 ;; esac ;;
    esac
done
case $engine in *"$REFUSED"*) echo "out of memory"; exit 1 ;; esac
printf engine > "$engine"
"""
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-I -c" ]; then exit "${OLD_PYTHON:-0}"; fi
printf 'runner %s\\n' "$2" >> "$RECORD"
[ "$1" = edgekd_runner.py ] || exit 9
if [ "$2" = choose ]; then exit "${CHOOSE:-0}"; fi
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A bundle's models, and programs in `bin`."""
    if Path("/usr/src/tensorrt/bin/trtexec").exists():
        pytest.skip("this machine has the real trtexec, which the script would prefer")
    for name in MODELS.values():
        (tmp_path / name).write_bytes(b"graph")
    (tmp_path / "bin").mkdir()
    for name, text in {"trtexec": TRTEXEC, "python3": PYTHON}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def script_for(version: str, models: dict[Precision, str] = MODELS, pinned: tuple[str, ...] = PINNED) -> str:
    return build_script(Installed(version=version), models, "waveform", (160_000,), 1, pinned)


def build(board: Path, version: str = "10.3", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script in `board` with nothing on PATH but the stand-ins and the tools of any system."""
    known = " ".join(sorted(FLAGS[version]))
    variables = {"PATH": f"{board / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin", "RECORD": str(board / "record")}
    variables |= {"KNOWN": known, "PRINTED": PRINTED[version], "REFUSED": "none", **environment}
    shell = shutil.which("dash") or "/bin/sh"
    script = [shell, str(board / "build_engine.sh")]
    return subprocess.run(script, env=variables, cwd="/", capture_output=True, text=True, check=False)


def record(board: Path) -> list[str]:
    return (board / "record").read_text().splitlines()


def models_of(version: str) -> dict[Precision, str]:
    return {precision: name for precision, name in MODELS.items() if version != "8.2" or precision != "int8"}


@pytest.mark.parametrize("version", FLAGS)
def test_every_release_is_asked_in_flags_that_it_has(board: Path, version: str) -> None:
    models = models_of(version)
    pinned = () if version == "8.2" else PINNED
    (board / "build_engine.sh").write_text(script_for(version, models, pinned))
    done = build(board, version)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in board.glob("*.engine*")} == {f"model-{precision}.engine" for precision in models}
    assert record(board)[len(models) :] == ["runner choose", "runner verify"]
    assert "export it again" not in done.stderr


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
        script_for("8.2", {"fp16": "model.onnx"})


@pytest.mark.parametrize("version", FLAGS)
def test_tf32_and_float16_never_touch_float32_by_default(version: str) -> None:
    for precision, model in models_of(version).items():
        pinned = () if version == "8.2" else PINNED
        arguments = trtexec_arguments(Installed(version=version), precision, model, "waveform", (9,), 1, pinned)
        assert "--noTF32" in arguments
        assert ("--fp16" in arguments) == (precision == "fp16" and version.startswith("8"))


def test_a_fixed_batch_needs_no_shapes_and_a_dynamic_one_is_built_for_single_clips() -> None:
    installed = Installed(version="10.3", max_batch=4)
    fixed = trtexec_arguments(installed, "fp32", "model.onnx", "log_mel", (1, 501, 64), 1, ())
    assert not [argument for argument in fixed if "Shapes" in argument]
    dynamic = trtexec_arguments(installed, "fp32", "model.onnx", "log_mel", (1, 501, 64), "dynamic", ())
    assert [argument for argument in dynamic if "Shapes" in argument] == [
        "--minShapes=log_mel:1x1x501x64",
        "--optShapes=log_mel:1x1x501x64",
        "--maxShapes=log_mel:4x1x501x64",
    ]


def test_a_precision_that_cannot_be_built_is_reported_and_left_out(board: Path) -> None:
    (board / "build_engine.sh").write_text(script_for("10.3"))
    (board / "model-fp16.engine").write_text("of last year")
    done = build(board, REFUSED="fp16")
    assert done.returncode == 0
    assert "fp16 could not be built and is left out; why: build-fp16.log" in done.stderr
    assert "out of memory" in (board / "build-fp16.log").read_text()
    assert {path.name for path in board.glob("*.engine*")} == {"model-int8.engine", "model-fp32.engine"}
    assert record(board)[-2:] == ["runner choose", "runner verify"]


def test_where_nothing_can_be_built_the_runner_is_not_asked(board: Path) -> None:
    (board / "build_engine.sh").write_text(script_for("10.3"))
    done = build(board, REFUSED="model")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "build_engine.sh: no engine could be built"
    assert not list(board.glob("*.engine*"))
    assert not [line for line in record(board) if line.startswith("runner")]


def test_the_runners_verdict_is_the_scripts(board: Path) -> None:
    (board / "build_engine.sh").write_text(script_for("10.3"))
    assert build(board, CHOOSE="4").returncode == 4
    assert record(board)[-1] == "runner choose"


def test_another_tensorrt_than_the_bundle_was_made_for_is_told(board: Path) -> None:
    (board / "build_engine.sh").write_text(script_for("10.3"))
    done = build(board, PRINTED="v101602")
    assert "made for TensorRT 10.3, which this is not: export it again for yours" in done.stderr


def test_without_trtexec_the_script_says_what_to_install(board: Path) -> None:
    (board / "build_engine.sh").write_text(script_for("10.3"))
    (board / "bin" / "trtexec").unlink()
    done = build(board)
    assert done.returncode == 3
    assert "sudo apt install nvidia-jetpack" in done.stderr


def test_a_newer_python_is_found_beside_an_old_python3(board: Path) -> None:
    (board / "build_engine.sh").write_text(script_for("10.3"))
    (board / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    for version in range(8, 13):
        newer = board / "bin" / f"python3.{version}"
        newer.write_text(PYTHON)
        newer.chmod(0o755)
    assert build(board).returncode == 0
    for version in range(8, 13):
        (board / "bin" / f"python3.{version}").write_text("#!/bin/sh\nexit 1\n")
    done = build(board)
    assert done.returncode == 3
    assert "no Python 3.8 or later" in done.stderr


def test_names_with_odd_characters_reach_trtexec_whole(board: Path) -> None:
    (board / "build_engine.sh").write_text(script_for("8.5", {"fp16": "model.onnx"}, ("frontend/mul (2)",)))
    assert build(board, "8.5").returncode == 0
    assert "--layerPrecisions=frontend/mul (2):fp32" in record(board)[0]
