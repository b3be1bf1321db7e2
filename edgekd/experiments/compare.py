"""`compare`: methods x parts of the data x seeds, and what can be said of their differences.

The grid is that of `plan`, the result that of `comparison`. After each cell that ends, the folder holds all that is
known so far:

    comparison.json   everything            comparison.csv   a row a method
    comparison.png    the picture           cells.csv        a row a cell
    unknown.csv       with `leave_out`: a row for each method, score and class that was left out
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgekd import own_code
from edgekd.config import DistillConfig
from edgekd.data.clip_store import open_store
from edgekd.data.load import load_index, without_classes
from edgekd.data.splits import make_split
from edgekd.data.unlabelled import load_unlabelled
from edgekd.errors import UsageError
from edgekd.escaping import csv_text
from edgekd.experiments.comparison import Comparison, Results
from edgekd.experiments.grid import is_finished, refuse_other_settings, run_cells
from edgekd.experiments.plan import Cell, Settings, method_settings, plan_cells, plan_parts, without_each
from edgekd.experiments.pool import Failure, Start, Worker
from edgekd.files.folders import held, settle
from edgekd.files.tables import write_csv
from edgekd.files.whole import sweep, write_json
from edgekd.losses.terms import check_unlabelled, needs_of, needs_teacher
from edgekd.models.build import check_models
from edgekd.progress import Progress, silent
from edgekd.runs.pictures import plot_comparison
from edgekd.training.cut_start import check_cut
from edgekd.training.new_teacher import check_teacher


def write_tables(comparison: Comparison) -> None:
    """All but the picture."""
    write_json(comparison.folder / "comparison.json", comparison.to_dict())
    _write_csv(comparison.folder / "comparison.csv", comparison.rows())
    _write_csv(comparison.folder / "cells.csv", comparison.cell_rows())
    if comparison.unknown:
        _write_csv(comparison.folder / "unknown.csv", comparison.unknown_rows())


def write_comparison(comparison: Comparison) -> None:
    """All that is known, into the folder of the comparison."""
    write_tables(comparison)
    plot_comparison(
        {result.method: _measures(comparison, result.method, "measure") for result in comparison.methods},
        {result.method: _measures(comparison, result.method, "int8_measure") for result in comparison.methods},
        {
            result.method: (result.difference.measure, result.difference.measure_interval)
            for result in comparison.methods
            if result.difference is not None
        },
        {result.method: result.measure.mean for result in comparison.teachers if result.measure is not None},
        comparison.reference,
        comparison.folder / "comparison.png",
        comparison.task.title,
    )


def compare(
    config: DistillConfig,
    methods: Mapping[str, Settings] | Sequence[str],
    *,
    folds: Sequence[int] | None = None,
    splits: int = 1,
    seeds: Sequence[int] = (0, 1, 2),
    leave_out: Sequence[str] | Literal["all"] = (),
    jobs: int = 1,
    quantize: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    start: Start = Worker,
    write: Callable[[Comparison], None] = write_comparison,
    trust: Sequence[str] = (),
) -> Comparison:
    """Train each of `methods` on each part of the data with each of `seeds`, in the folder `config.out`, and compare.

    `methods`: names of `METHODS`, or name -> what the method changes of `config`; the others are compared with the
    first. `folds`: the test folds (None: all); `splits`: how many splits by groups where the data set has no folds.
    `leave_out`: these classes in turn, or all, are not learned, and the students' scores are to tell them as unknown.
    `jobs` cells are trained at a time. `quantize`: int8 students too. Cells that are finished are not trained again;
    those of other settings are refused, or with `overwrite` made anew, each there until the new one is. A cell that
    fails is a hole in the result.
    `start` starts what trains them, a process; `write` gets all that is known after each of them and at the end.
    `trust`: code of your own that may be imported, `[FOLDER/]package.module:factory` (see `edgekd.own_code`).

    Raises what `distill` raises for settings and data that no cell could use.
    """
    own_code.trust(trust)
    chosen = methods if isinstance(methods, Mapping) else {name: method_settings(name) for name in methods}
    index = load_index(config.data, progress)
    parts = plan_parts(config, index, folds, splits)
    if leave_out:
        parts = without_each(parts, index.classes if leave_out == "all" else leave_out, config.data.leave_out)
    cells = plan_cells(config, chosen, parts, seeds)
    _check(cells)
    for data in {cell.config.data.model_dump_json(): cell.config.data for cell in cells}.values():
        left = without_classes(index, [name for name in data.leave_out if name not in config.data.leave_out])
        make_split(left, data)  # refuses a fold that is not there, and a split that leaks
        open_store(left, data, progress)
    for data in {
        cell.config.data.unlabelled: cell.config.data for cell in cells if cell.config.data.unlabelled
    }.values():
        open_store(load_unlabelled(data, progress), data, progress)
    with held(config.out):
        config.out.mkdir(exist_ok=True)
        for folder in (config.out, config.out / "teachers", *config.out.glob("cells/*")):
            settle(folder)
            sweep(folder)
        if not overwrite:
            refuse_other_settings(cells)
        results = Results(config.out, cells, index.task)
        done = sum(is_finished(cell, quantize) for cell in cells)
        progress("cells", done, len(cells))

        def on_end(cell: Cell, failure: Failure | None) -> None:
            nonlocal done
            done += 1
            if failure is not None:
                results.failures[cell.name] = failure
            write(results.comparison())
            failed = {"failed": len(results.failures)} if results.failures else {}
            progress("cells", done, len(cells), last=cell.name, **failed)

        run_cells(cells, quantize, jobs, on_end, start)
        comparison = results.comparison()
        write(comparison)
    return comparison


def _check(cells: Sequence[Cell]) -> None:
    """Raise `UsageError` for names and teachers that would fail in every cell of a method."""
    if not cells:
        raise UsageError("A comparison needs a method, a fold and a seed at least.")
    for config in {cell.method: cell.config for cell in cells}.values():
        taught = needs_teacher(config.loss.terms)
        check_unlabelled(config.loss.terms, config.data.unlabelled)
        check_models(config, taught)
        check_cut(config)
        if taught:
            check_teacher(config.teacher, needs_of(config.loss.terms))


def _measures(comparison: Comparison, method: str, figure: str) -> list[float]:
    values = [getattr(cell, figure) for cell in comparison.cells if cell.method == method]
    return [value for value in values if value is not None]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_csv(path, [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)])


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return csv_text(value)
    return round(value, 6) if isinstance(value, float) else value
