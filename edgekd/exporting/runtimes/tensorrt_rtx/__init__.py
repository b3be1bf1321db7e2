"""TensorRT for RTX on a workstation's GPU: engines are built at export, ahead of time, and finished on the device.

Other than TensorRT's, such an engine runs on every GPU of the compute capabilities that it was built for, in the
release that built it; the GPU need not be here. So a bundle holds them, beside the graphs that they were made from.
Only kernels are built on the device, when an engine is first opened. Where the GPU is here, engines run here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.exporting.runtimes import onnx_bundle
from edgekd.exporting.runtimes.runtime import Checker, Classify, EngineBuilder

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.exporting.budget import Figures
    from edgekd.exporting.deployable import Deployable
    from edgekd.exporting.golden import GoldenExamples
    from edgekd.exporting.manifest import Check, FloatOperators, Manifest
    from edgekd.exporting.runtimes.tensorrt_rtx.settings import AheadOfTime
    from edgekd.exporting.targets import Precision, Target
    from edgekd.exporting.verify import Probabilities
    from edgekd.progress import Progress
    from edgekd.quantization.fake_quant import FlavourName


class TensorRTForRTX:
    """See `edgekd.exporting.runtimes.runtime.Runtime`."""

    name: str = "tensorrt-rtx"
    title: str = "TensorRT for RTX"
    flavour: FlavourName = "tensorrt"
    flavour_reason: str = "it refuses uint8"
    folds_constants: bool = False  # not told; an engine stores weights anyway
    architectures: tuple[str, ...] = onnx_bundle.ARCHITECTURES
    least_memory_bytes: int = 1 << 20
    hears_16_bits: bool = False
    tells_unknown: bool = True
    settings: str | None = "tensorrt_rtx"
    in_steps: bool = False
    first_command: str = f"python3 {onnx_bundle.RUNNER} choose"

    def check_target(self, target: Target) -> None:
        from edgekd.exporting.runtimes.tensorrt_rtx.settings import check_capabilities

        if target.tensorrt_rtx is None:
            raise ValueError("runtime 'tensorrt-rtx' needs a [tensorrt_rtx] table with version and capabilities")
        check_capabilities(target, target.tensorrt_rtx)

    def describe(self, target: Target) -> str:
        return f"{self.title} {_settings(target).version}"

    def models(self, target: Target) -> dict[Precision, str]:
        return onnx_bundle.model_files(target.precisions)

    def emit(self, deployables: Mapping[Precision, Deployable], target: Target, progress: Progress) -> dict[str, bytes]:
        from edgekd.exporting.runtimes.tensorrt.build_script import engine_name
        from edgekd.exporting.runtimes.tensorrt_rtx.build import engine_for, require_builder

        require_builder(target)
        graphs, names = onnx_bundle.emit_graphs(self, deployables, target, progress), self.models(target)
        engines = {}
        for done, precision in enumerate(deployables):
            progress("engines", done, len(deployables), precision=precision)
            engines[engine_name(precision)] = engine_for(graphs[names[precision]], target).plan
        progress("engines", len(deployables), len(deployables))
        return {**graphs, **engines}

    def check(
        self, files: Mapping[str, bytes], deployables: Mapping[Precision, Deployable], target: Target
    ) -> FloatOperators:
        return onnx_bundle.check_graphs(self, files, deployables, target)  # the builder has seen its pooling

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
        from edgekd.exporting.runtimes.tensorrt_rtx.build import check_layers
        from edgekd.exporting.runtimes.tensorrt_rtx.here import check_by_running

        yield onnx_bundle.check_by_reference(self, files, deployable, trained, waveforms, target, progress)
        yield check_layers(files[self.models(target)[deployable.precision]], deployable.precision, target)
        yield check_by_running(files, deployable, trained, waveforms, target, progress)

    def device_files(
        self, _manifest: Manifest, _files: Mapping[str, bytes], _golden: GoldenExamples
    ) -> dict[str, bytes]:
        return onnx_bundle.runner_files()

    def usage(self, manifest: Manifest) -> str:
        target = manifest.target
        settings = _settings(target)
        prepare = _PREPARE.format(
            version=settings.version,
            capabilities=settings.listed(),
            oldest=onnx_bundle.oldest_onnxruntime(target),
        )
        return onnx_bundle.usage(manifest, prepare)

    def open(self, folder: Path, threads: int = 1) -> Classify:
        from edgekd.exporting.runtimes.tensorrt_rtx.here import open_here

        return open_here(folder, threads)

    def engine_builder(self) -> EngineBuilder:
        from edgekd.exporting.runtimes.tensorrt_rtx.here import compare_engines, require_gpu

        require_gpu()
        return compare_engines


def _settings(target: Target) -> AheadOfTime:
    assert target.tensorrt_rtx is not None  # `check_target` has seen it
    return target.tensorrt_rtx


_PREPARE = """\
Made for TensorRT for RTX {version} on a GPU of compute capability {capabilities}. Its engines are in this folder, and
run in this release alone:

    python3 -m pip install 'tensorrt-rtx-cu13-libs=={version}.*' 'tensorrt-rtx-cu13-bindings=={version}.*'
    python3 -m pip install nvidia-cuda-runtime numpy
    python3 edgekd_runner.py choose

`choose` checks each engine's own answers, times them, and keeps the fastest that agrees. An engine that is opened for
the first time compiles its kernels, which takes seconds; they are kept beside it (`model-int8.kernels`). Without such a
GPU, `--cpu` runs the model in onnxruntime (`python3 -m pip install 'onnxruntime>={oldest}'`)."""
