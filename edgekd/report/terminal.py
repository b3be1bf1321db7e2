"""How results are shown: tables on standard output that fit 80 columns, plain text when piped, or JSON."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

import typer

from edgekd.escaping import json_text, terminal_text
from edgekd.number_formats import (
    NONE,
    area,
    count,
    decibels,
    interval,
    number,
    p_value,
    percent,
    points,
    points_lost,
    probability_difference,
    setting,
    size,
)
from edgekd.progress import new_console
from edgekd.task import THRESHOLD

if TYPE_CHECKING:
    from edgekd.data.index import Dropped
    from edgekd.experiments.comparison import Comparison, Spread
    from edgekd.exporting.manifest import Bundle, Check
    from edgekd.quantization.sensitivity import Loss, Mixed, Sensitivity
    from edgekd.runs.run import Run
    from edgekd.scoring.differences import AnyDifference

WIDTH = 80
SUBJECTS = {"teacher": "teacher", "student": "float student", "int8": "int8 student"}


def print_json(values: Any) -> None:
    """Anything as indented JSON."""
    typer.echo(json_text(values, indent=2))


def line(sentence: str = "", *, err: bool = False) -> None:
    """Print a sentence as one line, however long; with `err` on standard error."""
    typer.echo(terminal_text(sentence, sys.stderr if err else None), err=err)


def paragraph(sentence: str, indent: str = "") -> None:
    """Print a sentence in lines that the terminal does not break; paths and names stay whole."""
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    lines = textwrap.wrap(
        terminal_text(sentence), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    typer.echo("\n".join(lines))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `numbers` are aligned to the right."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for column in columns:
        numeric = column in numbers
        whole = numeric or column == columns[0]  # a name is typed again by whoever reads it
        shown.add_column(terminal_text(column), justify="right" if numeric else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        shown.add_row(*map(terminal_text, row))
    new_console(sys.stdout).print(shown)


def print_run(run: Run) -> None:
    """Test scores of a run's teacher and students, and where things are."""
    from edgekd.runs.run import trust_flags

    test, measure = run.report()["test"], run.task.measure
    rows = [
        (
            SUBJECTS[subject],
            percent(test[subject][measure]),
            _interval(test[subject][f"{measure}_interval"]),
            percent(test[subject]["macro_f1"]),
            _interval(test[subject]["macro_f1_interval"]),
        )
        for subject in SUBJECTS
        if subject in test
    ]
    scores = next(iter(test.values()))
    recordings = "1 recording" if scores["groups"] == 1 else f"{scores['groups']} recordings"
    line(f"Test side: {scores['clips']} clips from {recordings}; intervals are 95%.")
    table(
        ("", run.task.title, "interval", "macro-F1", "interval "),
        rows,
        numbers=(run.task.title, "interval", "macro-F1", "interval "),
    )
    if run.task.several:
        own = f"edgekd thresholds {quote(str(run.folder))}"
        line(f"Macro-F1 is at {THRESHOLD:g} for all; of the run's own thresholds: {own}")
    without = run.report().get("audit", {}).get("unlabelled")
    if without is not None:
        line(unlabelled_text(without))
    if not run.classifies("teacher"):
        line(f"The teacher has no head for these classes: it gave embeddings or taps, and no {run.task.title}.")
    for note in run.report().get("notes", []):
        line(f"Note: {note}")
    for warning in run.report().get("warnings", []):
        line(f"Warning: {warning}")
    drawn = "average_precision.png" if run.task.several else "confusion.png"
    line(f"Run: {run.folder} (curves.png, {drawn}, metrics.csv, report.json)")
    if "int8" in test:
        named = quote(str(run.folder)) + trust_flags(run.config, taught=False)
        line(f"Next: edgekd export {named} --target NAME   (edgekd targets lists the boards)")
    elif "student" in test:
        line(f"Next: edgekd quantize {quote(str(run.folder))}{trust_flags(run.config)}")


