"""What a runtime is here: everything that depends on what runs a board's classifier is asked of it.

A runtime is one module of this folder and one row of `edgekd.exporting.runtimes.RUNTIMES`; a target's TOML names it by
its key there. The table is read wherever a target is, so such a module imports at its top only what loads at once.

    target --check_target--> deployables --emit--> files --check, classifier, checks--> device_files --> a bundle
                                                                                  a bundle --open--> probabilities

The order in which an export asks is that of the methods below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgekd.exporting.budget import Figures
    from edgekd.exporting.deployable import Deployable
    from edgekd.exporting.golden import GoldenExamples
    from edgekd.exporting.manifest import Check, FloatOperators, Manifest
    from edgekd.exporting.targets import Precision, Target
    from edgekd.exporting.verify import Probabilities
    from edgekd.progress import Progress
    from edgekd.quantization.fake_quant import FlavourName

Classify = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""Clips `(B, S)`, full scale 1 -> class probabilities `(B, K)`; of a bundle that rejects the unknown, with `known` in
one more column."""


@dataclass(frozen=True)
class Checker:
    """Emitted files as a function of waveforms `(B, S)`, and what runs them here, with its version."""

    by: str
    classify: Probabilities


class EngineBuilder(Protocol):
    """Builds in a bundle's folder, on this machine, what its runtime makes of the models in it."""

    def __call__(
        self, folder: Path, modules: Mapping[Precision, nn.Module] | None = None, progress: Progress = ...
    ) -> dict[str, Any]:
        """Returns what was built, compared and chosen; `modules` is the classifier in PyTorch, where that helps."""


class Runtime(Protocol):
    """See the module. `files` are those that `emit` returned, by name."""

    name: str
    """The key in the table, and what a target's TOML says."""
    title: str
    """What its makers call it."""
    flavour: FlavourName
    """The form of the Q/DQ pairs that it runs on integers."""
    flavour_reason: str
    """Why it needs that one, after a colon."""
    folds_constants: bool
    """Whether it computes what depends on constants alone once, when it loads a graph, and not at every call."""
    architectures: tuple[str, ...]
    """Processors that it runs on, as `uname -m` says it or as Arm names those without an operating system."""
    least_memory_bytes: int
    """Below this much memory it does not start."""
    hears_16_bits: bool
    """Whether it takes samples of 16 bits: then clips are rounded to them before anything is compared."""
    tells_unknown: bool
    """Whether what it runs can say how familiar a clip is (`--reject`)."""
    settings: str | None
    """The table of a target's TOML that is this runtime's own."""
    in_steps: bool
    """Whether its runner computes windows that overlap by the graphs of `edgekd.exporting.steps`."""
    first_command: str
    """What to type on the device, in the bundle's folder, before anything else."""

    # A target.

    def check_target(self, target: Target, /) -> None:
        """Raise `ValueError` for a target that this runtime cannot serve; what the fields above say is checked already.

        The message names the key, its value and what could be written instead.
        """

    def describe(self, target: Target, /) -> str:
        """The runtime of this board, with its version where that matters: "TensorRT 10.3"."""

    def models(self, target: Target, /) -> dict[Precision, str]:
        """The precisions that a bundle for `target` holds, and the file of each; first `target.precision`."""

    # An export.

    def emit(
        self, deployables: Mapping[Precision, Deployable], target: Target, progress: Progress, /
    ) -> dict[str, bytes]:
        """The files of the classifier in the precisions of `deployables`. Raises `GateError` for what they cannot hold.

        May be asked for fewer than `models` names: of other students, the first alone.
        """

    def check(
        self, files: Mapping[str, bytes], deployables: Mapping[Precision, Deployable], target: Target, /
    ) -> FloatOperators:
        """Raise `GateError` where the files are not what the runtime needs; returns what it will compute in floats."""

    def figures(self, files: Mapping[str, bytes], target: Target, /) -> Figures:
        """What the first model of `files` takes of the device: the figures that a `[budget]` limits."""

    def classifier(self, files: Mapping[str, bytes], deployable: Deployable, target: Target, /) -> Checker:
        """The file of `deployable` run on this machine, to be compared with the student it was made from."""

    def checks(
        self,
        files: Mapping[str, bytes],
        deployable: Deployable,
        trained: Probabilities,
        waveforms: Tensor,
        target: Target,
        progress: Progress,
        /,
    ) -> Iterator[Check]:
        """What else has an opinion on that file, such as another implementation or the maker's own tools.

        `trained` is the student as it computes in the end, `waveforms (N, S)` are real clips. Raises `GateError`.
        """

    def device_files(
        self, manifest: Manifest, files: Mapping[str, bytes], golden: GoldenExamples, /
    ) -> dict[str, bytes]:
        """What lies in the bundle beside `files`: what reads, builds or runs them there, and the `golden` examples in a
        form that a device can take. `*.sh` become executable."""

    def usage(self, manifest: Manifest, /) -> str:
        """How the bundle is prepared, checked and used on the device: Markdown, from `## Prepare` on."""

    # A bundle.

    def open(self, folder: Path, threads: int = 1, /) -> Classify:
        """The classifier of a bundle on this machine, as it ships, on `threads` threads of the CPU.

        Raises `InputError` where it cannot be run here, also when it is called.
        """

    def engine_builder(self) -> EngineBuilder | None:
        """How engines are built on this machine; None for a runtime that has none.

        Raises `InputError` where what builds them is not installed.
        """
