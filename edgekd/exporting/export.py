"""From a run to a bundle: build the model, check its structure, verify its outputs, only then write.

What depends on the board's runtime is asked of it (`edgekd.exporting.runtimes.runtime`), in the order of `export`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from edgekd import own_code
from edgekd.data.index import Split
from edgekd.errors import GateError, InputError, UsageError
from edgekd.escaping import legible
from edgekd.exporting.budget import Figures, Sized, TooLarge, check_budget, nearest, other_students
from edgekd.exporting.bundle import Findings, refuse_existing, write_bundle
from edgekd.exporting.deployable import Deployable, deployable_of
from edgekd.exporting.detection import detection_of, with_hops
from edgekd.exporting.golden import choose_golden
from edgekd.exporting.graph import unwritten
from edgekd.exporting.kept_rejection import Rejection, kept_rejection
from edgekd.exporting.manifest import Bundle, Check, Classifier, Parity, Provenance
from edgekd.exporting.rejection import fit_answering, fits, keep_rejection, rejecting
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.plain_c import require_emulator as check_emulator
from edgekd.exporting.runtimes.runtime import Runtime
from edgekd.exporting.steps import SECONDS, stepped
from edgekd.exporting.targets import Precision, Target, load_target
from edgekd.exporting.verify import MIN_CLIPS, Probabilities, Remembered, graph_classifier, reference, verify
from edgekd.files.folders import held
from edgekd.files.locks import reading
from edgekd.models.students.student import Student
from edgekd.progress import Progress, silent
from edgekd.runs.data import RunData
from edgekd.runs.run import Run
from edgekd.scoring.average_precision import mean_average_precision
from edgekd.scoring.probabilities import predict_probabilities

MAX_CLIPS = 512  # more take memory and time and tell no more
STEPS = 5
SETTINGS = "config.toml"  # of a run


def export(
    run: Run,
    target: Target | str,
    out: Path | None = None,
    progress: Progress = silent,
    *,
    overwrite: bool = False,
    trust: Sequence[str] = (),
    reject: Rejection | Literal["off"] | None = None,
    require_emulator: bool = False,
) -> Bundle:
    """Export `run`'s student for `target`, in its first precision, verified against the trained one on real clips.

    `target`: a board, or the name or TOML file of one; `out`: the bundle folder, `run.folder/bundle-NAME` where None. A
    bundle for TensorRT also holds the target's other precisions. `trust`: code of your own that may be imported,
    `[FOLDER/]package.module:factory` (see `edgekd.own_code`). `reject`: what is to tell the unknown, which the run
    keeps for the next export; None: what it keeps, "off": nothing. `require_emulator`: the core of the board is to be
    emulated, and nothing is written where that cannot be. Raises `InputError` for an unfinished run,
    `UsageError` when `out` exists or another process writes it or the run, `GateError` when a model's structure,
    operators, agreement with the trained one or budget does not pass; no bundle is then left behind.
    """
    own_code.trust(trust)
    target = load_target(target) if isinstance(target, str) else target
    out = out or bundle_folder(run, target)
    if require_emulator:
        check_emulator(target)
    with held(out), reading(run.folder):
        return _export(run, target, out, progress, overwrite, reject)


def bundle_folder(run: Run, target: Target) -> Path:
    """Where a bundle of `run` goes unless somebody names a folder."""
    return run.folder / f"bundle-{target.name}"


def _rejection(run: Run, runtime: Runtime, reject: Rejection | Literal["off"] | None) -> Rejection | None:
    """By what the unknown is told. Raises `UsageError` where the runtime cannot."""
    rejection = None if reject == "off" else reject or kept_rejection(run)
    if rejection is not None and not runtime.tells_unknown:
        raise UsageError(
            f"{runtime.title} does not say how familiar a clip is, by which {run.folder} is to tell the unknown: pass "
            "--reject off."
        )
    return rejection


def _export(
    run: Run,
    target: Target,
    out: Path,
    progress: Progress,
    overwrite: bool,
    reject: Rejection | Literal["off"] | None,
) -> Bundle:
    runtime = RUNTIMES[target.runtime]
    refuse_existing(out, overwrite)
    rejection = _rejection(run, runtime, reject)
    models = runtime.models(target)
    deployables = {precision: deployable_of(run, precision) for precision in models}
    data = run.open_data(progress)
    rows = verification_rows(data.split)
    found = {} if rejection is None else fits(deployables, rejection, data, runtime.flavour, progress)
    deployables = rejecting(deployables, found) if found else deployables
    main = deployables[target.precision]
    progress("export", 1, STEPS, step="graph")
    files = runtime.emit(deployables, target, progress)
    progress("export", 2, STEPS, step="structure")
    floats = runtime.check(files, deployables, target)
    size = (main.student.name, main.student.width)
    others, settings = partial(_others, run, main, target, progress), run.folder / SETTINGS
    check_budget(runtime.figures(files, target), size, target, others, settings)
    progress("export", 3, STEPS, step="verify")
    waveforms = data.waveforms(rows)
    if runtime.hears_16_bits:
        waveforms = in_16_bits(waveforms)
    known = {precision != "int8": deployable.known for precision, deployable in deployables.items()}
    float_student = Remembered(reference(_float_student(run, deployables), known=known.get(True)))
    trained = {
        precision: Remembered(deployable.trained(runtime.flavour)) if precision == "int8" else float_student
        for precision, deployable in deployables.items()
    }
    checkers = {precision: runtime.classifier(files, each, target) for precision, each in deployables.items()}
    shipped = Remembered(checkers[target.precision].classify)
    checks: list[Check] = []
    for precision, deployable in deployables.items():
        by, classify = checkers[precision].by, checkers[precision].classify
        if precision == target.precision:
            classify = shipped
        # It decides.
        tolerance, told = target.tolerance, deployable.reject
        parity = verify(classify, trained[precision], waveforms, tolerance, progress, run.task, told)
        checks.append(Check(by=by, precision=precision, figures=parity.model_dump(exclude_none=True)))
        further = runtime.checks(files, deployable, trained[precision], waveforms, target, progress)
        checks += _naming_others(further, run, main, target, progress)
    classifier = _classifier(run, main, target)
    steps = None
    if runtime.in_steps and main.reject is not None:
        why = "graphs in steps do not say how familiar a window is, so with --reject each is computed whole"
        checks.append(Check(by="graphs in steps", precision=target.precision, not_run=why))
    elif runtime.in_steps:
        clips = data.waveforms(_rows_of(data.split, ceil(SECONDS / run.config.data.clip_seconds)))
        steps = stepped(main, classifier, runtime.flavour, target, shipped, clips, progress)
        checks.append(steps.check)
    progress("export", 4, STEPS, step="bundle")
    detection = with_hops(detection_of(run, main.stage), run)
    bundle = write_bundle(
        out,
        files if steps is None else {**files, **steps.files},
        models,
        classifier=classifier,
        detection=detection.model_copy(update={"reject": main.reject}),
        provenance=_provenance(run, data, shipped_score(shipped, data, progress)),
        findings=Findings(
            Parity.model_validate(checks[0].figures),
            tuple(checks),
            floats,
            None if steps is None else steps.described,
            next((words for graph in _graphs(files) if (words := unwritten(graph)) is not None), None),
        ),
        golden=choose_golden(
            trained[target.precision], float_student, data, target.tolerance, full_scale=runtime.hears_16_bits
        ),
        target=target,
        overwrite=overwrite,
    )
    keep_rejection(run, rejection, found)
    fit_answering(run, data, progress)
    progress("export", 5, STEPS, step="done")
    return bundle


def _graphs(files: Mapping[str, bytes]) -> list[bytes]:
    return [content for name, content in files.items() if name.endswith(".onnx")]


def _float_student(run: Run, deployables: Mapping[Precision, Deployable]) -> Student:
    """The float student as it ships, be it in none of these precisions."""
    floats = [each.student for precision, each in deployables.items() if precision != "int8"]
    return floats[0] if floats else deployable_of(run, "fp32").student


def _others(run: Run, deployable: Deployable, target: Target, progress: Progress) -> dict[Sized, Figures]:
    """What other students would need in this one's place."""
    config, student = run.config, deployable.student
    return other_students(
        (student.name, student.width),
        len(run.classes),
        config.frontend,
        config.data.sample_rate,
        deployable.clip_samples,
        target,
        progress=progress,
    )