def print_pretraining(run: Run) -> None:
    """What a pre-training came to, and the command that goes on with it."""
    from edgekd.runs.run import trust_flags

    report, rows = run.report(), run.metrics().rows
    line(unlabelled_text(report["audit"]["unlabelled"]))
    clips = report["audit"]["clips"]
    told = [row for row in rows if row.get("embedding") and row.get("validation_loss")]
    if told:  # not where the file has been lost or damaged since
        best = min(told, key=lambda row: float(row["validation_loss"]))
        trained, held_out = (number(float(best[name])) for name in ("embedding", "validation_loss"))
        line(
            f"Embedding loss: {trained} in training ({clips['train']} clips), {held_out} held out"
            f" ({clips['validation']} clips), after epoch {best['epoch']}."
        )
    line(f"Run: {run.folder} (student.safetensors, metrics.csv, report.json)")
    weights = run.folder / "student.safetensors"
    student = run.config.student + trust_flags(run.config, taught=False)
    line(f"Next: edgekd distill --student {student} --student-weights {quote(str(weights))} --data-dir FOLDER ...")


def unlabelled_text(audited: Mapping[str, Any]) -> str:
    """How many clips without labels teach, and why others do not, of the audit in a report."""
    reasons: dict[Dropped, str] = {
        "group": "of a group that is scored",
        "audio": "of recordings that share audio with clips that are scored",
        "silence": "silent",
        "cancelled": "lost when their channels are averaged (--set data.channel=0 hears one)",
    }
    dropped = [f"{clips} {reasons[why]}" for why, clips in audited["dropped"].items()]
    told = f"{audited['used']} of {audited['clips']} clips without labels teach"
    return f"{told}; left out: {', '.join(dropped)}." if dropped else f"{told}."


def _interval(ends: Sequence[float]) -> str:
    low, high = ends
    return interval(low, high, percent)


def print_sensitivity(sensitivity: Sensitivity, folder: Path) -> None:
    """What int8 costs each layer, the most sensitive first."""
    columns = ("layer", "params", "lost", "SQNR", "all but it: lost", "SQNR ")
    table(
        columns,
        [
            (
                layer.layer,
                count(layer.parameters),
                points_lost(layer.alone.drop),
                decibels(layer.alone.sqnr_db),
                points_lost(layer.spared.drop),
                decibels(layer.spared.sqnr_db),
            )
            for layer in sensitivity.layers
        ],
        numbers=columns[1:],
    )
    line(f"All in int8: {_loss(sensitivity.all_int8)}.")
    accuracy, clips = percent(sensitivity.float_accuracy), sensitivity.clips
    line(f"Points of accuracy lost (float: {accuracy}), and dB of logits over rounding noise,")
    recipe, clip = sensitivity.recipe, points_lost(100 / clips)
    line(f"on {clips} validation clips (one: {clip} points); recipe {recipe}, no training.")
    line(f"Written: {folder} (int8-sensitivity.json, int8-sensitivity.png)")


def print_mixed(mixed: Mixed) -> None:
    """Which layers `--auto-mixed` left in float, and why."""
    line(f"All in int8: {_loss(mixed.all_int8)}, on {mixed.clips} validation clips, calibrated;")
    line(f"at most {setting(mixed.max_drop)} may be lost.")
    for step in mixed.steps:
        verb = "left in float" if step.kept else "taken back to int8"
        line(f"  {step.layer} {verb}: {_loss(step.loss, lost='')}")
    if mixed.keep_float:
        line(f"Left in float: {', '.join(mixed.keep_float)} ({_loss(mixed.loss, lost='')})")
    else:
        line("No layer is left in float.")


def _loss(loss: Loss, lost: str = " lost") -> str:
    return f"{points_lost(loss.drop)} points{lost}, {decibels(loss.sqnr_db)} dB"


def _print_layers(check: Check) -> None:
    fallen = [name for name, kind in check.layers.items() if kind != "int8"]
    if fallen:
        line(f"  not in int8, says {check.by}: {', '.join(fallen)}")
    elif check.layers:
        line(f"  in int8, says {check.by}: all {len(check.layers)} layers that are to be")


