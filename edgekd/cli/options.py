"""Options that several commands share, and how a configuration is put together from file, environment and flags."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.data.layouts.table import LAYOUTS
from edgekd.errors import InputError, UsageError, shown
from edgekd.front_end_presets import PRESETS, put_preset

if TYPE_CHECKING:
    from edgekd.config import DistillConfig

Config = Annotated[
    Path | None, typer.Option("--config", envvar="EDGEKD_CONFIG", help="TOML file with settings; flags override it.")
]
Seed = Annotated[int | None, typer.Option("--seed", envvar="EDGEKD_SEED", help="Seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", envvar="EDGEKD_DEVICE", help="auto, cpu or cuda.")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", envvar="EDGEKD_DATASET", help=f"{', '.join(layout.name for layout in LAYOUTS)}; else recognised."
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", envvar="EDGEKD_DATA_DIR", help="Where the recordings are.")]
SampleRate = Annotated[
    int | None, typer.Option("--sample-rate", envvar="EDGEKD_SAMPLE_RATE", help="Hz; clips are resampled to it.")
]
FrontEndPreset = Annotated[
    str | None,
    typer.Option(
        "--frontend-preset",
        envvar="EDGEKD_FRONTEND_PRESET",
        metavar="NAME",
        help=f"Sample rate and log-mel by name: {', '.join(PRESETS)}. Replaces those of --config.",
    ),
]
ClipSeconds = Annotated[
    float | None, typer.Option("--clip-seconds", envvar="EDGEKD_CLIP_SECONDS", help="Length of a clip.")
]
TimePattern = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="How the time stands in names of recordings, if not as recorders write it: '%Y%m%d_%H%M%S'.",
    ),
]
TimeZone = Annotated[
    str | None,
    typer.Option(metavar="ZONE", help="Of the recorder's clock, for names that tell none: UTC, +02:00, Europe/Oslo."),
]
Unlabelled = Annotated[
    list[Path] | None,
    typer.Option(
        "--unlabelled",
        envvar="EDGEKD_UNLABELLED",
        metavar="FOLDER",
        help="Audio without labels, to teach with through the teacher. Repeatable.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        envvar="EDGEKD_TEACHER",
        help="See 'edgekd teachers'; or package.module:factory, your own; by comma: the average of several.",
    ),
]
TeacherWeights = Annotated[
    Path | None,
    typer.Option(
        "--teacher-weights",
        envvar="EDGEKD_TEACHER_WEIGHTS",
        help="File (ast, whisper: folder) of pre-trained weights; of several teachers by comma, in their order.",
    ),
]
Adaptation = Annotated[
    str | None,
    typer.Option(
        "--adaptation", envvar="EDGEKD_ADAPTATION", help="head, full or none: what of the teacher is trained."
    ),
]
TeacherCache = Annotated[
    str | None,
    typer.Option(
        "--teacher-cache",
        envvar="EDGEKD_TEACHER_CACHE",
        help="auto, off, logits or full: what is kept of the teacher's answers, on disk.",
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        "--student", envvar="EDGEKD_STUDENT", help="See 'edgekd students'; or package.module:factory, your own."
    ),
]
StudentWeights = Annotated[
    Path | None,
    typer.Option(
        "--student-weights",
        envvar="EDGEKD_STUDENT_WEIGHTS",
        help="To begin with: student.safetensors of 'edgekd pretrain', or of another run.",
    ),
]
Width = Annotated[
    float | None,
    typer.Option("--width", envvar="EDGEKD_WIDTH", help="Times the student's channels, 0.25 to 4."),
]
StudentAdaptation = Annotated[
    str | None,
    typer.Option(
        "--student-adaptation",
        envvar="EDGEKD_STUDENT_ADAPTATION",
        help="head or full: what is trained of a student cut from a teacher.",
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="FACTORY",
        help="Import this code of your own, [FOLDER/]package.module:factory, where a file names it. Repeatable.",
    ),
]
Epochs = Annotated[int | None, typer.Option("--epochs", envvar="EDGEKD_EPOCHS", help="Epochs of the student.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", envvar="EDGEKD_BATCH_SIZE", help="Clips a step.")]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", envvar="EDGEKD_LEARNING_RATE", help="Of the student.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="EDGEKD_QUIET", help="No progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings as TOML and stop.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, e.g. --set augment.time_masks=0. Repeatable."),
]


def finite(value: float | None) -> float | None:
    """A number that a range alone would let through: NaN is in every one. Raises `typer.BadParameter`."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a number that can be meant.")
    return value