def _naming_others(
    checks: Iterator[Check], run: Run, deployable: Deployable, target: Target, progress: Progress
) -> Iterator[Check]:
    """The `checks`; one that refuses the student for what was measured of it says which other fits."""
    try:
        yield from checks
    except TooLarge as refused:
        others = _others(run, deployable, target, progress)
        fitting = nearest(others, refused.fits, refused.words, run.folder / SETTINGS, "Take a board with more")
        raise GateError(f"{refused} {fitting}") from None


def float_modules(run: Run, target: Target) -> dict[Precision, nn.Module]:
    """The classifier as PyTorch modules, in the floating-point precisions of a bundle for `target`."""
    flavour = RUNTIMES[target.runtime].flavour
    return {
        precision: deployable_of(run, precision).module(flavour, target.frontend)
        for precision in target.precisions
        if precision != "int8"
    }


def verification_rows(split: Split) -> list[int]:
    """`MIN_CLIPS` to `MAX_CLIPS` rows: test clips evenly spaced, filled up from validation and training if too few."""
    spacing = max(1, ceil(len(split.test) / MAX_CLIPS))
    rows = list(split.test[::spacing])
    for side in (split.validation, split.train):
        rows += side[: max(0, MIN_CLIPS - len(rows))]
    if len(rows) < MIN_CLIPS:
        raise InputError(
            f"The data set has {len(rows)} clips; verifying an export takes {MIN_CLIPS} real ones. Add recordings."
        )
    return rows


