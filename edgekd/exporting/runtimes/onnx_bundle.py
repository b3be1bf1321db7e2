"""What runtimes share whose boards have Linux and Python: ONNX graphs, checked in ONNX Runtime, and their runner.

The first precision is in `model.onnx`, another in `model-PRECISION.onnx`. ONNX Runtime stands in for TensorRT when
outputs are compared: a graph in its flavour is valid ONNX, and its meaning is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import InputError
from edgekd.exporting.runtimes.runtime import Checker, Classify, Runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.exporting.budget import Figures
    from edgekd.exporting.deployable import Deployable
    from edgekd.exporting.manifest import Check, FloatOperators, Manifest
    from edgekd.exporting.targets import Precision, Target
    from edgekd.exporting.verify import Probabilities
    from edgekd.progress import Progress

ARCHITECTURES = ("aarch64", "x86_64")
MODEL = "model.onnx"
RUNNER = "edgekd_runner.py"


def model_files(precisions: Sequence[Precision]) -> dict[Precision, str]:
    """The file of each precision of a bundle."""
    first, *others = precisions
    return {first: MODEL, **{precision: f"model-{precision}.onnx" for precision in others}}


def emit_graphs(
    runtime: Runtime, deployables: Mapping[Precision, Deployable], target: Target, progress: Progress
) -> dict[str, bytes]:
    """The ONNX graph of each of `deployables`."""
    from edgekd.exporting.graph import Form, onnx_of

    names, graphs = runtime.models(target), {}
    for done, (precision, deployable) in enumerate(deployables.items()):
        progress("graphs", done, len(deployables), precision=precision)
        graphs[names[precision]] = onnx_of(deployable, runtime.flavour, Form.of(target))
    progress("graphs", len(deployables), len(deployables))
    return graphs


def check_graphs(
    runtime: Runtime, files: Mapping[str, bytes], deployables: Mapping[Precision, Deployable], target: Target
) -> FloatOperators:
    """Raise `GateError` for an operator, an operator set, a floating-point type or a Q/DQ structure that the runtime
    cannot run or is not to run.

    Returns the operators of `model.onnx` that compute in floating point.
    """
    from edgekd.exporting.float_types import check_float_types
    from edgekd.exporting.operators import check_operators, check_opset
    from edgekd.exporting.qdq_checks import check_structure, float_operators

    names = runtime.models(target)
    for precision, deployable in deployables.items():
        graph = files[names[precision]]
        check_operators(graph, target)
        check_opset(graph, target)
        check_float_types(graph, precision)
        if precision == "int8":
            check_structure(graph, runtime.flavour, deployable.float_layers)
    return float_operators(files[MODEL])


def figures(files: Mapping[str, bytes]) -> Figures:
    """The figures of `model.onnx`."""
    from edgekd.exporting.budget import figures_of

    return figures_of(files[MODEL])


def in_onnxruntime(runtime: Runtime, files: Mapping[str, bytes], deployable: Deployable, target: Target) -> Checker:
    """The graph of `deployable` in the ONNX Runtime of this machine. Raises `GateError` where that refuses it."""
    import onnxruntime

    from edgekd.exporting.verify import in_onnxruntime

    graph = files[runtime.models(target)[deployable.precision]]
    classify = in_onnxruntime(graph, deployable.student.front_end)
    return Checker(f"onnxruntime {onnxruntime.__version__}", classify)


def check_by_reference(
    runtime: Runtime,
    files: Mapping[str, bytes],
    deployable: Deployable,
    trained: Probabilities,
    waveforms: Tensor,
    target: Target,
    progress: Progress,
) -> Check:
    """Compare the graph with `trained` in the ONNX standard's own implementation. Raises `GateError`."""
    import onnx

    from edgekd.exporting.manifest import Check
    from edgekd.exporting.verify import in_reference, verify_by_reference

    precision = deployable.precision
    classify = in_reference(files[runtime.models(target)[precision]], deployable.student.front_end)
    task, tolerance = deployable.student.task, target.tolerance
    parity = verify_by_reference(classify, trained, waveforms, tolerance, progress, task, deployable.reject)
    figures = parity.model_dump(exclude_none=True)
    return Check(by=f"onnx.reference {onnx.__version__}", precision=precision, figures=figures)


def runner_files() -> dict[str, bytes]:
    """The program that runs a bundle on its device."""
    from edgekd.device import RUNNER_FILE

    return {RUNNER: RUNNER_FILE.read_bytes()}


def oldest_onnxruntime(target: Target) -> str:
    """The oldest ONNX Runtime that runs the graphs of a bundle for `target`."""
    from edgekd.device import runner

    return runner.oldest_onnxruntime(target.opset)


def open_runner(folder: Path, threads: int, cpu: bool = False) -> Classify:
    """The classifier of a bundle through the runner that ships with it, `cpu`: its graph even where an engine is.

    Raises `InputError`, also when it is called.
    """
    from edgekd.device.runner import Runner, RunnerError

    try:
        runner = Runner(folder, threads, cpu=cpu)
    except RunnerError as failure:  # what it runs on is missing, or refuses the graph
        raise InputError(str(failure)) from None

    def classify(clips: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return runner.answers(clips)
        except RunnerError as failure:
            raise InputError(str(failure)) from failure  # whose kind matters: one clip may be to blame, or all

    return classify


def usage(manifest: Manifest, prepare: str) -> str:
    """How a bundle is used through its runner, after what `prepare` says."""
    return _USAGE.format(prepare=prepare, rate=manifest.classifier.sample_rate)


_USAGE = """\
## Prepare

{prepare}

## Check

    python3 edgekd_runner.py verify

compares every file with its sha256 and runs the golden examples. Exit code 0: whole, and this device agrees;
3: a file is missing or changed; 4: the device computes something else.

## Use

    python3 edgekd_runner.py predict recording.wav
    python3 edgekd_runner.py predict *.wav --top 3 --json
    python3 edgekd_runner.py detect night.wav --out events.csv
    arecord -q -f S16_LE -r {rate} -t raw | python3 edgekd_runner.py stream --events

`predict` has the mean of a whole file, `detect` what is heard in it from when to when. `stream` without `--events` has
a line a window.

## Measure

    python3 edgekd_runner.py bench
"""
