"""`edgekd distill`: teacher -> tiny student by SSATKD, then int8."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from edgekd.cli import options
from edgekd.losses.terms import TERMS

Flag = typer.Option
NOTHING_WRITTEN = "No run was begun: start it again with the same command."


def distill(
    ctx: typer.Context,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    unlabelled: options.Unlabelled = None,
    sample_rate: options.SampleRate = None,
    frontend_preset: options.FrontEndPreset = None,
    clip_seconds: options.ClipSeconds = None,
    fold: Annotated[int | None, Flag(envvar="EDGEKD_FOLD", help="Test fold.")] = None,
    split_seed: Annotated[int | None, Flag(envvar="EDGEKD_SPLIT_SEED", help="Seed of a split by groups.")] = None,
    teacher: options.Teacher = None,
    teacher_weights: options.TeacherWeights = None,
    adaptation: options.Adaptation = None,
    teacher_cache: options.TeacherCache = None,
    student: options.Student = None,
    trust: options.Trust = None,
    student_weights: options.StudentWeights = None,
    width: options.Width = None,
    student_adaptation: options.StudentAdaptation = None,
    terms: Annotated[
        str | None,
        Flag(
            envvar="EDGEKD_TERMS",
            help=f"Loss terms, by comma: {','.join(TERMS)}. Alone, classification trains on labels without a teacher.",
        ),
    ] = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    recipe: Annotated[
        str | None, Flag(envvar="EDGEKD_RECIPE", help="Calibration recipe: a name or a TOML file.")
    ] = None,
    out: Annotated[Path | None, Flag(envvar="EDGEKD_OUT", help="Run folder to write.")] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    config: options.Config = None,
    set_: options.Set = None,
    no_quantize: Annotated[bool, Flag("--no-quantize", help="Stop after the float student.")] = False,
    resume: Annotated[bool, Flag("--resume", help="Go on with the interrupted run in --out.")] = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Distil a teacher into a tiny student by SSATKD, then train it for int8."""
    from edgekd.errors import UsageError
    from edgekd.experiments.names import check_names
    from edgekd.models.build import with_default_student
    from edgekd.report.terminal import line
    from edgekd.training.default_teacher import with_default_teacher
    from edgekd.training.new_teacher import settled

    flags = {
        "data.dataset": dataset,
        "data.data_dir": data_dir,
        "data.unlabelled": unlabelled or None,
        "data.sample_rate": sample_rate,
        "data.clip_seconds": clip_seconds,
        "data.fold": fold,
        "data.split_seed": split_seed,
        "teacher.name": teacher,
        "teacher.weights": teacher_weights,
        "teacher.adaptation": adaptation,
        "teacher.cache": teacher_cache,
        "student": student,
        "student_weights": student_weights,
        "width": width,
        "training.adaptation": student_adaptation,
        "loss.terms": None if terms is None else [term.strip() for term in terms.split(",") if term.strip()],
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "quantize.recipe": recipe,
        "out": out,
        "seed": seed,
        "device": device,
    }
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it: pass one of them.")
    if resume:
        config = options.config_of_run(ctx, config, out)
    taught, chosen = with_default_teacher(options.combine(config, flags, set_, trust, frontend_preset))
    resolved = settled(with_default_student(taught))
    first = options.is_first_process()
    if chosen is not None and first and not quiet:
        line(chosen, err=True)
    check_names(resolved, int8=not no_quantize)
    if dry_run:
        from edgekd.toml_files import to_toml

        if first:
            typer.echo(resolved.describe() + to_toml(resolved.model_dump(mode="json")), nl=False)
        return

    from edgekd.experiments.chain import distill_and_quantize
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json, print_run
    from edgekd.runs.run import can_go_on, trust_flags

    def advice() -> str:
        if not can_go_on(resolved):
            return NOTHING_WRITTEN
        more = trust_flags(resolved)
        return f"Go on with: {options.called('distill')} --out {quote(str(resolved.out))} --resume{more}"

    with options.interruptible(advice), options.lost_process(advice), ConsoleProgress(quiet or not first) as progress:
        run = distill_and_quantize(resolved, progress, int8=not no_quantize, resume=resume, overwrite=overwrite)
    if first and json_:
        print_json({"run": str(run.folder), **run.report()})
    elif first:
        print_run(run)