def _rows_of(split: Split, clips: int) -> list[int]:
    """So many rows, or all: of the test side, then of validation, then of training."""
    return [*split.test, *split.validation, *split.train][:clips]


def in_16_bits(waveforms: Tensor) -> Tensor:
    """`waveforms` as a 16-bit converter gives them."""
    return (waveforms * 32768).round().clamp(-32768, 32767) / 32768


def _classifier(run: Run, deployable: Deployable, target: Target) -> Classifier:
    data, student = run.config.data, deployable.student
    return Classifier(
        student=student.name,
        width=student.width,
        classes=run.classes,
        activation=run.task.activation,
        sample_rate=data.sample_rate,
        clip_samples=deployable.clip_samples,
        padding=data.padding,
        channel=data.channel,
        full_scale=data.full_scale,
        trim_silence=data.trim_silence,
        input="waveform" if target.frontend == "graph" else "log_mel",
        batch=target.batch,
        frontend=run.config.frontend.given(),
        gain=float(student.gain),
        temperature=deployable.temperature,
    )


def shipped_score(shipped: Probabilities, data: RunData, progress: Progress = silent) -> float:
    """Accuracy, or mAP, of the exported model itself on the run's test side.

    The run's own int8 score is that of its arithmetic in training; a flavour whose integers reach further may differ.
    """
    test, classes = data.side("test"), len(data.index.classes)
    probabilities = predict_probabilities(
        graph_classifier(lambda waveforms: shipped(waveforms)[:, :classes], data.index.task),
        data.store,
        test.rows,
        progress=progress,
        stage="test clips",
        task=data.index.task,
    )
    if data.index.task.several:
        return mean_average_precision(probabilities, test.labels)
    return float((probabilities.argmax(axis=1) == test.labels).mean())


def _provenance(run: Run, data: RunData, score: float) -> Provenance:
    folds = any(clip.fold is not None for clip in data.index.clips)
    return Provenance(
        run=legible(str(run.folder)),
        dataset=data.index.dataset,
        fold=run.config.data.fold if folds else None,
        seed=run.config.seed,
        test_accuracy=None if run.task.several else round(score, 6),
        test_mean_average_precision=round(score, 6) if run.task.several else None,
    )
