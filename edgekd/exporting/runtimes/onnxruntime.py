"""ONNX Runtime on the CPU of a Linux board or machine: one graph, in the precision that the target names first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.exporting.runtimes import onnx_bundle
from edgekd.exporting.runtimes.runtime import Checker, Classify

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.exporting.budget import Figures
    from edgekd.exporting.deployable import Deployable
    from edgekd.exporting.golden import GoldenExamples
    from edgekd.exporting.manifest import Check, FloatOperators, Manifest
    from edgekd.exporting.targets import Precision, Target
    from edgekd.exporting.verify import Probabilities
    from edgekd.progress import Progress
    from edgekd.quantization.fake_quant import FlavourName

PREPARE = """\
    python3 -m venv ~/edgekd-runner
    . ~/edgekd-runner/bin/activate
    python3 -m pip install numpy 'onnxruntime>={oldest}'"""


class OnnxRuntime:
    """See `edgekd.exporting.runtimes.runtime.Runtime`."""

    name: str = "onnxruntime"
    title: str = "ONNX Runtime"
    flavour: FlavourName = "onnxruntime"
    flavour_reason: str = "with the other it runs convolutions in float"
    folds_constants: bool = True
    architectures: tuple[str, ...] = onnx_bundle.ARCHITECTURES
    least_memory_bytes: int = 1 << 20
    hears_16_bits: bool = False
    tells_unknown: bool = True
    settings: str | None = None
    in_steps: bool = True
    first_command: str = "python3 edgekd_runner.py verify"

    def check_target(self, target: Target) -> None:
        if "fp16" in target.precisions:
            raise ValueError("precisions: onnxruntime computes fp16 in float32 on a CPU; leave 'fp16' out")

    def describe(self, _target: Target) -> str:
        return self.name

    def models(self, target: Target) -> dict[Precision, str]:
        return onnx_bundle.model_files(target.precisions[:1])

    def emit(self, deployables: Mapping[Precision, Deployable], target: Target, progress: Progress) -> dict[str, bytes]:
        return onnx_bundle.emit_graphs(self, deployables, target, progress)

    def check(
        self, files: Mapping[str, bytes], deployables: Mapping[Precision, Deployable], target: Target
    ) -> FloatOperators:
        from edgekd.exporting.qdq_checks import check_optimised

        floats = onnx_bundle.check_graphs(self, files, deployables, target)
        if "int8" in deployables:
            check_optimised(files[self.models(target)["int8"]])
        return floats

    def figures(self, files: Mapping[str, bytes], _target: Target) -> Figures:
        return onnx_bundle.figures(files)

    def classifier(self, files: Mapping[str, bytes], deployable: Deployable, target: Target) -> Checker:
        return onnx_bundle.in_onnxruntime(self, files, deployable, target)

    def checks(
        self,
        files: Mapping[str, bytes],
        deployable: Deployable,
        trained: Probabilities,
        waveforms: Tensor,
        target: Target,
        progress: Progress,
    ) -> Iterator[Check]:
        yield onnx_bundle.check_by_reference(self, files, deployable, trained, waveforms, target, progress)

    def device_files(
        self, _manifest: Manifest, _files: Mapping[str, bytes], _golden: GoldenExamples
    ) -> dict[str, bytes]:
        return onnx_bundle.runner_files()

    def usage(self, manifest: Manifest) -> str:
        return onnx_bundle.usage(manifest, PREPARE.format(oldest=onnx_bundle.oldest_onnxruntime(manifest.target)))

    def open(self, folder: Path, threads: int = 1) -> Classify:
        return onnx_bundle.open_runner(folder, threads)

    def engine_builder(self) -> None:
        return None
