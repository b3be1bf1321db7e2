"""What can be profiled, found from what a user names, and what runs it.

    RUN                                its teacher, float student and int8 student
    RUN/teacher, RUN/student, RUN/int8 one of them
    BUNDLE                             the classifier that ships: engines where they were built, else the ONNX graph
    FILE.onnx, FILE.engine, FILE.plan  a graph or an engine alone, of edgekd or not

Students are measured as they ship, exported and run by ONNX Runtime, unless another back end is asked for; teachers do
not ship, and run in PyTorch. An int8 student is not run by PyTorch, which would compute in float what it rounds. What
runs a bundle follows from its board (`bundles`).
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from edgekd.config import ProfileConfig
from edgekd.device import runner
from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.escaping import legible
from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.folders import kind_of
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.manifest import Bundle, read_bundle
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.onnx_bundle import RUNNER
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.since_export import run_of, since_export
from edgekd.models.build import sized
from edgekd.profiling.accuracy import ScoredClips, check_alike, clips_of_bundle, clips_of_run, in_common
from edgekd.profiling.backends import PRECISIONS, TORCH, Engine, Model, OnnxGraph, TorchModel
from edgekd.profiling.bundles import models_of
from edgekd.profiling.compilers import BY_TENSORRT, TORCH_COMPILED, check_compiler
from edgekd.profiling.cost import module_parameters
from edgekd.profiling.guests import open_guest
from edgekd.progress import Progress, silent
from edgekd.report.results import Kind, PrecisionName, Role
from edgekd.runs.run import Run
from edgekd.runs.thresholds import temperature_of
from edgekd.task import SINGLE

ROLES: tuple[Role, ...] = ("teacher", "student", "int8")
ENGINES = (".engine", ".plan")

Source = Run | Bundle | Path


@dataclass(frozen=True)
class Candidate:
    """One thing to profile, which hears `samples` at a time. `clips` None: there is nothing to score it on.

    `temperature`: what its logits are divided by; None where that is not known.
    """

    name: str
    kind: Kind
    role: Role
    source: Path
    architecture: str | None
    model: Model
    samples: int
    clips: ScoredClips | None
    bundle: Bundle | None = None
    notes: tuple[str, ...] = ()
    temperature: float | None = None


@dataclass(frozen=True)
class _Part:
    """What is named of a run."""

    run: Run
    role: Role


def candidates(sources: Sequence[Source], config: ProfileConfig, progress: Progress = silent) -> list[Candidate]:
    """Everything that `sources` name, each in every back end of `config` that can run it, under names of their own.

    All candidates are to be scored on the same clips: their `clips` are those that all have in common.
    Raises `InputError` for what is not there, unfinished, damaged, or cannot be compared; `UsageError` for a back end
    that runs none of it.
    """
    _check_backends(config.backends)
    named = [part for source in sources for part in _named(source)]  # all of them, before work goes into the first
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here. Leave --device out.")
    for backend in config.backends:
        check_compiler(backend, config.device)
    found: list[Candidate] = []
    guests: list[Path] = []
    for done, part in enumerate(named):
        progress("subjects", done, len(named))
        if isinstance(part, _Part):
            found += _of_run(part, config, progress)
        elif isinstance(part, Bundle):
            found += _of_bundle(part, config, progress)
        else:
            guests.append(part)
    found = _on_common_clips(found)
    found += [_of_file(path, config, found) for path in guests]
    progress("subjects", len(named), len(named))
    if not found:
        raise UsageError(f"No back end of {', '.join(config.backends)} runs any of them. Leave --backend out.")
    return _under_own_names(_with_unused(found, config.backends))


def _with_unused(found: list[Candidate], backends: Sequence[str]) -> list[Candidate]:
    """`found`, the first with a note on each back end that was asked for and runs none of them."""
    unused = [name for name in backends if all(candidate.model.backend != name for candidate in found)]
    notes = tuple(
        f"--backend {name} runs none of these, which were measured in others, or as they ship. TensorRT runs bundles"
        " with engines; torch and what compiles it run teachers and float students."
        for name in unused
    )
    return [replace(found[0], notes=found[0].notes + notes), *found[1:]]


def folders_of(sources: Sequence[Source]) -> list[Path]:
    """The runs and bundles that are read for `sources`, each once."""
    folders = []
    for source in sources:
        if isinstance(source, Run | Bundle):
            folders.append(source.folder)
        elif source.is_dir():
            folders.append(source.parent if _is_part_of_run(source) else source)
    return list(dict.fromkeys(folders))


def _is_part_of_run(source: Path) -> bool:
    return source.name in ROLES and (source.parent / "config.toml").is_file()


def _check_backends(names: Sequence[str]) -> None:
    known = {*RUNTIMES, *(backend for backends in _BACKENDS.values() for backend in backends)}
    for name in names:
        if name not in known:
            raise unknown_name("back end", name, known)


def _named(source: Source) -> list[_Part | Bundle | Path]:
    if isinstance(source, Bundle):
        return [source]
    if isinstance(source, Run):
        return list(_parts(source))
    if source.suffix.lower() in (".onnx", *ENGINES):
        if not source.is_file():
            raise InputError(f"{source}: no such file.")
        return [source]
    if _is_part_of_run(source):
        run = Run.open(source.parent)
        run.require_student()
        part = next((part for part in _parts(run) if part.role == source.name), None)
        if part is None:
            raise InputError(f"{source.parent}: this run has no {source.name}. It has {_listed(_parts(run))}.")
        return [part]
    if kind_of(source) == "bundle":
        return [read_bundle(source)]
    run = Run.open(source)
    run.require_student()
    return list(_parts(run))


def _parts(run: Run) -> list[_Part]:
    roles: list[Role] = ["student"]
    if (run.folder / "teacher" / "best.safetensors").is_file():
        roles.insert(0, "teacher")
    if "int8" in run.report().get("test", {}):
        roles.append("int8")
    return [_Part(run, role) for role in roles]


def _listed(parts: Sequence[_Part]) -> str:
    return ", ".join(part.role for part in parts)


def _of_run(part: _Part, config: ProfileConfig, progress: Progress) -> list[Candidate]:
    run, role = part.run, part.role
    possible = _BACKENDS[role]
    chosen = [backend for backend in possible if backend in config.backends] or [next(iter(possible))]
    architecture = run.config.teacher.name if role == "teacher" else sized(run.config.student, run.config.width)
    clips = clips_of_run(run, progress)
    notes = tuple(f"{run.folder}: {warning}" for warning in run.report().get("warnings", []))
    samples, scored = clips.samples, role != "teacher" or run.classifies("teacher")
    if not scored:
        notes += (f"The teacher of {run.folder} has no head for these classes: it was timed, and not scored.",)
    models = [possible[backend](run, role, config) for backend in chosen]
    warmth = 1.0 if role == "teacher" else temperature_of(run, "int8" if role == "int8" else "student")
    return [
        Candidate(
            *(role, "run", role, run.folder, architecture, model, samples, clips if scored else None),
            notes=notes,
            temperature=warmth,
        )
        for model in models
    ]


def _exported(run: Run, role: Role, config: ProfileConfig) -> OnnxGraph:
    """A student as it would ship to this machine."""
    deployable = deployable_of(run, "int8" if role == "int8" else "fp32")
    network = deployable.network or deployable.student.network
    return OnnxGraph(
        onnx_of(deployable, OnnxRuntime.flavour, Form(computes_weights=True)),
        PRECISIONS[deployable.precision],
        parameters=module_parameters(network),
        provider=config.provider,
        threads=config.threads,
    )


def _in_torch(run: Run, role: Role, config: ProfileConfig, *, backend: str) -> TorchModel:
    make = partial(
        TorchModel,
        file=run.folder / role / "best.safetensors",
        device=config.device,
        backend=backend,
        threads=config.threads,
        task=run.task,
    )
    if role == "student":
        student = deployable_of(run, "fp32").student
        return make(student, front_end=student.log_mel, network=student.network, learned=student.network)
    teacher = run.teacher()
    assert teacher is not None
    log_mel = teacher.front_end()  # None: it takes the waveform itself
    front_end = None if log_mel is None else lambda waveforms: log_mel(teacher.at_own_rate(waveforms))
    return make(teacher, front_end=front_end, network=None, learned=teacher)


_IN_TORCH: dict[str, Callable[[Run, Role, ProfileConfig], Model]] = {
    backend: partial(_in_torch, backend=backend) for backend in (TORCH, TORCH_COMPILED, *BY_TENSORRT)
}
# What can run a part of a run; first what does where nothing else is asked for.
_BACKENDS: dict[Role, dict[str, Callable[[Run, Role, ProfileConfig], Model]]] = {
    "teacher": _IN_TORCH,
    "student": {OnnxRuntime.name: _exported, **_IN_TORCH},
    "int8": {OnnxRuntime.name: _exported},
}


def _of_bundle(bundle: Bundle, config: ProfileConfig, progress: Progress) -> list[Candidate]:
    manifest, folder = bundle.manifest, bundle.folder
    classifier, target = manifest.classifier, manifest.target
    clips = _clips_for(bundle, progress)
    models, notes = models_of(bundle, config)
    if target.architecture != platform.machine():
        there = " Times there: --host USER@DEVICE." if RUNNER in manifest.files else ""
        notes.append(
            f"{folder} is made for {target.title} ({target.architecture}) and was timed on this machine "
            f"({platform.machine()}).{there}"
        )
    changed = since_export(bundle)
    notes += [] if changed is None else [changed]
    role: Role = "int8" if manifest.precision == "int8" else "student"
    name, student = folder.resolve().name, sized(classifier.student, classifier.width)
    as_exported = PRECISIONS[manifest.precision]  # the float student may have another temperature
    return [
        Candidate(
            *(name, "bundle", role, folder, student, model, clips.samples, clips, bundle, tuple(notes)),
            temperature=classifier.temperature if model.precision == as_exported else None,
        )
        for model in models
    ]


def _clips_for(bundle: Bundle, progress: Progress) -> ScoredClips:
    """The test side of the run a bundle came from, or its golden examples."""
    try:
        return clips_of_run(run_of(bundle), progress)
    except (InputError, UsageError) as failure:
        return clips_of_bundle(bundle, str(failure))


def _of_file(path: Path, config: ProfileConfig, others: Sequence[Candidate]) -> Candidate:
    """A graph or engine, scored on the clips of the other subjects where there are any."""
    clips = next((other.clips for other in others if other.clips is not None), None)
    unknown = f"{path} does not say which clips it was trained on: if it heard these, its accuracy is too high."
    if path.suffix.lower() in ENGINES:
        if clips is None:
            raise InputError(f"{path}: an engine does not name its classes. Name the RUN or BUNDLE it is of beside it.")
        contract = runner.Contract("waveform", (clips.samples,), len(clips.classes), 1)
        engine = Engine(path, contract, _told_precision(path))
        return Candidate(path.stem, "engine", "model", path, None, engine, clips.samples, clips, notes=(unknown,))
    graph = open_guest(path, config, SINGLE if clips is None else clips.task)
    if clips is None:
        note = f"{path} was not scored: name the RUN or BUNDLE it is of beside it to score it on their test clips."
        notes = (note, *graph.notes)
        return Candidate(path.stem, "onnx", "model", path, None, graph, graph.samples, None, notes=notes)
    if graph.classes != len(clips.classes):
        raise InputError(f"{path}: {graph.classes} classes; the other subjects have {len(clips.classes)}.")
    if graph.samples != clips.samples:
        raise InputError(
            f"{path}: hears {graph.samples} samples; the clips of the other subjects have {clips.samples}."
        )
    notes = (unknown, *graph.notes)
    return Candidate(path.stem, "onnx", "model", path, None, graph, graph.samples, clips, notes=notes)


def _told_precision(engine: Path) -> PrecisionName:
    """By the file's name, as an engine does not say."""
    return next((name for told, name in PRECISIONS.items() if told in engine.stem), "float32")


