"""The sections of `report.html` that hold what was measured: tables, and charts with their tables behind them."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.escaping import html_text
from edgekd.number_formats import NONE, count, energy, interval, number, percent, power, setting, size
from edgekd.report import charts
from edgekd.report.figures import (
    FIGURES_BY_KEY,
    UNKNOWN_HEADS,
    Figure,
    Row,
    class_rows,
    known_figures,
    measure_of,
    of_classes,
    row,
    titled,
    unknown_rows,
)
from edgekd.report.page_parts import captioned, explained, figure, key, legend, scrolled, share_cell, table
from edgekd.report.results import Point, Profile, Subject
from edgekd.scoring.scores import Scores

MISTAKES = 40  # kinds of mistakes in the table behind a confusion matrix of many classes
QUANTILES = (1, 25, 50, 75, 95, 99, 100)  # in the table behind the distribution of times

STAR = '<span class="star" aria-hidden="true">★</span><span class="unseen"> best</span>'


def key_figures(profile: Profile) -> str:
    """Figures downwards, subjects across: so it fits a page, and a phone shows two or three subjects at once."""
    rows = [row(subject) for subject in profile.subjects]
    heads = "".join(
        f'<th scope="col">{key(series)}{html_text(subject.name)}<small>{html_text(_kind(subject))}</small></th>'
        for series, subject in enumerate(profile.subjects)
    )
    body = "".join(
        f'<tbody><tr class="group"><th colspan="{len(rows) + 1}" scope="rowgroup">{html_text(heading)}</th></tr>'
        f"{''.join(_figure_row(shown, rows) for shown in figures)}</tbody>"
        for heading, figures in known_figures(rows).items()
    )
    baseline = f"The baseline is {profile.baseline}. " if profile.baseline else ""
    best = "★ best of its row, as far as the digits show. " if len(rows) > 1 else ""
    caption = captioned(f"{best}{baseline}Small print: 95% intervals.")
    return scrolled(
        "Key figures",
        f'<table class="even" style="--n:{len(rows)}">{caption}'
        f'<thead><tr><th scope="col">Figure</th>{heads}</tr></thead>{body}</table>',
        "long",
    )


def _figure_row(shown: Figure, rows: Sequence[Row]) -> str:
    winners = shown.winners(rows)
    cells = ""
    for index, values in enumerate(rows):
        ends = shown.interval(values)
        detail = f"<small>{html_text(ends)}</small>" if ends else ""
        opening, star = ('<td class="best">', STAR) if index in winners else ("<td>", "")
        cells += f"{opening}{html_text(shown.value(values))}{star}{detail}</td>"
    return f'<tr><th scope="row">{html_text(shown.label)}</th>{cells}</tr>'


def _kind(subject: Subject) -> str:
    host = f"on {subject.host}" if subject.host and subject.host not in subject.name else None
    return ", ".join(filter(None, (subject.architecture, subject.precision, subject.backend, host)))


def accuracy_and_time(profile: Profile) -> str:
    """Accuracy against latency, and how latency is distributed."""
    scored = {series: row(subject) for series, subject in enumerate(profile.subjects) if subject.scores}
    measure, median = measure_of(profile), FIGURES_BY_KEY["p50_ms"]
    trade = figure(
        f"{titled(profile)} against latency",
        "Left and up is better. Bars are 95% intervals; the dashed line joins the best trades of this machine.",
        charts.pareto(profile),
        table(
            f"{titled(profile)} and median time of one clip",
            ("subject", measure.label, "95% interval", "p50, ms", "95% interval"),
            [
                (
                    str(values["subject"]),
                    *(part for shown in (measure, median) for part in (shown.value(values), shown.interval(values))),
                )
                for values in scored.values()
            ],
        ),
        legend(profile, scored),
    )
    distribution = figure(
        "Latency distribution",
        "Box: the middle half of all clips, thick line: the median; the thin line goes from 1% to 99%, "
        "the dots are the fastest and the slowest clip.",
        charts.latency_distribution(profile),
        table(
            "Time that so many clips stayed within, ms",
            ("subject", *(f"{level}%" for level in QUANTILES)),
            [
                (subject.name, *(number(subject.latency.quantiles_ms[level]) for level in QUANTILES))
                for subject in profile.subjects
            ],
        ),
    )
    return _charts(trade, distribution)


def noise_and_short_clips(profile: Profile) -> str:
    """Accuracy with added noise, and on shorter clips."""
    noise = {series: subject.robustness.noise for series, subject in enumerate(profile.subjects) if subject.robustness}
    length = charts.length_curves(profile)
    return _charts(
        figure(
            f"{titled(profile)} with added noise",
            f"{profile.noise[:1].upper() + profile.noise[1:] if profile.noise else 'Noise'}; bars are 95% intervals.",
            charts.robustness_noise(profile),
            _conditions(profile, noise, f"{titled(profile)} with added noise", "dB"),
            legend(profile, noise, lines=True),
        ),
        figure(
            f"{titled(profile)} on shorter clips",
            "The clip is cut and padded as the runner pads it; bars are 95% intervals.",
            charts.robustness_length(profile),
            _conditions(profile, length, f"{titled(profile)} on shorter clips", "s"),
            legend(profile, length, lines=True),
        ),
    )


def sounds_of_no_class(profile: Profile) -> str:
    """What is made of silence, noise, hum and the user's own site."""
    rows = unknown_rows(profile)
    if not rows:
        return ""
    caption = (
        "None of these sounds is of a class. AUROC: how likely a test clip scores higher. Not rejected, and known test "
        "clips lost: at the threshold that the validation side gives. * ships with this score."
    )
    return table(caption, UNKNOWN_HEADS, rows)