def print_bundle(bundle: Bundle, why_rejects: str | None = None) -> None:
    """What a bundle that was just written holds, and what it was checked with.

    `why_rejects`: in words, of one that rejects the unknown.
    """
    from edgekd.exporting.runtimes import RUNTIMES
    from edgekd.models.build import sized

    manifest, target = bundle.manifest, bundle.manifest.target
    model = bundle.model.stat().st_size
    student = sized(manifest.classifier.student, manifest.classifier.width)
    line(f"{bundle.folder}: {student} for {target.title}")
    others = "".join(f", also {precision}" for precision in manifest.alternatives)
    opset = f"opset {target.opset}, " if bundle.model.suffix == ".onnx" else ""
    line(f"  {bundle.model.name} {size(model)}, bundle {size(bundle.size_bytes)}; {opset}{manifest.precision}{others}")
    takes = manifest.memory_on_the_core
    if takes is not None:
        line(f"  compiled for its core: {takes}")
    if manifest.precision != "int8":
        line(f"  {manifest.precision}: the float student")
    if manifest.classifier.input == "log_mel":
        line("  takes a log-mel: edgekd_runner.py computes it, and so must your own code")
    parity = manifest.parity
    same = "same answers" if manifest.classifier.activation == "sigmoid" else "same class"
    line(f"  verified on {parity.clips} clips by {manifest.checks[0].by}: {same} on {percent(parity.agreement)},")
    line(
        f"    largest difference in probability {probability_difference(parity.largest_difference)} "
        f"(tolerance {setting(target.tolerance.probability)})"
    )
    reject = manifest.detection.reject
    if reject is not None:
        line(
            f"  unknown: {reject.score} below {setting(reject.threshold)}, which rejects at most"
            f" {percent(reject.share)} of {reject.clips} known clips"
        )
        if why_rejects is not None:
            line(f"    {why_rejects}")
    deciding = manifest.checks[0].by
    also = dict.fromkeys(check.by for check in manifest.checks if check.figures and check.by != deciding)
    if also:
        line(f"  also checked by {', '.join(also)}")
    for by, reason in dict.fromkeys((check.by, check.not_run) for check in manifest.checks):
        if reason is not None:
            line(f"  not checked by {by}: {reason}")
    floats = manifest.float_operators
    if manifest.precision == "int8":
        where = "the front end and {} operators after it" if floats.frontend else "{} operators, none in the front end"
        line(f"  in float: {where.format(len(floats.network))} (manifest.json)")
    if manifest.unwritten is not None:
        line(f"  written by PyTorch's exporter, as edgekd's own does not know this: {manifest.unwritten}")
    for check in manifest.checks:
        _print_layers(check)
    where = "here, in the bundle" if RUNTIMES[target.runtime].hears_16_bits else "on the device"
    line(f"  {where}: {RUNTIMES[target.runtime].first_command}")
    if RUNTIMES[target.runtime].hears_16_bits:
        line("  into your firmware: README.md of the bundle")


def print_engines(engines: dict[str, Any]) -> None:
    """The engines that were built for a bundle, side by side."""
    rows = []
    for precision, engine in engines["candidates"].items():
        verdict = "agrees" if engine["agrees"] else "disagrees"
        chosen = "chosen" if precision == engines["precision"] else ""
        rows.append((precision, number(engine["p50_ms"]), verdict, chosen))
    rows += [(precision, "", f"not built: {reason}", "") for precision, reason in engines["refused"].items()]
    table(("engine", "p50 ms", "golden examples", ""), rows, numbers=("p50 ms",))