def _on_common_clips(found: list[Candidate]) -> list[Candidate]:
    """The same clips for all. A bundle whose run is gone joins those that have a test side, with a note."""
    sides = [one.clips for one in found]
    known = [side for side in sides if side is not None]
    tested = [side for side in known if side.golden is None] or known
    if not tested:
        return found
    shared = dict(zip(map(id, tested), in_common(tested), strict=True))
    first = shared[id(tested[0])]
    result = []
    for one, side in zip(found, sides, strict=True):
        if side is None:
            result.append(one)
            continue
        clips, note = shared.get(id(side)), None
        if clips is None:
            clips = _joined(one, side, first)
            note = f"{one.source}: its run cannot be read, so it may have been trained on clips that it was scored on."
        elif side.golden is not None:
            note = f"Scored on {side.words} only, as the test side cannot be read: {side.golden}"
        elif len(side.rows) > len(clips.rows):
            note = f"Only the {len(clips.rows)} clips that are on the test side of every run were scored."
        result.append(replace(one, clips=clips, notes=one.notes if note is None else (*one.notes, note)))
    return result


def _joined(one: Candidate, golden: ScoredClips, clips: ScoredClips) -> ScoredClips:
    """`clips` of other subjects for one that has but `golden` examples. Raises `InputError` where they do not fit."""
    check_alike(clips, golden)
    if golden.sample_rate != clips.sample_rate:
        raise InputError(
            f"{one.source}: hears {golden.sample_rate} Hz, and the run it came from, which had such clips, cannot be "
            "read. Profile it alone."
        )
    return clips


def _under_own_names(found: list[Candidate]) -> list[Candidate]:
    """Names that tell the subjects apart: by role, then source, then back end, then number."""
    runs = {one.source for one in found if one.kind == "run"}
    if len(runs) > 1:
        found = [replace(one, name=f"{one.source.name}/{one.name}" if one.kind == "run" else one.name) for one in found]
    found = [replace(one, name=legible(one.name)) for one in found]
    counts = Counter(one.name for one in found)
    found = [replace(one, name=f"{one.name}, {one.model.backend}") if counts[one.name] > 1 else one for one in found]
    counts, seen = Counter(one.name for one in found), Counter[str]()
    result = []
    for one in found:
        seen[one.name] += 1
        result.append(replace(one, name=f"{one.name} {seen[one.name]}") if counts[one.name] > 1 else one)
    return result
