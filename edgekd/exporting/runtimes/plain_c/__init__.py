"""Plain C for microcontrollers: an int8 student whose sources are compiled into the user's program.

At export the C is compiled for this machine and answers the verification clips; for a board's core it is
cross-compiled, measured, and run under an emulator, where these programs are installed. What C on this machine and on
the core answer must be the same, bit for bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import InputError, UsageError
from edgekd.exporting.runtimes.runtime import Checker, Classify
from edgekd.microcontrollers.c.cores import Core, core_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.exporting.budget import Figures
    from edgekd.exporting.deployable import Deployable
    from edgekd.exporting.golden import GoldenExamples
    from edgekd.exporting.manifest import Check, FloatOperators, Manifest
    from edgekd.exporting.runtimes.plain_c.settings import PlainCSettings
    from edgekd.exporting.targets import Precision, Target
    from edgekd.exporting.verify import Probabilities
    from edgekd.microcontrollers.c.host import HostClassifier
    from edgekd.progress import Progress
    from edgekd.quantization.fake_quant import FlavourName

EMULATED_CLIPS = 2
HOST = "host"
NO_EMULATOR = "there is no emulator of it here"


class PlainC:
    """See `edgekd.exporting.runtimes.runtime.Runtime`."""

    name: str = "c"
    title: str = "C99"
    flavour: FlavourName = "onnxruntime"
    flavour_reason: str = "its integers are those, 128 less"
    folds_constants: bool = True
    architectures: tuple[str, ...] = (
        *("armv6-m", "armv7e-m", "armv8-m.main", "armv8.1-m.main"),
        *("xtensa", "x86_64", "aarch64"),
    )
    least_memory_bytes: int = 1 << 12
    hears_16_bits: bool = True
    tells_unknown: bool = False
    settings: str | None = "c"
    in_steps: bool = False
    first_command: str = "make verify"

    def check_target(self, target: Target) -> None:
        from edgekd.exporting.runtimes.plain_c.settings import ARCHITECTURES

        if target.precisions != ("int8",):
            raise ValueError(f"precisions = {list(target.precisions)}: C is written of int8 students; write ['int8']")
        if target.frontend != "graph":
            raise ValueError(f"frontend = '{target.frontend}': the log-mel is part of the C; write 'graph'")
        if target.c is None:
            raise ValueError("[c] is missing: runtime 'c' needs the core, as core = 'cortex-m4'")
        has = ARCHITECTURES[target.c.core]
        if target.architecture not in has:
            raise ValueError(f"architecture = '{target.architecture}': a {target.c.core} has '{has[0]}'")

    def describe(self, target: Target) -> str:
        return f"{self.title} for {_settings(target).core}"

    def models(self, _target: Target) -> dict[Precision, str]:
        from edgekd.microcontrollers.c.model import MODEL
        from edgekd.microcontrollers.c.packages import place

        return {"int8": place(MODEL)}

    def emit(
        self, deployables: Mapping[Precision, Deployable], target: Target, _progress: Progress
    ) -> dict[str, bytes]:
        from edgekd.microcontrollers.c.model import model_files, whole_frames
        from edgekd.microcontrollers.c.packages import placed

        deployable = deployables["int8"]
        student, network, samples = deployable.student, deployable.network, deployable.clip_samples
        assert network is not None
        settings = _settings(target)
        asked = (
            samples // 2 if settings.hop_seconds is None else round(settings.hop_seconds * student.frontend.sample_rate)
        )
        hop = whole_frames(asked, student.frontend.config)
        return _encoded(placed(model_files(student, network, samples, hop, settings.fixed_point)))

    def check(
        self, _files: Mapping[str, bytes], deployables: Mapping[Precision, Deployable], target: Target
    ) -> FloatOperators:
        from edgekd.exporting.manifest import FloatOperators

        network = deployables["int8"].network
        assert network is not None
        frontend = {} if _settings(target).fixed_point else {"log-mel": 1}
        return FloatOperators(frontend=frontend, on_integers=tuple(network.layer_names()))

    def figures(self, files: Mapping[str, bytes], _target: Target) -> Figures:
        from edgekd.exporting.budget import Figures
        from edgekd.microcontrollers.c.model import HEADER, sizes_of, state_bytes

        sizes = sizes_of(_texts(files)[HEADER])
        return Figures(
            model_bytes=sizes["CONSTANT_BYTES"],
            parameters=sizes["PARAMETERS"],
            macs=sizes["MACS"],
            activation_bytes=state_bytes(sizes),
        )

    def classifier(self, files: Mapping[str, bytes], _deployable: Deployable, _target: Target) -> Checker:
        import torch

        from edgekd.microcontrollers.c import host, toolchain

        answer = host.classify(_compiled(_texts(files)))

        def classify(waveforms: Tensor) -> Tensor:
            return torch.from_numpy(answer(waveforms.numpy()))

        compiler = toolchain.host_compiler()
        name = Path(compiler[0]).name
        return Checker(f"C compiled by {name} {toolchain.version(compiler[0])}", classify)

    def checks(
        self,
        files: Mapping[str, bytes],
        deployable: Deployable,
        _trained: Probabilities,
        waveforms: Tensor,
        target: Target,
        progress: Progress,
    ) -> Iterator[Check]:
        from edgekd.exporting.manifest import Check
        from edgekd.microcontrollers.c.model import HEADER, sizes_of

        core, settings = _core(target), _settings(target)
        needed = self.figures(files, target)
        if core is None:
            _check_board(needed, None, target)
        if sizes_of(_texts(files)[HEADER]).get("FIXED_POINT"):
            yield _log_mel_check(deployable, waveforms)
        if core is None and settings.core != HOST:
            yield Check(by=settings.core, precision="int8", not_run=NO_EMULATOR)
        if core is not None:
            clips = waveforms[:EMULATED_CLIPS].numpy()
            yield from _core_checks(_texts(files), needed, core, clips, target, progress)

    def device_files(self, manifest: Manifest, files: Mapping[str, bytes], golden: GoldenExamples) -> dict[str, bytes]:
        from edgekd.microcontrollers.c import folder, host
        from edgekd.microcontrollers.c.packages import packages, placed

        clips = folder.how_many(manifest.classifier.clip_samples, len(golden.waveform))
        recordings = host.in_16_bits(golden.clips()[:clips])
        scores = host.scores(_compiled(_texts(files)), recordings)
        classifier, core = manifest.classifier, _core(manifest.target)
        texts = folder.all_sources(classifier.classes, manifest.detection.open, core, recordings, scores)
        beside = packages(manifest.provenance.run, len(classifier.classes), classifier.sample_rate)
        return _encoded({**placed(texts), **beside})

    def usage(self, manifest: Manifest) -> str:
        from edgekd.exporting.runtimes.plain_c.usage import usage
        from edgekd.microcontrollers.c.packages import MICROPHONE_RATES

        rate = manifest.classifier.sample_rate
        fixed_point = _settings(manifest.target).fixed_point
        return usage(rate, _core(manifest.target), fixed_point=fixed_point, arduino=rate in MICROPHONE_RATES)

    def open(self, folder: Path, _threads: int = 1) -> Classify:
        from edgekd.microcontrollers.c import host
        from edgekd.microcontrollers.c.bounds import read_model

        return host.classify(_compiled(read_model(folder)))

    def engine_builder(self) -> None:
        return None


def require_emulator(target: Target) -> None:
    """Raise `UsageError` for a `target` that is not emulated, and `InputError` where a program for it is missing."""
    from edgekd.microcontrollers.c import toolchain

    core = None if target.c is None else _core(target)
    if core is None:
        why = "runs no C" if target.c is None else f"is {target.c.core}, which is not emulated"
        raise UsageError(f"--require-emulator: target '{target.name}' {why}. Leave it out, or name another target.")
    for lack in toolchain.lacking(core).values():
        raise InputError(f"--require-emulator: {lack.why}. Next: {lack.step}.")


def _settings(target: Target) -> PlainCSettings:
    assert target.c is not None
    return target.c


def _core(target: Target) -> Core | None:
    settings = _settings(target)
    return core_of(settings.core, settings.fpu)


def _texts(files: Mapping[str, bytes]) -> dict[str, str]:
    """By name, without the places in a bundle."""
    from edgekd.microcontrollers.c.packages import by_name

    return by_name(files)


def _encoded(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: content.encode() for name, content in files.items()}


def _compiled(model: Mapping[str, str]) -> HostClassifier:
    return _compiled_once(tuple(sorted(model.items())))


@lru_cache(maxsize=2)
def _compiled_once(model: tuple[tuple[str, str], ...]) -> HostClassifier:
    """Compiled once for what an export asks of it."""
    from edgekd.microcontrollers.c.host import HostClassifier

    return HostClassifier(dict(model))


def _log_mel_check(deployable: Deployable, waveforms: Tensor) -> Check:
    """The log-mel in fixed point against PyTorch's. Raises `GateError` where it is too far off."""
    from dataclasses import asdict

    from edgekd.exporting.manifest import Check
    from edgekd.exporting.runtimes.plain_c.log_mel_error import log_mel_error

    error = log_mel_error(deployable, waveforms)
    error.check(deployable.student.frontend.sample_rate)
    return Check(by="PyTorch, of the log-mel in fixed point", precision="int8", figures=asdict(error))