def print_comparison(comparison: Comparison) -> None:
    """What each method scored, and how sure its difference to the first is; then where the rest is."""
    from edgekd.report.verdict import undecided

    results = [*comparison.methods, *comparison.teachers]
    int8, title = any(result.int8_measure is not None for result in results), comparison.task.title
    columns = ["", "cells", title, "macro-F1", *(["int8", "int8 - float"] if int8 else [])]
    rows = []
    for result in results:
        row = [
            result.method,
            f"{result.cells}/{result.planned}",
            _spread(result.measure),
            _spread(result.macro_f1),
            _spread(result.int8_measure),
            _difference(result.int8_difference),
        ]
        rows.append(row[: len(columns)])
    table(columns, rows, numbers=columns[1:])
    if any(teacher.cells and teacher.measure is None for teacher in comparison.teachers):
        line(f"A teacher without {title} has no head for these classes: it gave embeddings or taps.")
    compared = [result for result in comparison.methods if result.difference is not None]
    if compared:
        line()
        columns = [f"against {comparison.reference}", title, "macro-F1", "McNemar", "sign flip"]
        columns = columns[:3] if comparison.task.several else columns
        table(
            columns,
            [
                (
                    result.method,
                    _difference(result.difference),
                    _difference(result.difference, "macro_f1"),
                    *_p_values(result.difference),
                )
                for result in compared
                if result.difference is not None
            ],
            numbers=columns[1:],
        )
        for result in compared:
            if result.difference is not None and not result.difference.shown:
                line(f"{result.method}: {undecided(result.difference)}.")
    if comparison.unknown:
        _print_unknown(comparison)
    line()
    line("Mean over cells ± standard deviation over seeds.")
    if compared or int8:
        alone = any(result.difference is not None and not result.difference.runs_resampled for result in compared)
        over = "recordings alone: one run tells nothing of the next" if alone else "recordings and runs"
        line(f"Points, with 95% intervals over {over}.")
    if compared and not comparison.task.several:
        line("p-values: McNemar's takes seeds and windows for independent, so it is too small;")
        line("the other flips the signs of whole recordings.")
    unknown = ", unknown.csv" if (comparison.folder / "unknown.csv").exists() else ""
    line(f"Written: {comparison.folder} (comparison.csv, comparison.json, comparison.png, cells.csv{unknown})")


def _print_unknown(comparison: Comparison) -> None:
    """How well scores tell the classes that were left out: of each method all together, of the first class by class."""
    line()
    columns = ("left out", "score", "AUROC", "not rejected", "known lost")
    rows = []
    for result in comparison.unknown:
        if result.left_out is None or result.method == comparison.reference:
            told = result.told
            rows.append(
                (
                    result.left_out or f"each, {result.method}",
                    result.score,
                    f"{area(told.auroc)} ({interval(*told.auroc_interval, area)})",
                    f"{percent(told.false_alarms)} ({interval(*told.false_alarms_interval, percent)})",
                    percent(told.lost),
                )
            )
    table(columns, rows, numbers=columns[1:])
    line(
        "Clips of classes that were not learned, against test clips of those that were; 95% intervals over recordings."
    )
    line("Thresholds reject at most 5% of the validation side.")


def _spread(spread: Spread | None) -> str:
    """`80.1 ± 1.0%`."""
    if spread is None:
        return NONE
    mean = percent(spread.mean)
    return mean if spread.over_seeds is None else f"{mean.removesuffix('%')} ± {percent(spread.over_seeds)}"


def _p_values(difference: AnyDifference) -> tuple[str, ...]:
    """Of the tests that there are."""
    from edgekd.scoring.differences import Difference

    if not isinstance(difference, Difference):
        return ()
    return p_value(difference.mcnemar), p_value(difference.sign_flip)


def _difference(difference: AnyDifference | None, score: Literal["measure", "macro_f1"] = "measure") -> str:
    """`+2.1 (−0.3 to +4.4)`, in points of a per cent."""
    if difference is None:
        return NONE
    if score == "measure":
        estimate, ends = difference.measure, difference.measure_interval
    else:
        estimate, ends = difference.macro_f1, difference.macro_f1_interval
    return f"{points(estimate)} ({interval(*ends, points)})"
