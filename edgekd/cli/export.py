"""`edgekd export`: a verified bundle for a board."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from edgekd.cli import options
from edgekd.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from edgekd.exporting.targets import Batch, LogMelPlace, Precision

Value = TypeVar("Value")

PRECISIONS: Mapping[str, Precision] = {"int8": "int8", "fp16": "fp16", "fp32": "fp32"}
LOG_MELS: Mapping[str, LogMelPlace] = {"graph": "graph", "external": "external"}
BATCHES: Mapping[str, Batch] = {"1": 1, "dynamic": "dynamic"}


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of 'edgekd distill'.", metavar="RUN")],
    target: Annotated[str, typer.Option(envvar="EDGEKD_TARGET", help="A board of 'edgekd targets', or a TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Bundle folder; RUN/bundle-TARGET where left out.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="int8, fp16 or fp32, of those that the board runs; its first where left out.")
    ] = None,
    frontend: Annotated[
        str | None, typer.Option(help="graph: waveform in; external: log-mel in, computed by the caller.")
    ] = None,
    batch: Annotated[str | None, typer.Option(help="1: a fixed shape; dynamic: any number of clips.")] = None,
    build_engine: Annotated[
        bool, typer.Option("--build-engine", help="Build and compare the TensorRT engines here, on this GPU.")
    ] = False,
    reject: Annotated[
        str | None,
        typer.Option(
            help="energy or mahalanobis: a score beside the classes that tells unknown sounds; off: none. Kept in RUN."
        ),
    ] = None,
    reject_share: Annotated[
        float | None, typer.Option(help="Of known validation clips, at most so many may be rejected (0.05).")
    ] = None,
    require_emulator: Annotated[
        bool, typer.Option("--require-emulator", help="C: end with an error where the board's core cannot be emulated.")
    ] = False,
    trust: options.Trust = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a run's student for a board: sound in, class scores out, verified."""
    from edgekd.exporting.runtimes import RUNTIMES
    from edgekd.exporting.targets import load_target

    named = load_target(target)
    board = named.adapted(  # before anything slow: a mistyped name is told at once
        _one_of("--precision", precision, PRECISIONS),
        _one_of("--frontend", frontend, LOG_MELS),
        _one_of("--batch", batch, BATCHES),
    )
    builder = RUNTIMES[board.runtime].engine_builder() if build_engine else None
    if build_engine and builder is None:
        raise UsageError(f"--build-engine: target '{board.name}' runs {board.runtime}, which has no engines.")

    if require_emulator:
        from edgekd.exporting.runtimes.plain_c import require_emulator as check_emulator

        check_emulator(board)

    from edgekd.exporting.export import bundle_folder, float_modules
    from edgekd.exporting.export import export as export_run
    from edgekd.exporting.kept_rejection import Rejection
    from edgekd.files.locks import writing
    from edgekd.progress import ConsoleProgress
    from edgekd.report.terminal import line, print_bundle, print_engines, print_json
    from edgekd.runs.run import Run

    chosen: Rejection | Literal["off"] | None = None
    if reject == "off" or (reject is None and reject_share is not None):
        if reject_share is not None:
            raise UsageError("--reject-share: nothing is rejected without --reject energy or --reject mahalanobis.")
        chosen = "off"
    elif reject is not None:
        chosen = Rejection.named(reject, options.finite(reject_share))
    found = None
    with options.interruptible(lambda: "No bundle was written."), ConsoleProgress(quiet) as progress:
        opened = Run.open(run, trust=trust or ())
        with writing(out or bundle_folder(opened, board)):
            bundle = export_run(
                opened, board, out, progress, overwrite=overwrite, reject=chosen, require_emulator=require_emulator
            )
            if builder is not None:
                found = builder(bundle.folder, float_modules(opened, board), progress)
    if json_:
        engines = {} if found is None else {"engines": found}
        print_json({"bundle": str(bundle.folder), **bundle.manifest.model_dump(mode="json"), **engines})
        return
    remembered = f"as {run} was told before" if chosen is None else f"{run} keeps it for its next export"
    print_bundle(bundle, why_rejects=f"{remembered}; --reject off ends it")
    if "int8" not in named.precisions:
        line(f"  no int8: {named.title} runs {' and '.join(named.precisions)}")
    if found is not None:
        print_engines(found)


def _one_of(option: str, given: str | None, values: Mapping[str, Value]) -> Value | None:
    if given is None:
        return None
    if given not in values:
        raise unknown_name(f"{option} value", given, values)
    return values[given]