def thresholds(texts: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """The threshold of all classes, and those of some. Raises `UsageError` for what is none, or there twice."""
    everywhere: float | None = None
    by_class: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (equals and not name):
            raise UsageError(f"--threshold {shown(text)}: write a number, or CLASS=NUMBER.")
        if (not name and everywhere is not None) or name in by_class:
            raise UsageError(f"--threshold {shown(text)}: there is another one for {name or 'all classes'}.")
        if name:
            by_class[name] = value
        else:
            everywhere = value
    return everywhere, by_class


def config_of_run(ctx: typer.Context, config: Path | None, out: Path | None) -> Path:
    """The file of the run in `out`, which is to be resumed, unless the command line names another: the one that
    EDGEKD_CONFIG names is for new runs. Raises as `Run.open` does, `UsageError` without `out`."""
    from edgekd.runs.run import Run, to_resume

    source = ctx.get_parameter_source("config")
    if config is not None and source is not None and source.name == "COMMANDLINE":
        return config
    if out is None:
        raise UsageError("--resume: say what is to go on, with --out FOLDER.")
    return Run.open(to_resume(out)).folder / "config.toml"


def resolve(
    config_file: Path | None,
    flags: Mapping[str, Any],
    sets: Sequence[str] | None,
    trusted: Sequence[str] | None = None,
) -> DistillConfig:
    """`combine`, with what depends on the machine settled: the configuration of a run."""
    from edgekd.training.new_teacher import settled

    return settled(combine(config_file, flags, sets, trusted))


def combine(
    config_file: Path | None,
    flags: Mapping[str, Any],
    sets: Sequence[str] | None,
    trusted: Sequence[str] | None = None,
    preset: str | None = None,
) -> DistillConfig:
    """The configuration from `config_file` under a front end by name (`preset`) under `flags` (dotted key -> value;
    None: not given) under `--set`.

    Code of the user's own that the flags name, or `--trust` does (`trusted`), may then be imported; what the file alone
    names, not.
    """
    from edgekd.config import DistillConfig, parse
    from edgekd.toml_files import read_toml

    values: dict[str, Any] = read_toml(config_file) if config_file is not None else {}
    if config_file is not None:
        parse(DistillConfig, values, str(config_file))  # so that a mistake in the file is told apart from one in a flag
    if preset is not None:
        put_preset(values, preset)
    here: dict[str, Any] = {}  # what this command line says, the file apart
    for key, value in flags.items():
        if value is not None:
            assign(values, key, value)
            assign(here, key, value)
    for item in sets or []:
        key, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item}: write it as KEY=VALUE, e.g. --set training.epochs=30.")
        assign(values, key.strip(), _toml_value(text))
        assign(here, key.strip(), _toml_value(text))
    _trust(here, trusted or ())
    return parse(DistillConfig, values, "settings")


def _trust(here: Mapping[str, Any], trusted: Sequence[str]) -> None:
    """Let what this command line names, `here` or by `--trust`, be imported."""
    from edgekd.own_code import trust, trust_model

    teacher = here.get("teacher", {})
    for name, folder in (
        (teacher.get("name"), teacher.get("folder")),
        (here.get("student"), here.get("student_folder")),
    ):
        if isinstance(name, str):
            trust_model(name, Path(folder) if isinstance(folder, str) else None)
    trust(trusted)


def assign(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `values["a"]["b"]` for `a.b`, in place of what said the same in another way.

    Raises `UsageError` when `a` is no section.
    """
    from edgekd.layers_of_settings import displaced

    *sections, last = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {dotted}: '{section}' is a setting, not a section.")
        values = inner
    for other in displaced(dotted, values):
        values.pop(other, None)
    values[last] = value


def is_first_process() -> bool:
    """Whether this process writes: the only one, or the first that `torchrun` started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"


def processes() -> int:
    """How many processes `torchrun` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def called(command: str) -> str:
    """How a command was called, up to its options."""
    if processes() == 1:
        return f"edgekd {command}"
    # Not `-m edgekd`, which would put the current folder first on the path of every process.
    return f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', '1')} --no-python edgekd {command}"


@contextmanager
def lost_process(advice: Callable[[], str]) -> Iterator[None]:
    """Say how to go on where another process of the run has died in the midst of a sum over all."""
    try:
        yield
    except RuntimeError as failure:
        from edgekd.processes import is_lost_connection

        if not is_lost_connection(failure):
            raise
        raise InputError(f"another process of this run has died: see what it or torchrun says. {advice()}") from None


@contextmanager
def interruptible(advice: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends with one line that says how to go on, and exit code 130; so does SIGTERM, with 143: that of a batch
    system whose time is up, or of `torchrun` when another process has died."""

    def terminate(*_: object) -> None:
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()  # which alone hears of signals
    before = signal.signal(signal.SIGTERM, terminate) if main else None
    try:
        yield
    except KeyboardInterrupt as ended:
        terminated = isinstance(ended, _Terminated)
        if is_first_process():
            from edgekd.escaping import terminal_text

            told = f"{'Ended by SIGTERM' if terminated else 'Interrupted'}. {advice()}"
            typer.echo("\n" + terminal_text(told, sys.stderr), err=True)
        raise typer.Exit(143 if terminated else 130) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """SIGTERM has come: wherever Ctrl-C ends something, so does this."""


def _toml_value(text: str) -> Any:
    """A TOML value; what is none (`emd`, `a/path`) is a string."""
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text.strip()
    except RecursionError:
        raise UsageError(f"--set ...={shown(text)}: nested too deeply.") from None