def _conditions(profile: Profile, curves: dict[int, tuple[Point, ...]], caption: str, unit: str) -> str:
    values = sorted({point.value for points in curves.values() for point in points}, reverse=True)
    lines = []
    for series, points in curves.items():
        cells = {
            point.value: f"{percent(point.measure)} ({interval(*point.measure_interval, percent)})" for point in points
        }
        lines.append((profile.subjects[series].name, *(cells.get(value, NONE) for value in values)))
    return table(caption, ("subject", *(f"{setting(value)} {unit}" for value in values)), lines)


def classes(profile: Profile) -> str:
    """Recall (or average precision) of each class, and confusion matrices."""
    rows = class_rows(profile)
    if not rows:
        return ""
    scored = [(series, subject) for series, subject in enumerate(profile.subjects) if subject.scores]
    heads = "".join(f'<th scope="col">{key(series)}{html_text(subject.name)}</th>' for series, subject in scored)
    body = "".join(
        f'<tr><th scope="row">{html_text(name)}</th>{"".join(share_cell(share) for share in shares)}</tr>'
        for name, shares in rows
    )
    title, said = of_classes(profile)
    each = scrolled(
        title,
        f'<table class="even" style="--n:{len(scored)}">'
        f"{captioned(said)}"
        f'<thead><tr><th scope="col">class</th>{heads}</tr></thead><tbody>{body}</tbody></table>',
    )
    # A bundle's subject on several hosts, say, takes the same clips for the same classes: one matrix for all of them.
    alike: dict[tuple[tuple[int, ...], ...], list[Subject]] = {}
    for _, subject in scored:
        if isinstance(subject.scores, Scores):
            alike.setdefault(subject.scores.confusion, []).append(subject)
    matrices = [
        figure(
            f"Confusion matrix: {', '.join(subject.name for subject in subjects)}",
            "True classes downwards, predicted ones across; a stronger shade is a larger share of its row.",
            charts.confusion(subjects[0]),
            _confusions(subjects[0].scores),
        )
        for subjects in alike.values()
        if isinstance(subjects[0].scores, Scores)
    ]
    return each + _charts(*matrices)


def _confusions(scores: Scores) -> str:
    if len(scores.classes) <= charts.MOST_COUNTED:
        lines = [(name, *map(str, cells)) for name, cells in zip(scores.classes, scores.confusion, strict=True)]
        return table("Clips; rows: true class, columns: predicted", ("true class", *scores.classes), lines)
    mistakes = [
        (clips, scores.classes[true], scores.classes[predicted])
        for true, cells in enumerate(scores.confusion)
        for predicted, clips in enumerate(cells)
        if clips and true != predicted
    ]
    most = sorted(mistakes, reverse=True)[:MISTAKES]
    caption = "Mistakes" if len(mistakes) <= MISTAKES else f"The {MISTAKES} most frequent mistakes"
    rows = [(true, predicted, str(clips)) for clips, true, predicted in most]
    return table(caption, ("true class", "taken for", "clips"), rows)


def layers(profile: Profile) -> str:
    """The slowest layers of each subject, and a table of all."""
    return _charts(
        *(
            figure(
                f"Slowest layers: {subject.name}",
                "Time of one clip, and its share of the time of all layers.",
                charts.layers(subject),
                table(
                    f"All {len(subject.layers)} layers of {subject.name}",
                    ("layer", "operator", "ms", "share", "MACs", "output", "precision"),
                    [
                        (
                            layer.name,
                            layer.operator,
                            number(layer.ms),
                            percent(layer.share),
                            NONE if layer.macs is None else count(layer.macs),
                            NONE if layer.output_bytes is None else size(layer.output_bytes),
                            layer.precision or NONE,
                        )
                        for layer in subject.layers
                    ],
                ),
            )
            for subject in profile.subjects
        )
    )


def throughput(profile: Profile) -> str:
    """Clips a second, by threads and batch size."""
    ways = sorted({(batch.threads, batch.batch) for subject in profile.subjects for batch in subject.throughput})
    if not ways:
        return ""
    lines = []
    for subject in profile.subjects:
        rates = {(batch.threads, batch.batch): number(batch.clips_per_second) for batch in subject.throughput}
        lines.append((subject.name, *(rates.get(way, NONE) for way in ways)))
    heads = [f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}" for threads, batch in ways]
    return table("Clips a second", ("subject", *heads), lines)


def energy_and_battery(profile: Profile) -> str:
    """Energy of one clip with its source, and how long a battery lasts."""
    energies, batteries = [], []
    for subject in profile.subjects:
        if used := subject.energy:
            powers = [NONE if drawn is None else power(drawn) for drawn in (used.watts, used.idle_watts)]
            how = f"{'Measured' if used.measured else 'Estimated'} ({used.source}). {used.how}"
            energies.append((subject.name, energy(used.joules_per_clip), *powers, how))
        if battery := subject.battery:
            duty = f"{setting(100 * battery.duty_cycle)}%"
            figures = (number(battery.days), f"{setting(battery.watt_hours)} Wh", duty, power(battery.mean_watts))
            batteries.append((subject.name, *figures, battery.how))
    return explained("Energy of one clip", ("subject", "one clip", "while busy", "idle"), energies) + explained(
        "How long a battery lasts", ("subject", "days", "battery", "listening", "mean power"), batteries
    )


def _charts(*figures: str) -> str:
    """Figures beside each other; "" where there is none."""
    content = "".join(figures)
    return f'<div class="charts">{content}</div>' if content else ""
