"""How results are shown: tables on standard output that fit 80 columns, plain text when piped, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from edgekd.experiments.compare import Comparison, Spread
    from edgekd.exporting.manifest import Bundle
    from edgekd.quantization.sensitivity import Mixed, Sensitivity
    from edgekd.runs.run import Run
    from edgekd.scoring.differences import Difference

SUBJECTS = {"teacher": "teacher", "student": "float student", "int8": "int8 student"}


def print_json(values: Any) -> None:
    """Anything as indented JSON."""
    typer.echo(json.dumps(values, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `numbers` are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        number = column in numbers
        whole = number or column == columns[0]  # a name is typed again by whoever reads it
        shown.add_column(column, justify="right" if number else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    Console(highlight=False, markup=False, width=None).print(shown)  # edgekd[rtx] is no markup


def print_run(run: Run) -> None:
    """Test scores of a run's teacher and students, and where things are."""
    test = run.report()["test"]
    rows = [
        (
            SUBJECTS[subject],
            percent(test[subject]["accuracy"]),
            interval(test[subject]["accuracy_interval"]),
            percent(test[subject]["macro_f1"]),
            interval(test[subject]["macro_f1_interval"]),
        )
        for subject in SUBJECTS
        if subject in test
    ]
    anyone = next(iter(test.values()))
    typer.echo(f"Test side: {anyone['clips']} clips from {anyone['groups']} recordings; intervals are 95 %.")
    table(
        ("", "accuracy", "interval", "macro-F1", "interval "),
        rows,
        numbers=("accuracy", "interval", "macro-F1", "interval "),
    )
    for warning in run.report().get("warnings", []):
        typer.echo(f"Warning: {warning}")
    typer.echo(f"Run: {run.folder} (curves.png, confusion.png, metrics.csv, report.json)")
    if "int8" in test:
        typer.echo(f"Next: edgekd export {run.folder} --target NAME   (edgekd targets lists the boards)")


def print_sensitivity(found: Sensitivity, folder: Path) -> None:
    """What int8 costs each layer, the most sensitive first."""
    columns = ("layer", "params", "lost", "SQNR", "all but it: lost", "SQNR ")
    table(
        columns,
        [
            (
                layer.layer,
                compact(layer.parameters),
                f"{layer.alone.drop:+.2f}",
                f"{layer.alone.sqnr_db:.1f}",
                f"{layer.spared.drop:+.2f}",
                f"{layer.spared.sqnr_db:.1f}",
            )
            for layer in found.layers
        ],
        numbers=columns[1:],
    )
    everything = found.all_int8
    typer.echo(f"All in int8: {everything.drop:+.2f} points lost, {everything.sqnr_db:.1f} dB.")
    typer.echo(
        f"Points of accuracy lost (float: {percent(found.float_accuracy)}), and dB of logits over rounding noise,\n"
        f"on {found.clips} validation clips (one: {100 / found.clips:.2f} points); recipe {found.recipe}, no training."
    )
    typer.echo(f"Written: {folder} (int8-sensitivity.json, int8-sensitivity.png)")


def print_mixed(mixed: Mixed) -> None:
    """Which layers `--auto-mixed` left in float, and why."""
    before, after = mixed.all_int8, mixed.loss
    typer.echo(
        f"All in int8: {before.drop:+.2f} points lost, {before.sqnr_db:.1f} dB, on {mixed.clips} validation clips, "
        f"calibrated;\nat most {mixed.max_drop:g} may be lost."
    )
    for step in mixed.steps:
        verb = "left in float" if step.kept else "taken back to int8"
        typer.echo(f"  {step.layer} {verb}: {step.loss.drop:+.2f} points, {step.loss.sqnr_db:.1f} dB")
    if mixed.keep_float:
        typer.echo(f"Left in float: {', '.join(mixed.keep_float)} ({after.drop:+.2f} points, {after.sqnr_db:.1f} dB)")
    else:
        typer.echo("No layer is left in float.")


