"""`report.csv`: a row a subject with all its figures, as numbers, for spreadsheets and programs."""

from __future__ import annotations

from edgekd.escaping import csv_text
from edgekd.files.tables import csv_of
from edgekd.report.figures import Value, row
from edgekd.report.results import Profile, Subject
from edgekd.scoring.label_scores import LabelScores


def report_csv(profile: Profile) -> str:
    """A row a subject: all of `row`, accuracy (or mAP) under each condition, clips a second for each batch, recall (and
    average precision) of each class."""
    rows = [row(subject) | _conditions(subject) for subject in profile.subjects]
    columns = list(dict.fromkeys(key for values in rows for key in values))
    return csv_of([map(csv_text, columns), *([_cell(values.get(column)) for column in columns] for values in rows)])


def _cell(value: Value) -> Value:
    return csv_text(value) if isinstance(value, str) else value


def _conditions(subject: Subject) -> dict[str, Value]:
    values: dict[str, Value] = {}
    robust = subject.robustness
    for unit, conditions in (("db", robust.noise), ("s", robust.length)) if robust else ():
        for point in conditions:
            name = "mean_average_precision" if point.accuracy is None else "accuracy"
            values[f"{name}_at_{point.value:g}_{unit}"] = point.measure
    for probe in subject.unknown.probes if subject.unknown else ():
        kind = probe.kind.replace(" ", "_")
        values |= {f"confident_{kind}": probe.confident}
        values |= {f"auroc_{score}_{kind}": share for score, share in probe.auroc.items()}
        for score, (low, high) in probe.auroc_interval.items():
            values |= {f"auroc_{score}_{kind}_low": low, f"auroc_{score}_{kind}_high": high}
        values |= {f"false_alarms_{score}_{kind}": share for score, share in probe.false_alarms.items()}
    for batch in subject.throughput:
        values[f"clips_per_second_batch_{batch.batch}_threads_{batch.threads}"] = batch.clips_per_second
    if subject.scores:
        pairs = zip(subject.scores.classes, subject.scores.recall, strict=True)
        values |= {f"recall_{name}": recall for name, recall in pairs}
    if isinstance(subject.scores, LabelScores):
        ranked = zip(subject.scores.classes, subject.scores.average_precision, strict=True)
        values |= {f"average_precision_{name}": share for name, share in ranked}
    return values
