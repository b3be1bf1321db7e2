"""`report.csv`: a row a subject with all its figures, as numbers, for spreadsheets and programs."""

from __future__ import annotations

from edgekd.escaping import csv_text
from edgekd.files.tables import csv_of
from edgekd.report.figures import Value, row
from edgekd.report.results import Profile, Subject


def report_csv(profile: Profile) -> str:
    """A row a subject: all of `row`, accuracy under each condition, clips a second for each batch, recall of each
    class."""
    rows = [row(subject) | _conditions(subject) for subject in profile.subjects]
    columns = list(dict.fromkeys(key for values in rows for key in values))
    return csv_of([map(csv_text, columns), *([_cell(values.get(column)) for column in columns] for values in rows)])


def _cell(value: Value) -> Value:
    return csv_text(value) if isinstance(value, str) else value


def _conditions(subject: Subject) -> dict[str, Value]:
    values: dict[str, Value] = {}
    robust = subject.robustness
    for unit, conditions in (("db", robust.noise), ("s", robust.length)) if robust else ():
        values |= {f"accuracy_at_{point.value:g}_{unit}": point.accuracy for point in conditions}
    for probe in subject.unknown.probes if subject.unknown else ():
        kind = probe.kind.replace(" ", "_")
        values |= {f"confident_{kind}": probe.confident}
        values |= {f"auroc_{score}_{kind}": share for score, share in probe.auroc.items()}
        values |= {f"false_alarms_{score}_{kind}": share for score, share in probe.false_alarms.items()}
    for batch in subject.throughput:
        values[f"clips_per_second_batch_{batch.batch}_threads_{batch.threads}"] = batch.clips_per_second
    if subject.scores:
        pairs = zip(subject.scores.classes, subject.scores.recall, strict=True)
        values |= {f"recall_{name}": recall for name, recall in pairs}
    return values
