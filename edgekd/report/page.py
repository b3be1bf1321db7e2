"""`report.html`: a profile as one page that fetches nothing, for a screen, a phone, paper and a screen reader.

There is no script in it, and its content security policy lets the browser load nothing. Charts are inline SVG with a
title and a description, and the figures of each are in a table behind it. All names come from users, so all text is
escaped where it meets markup, in `_text`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape

from edgekd.report import charts
from edgekd.report.page_parts import captioned, explained, figure, key, legend, scrolled, share_cell, table, text
from edgekd.report.page_style import style_sheet
from edgekd.report.results import Point, Profile, Subject
from edgekd.report.tables import (
    FIGURES,
    GLOSSARY,
    NONE,
    Figure,
    Row,
    compact,
    described,
    energy,
    known_figures,
    machines_of,
    milliseconds,
    percent,
    recall_rows,
    row,
    size,
)
from edgekd.scoring.scores import Scores

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
MANY = 3  # sentences of a verdict that are still set large
MISTAKES = 40  # kinds of mistakes in the table behind a confusion matrix of many classes

STAR = '<span class="star" aria-hidden="true">★</span><span class="unseen"> best</span>'


def report_html(profile: Profile) -> str:
    """The whole page."""
    subject = f"Profile of {profile.dataset or profile.subjects[0].name}"
    sections = {
        "Key figures": _key_figures(profile),
        "Accuracy and time": _trade(profile),
        "Noise and short clips": _robustness(profile),
        "Classes": _classes(profile),
        "Layers": _layers(profile),
        "Throughput": _throughput(profile),
        "Energy and battery": _energy(profile),
        "Machine and environment": _machine(profile),
        "Make this report again": _again(profile),
        "Glossary": _glossary(profile),
    }
    present = {_anchor(title): (title, content) for title, content in sections.items() if content}
    links = "".join(f'<li><a href="#{place}">{text(title)}</a></li>' for place, (title, _) in present.items())
    body = "\n".join(
        f'<section aria-labelledby="{place}"><h2 id="{place}">{text(title)}</h2>{content}</section>'
        for place, (title, content) in present.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{text(subject)}</title>
<style>{style_sheet()}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the figures</a>
<header><h1>{text(subject)}</h1>{_verdict(profile)}{_facts(profile)}
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main id="content" tabindex="-1">
{_notes(profile)}
{body}
</main>
<footer><p>Made by edgekd {text(profile.edgekd)}.</p></footer>
</body>
</html>
"""


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _verdict(profile: Profile) -> str:
    if not profile.verdict:
        return ""
    many = " many" if len(profile.verdict) > MANY else ""
    return f'<div class="verdict{many}">{"".join(f"<p>{text(one)}</p>" for one in profile.verdict)}</div>'


def _facts(profile: Profile) -> str:
    length = f"{profile.clip_seconds:g} s" if profile.clip_seconds else ""
    rate = f"{profile.sample_rate / 1000:g} kHz" if profile.sample_rate else ""
    machine = ", ".join(part for part in (profile.machine.cpu, profile.machine.gpu) if part)
    when = f'<time datetime="{text(profile.created)}">{text(profile.created[:16].replace("T", " "))} UTC</time>'
    facts = [text(profile.clips), " at ".join(filter(None, (length, rate))), text(machine), when]
    return f'<ul class="facts">{"".join(f"<li>{fact}</li>" for fact in facts if fact)}</ul>'


def _notes(profile: Profile) -> str:
    if not profile.notes:
        return ""
    trouble = any(
        machine.busy or machine.throttled for machine in (profile.machine, *machines_of(profile).values())
    ) or not all(one.latency.settled for one in profile.subjects)
    title = "Mind this before you use the times" if trouble else "Notes"
    items = "".join(f"<li>{text(note)}</li>" for note in profile.notes)
    kind = "notes warn" if trouble else "notes"
    return f'<section class="{kind}" aria-labelledby="notes"><h2 id="notes">{title}</h2><ul>{items}</ul></section>'


def _key_figures(profile: Profile) -> str:
    """Figures downwards, subjects across: so it fits a page, and a phone shows two or three subjects at once."""
    rows = [row(one) for one in profile.subjects]
    heads = "".join(
        f'<th scope="col">{key(place)}{text(one.name)}<small>{text(_kind(one))}</small></th>'
        for place, one in enumerate(profile.subjects)
    )
    body = "".join(
        f'<tbody><tr class="group"><th colspan="{len(rows) + 1}" scope="rowgroup">{text(heading)}</th></tr>'
        f"{''.join(_figure_row(one, rows) for one in shown)}</tbody>"
        for heading, shown in known_figures(rows).items()
    )
    baseline = f"The baseline is {profile.baseline}. " if profile.baseline else ""
    best = "★ best of its row, as far as the digits show. " if len(rows) > 1 else ""
    caption = captioned(f"{best}{baseline}Small print: 95 % intervals.")
    return scrolled(
        "Key figures",
        f'<table class="even" style="--n:{len(rows)}">{caption}'
        f'<thead><tr><th scope="col">Figure</th>{heads}</tr></thead>{body}</table>',
        "long",
    )