def _core_checks(
    model: Mapping[str, str],
    needed: Figures,
    core: Core,
    clips: NDArray[np.float32],
    target: Target,
    progress: Progress,
) -> Iterator[Check]:
    """Flash, stack and memory on `core`, and the scores of `clips` under an emulator."""
    from edgekd.exporting.manifest import Check
    from edgekd.microcontrollers.c import folder, host, measure, toolchain

    lacking = toolchain.lacking(core)
    with tempfile.TemporaryDirectory(prefix="edgekd-") as name:
        place, objects = Path(name), list[Path]()
        if toolchain.CROSS_COMPILER in lacking:
            _check_board(needed, None, target)
            yield Check(by=toolchain.CROSS_COMPILER, precision="int8", not_run=lacking[toolchain.CROSS_COMPILER].why)
        else:
            progress("core", 0, 2, core=core.name)
            objects = measure.compiled(model, core, place)
            figures = measure.footprint(objects)
            ram = needed.activation_bytes + figures["stack_bytes"]
            _check_board(needed, figures, target)
            by = f"{toolchain.CROSS_COMPILER} {toolchain.version(toolchain.CROSS_COMPILER)} for {core.name}"
            yield Check(by=by, precision="int8", figures={**figures, "ram_bytes": ram})
        if lacking:
            *_, lack = lacking.values()  # of the emulator, if that is among them
            yield Check(by=toolchain.EMULATOR, precision="int8", not_run=lack.why)
            return
        progress("core", 1, 2, core=core.name)
        recordings = host.in_16_bits(clips)
        scores = host.scores(_compiled(model), recordings)
        folder.write(place, folder.verification(recordings, scores))
        program = place / "verify.elf"
        toolchain.cross_build([*(place / source for source in folder.EMULATED), *objects], program, core)
        toolchain.emulate(program, core)
    progress("core", 2, 2, core=core.name)
    by = f"{toolchain.EMULATOR} {toolchain.version(toolchain.EMULATOR)}, {core.emulated.machine}"
    yield Check(by=by, precision="int8", figures={"clips": len(clips), "scores_that_differ": 0})


