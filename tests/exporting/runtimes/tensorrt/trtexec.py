"""Stands in for `trtexec`: takes what the real one of a release takes, and refuses all else in its words.

Run by `install` with a release, and by the environment:

    TRTEXEC_LOG      a file that gets the arguments of each call, a line of JSON each
    TRTEXEC_FAILS    {name of the engine: how}, see `fail`
    TRTEXEC_DLA      how many accelerators there are

Which options a release parses was read in samples/common/sampleOptions.cpp of the tags 8.2.1, 8.4.1, 8.5.2, v8.6.1,
v10.0.1, v10.3.0, v10.7.0, v10.13.3, v10.16, v11.0 and v11.1 of github.com/NVIDIA/TensorRT, how it begins, refuses and
ends in samples/trtexec/trtexec.cpp, samples/common/sampleEngines.cpp and logging.h there. 11.4.1 is not there: it is
taken to be as v11.1, without the options that are removed in
docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-trtexec.html.
"""

import json
import os
import sys
from pathlib import Path

Release = tuple[int, ...]
FIRST: Release = (8, 2)
END: Release = (99,)
SINCE_8_4, SINCE_8_6, SINCE_10, SINCE_10_16, SINCE_11 = (8, 4), (8, 6), (10,), (10, 16), (11,)

# Option -> the release that has it first, and the first that lacks it.
OPTIONS: dict[str, tuple[Release, Release]] = {
    **dict.fromkeys(("help", "onnx", "saveEngine", "loadEngine", "timingCacheFile", "noTF32"), (FIRST, END)),
    **dict.fromkeys(("minShapes", "optShapes", "maxShapes", "shapes", "verbose", "refit"), (FIRST, END)),
    **dict.fromkeys(("useDLACore", "allowGPUFallback", "profilingVerbosity", "exportLayerInfo"), (FIRST, END)),
    **dict.fromkeys(("loadInputs", "exportOutput", "exportTimes", "exportProfile", "dumpProfile"), (FIRST, END)),
    **dict.fromkeys(("iterations", "avgRuns", "warmUp", "duration", "useSpinWait", "noDataTransfers"), (FIRST, END)),
    **dict.fromkeys(("separateProfileRun", "useCudaGraph", "inputIOFormats", "outputIOFormats"), (FIRST, END)),
    **dict.fromkeys(("fp16", "int8", "best", "precisionConstraints"), (FIRST, SINCE_11)),
    **dict.fromkeys(("layerPrecisions", "layerOutputTypes"), (SINCE_8_4, SINCE_11)),
    **dict.fromkeys(("workspace", "buildOnly", "explicitBatch"), (FIRST, SINCE_10)),
    "memPoolSize": (SINCE_8_4, END),
    **dict.fromkeys(
        ("skipInference", "versionCompatible", "builderOptimizationLevel", "maxAuxStreams"), (SINCE_8_6, END)
    ),
    **dict.fromkeys(("layerDeviceTypes", "buildDLAStandalone"), (SINCE_8_6, END)),
    "stronglyTyped": (SINCE_10, END),
    "adjustForDLA": (SINCE_10_16, END),
    **dict.fromkeys(("includeDataTransfers", "noCudaGraph", "noSpinWait"), (SINCE_11, END)),
}
RELEASES = ("8.2.1", "8.4.3", "8.5.2", "8.6.1", "10.0.1", "10.3.0", "10.7.0", "10.13.3", "10.16.2", "11.0.0", "11.4.1")


def install(folder: Path, version: str) -> Path:
    """A `trtexec` of this release in `folder`."""
    folder.mkdir(exist_ok=True)
    program = folder / "trtexec"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {__file__} {version} "$@"\n')
    program.chmod(0o755)
    return program


def has(release: Release, option: str) -> bool:
    """Whether a release parses `--option`."""
    first, end = OPTIONS.get(option, (END, END))
    return first <= release < end


def printed(release: Release) -> str:
    """As `NV_TENSORRT_VERSION` has it: 8502 for 8.5.2, 100300 for 10.3.0."""
    major, minor, patch = release
    return str(major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch)