def _figure_row(one: Figure, rows: Sequence[Row]) -> str:
    winners = one.winners(rows)
    cells = ""
    for place, of_subject in enumerate(rows):
        interval = one.interval(of_subject)
        detail = f"<small>{text(interval)}</small>" if interval else ""
        opening, star = ('<td class="best">', STAR) if place in winners else ("<td>", "")
        cells += f"{opening}{text(one.value(of_subject))}{star}{detail}</td>"
    return f'<tr><th scope="row">{text(one.label)}</th>{cells}</tr>'


def _trade(profile: Profile) -> str:
    scored = {place: one for place, one in enumerate(profile.subjects) if one.scores}
    accuracy, time = FIGURES["Accuracy"][0], FIGURES["Time of one clip"][0]
    trade = figure(
        "Accuracy against latency",
        "Left and up is better. Bars are 95 % intervals; the dashed line joins the best trades of this machine.",
        charts.pareto(profile),
        table(
            "Accuracy and median time of one clip",
            ("subject", "accuracy", "95 % interval", "p50, ms", "95 % interval"),
            [
                (
                    one.name,
                    accuracy.value(row(one)),
                    accuracy.interval(row(one)),
                    time.value(row(one)),
                    time.interval(row(one)),
                )
                for one in scored.values()
            ],
        ),
        legend(profile, scored),
    )
    shown = (1, 25, 50, 75, 95, 99, 100)
    times = figure(
        "Latency distribution",
        "Box: the middle half of all clips, thick line: the median; the thin line goes from 1 % to 99 %, "
        "the dots are the fastest and the slowest clip.",
        charts.latency_distribution(profile),
        table(
            "Time that so many clips stayed within, ms",
            ("subject", *(f"{level} %" for level in shown)),
            [(one.name, *(milliseconds(one.latency.quantiles_ms[at]) for at in shown)) for one in profile.subjects],
        ),
    )
    return f'<div class="charts">{trade}{times}</div>'


def _robustness(profile: Profile) -> str:
    noise = {place: one.robustness.noise for place, one in enumerate(profile.subjects) if one.robustness}
    length = charts.length_curves(profile)
    figures = [
        figure(
            "Accuracy with added noise",
            f"{profile.noise[:1].upper() + profile.noise[1:] if profile.noise else 'Noise'}; bars are 95 % intervals.",
            charts.robustness_noise(profile),
            _conditions(profile, noise, "Accuracy with added noise", "{:g} dB"),
            legend(profile, noise, lines=True),
        ),
        figure(
            "Accuracy on shorter clips",
            "The clip is cut and padded as the runner pads it; bars are 95 % intervals.",
            charts.robustness_length(profile),
            _conditions(profile, length, "Accuracy on shorter clips", "{:.3g} s"),
            legend(profile, length, lines=True),
        ),
    ]
    found = "".join(figures)
    return f'<div class="charts">{found}</div>' if found else ""


def _conditions(profile: Profile, curves: dict[int, tuple[Point, ...]], caption: str, unit: str) -> str:
    values = sorted({point.value for points in curves.values() for point in points}, reverse=True)
    lines = []
    for place, points in curves.items():
        found = {point.value: point for point in points}
        cells = [
            NONE
            if value not in found
            else f"{percent(found[value].accuracy)} ({_range(found[value].accuracy_interval)})"
            for value in values
        ]
        lines.append((profile.subjects[place].name, *cells))
    return table(caption, ("subject", *(unit.format(value) for value in values)), lines)


def _classes(profile: Profile) -> str:
    recalls = recall_rows(profile)
    if not recalls:
        return ""
    scored = [(place, one) for place, one in enumerate(profile.subjects) if one.scores]
    heads = "".join(f'<th scope="col">{key(place)}{text(one.name)}</th>' for place, one in scored)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(share_cell(share) for share in shares)}</tr>'
        for name, shares in recalls
    )
    found = scrolled(
        "Recall of each class",
        f'<table class="even" style="--n:{len(scored)}">'
        f"{captioned('Recall: the share of the clips of a class that got this class.')}"
        f'<thead><tr><th scope="col">class</th>{heads}</tr></thead><tbody>{body}</tbody></table>',
    )
    # A bundle's subject on several hosts, say, takes the same clips for the same classes: one matrix for all of them.
    alike: dict[tuple[tuple[int, ...], ...], list[Subject]] = {}
    for _, one in scored:
        assert one.scores is not None
        alike.setdefault(one.scores.confusion, []).append(one)
    matrices = "".join(
        figure(
            f"Confusion matrix: {', '.join(one.name for one in those)}",
            "True classes downwards, predicted ones across; a stronger shade is a larger share of its row.",
            charts.confusion(those[0]),
            _confusions(those[0].scores),
        )
        for those in alike.values()
        if those[0].scores
    )
    return f'{found}<div class="charts">{matrices}</div>'


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
    return table(
        caption, ("true class", "taken for", "clips"), [(true, said, str(clips)) for clips, true, said in most]
    )


