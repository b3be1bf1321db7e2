"""`build_engine.sh`: builds a bundle's TensorRT engines on the device with `trtexec`, then has the runner choose.

Engines do not move between devices or versions, so a bundle ships ONNX graphs and this script. One thing must not
happen: the log-mel in float16, which its power spectrum, 1e-10 to beyond 65504, does not fit, or in TF32, which would
raise the noise floor of quiet bands. Hence `--noTF32` everywhere, and by release:

    8.2          types layers as it likes, and only the host can compute the log-mel: `--fp16`
    8.4 to 9.x   likewise, but a layer can be pinned: `--fp16 --precisionConstraints=obey --layerPrecisions=...:fp32`
                 and `--layerOutputTypes`; `--int8` allows the Q/DQ pairs, the rest then stays in float32
    10.x         the types in the graph are binding: `--stronglyTyped` (10.12 deprecated the flags above)
    11           every network is strongly typed, and the flags are gone

Sources: the changelog of github.com/NVIDIA/TensorRT (`--memPoolSize` for `--workspace`, `--layerPrecisions`: 8.4),
NVIDIA's "Migrating trtexec Usage" 8.x to 10.x and 10.x to 11.x, and the release notes of 10.12. `--buildOnly` is
`--skipInference` from 8.6 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote

from edgekd.errors import UsageError
from edgekd.exporting.runtimes.tensorrt.releases import LAYER_PRECISIONS, STRONGLY_TYPED, Installed, Release
from edgekd.exporting.targets import Batch, Precision

WORKSPACE_MIB = 256  # students need a few; 8.2 gives 16 where none is asked for, 8.4 and later all there is
TIMING_CACHE = "timing.cache"  # what was measured of one engine's layers serves the next

_SKIP_INFERENCE: Release = (8, 6)
_FLAGS_GONE: Release = (11,)


def build_script(
    installed: Installed,
    models: Mapping[Precision, str],
    input_name: str,
    input_shape: tuple[int, ...],
    batch: Batch,
    pinned: Sequence[str],
) -> str:
    """The text of `build_engine.sh` (POSIX shell) for a device with this TensorRT.

    `models`: the ONNX file of each precision. `input_shape`: of one clip, without the batch, `(S,)` or `(1, T, F)`.
    `pinned`: names of the nodes that compute floats and must not leave float32; none where the host computes the
    log-mel. Raises `UsageError` where this TensorRT cannot be held to that.
    """
    builds = [
        f"build {precision} \\\n    " + " \\\n    ".join(quote(argument) for argument in arguments)
        for precision, model in models.items()
        for arguments in [trtexec_arguments(installed, precision, model, input_name, input_shape, batch, pinned)]
    ]
    return _SCRIPT.format(version=installed.version, printed=_printed(installed.release), builds="\n".join(builds))


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
    release = installed.release
    return [
        f"--onnx={model}",
        f"--saveEngine={engine_name(precision)}.part",
        *precision_flags(release, precision, pinned),
        "--noTF32",
        *_shape_flags(installed, input_name, input_shape, batch),
        f"--memPoolSize=workspace:{WORKSPACE_MIB}" if release >= LAYER_PRECISIONS else f"--workspace={WORKSPACE_MIB}",
        f"--timingCacheFile={TIMING_CACHE}",
        "--skipInference" if release >= _SKIP_INFERENCE else "--buildOnly",
    ]


def precision_flags(release: Release, precision: Precision, pinned: Sequence[str]) -> tuple[str, ...]:
    """Flags that make TensorRT `release` run a graph in `precision` and keep the `pinned` nodes in float32.

    Raises `UsageError` where it cannot.
    """
    if release >= _FLAGS_GONE:
        return ()
    if release >= STRONGLY_TYPED:
        return ("--stronglyTyped",)
    if precision == "int8":
        return ("--int8",)
    if precision == "fp32":
        return ()
    if not pinned:
        return ("--fp16",)
    if not can_pin(release):
        version = ".".join(map(str, release))
        raise UsageError(
            f"TensorRT {version} cannot keep the log-mel in float32 beside fp16. Export with --frontend external, or"
            " leave fp16 out of 'precisions' in a copy of the target's TOML."
        )
    layers = ",".join(f"{name}:fp32" for name in pinned)
    return ("--fp16", "--precisionConstraints=obey", f"--layerPrecisions={layers}", f"--layerOutputTypes={layers}")


def can_pin(release: Release) -> bool:
    """Whether a weakly typed build of this release can be told to leave a layer in float32."""
    return LAYER_PRECISIONS <= release < STRONGLY_TYPED


def engine_name(precision: Precision) -> str:
    """The file of an engine in a bundle."""
    return f"model-{precision}.engine"


def _shape_flags(installed: Installed, name: str, shape: tuple[int, ...], batch: Batch) -> list[str]:
    if batch == 1:
        return []  # the graph's own shape is the only one
    # Optimised for one clip at a time, which is what a device does; larger batches serve long files.
    sizes = {"min": 1, "opt": 1, "max": installed.max_batch}
    return [f"--{kind}Shapes={name}:{'x'.join(map(str, (size, *shape)))}" for kind, size in sizes.items()]


def _printed(release: Release) -> str:
    """The start of the number that trtexec prints for a release: `v82` for 8.2, `v1003` for 10.3."""
    major, minor = release[:2]
    return f"v{major}{minor}" if major < 10 else f"v{major}{minor:02d}"


_SCRIPT = """\
#!/bin/sh
# Builds a TensorRT engine for each precision of this bundle, then chooses the fastest that agrees with the golden
# examples. Run it on the device, with TensorRT {version}; it takes minutes. trtexec's words go to build-PRECISION.log.
set -eu
cd -- "$(dirname -- "$0")"

say() {{
    echo "build_engine.sh: $*" >&2
}}

trtexec=/usr/src/tensorrt/bin/trtexec
if [ ! -x "$trtexec" ]; then
    trtexec=$(command -v trtexec) || {{
        say "no trtexec in /usr/src/tensorrt/bin or on PATH; on a Jetson: sudo apt install nvidia-jetpack"
        exit 3
    }}
fi

python=
for candidate in python3 python3.12 python3.11 python3.10 python3.9 python3.8; do
    if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "no Python 3.8 or later, which edgekd_runner.py needs: sudo apt install python3.8"
    exit 3
fi

built=
build() {{
    precision=$1
    shift
    engine=model-$precision.engine
    say "building $engine"
    if "$trtexec" "$@" >"build-$precision.log" 2>&1 && [ -s "$engine.part" ]; then
        mv -f "$engine.part" "$engine"
        built="$built $precision"
    else
        rm -f "$engine" # an older one would be taken for this one
        say "$precision could not be built and is left out; why: build-$precision.log"
    fi
    case $(grep -o 'TensorRT v[0-9]*' "build-$precision.log" | head -n 1) in
        '' | 'TensorRT {printed}'*) ;;
        *) say "this bundle is made for TensorRT {version}, which this is not: export it again for yours" ;;
    esac
}}

trap 'rm -f model-*.engine.part' EXIT
trap 'exit 130' INT TERM

{builds}

if [ -z "$built" ]; then
    say "no engine could be built"
    exit 1
fi
say "built:$built"
"$python" edgekd_runner.py choose
"$python" edgekd_runner.py verify
"""
