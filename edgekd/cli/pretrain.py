"""`edgekd pretrain`: a student learns a teacher's embeddings of audio without labels."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from edgekd.cli import options

Flag = typer.Option
NOTHING_WRITTEN = "Nothing was begun: start it again with the same command."


def pretrain(
    ctx: typer.Context,
    unlabelled: options.Unlabelled = None,
    dataset: options.Dataset = None,
    data_dir: Annotated[
        Path | None,
        Flag(
            "--data-dir",
            envvar="EDGEKD_DATA_DIR",
            help="The data set to be classified later: what shares audio with it is left out.",
        ),
    ] = None,
    sample_rate: options.SampleRate = None,
    clip_seconds: options.ClipSeconds = None,
    teacher: options.Teacher = None,
    teacher_weights: options.TeacherWeights = None,
    teacher_cache: options.TeacherCache = None,
    student: options.Student = None,
    trust: options.Trust = None,
    width: options.Width = None,
    student_adaptation: options.StudentAdaptation = None,
    terms: Annotated[
        str | None,
        Flag(envvar="EDGEKD_TERMS", help="embedding, by comma also statistical and structural [default: embedding]."),
    ] = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    out: Annotated[Path | None, Flag(envvar="EDGEKD_OUT", help="Folder to write.")] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    config: options.Config = None,
    set_: options.Set = None,
    resume: Annotated[bool, Flag("--resume", help="Go on with the interrupted one in --out.")] = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Teach a student a teacher's embeddings of audio without labels: weights for distill --student-weights."""
    from edgekd.errors import UsageError
    from edgekd.experiments.names import check_pretraining_names

    if resume and overwrite:
        raise UsageError("--resume goes on and --overwrite replaces: pass one of them.")
    if resume:
        config = options.config_of_run(ctx, config, out)
    flags = {
        "data.unlabelled": unlabelled or None,
        "data.dataset": dataset,
        "data.data_dir": data_dir,
        "data.sample_rate": sample_rate,
        "data.clip_seconds": clip_seconds,
        "teacher.name": teacher,
        "teacher.weights": teacher_weights,
        "teacher.cache": teacher_cache,
        "student": student,
        "width": width,
        "training.adaptation": student_adaptation,
        "loss.terms": _terms(terms, config),
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "out": out,
        "seed": seed,
        "device": device,
    }
    resolved = options.resolve(config, flags, set_, trust)
    check_pretraining_names(resolved)
    first = options.is_first_process()
    if dry_run:
        from edgekd.toml_files import to_toml

        if first:
            typer.echo(to_toml(resolved.model_dump(mode="json")), nl=False)
        return

    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import print_json, print_pretraining
    from edgekd.runs.run import can_go_on, trust_flags
    from edgekd.training.pretrain import pretrain as pretrain_student

    def advice() -> str:
        if not can_go_on(resolved):
            return NOTHING_WRITTEN
        named = quote(str(resolved.out))
        return f"Go on with: {options.called('pretrain')} --out {named} --resume{trust_flags(resolved)}"

    with options.interruptible(advice), options.lost_process(advice), ConsoleProgress(quiet or not first) as progress:
        run = pretrain_student(resolved, progress, resume=resume, overwrite=overwrite)
    if first and json_:
        print_json({"run": str(run.folder), **run.report()})
    elif first:
        print_pretraining(run)


def _terms(terms: str | None, config: Path | None) -> list[str] | None:
    """Those of the flag, or of the file; where neither names any, the embedding."""
    from edgekd.toml_files import read_toml

    if terms is not None:
        return [term.strip() for term in terms.split(",") if term.strip()]
    named = config is not None and "terms" in read_toml(config).get("loss", {})
    return None if named else ["embedding"]