def _layers(profile: Profile) -> str:
    figures = "".join(
        figure(
            f"Slowest layers: {one.name}",
            "Time of one clip, and its share of the time of all layers.",
            charts.layers(one),
            table(
                f"All {len(one.layers)} layers of {one.name}",
                ("layer", "operator", "ms", "share", "MACs", "output", "precision"),
                [
                    (
                        layer.name,
                        layer.operator,
                        f"{layer.ms:.3g}",
                        percent(layer.share),
                        NONE if layer.macs is None else compact(layer.macs),
                        NONE if layer.output_bytes is None else size(layer.output_bytes),
                        layer.precision or NONE,
                    )
                    for layer in one.layers
                ],
            ),
        )
        for one in profile.subjects
    )
    return f'<div class="charts">{figures}</div>' if figures else ""


def _throughput(profile: Profile) -> str:
    ways = sorted({(one.threads, one.batch) for subject in profile.subjects for one in subject.throughput})
    if not ways:
        return ""
    lines = []
    for subject in profile.subjects:
        found = {(one.threads, one.batch): f"{one.clips_per_second:,.1f}" for one in subject.throughput}
        lines.append((subject.name, *(found.get(way, NONE) for way in ways)))
    heads = [f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}" for threads, batch in ways]
    return table("Clips a second", ("subject", *heads), lines)


def _energy(profile: Profile) -> str:
    energies, batteries = [], []
    for one in profile.subjects:
        if used := one.energy:
            powers = [NONE if watts is None else f"{watts:.3g} W" for watts in (used.watts, used.idle_watts)]
            told = f"{'Measured' if used.measured else 'Estimated'} ({used.source}). {used.how}"
            energies.append((one.name, energy(used.joules_per_clip), *powers, told))
        if lasting := one.battery:
            figures = (f"{lasting.days:.3g}", f"{lasting.watt_hours:g} Wh", percent(lasting.duty_cycle))
            batteries.append((one.name, *figures, f"{lasting.mean_watts:.3g} W", lasting.how))
    return explained("Energy of one clip", ("subject", "one clip", "while busy", "idle"), energies) + explained(
        "How long a battery lasts", ("subject", "days", "battery", "listening", "mean power"), batteries
    )


def _machine(profile: Profile) -> str:
    machines = {name: described(machine) for name, machine in machines_of(profile).items()}
    keys = list(dict.fromkeys(key for told in machines.values() for key in told))
    state = [(key, *(told.get(key, NONE) for told in machines.values())) for key in keys]
    subjects = [
        (
            one.name,
            one.source,
            one.runtime,
            NONE if one.threads is None else str(one.threads),
            str(one.latency.repetitions),
        )
        for one in profile.subjects
    ]
    golden = [
        (one.name, "agree" if found.agrees else "disagree", percent(found.agreement), f"{found.largest_difference:.2g}")
        for one in profile.subjects
        if (found := one.golden)
    ]
    parts = [
        table("Where times were taken", ("", *machines), state, "words"),
        table("What was timed", ("subject", "source", "runtime", "threads", "repetitions"), subjects, "words"),
    ]
    if golden:
        heads = ("subject", "golden examples", "same class", "largest difference of a probability")
        parts.append(table("The bundle's golden examples", heads, golden, "words"))
    parts.append(table("Environment", ("", "version"), list(profile.environment.items()), "words"))
    return "".join(parts)


def _again(profile: Profile) -> str:
    digest = command = ""
    if profile.clips_digest:
        digest = f'<p class="quiet">The scored clips: sha256 <code>{text(profile.clips_digest)}</code></p>'
    if profile.command:
        command = f'<pre tabindex="0" aria-label="Command">{escape(shlex.join(profile.command))}</pre>'
    return command + digest


def _glossary(profile: Profile) -> str:
    known = known_figures([row(one) for one in profile.subjects])
    shown = {one.key for figures in known.values() for one in figures}
    items = "".join(
        f"<div><dt>{text(word)}</dt><dd>{text(meaning)}</dd></div>"
        for of_figure, (word, meaning) in GLOSSARY.items()
        if of_figure in shown
    )
    return f"<dl>{items}</dl>"


def _kind(one: Subject) -> str:
    parts = [
        one.architecture,
        one.precision,
        one.backend,
        f"on {one.host}" if one.host and one.host not in one.name else None,
    ]
    return ", ".join(part for part in parts if part)


def _range(shares: tuple[float, float]) -> str:
    return f"{100 * shares[0]:.1f} to {100 * shares[1]:.1f}"