class Failure(Exception):
    """What the real one says, a line of its log each."""


def say(severity: str, words: str) -> None:
    print(f"[11/28/2026-06:00:00] [{severity}] {words}", flush=True)


def fail(how: str) -> None:
    """End a build as real ones do."""
    if how == "memory":
        raise Failure("Error[2]: [virtualMemoryBuffer.cpp::resizePhysical::140] Error Code 2: OutOfMemory (no further)")
    if how == "graph":
        raise Failure(
            '[TRT] ModelImporter.cpp:828: While parsing node number 7 [Det -> "d"]:', "Failed to parse onnx file"
        )
    if how == "killed":
        os.kill(os.getpid(), 9)
    if how == "no engine":  # as on a full disk, where the stream's end is not asked
        raise SystemExit(0)
    raise AssertionError(how)


def build(release: Release, options: dict[str, str]) -> None:
    """Write the engine that is asked for."""
    model = Path(options.get("onnx", ""))
    if not model.is_file():
        raise Failure(f"[TRT] Could not open file {model}", "Failed to parse onnx file", "Parsing model failed")
    precision = Path(options["saveEngine"]).name.removeprefix("model-").partition(".engine")[0]
    pools = [pool.partition(":")[0] for pool in options.get("memPoolSize", "workspace").split(",")]
    if unknown := set(pools) - {"workspace", "dlaSRAM", "dlaLocalDRAM", "dlaGlobalDRAM", "tacticSharedMem"}:
        raise Failure(f"Unknown memory pool: {min(unknown)}")
    if options.get("precisionConstraints", "none") not in ("none", "obey", "prefer"):
        raise Failure(f"Unknown precision constraints: {options['precisionConstraints']}")
    if precision == "int8" and release < SINCE_10 and "int8" not in options:
        raise Failure(
            "[TRT] Error Code 4: Internal Error (Int8 precision has been set for a layer, but int8 is not configured)"
        )
    if "useDLACore" in options:
        if int(options["useDLACore"]) >= int(os.environ.get("TRTEXEC_DLA", "0")):
            raise Failure(f"Cannot create DLA engine, {options['useDLACore']} not available", "Building engine failed")
        if "allowGPUFallback" not in options:
            raise Failure("[TRT] Error Code 4: Layer frontend/conv does not support DLA")
    elif "allowGPUFallback" in options:
        say("W", "GPU fallback means nothing without DLA")
    fails = json.loads(os.environ.get("TRTEXEC_FAILS", "{}"))
    if fails.get(precision, "late") != "late":
        fail(fails[precision])
    Path(options["saveEngine"]).write_text(f"engine of {precision}")
    if fails.get(precision) == "late":
        os.kill(os.getpid(), 11)
    Path(options["timingCacheFile"]).write_text("timings")


def main() -> int:
    version, *arguments = sys.argv[1:]
    release = tuple(map(int, version.split(".")))
    if "TRTEXEC_LOG" in os.environ:
        with open(os.environ["TRTEXEC_LOG"], "a") as log:
            print(json.dumps(arguments), file=log)
    name = f"TensorRT.trtexec [TensorRT v{printed(release)}]"
    print(f"&&&& RUNNING {name} # trtexec {' '.join(arguments)}", flush=True)
    options = dict(argument.partition("=")[::2] for argument in arguments)
    if "--help" in options or not options:
        print("=== Model Options ===\n  --onnx=<file>  ONNX model")
        return 0
    try:
        unknown = [option for option in options if not has(release, option.removeprefix("--"))]
        if unknown:
            print("=== Model Options ===\n  --onnx=<file>  ONNX model")
            raise Failure(*(f"Unknown option: {option} {options[option]}" for option in unknown))
        say("I", f"TensorRT version: {version}")
        build(release, {option.removeprefix("--"): value for option, value in options.items()})
    except Failure as failure:
        for line in failure.args:
            say("E", line)
        print(f"&&&& FAILED {name} # trtexec {' '.join(arguments)}")
        return 1
    say("I", "Engine built in 12.5 sec.")
    print(f"&&&& PASSED {name} # trtexec {' '.join(arguments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
