"""`build_engine.sh`: builds a bundle's TensorRT engines on the device with `trtexec`, then has the runner choose.

Engines do not move between devices or versions, so a bundle ships ONNX graphs and this script. One thing must not
happen: the log-mel in float16, which its power spectrum, 1e-10 to beyond 65504, does not fit, or in TF32, which would
raise the noise floor of quiet bands. Hence `--noTF32` everywhere, and by release:

    8.2          types layers as it likes, and only the host can compute the log-mel: `--fp16`
    8.4 to 9.x   likewise, but a layer can be pinned: `--fp16 --precisionConstraints=obey --layerPrecisions=...:fp32`
                 and `--layerOutputTypes`; `--int8` allows the Q/DQ pairs, the rest then stays in float32
    10.x         the types in the graph are binding: `--stronglyTyped` (10.12 deprecated the flags above)
    11           every network is strongly typed, and the flags are gone: Q/DQ and Cast in the graph decide

The words of each release are `edgekd.exporting.runtimes.tensorrt.releases.LANGUAGES`. A trtexec that speaks otherwise
than the bundle's is told by the number that it prints first, and not tried: it would refuse the options or, worse, take
the graph and type it as it likes.

On a Jetson AGX Orin with TensorRT 11.4.1, `--dla` has the float16 graph built for an accelerator too
(`model-fp16-dla.engine`): DLA computes in int8 and float16, takes fixed shapes only, and leaves the rest to the GPU.
The int8 graph is not tried: DLA wants a scale at every tensor of a region, and a student has layers that stay in float.
Sources: "Using trtexec" (dla-build-and-run.html), "GPU Fallback Mode" (dla-runtime-configuration.html) and "Strongly
Typed Networks for DLA" in docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library; for scales, pull request 1661
of github.com/NVIDIA/Model-Optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote

from edgekd.device import runner
from edgekd.errors import UsageError
from edgekd.exporting.runtimes.tensorrt.releases import Installed, Release, language_of, spoken_until
from edgekd.exporting.targets import Batch, Precision

WORKSPACE_MIB = 256  # students need a few; 8.2 gives 16 where none is asked for, 8.4 and later all there is
TIMING_CACHE = "timing.cache"  # what was measured of one engine's layers serves the next
TELLS_LAYERS = ("--profilingVerbosity=detailed",)  # so that the runner can say which layers are not in int8
ON_DLA = ("--useDLACore=0", "--allowGPUFallback")


def build_script(
    target: str,
    installed: Installed,
    models: Mapping[Precision, str],
    input_name: str,
    input_shape: tuple[int, ...],
    batch: Batch,
    pinned: Sequence[str],
    install: str = "sudo apt install nvidia-jetpack",
) -> str:
    """The text of `build_engine.sh` (POSIX shell) for a device with this TensorRT.

    `target`: its name. `models`: the ONNX file of each precision. `input_shape`: of one clip, without the batch, `(S,)`
    or `(1, T, F)`. `pinned`: names of the nodes that compute floats and must not leave float32; none where the host
    computes the log-mel. `install`: what to do where there is no trtexec. Raises `UsageError` where this TensorRT
    cannot be held to that.
    """
    language = language_of(installed.release)
    own: dict[Precision, list[str]] = {
        precision: trtexec_arguments(installed, precision, model, input_name, input_shape, batch, pinned)
        for precision, model in models.items()
    }
    on_dla = installed.dla and batch == 1 and "fp16" in own
    dla = ""
    if on_dla:
        arguments = [*_saved_as(own["fp16"], runner.DLA_ENGINE), *ON_DLA]
        dla = _DLA_BUILD.format(file=engine_name(runner.DLA_ENGINE), build=_build(runner.DLA_ENGINE, arguments, "    "))
    return _SCRIPT.format(
        target=target,
        version=installed.version,
        first=_comparable(language.since),
        after=_comparable(spoken_until(language)),
        options=_DLA_OPTION if on_dla else _NO_OPTION,
        timing_cache=TIMING_CACHE,
        builds="\n".join(_build(precision, arguments) for precision, arguments in own.items()),
        dla=dla,
        install=install,
    )


def trtexec_arguments(
    installed: Installed,
    precision: Precision,
    model: str,
    input_name: str,
    input_shape: tuple[int, ...],
    batch: Batch,
    pinned: Sequence[str],
) -> list[str]:
    """What `trtexec` is called with to build one precision; see `build_script`."""
    language = language_of(installed.release)
    return [
        f"--onnx={model}",
        f"--saveEngine={engine_name(precision)}.part",
        *precision_flags(installed.release, precision, pinned),
        "--noTF32",
        *_shape_flags(installed, input_name, input_shape, batch),
        language.workspace.format(WORKSPACE_MIB),
        f"--timingCacheFile={TIMING_CACHE}",
        *(TELLS_LAYERS if precision == "int8" else ()),
        language.build_only,
    ]


def precision_flags(release: Release, precision: Precision, pinned: Sequence[str]) -> tuple[str, ...]:
    """Flags that make TensorRT `release` run a graph in `precision` and keep the `pinned` nodes in float32.

    Raises `UsageError` where it cannot.
    """
    language = language_of(release)
    flags = language.precision[precision]
    if "--fp16" not in flags or not pinned:
        return flags
    if not language.pins:
        version = ".".join(map(str, release))
        raise UsageError(
            f"TensorRT {version} cannot keep the log-mel in float32 beside fp16. Export with --frontend external, or"
            " leave fp16 out of 'precisions' in a copy of the target's TOML."
        )
    layers = ",".join(f"{name}:fp32" for name in pinned)
    return (*flags, "--precisionConstraints=obey", f"--layerPrecisions={layers}", f"--layerOutputTypes={layers}")


def engine_name(engine: str) -> str:
    """The file of an engine in a bundle: of a precision, or of the accelerator's."""
    return f"model-{engine}.engine"