def print_bundle(bundle: Bundle) -> None:
    """What a bundle that was just written holds, and what it was checked with."""
    from edgekd.exporting.runtimes import RUNTIMES
    from edgekd.models import sized

    manifest, target = bundle.manifest, bundle.manifest.target
    model = bundle.model.stat().st_size
    student = sized(manifest.classifier.student, manifest.classifier.width)
    typer.echo(f"{bundle.folder}: {student} for {target.title}")
    others = "".join(f", also {precision}" for precision in manifest.alternatives)
    typer.echo(
        f"  {bundle.model.name} {model / 1024:.0f} KiB, bundle {bundle.size_bytes / 1024:.0f} KiB; "
        f"opset {target.opset}, {manifest.precision}{others}"
    )
    if manifest.precision != "int8":
        typer.echo(f"  {manifest.precision}: the float student")
    if manifest.classifier.input == "log_mel":
        typer.echo("  takes a log-mel: edgekd_runner.py computes it, and so must your own code")
    parity = manifest.parity
    typer.echo(
        f"  verified on {parity.clips} clips by {manifest.checks[0].by}: same class on {parity.agreement:.1%},\n"
        f"    largest difference in probability {parity.largest_difference:.2g} "
        f"(tolerance {target.tolerance.probability:g})"
    )
    deciding = manifest.checks[0].by
    also = dict.fromkeys(check.by for check in manifest.checks if check.figures and check.by != deciding)
    if also:
        typer.echo(f"  also checked by {', '.join(also)}")
    for by, reason in dict.fromkeys((check.by, check.not_run) for check in manifest.checks):
        if reason is not None:
            typer.echo(f"  not checked by {by}: {reason}")
    floats = manifest.float_operators
    if manifest.precision == "int8":
        typer.echo(f"  in float: the front end and {len(floats.network)} operators after it (manifest.json)")
    typer.echo("  on the device: " + (RUNTIMES[target.runtime].first_command))


def print_engines(found: dict[str, Any]) -> None:
    """The engines that were built for a bundle, side by side."""
    rows = []
    for precision, engine in found["candidates"].items():
        verdict = "agrees" if engine["agrees"] else "disagrees"
        chosen = "chosen" if precision == found["precision"] else ""
        rows.append((precision, f"{engine['p50_ms']:.3f}", verdict, chosen))
    rows += [(precision, "", f"not built: {reason}", "") for precision, reason in found["refused"].items()]
    table(("engine", "p50 ms", "golden examples", ""), rows, numbers=("p50 ms",))


def print_comparison(found: Comparison) -> None:
    """What each method scored, and how sure its difference to the first is; then where the rest is."""
    results = [*found.methods, *found.teachers]
    int8 = any(result.int8_accuracy is not None for result in results)
    columns = ["", "cells", "accuracy", "macro-F1", *(["int8", "int8 - float"] if int8 else [])]
    rows = []
    for result in results:
        row = [
            result.method,
            f"{result.cells}/{result.planned}",
            spread(result.accuracy),
            spread(result.macro_f1),
            spread(result.int8_accuracy),
            points(result.int8_difference),
        ]
        rows.append(row[: len(columns)])
    table(columns, rows, numbers=columns[1:])
    compared = [result for result in found.methods if result.difference is not None]
    if compared:
        typer.echo()
        columns = [f"against {found.reference}", "accuracy", "macro-F1", "McNemar", "sign flip"]
        table(
            columns,
            [
                (
                    result.method,
                    points(result.difference),
                    points(result.difference, "macro_f1"),
                    p_value(result.difference.mcnemar),
                    p_value(result.difference.sign_flip),
                )
                for result in compared
                if result.difference is not None
            ],
            numbers=columns[1:],
        )
    typer.echo("\nPer cent: mean over cells ± standard deviation over seeds.")
    if compared or int8:
        alone = any(result.difference is not None and not result.difference.runs_resampled for result in compared)
        over = "recordings alone: one run tells nothing of the next" if alone else "recordings and runs"
        typer.echo(f"Points, with 95 % intervals over {over}.")
    if compared:
        typer.echo("p-values: McNemar's takes seeds and windows for independent, so it is too small;")
        typer.echo("the other flips the signs of whole recordings.")
    typer.echo(f"Written: {found.folder} (comparison.csv, comparison.json, comparison.png, cells.csv)")


def spread(found: Spread | None) -> str:
    """`80.1 ± 1.0`, in per cent."""
    if found is None:
        return "-"
    return f"{100 * found.mean:.1f}" + (f" ± {100 * found.over_seeds:.1f}" if found.over_seeds is not None else "")


def points(found: Difference | None, figure: Literal["accuracy", "macro_f1"] = "accuracy") -> str:
    """`+2.1 (-0.3, +4.4)`, in points of a per cent."""
    if found is None:
        return "-"
    low, high = found.accuracy_interval if figure == "accuracy" else found.macro_f1_interval
    estimate = found.accuracy if figure == "accuracy" else found.macro_f1
    return f"{100 * estimate:+.1f} ({100 * low:+.1f}, {100 * high:+.1f})"


def p_value(value: float) -> str:
    """Three decimals, `< 0.001` below."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def compact(count: int) -> str:
    """`33.5 k`, `3.2 M`: three digits say enough of a count in a table."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def percent(share: float) -> str:
    """A share in per cent, one decimal."""
    return f"{100 * share:.1f} %"


def interval(shares: Sequence[float]) -> str:
    """An interval of shares in per cent, without the sign."""
    return f"{100 * shares[0]:.1f}-{100 * shares[1]:.1f}"
