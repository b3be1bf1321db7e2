"""TensorRT on the GPU of a Jetson or workstation: graphs in every precision of the board, and how engines are built.

Engines do not move between devices or versions, so the device builds them of the graphs (`build_engine.sh`), or this
machine does where TensorRT and a GPU are (`engine_builder`). The fastest precision of a tiny model is often not int8:
the engines are compared where they were built.
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
    from edgekd.exporting.runtimes.tensorrt.releases import Installed
    from edgekd.exporting.targets import Precision, Target
    from edgekd.exporting.verify import Probabilities
    from edgekd.progress import Progress
    from edgekd.quantization.fake_quant import FlavourName

BUILD_SCRIPT = "build_engine.sh"


class TensorRT:
    """See `edgekd.exporting.runtimes.runtime.Runtime`."""

    name: str = "tensorrt"
    title: str = "TensorRT"
    flavour: FlavourName = "tensorrt"
    flavour_reason: str = "it refuses uint8"
    folds_constants: bool = False  # not told; an engine stores weights anyway
    architectures: tuple[str, ...] = onnx_bundle.ARCHITECTURES
    least_memory_bytes: int = 1 << 20
    hears_16_bits: bool = False
    tells_unknown: bool = True
    settings: str | None = "tensorrt"
    in_steps: bool = False
    first_command: str = f"sh {BUILD_SCRIPT}"

    def check_target(self, target: Target) -> None:
        from edgekd.exporting.runtimes.tensorrt.releases import check_release

        if target.tensorrt is None:
            raise ValueError("runtime 'tensorrt' needs a [tensorrt] table with the device's version")
        check_release(target, target.tensorrt)

    def describe(self, target: Target) -> str:
        return f"{self.title} {_installed(target).version}"

    def models(self, target: Target) -> dict[Precision, str]:
        return onnx_bundle.model_files(target.precisions)

    def emit(self, deployables: Mapping[Precision, Deployable], target: Target, progress: Progress) -> dict[str, bytes]:
        return onnx_bundle.emit_graphs(self, deployables, target, progress)

    def check(
        self, files: Mapping[str, bytes], deployables: Mapping[Precision, Deployable], target: Target
    ) -> FloatOperators:
        from edgekd.exporting.runtimes.tensorrt.pooling import check_pooling

        for name in self.models(target).values():
            if name in files:
                check_pooling(files[name])
        return onnx_bundle.check_graphs(self, files, deployables, target)

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
        from edgekd.exporting.runtimes.tensorrt.parser import check_by_parser

        yield onnx_bundle.check_by_reference(self, files, deployable, trained, waveforms, target, progress)
        precision = deployable.precision
        yield check_by_parser(files[self.models(target)[precision]], precision, progress)

    def device_files(self, manifest: Manifest, files: Mapping[str, bytes], _golden: GoldenExamples) -> dict[str, bytes]:
        from edgekd.exporting.graph import input_shape, known_nodes, log_mel_nodes
        from edgekd.exporting.runtimes.tensorrt import install
        from edgekd.exporting.runtimes.tensorrt.build_script import build_script
        from edgekd.exporting.runtimes.tensorrt.releases import language_of

        classifier = manifest.classifier
        in_graph = classifier.input == "waveform"
        shape = input_shape(classifier.frontend, classifier.clip_samples, "graph" if in_graph else "external")
        # Where the host computes the log-mel, its normalisation is all that is in the graph, and bears half precision.
        pinned = log_mel_nodes(files[onnx_bundle.MODEL]) if in_graph else []
        models = onnx_bundle.model_files((manifest.precision, *manifest.alternatives))
        installed = _installed(manifest.target)
        if language_of(installed.release).pins:  # else the golden examples tell whether it bears half precision
            pinned += known_nodes(files[onnx_bundle.MODEL])
        script = build_script(
            manifest.target.name,
            installed,
            models,
            classifier.input,
            shape,
            classifier.batch,
            pinned,
            install.trtexec_from(manifest.target),
        )
        return {**onnx_bundle.runner_files(), BUILD_SCRIPT: script.encode()}

    def usage(self, manifest: Manifest) -> str:
        from edgekd.exporting.runtimes.tensorrt import install

        target, installed = manifest.target, _installed(manifest.target)
        release = f"JetPack {installed.jetpack}, " if installed.jetpack else ""
        prepare = _PREPARE.format(
            release=release,
            version=installed.version,
            install="\n    ".join(install.commands(target)),
            script=BUILD_SCRIPT,
            oldest=onnx_bundle.oldest_onnxruntime(target),
        )
        return onnx_bundle.usage(manifest, prepare)

    def open(self, folder: Path, threads: int = 1) -> Classify:
        return onnx_bundle.open_runner(folder, threads)

    def engine_builder(self) -> EngineBuilder:
        from edgekd.exporting.runtimes.tensorrt.engine import build_engines, import_tensorrt

        import_tensorrt()
        return build_engines


def _installed(target: Target) -> Installed:
    assert target.tensorrt is not None  # `check_target` has seen it
    return target.tensorrt


_PREPARE = """\
Made for {release}TensorRT {version}. Build the engines here, once:

    {install}
    sh {script}

builds every precision in this folder, checks each engine's own answers, times them, and keeps the fastest that agrees.
Without an engine the runner uses onnxruntime on the CPU (`python3 -m pip install 'onnxruntime>={oldest}'`, in a virtual
environment where the system's Python refuses), which is the quick way to see that the model itself is sound."""
