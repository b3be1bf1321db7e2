"""`build_engine.sh`: the `trtexec` line that builds a TensorRT engine on the device, for the device's TensorRT version.

Engines do not move between devices or versions, so a bundle ships the ONNX graph and this script. The Q/DQ pairs in the
graph decide what runs in int8. Everything else must stay in float32, and for the log-mel front end that is no detail:
its power spectrum spans 1e-10 to beyond 65504, which float16 cannot hold, and TF32 products would raise the noise floor
of quiet bands. Hence `--noTF32`, and never `--fp16`.

Flags by version: NVIDIA, "Migrating trtexec Usage from TensorRT 10.x to 11.x" and the TensorRT 10.12 release notes.
"""

from __future__ import annotations

from edgekd.export.targets import TensorRT


def precision_flags(release: tuple[int, ...]) -> tuple[str, ...]:
    """Flags that make TensorRT `release` honour the Q/DQ pairs.

    Up to 10.11 int8 has to be allowed; 10.12 deprecated that in favour of strong typing, where the graph's own types
    are binding; from 11 on every network is strongly typed and both flags are gone.
    """
    if release >= (11,):
        return ()
    if release >= (10, 12):
        return ("--stronglyTyped",)
    return ("--int8",)


def trtexec_arguments(tensorrt: TensorRT, clip_samples: int) -> list[str]:
    """What `trtexec` is called with, for clips of `clip_samples` samples; it writes `model.engine.part`."""
    shapes = [f"--{kind}Shapes=waveform:{batch}x{clip_samples}" for kind, batch in _profile(tensorrt).items()]
    # Build only: trtexec 8.6 renamed --buildOnly. `edgekd_runner.py bench` times what an application sees.
    build_only = "--skipInference" if tensorrt.release >= (8, 6) else "--buildOnly"
    return [
        "--onnx=model.onnx",
        "--saveEngine=model.engine.part",
        *precision_flags(tensorrt.release),
        "--noTF32",
        *shapes,
        build_only,
    ]


def build_script(tensorrt: TensorRT, clip_samples: int) -> str:
    """The text of `build_engine.sh` (POSIX shell) for a device with this TensorRT."""
    arguments = " \\\n    ".join(trtexec_arguments(tensorrt, clip_samples))
    return _SCRIPT.format(version=tensorrt.version, arguments=arguments)


def _profile(tensorrt: TensorRT) -> dict[str, int]:
    # Optimised for one clip at a time, which is what a device does; larger batches serve long files.
    return {"min": 1, "opt": 1, "max": tensorrt.max_batch}


_SCRIPT = """\
#!/bin/sh
# Builds model.engine from model.onnx. Run it on the device, with TensorRT {version}; it takes a few minutes.
# int8 is decided by the Q/DQ pairs in the graph; the rest stays float32 (no --fp16: the log-mel does not fit in it).
set -eu
cd -- "$(dirname -- "$0")"

trtexec=/usr/src/tensorrt/bin/trtexec
if [ ! -x "$trtexec" ]; then
    trtexec=$(command -v trtexec) || {{
        echo "build_engine.sh: no trtexec in /usr/src/tensorrt/bin or on PATH;" \\
            "on a Jetson: sudo apt install nvidia-jetpack" >&2
        exit 3
    }}
fi

trap 'rm -f model.engine.part' EXIT
"$trtexec" \\
    {arguments}
mv -f model.engine.part model.engine
echo "Built model.engine. Next: python3 edgekd_runner.py verify"
"""