def _check_board(needed: Figures, measured: Mapping[str, int] | None, target: Target) -> None:
    """Raise `TooLarge` where the board has less than the constants and an `edgekd_t` take, with the code and the stack
    that were `measured`, where they were. Of other students these are the same, but for some bytes."""
    from edgekd.exporting.budget import TooLarge

    code, stack = (
        (0, 0) if measured is None else (measured["flash_bytes"] - needed.model_bytes, measured["stack_bytes"])
    )
    limits = (_settings(target).flash_bytes, target.memory_bytes)
    keys, at_least = ("c.flash_bytes", "memory_bytes"), "at least " if measured is None else ""

    def takes(figures: Figures) -> tuple[tuple[str, int], ...]:
        return ("flash", figures.model_bytes + code), ("RAM", figures.activation_bytes + stack)

    def fits(figures: Figures) -> bool:
        return all(limit is None or have <= limit for (_, have), limit in zip(takes(figures), limits, strict=True))

    def words(figures: Figures) -> str:
        return at_least + ", ".join(f"{have:,} bytes of {what}" for what, have in takes(figures))

    for (what, have), limit, key in zip(takes(needed), limits, keys, strict=True):
        if limit is not None and have > limit:
            raise TooLarge(
                f"The classifier takes {at_least}{have:,} bytes of {what}; target '{target.name}' allows {limit:,} "
                f"({key}).",
                fits,
                words,
            )
