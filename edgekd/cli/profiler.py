"""`edgekd profile`: what was given up and what was gained, student against teacher, here and on devices."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli import options


def profile(
    subjects: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Runs, RUN/teacher, RUN/student, RUN/int8, bundles, .onnx and .engine files, in any mix.",
            metavar="RUN|BUNDLE|FILE...",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html, .json, .md and .csv (profile/ in the first subject).")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="torch, torch-compiled, torch-tensorrt, torch-tensorrt-rtx, onnxruntime, tensorrt, tensorrt-rtx: for"
            " what runs on several; repeatable. Else as it ships."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Of PyTorch: cpu or cuda.")] = "cpu",
    provider: Annotated[str | None, typer.Option(help="Of onnxruntime, e.g. CUDAExecutionProvider.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="CPU threads while latencies are taken.")] = 1,
    batches: Annotated[str, typer.Option(help="Batch sizes of throughput, with one thread and all.")] = "1,8,32",
    noise: Annotated[
        str, typer.Option(help="Added at 20 to -5 dB: pink, white, or a recording of your site.")
    ] = "pink",
    site: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Recordings of your site, nothing of the classes in them: how many are named? Repeatable.",
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Time, MACs and memory of each layer.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Accuracy and latency alone.")] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(help="USER@DEVICE: verify and time the bundle there too; repeatable."),
    ] = None,
    ssh: Annotated[str, typer.Option(help="How to reach hosts, e.g. 'ssh -p 2222'.")] = "ssh",
    remote_python: Annotated[str, typer.Option(help="Python on the hosts, e.g. ~/venv/bin/python.")] = "python3",
    battery_wh: Annotated[float | None, typer.Option(help="Days of operation from so many watt-hours.")] = None,
    duty_cycle: Annotated[float, typer.Option(help="Share of the time in which it listens.")] = 1.0,
    active_watts: Annotated[float | None, typer.Option(help="Of the device while it classifies.")] = None,
    idle_watts: Annotated[float | None, typer.Option(help="Of the device while it sleeps.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="An earlier report.json; exit code 4 if this is worse."),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0, callback=options.finite, help="Points of accuracy that may be lost.")
    ] = 0.5,
    max_slowdown: Annotated[
        float, typer.Option(min=1, callback=options.finite, help="Ratio of medians that is still as fast.")
    ] = 1.1,
    trust: options.Trust = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of report.json.")] = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Accuracy, latency, size, memory and energy, student against teacher; writes report.html, .json, .md, .csv."""
    from edgekd.config import ProfileConfig, parse
    from edgekd.errors import UsageError
    from edgekd.report.results import Profile, read_profile
    from edgekd.report.terminal import print_json

    if schema:
        print_json(Profile.model_json_schema())
        return
    if quick and site:
        raise UsageError("--site: --quick leaves it out. Name one of the two.")
    if not subjects:
        raise UsageError("Nothing to profile. Name a RUN, a BUNDLE or an ONNX file.")
    config = parse(
        ProfileConfig,
        _given(
            backends=tuple(backend or ()),
            device=device,
            provider=provider,
            threads=threads,
            batches=() if quick else _sizes(batches),
            probes=not quick,
            site=tuple(site or ()),
            layers=layers,
            memory=not quick,
            energy=not quick,
            battery_wh=battery_wh,
            duty_cycle=duty_cycle,
            active_watts=active_watts,
            idle_watts=idle_watts,
        )
        | {"noise": None if quick else noise},
        "options",
    )

    from edgekd.files.locks import writing
    from edgekd.profiling.profiler import Remote
    from edgekd.profiling.profiler import profile as measure
    from edgekd.profiling.remote import ssh_command
    from edgekd.progress import ConsoleProgress
    from edgekd.report.gate import check_profile
    from edgekd.report.terminal_profile import print_profile
    from edgekd.report.write import report_folder, write_report

    earlier = None if against is None else read_profile(against)  # a mistake in it should not cost minutes
    remote = Remote(tuple(host), ssh_command(ssh), remote_python) if host else None
    command = ("edgekd", *sys.argv[1:])
    folder = out or report_folder(subjects[0])
    alone = writing(folder) if all(subject.exists() for subject in subjects) else nullcontext()
    with alone:
        with options.interruptible(lambda: "Nothing was reported."), ConsoleProgress(quiet) as progress:
            measured = measure(subjects, config, progress, remote=remote, command=command, trust=trust or ())
        write_report(measured, folder)
    if json_:
        print_json(measured.to_dict())
    else:
        print_profile(measured, folder)
    check_profile(measured, earlier, max_drop=max_drop, max_slowdown=max_slowdown)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _sizes(text: str) -> tuple[int, ...]:
    from edgekd.errors import UsageError, shown

    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(
            f"--batches {shown(text)}: write whole numbers with commas between them, e.g. 1,8,32."
        ) from None