def _saved_as(arguments: Sequence[str], engine: str) -> list[str]:
    path = f"--saveEngine={engine_name(engine)}.part"
    return [path if argument.startswith("--saveEngine=") else argument for argument in arguments]


def _build(engine: str, arguments: Sequence[str], indent: str = "") -> str:
    return f" \\\n{indent}    ".join([f"build {engine}", *map(quote, arguments)])


def _shape_flags(installed: Installed, name: str, shape: tuple[int, ...], batch: Batch) -> list[str]:
    if batch == 1:
        return []  # the graph's own shape is the only one
    # Optimised for one clip at a time, which is what a device does; larger batches serve long files.
    sizes = {"min": 1, "opt": 1, "max": installed.max_batch}
    return [f"--{kind}Shapes={name}:{'x'.join(map(str, (size, *shape)))}" for kind, size in sizes.items()]


def _comparable(release: Release) -> int:
    """As trtexec prints it from 10 on: 100300 for 10.3."""
    major, minor, patch = (*release, 0, 0)[:3]
    return major * 10000 + minor * 100 + patch


_NO_OPTION = """\
if [ "$#" -gt 0 ]; then
    say "unknown option $1: it takes none"
    exit 2
fi"""
_DLA_OPTION = """\
dla=
for option in "$@"; do
    if [ "$option" != --dla ]; then
        say "unknown option $option: it takes --dla, which also builds an engine for the board's accelerator"
        exit 2
    fi
    dla=yes
done"""
_DLA_BUILD = """\
rm -f {file} # of an earlier call, perhaps of another model
if [ -n "$dla" ]; then
    {build}
fi
"""

_SCRIPT = """\
#!/bin/sh
# Builds a TensorRT engine for each precision of this bundle, then chooses the fastest that agrees with the golden
# examples. Run it on the device, with TensorRT {version}; it takes minutes. trtexec's words go to build-NAME.log.
# Exit codes: 0 done, 1 no engine could be built, 2 wrong usage, 3 something is missing here, 4 no engine agrees.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

say() {{
    printf 'build_engine.sh: %s\\n' "$*" >&2
}}

{options}

# One on PATH was put there on purpose; NVIDIA's packages put theirs elsewhere.
trtexec=$(command -v trtexec) || trtexec=/usr/src/tensorrt/bin/trtexec
if [ ! -x "$trtexec" ]; then
    say "no trtexec on PATH or in /usr/src/tensorrt/bin. Next: {install}"
    exit 3
fi

# It begins with "[TensorRT v8201]" for 8.2.1, "[TensorRT v110401]" for 11.4.1.
status=0
words=$("$trtexec" --help 2>&1) || status=$?
number=$(printf '%s\\n' "$words" | sed -n 's/.*TensorRT v\\([1-9][0-9]*\\).*/\\1/p' | head -n 1 |
    sed 's/^\\(.\\)\\(...\\)$/\\10\\2/') # four digits until 9, where 8502 is 8.5.2: as 80502
if [ -z "$number" ] && [ "$status" -ne 0 ]; then
    say "$trtexec does not start: $(printf '%s\\n' "$words" | head -n 1). Next: {install}"
    exit 3
fi
if [ -n "$number" ]; then
    here=$((number / 10000)).$((number / 100 % 100)).$((number % 100))
    if [ "$number" -lt {first} ] || [ "$number" -ge {after} ]; then
        say "this bundle is made for TensorRT {version}, and $trtexec is $here, which needs other options." \\
            "Next: install {version}, or export for a copy of target {target} with version = \\"$here\\""
        exit 3
    fi
fi

python=
for candidate in python3 python3.12 python3.11 python3.10 python3.9 python3.8; do
    if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "no Python 3.8 or later, which edgekd_runner.py needs. Next: sudo apt install python3.8"
    exit 3
fi

built=
build() {{
    name=$1
    shift
    engine=model-$name.engine
    log=build-$name.log
    say "building $engine"
    status=0
    "$trtexec" "$@" >"$log" 2>&1 || status=$?
    if [ "$status" -eq 0 ] && [ -s "$engine.part" ]; then
        mv -f "$engine.part" "$engine"
        built="$built $name"
        return
    fi
    rm -f "$engine" "$engine.part" # an older one would be taken for this one
    why=$(sed -n 's/.*\\[E\\] *//p' "$log" | head -n 1 | cut -c 1-200 | sed 's/[.: ]*$//')
    next="read $log"
    case "$status $why" in
        "0 "*) why="trtexec ended as if all were well, and wrote no engine" next="is the disk full? read $log" ;;
        137*) why="it was killed, most likely for want of memory" next="close other programs, then again" ;;
        *[Oo]ut*[Mm]emory*) next="close other programs that use memory, then again" ;;
        *"Cannot create DLA engine"*) next="leave --dla out: this TensorRT finds no accelerator" ;;
        *) [ -n "$why" ] || why="trtexec ended with exit code $status" ;;
    esac
    say "$name could not be built and is left out: $why. Next: $next"
}}

trap 'rm -f model-*.engine.part' EXIT
trap 'exit 130' INT TERM
rm -f {timing_cache} # measured by another TensorRT, it might stop this one

{builds}
{dla}
if [ -z "$built" ]; then
    say "no engine could be built. Next: $python edgekd_runner.py verify --cpu tries the model itself"
    exit 1
fi
say "built:$built"
"$python" edgekd_runner.py choose
"$python" edgekd_runner.py verify
"""
