"""`report.html`: a profile as one page that fetches nothing, for a screen, a phone, paper and a screen reader.

It has no script, and its content security policy lets the browser load nothing. Charts are inline SVG with a title and
a description, and the figures of each are in a table behind it. All names come from users, so all text is escaped where
it meets markup (`edgekd.escaping`). This module holds the frame and what a reader must know of the measurement; the
measurements themselves are in `edgekd.report.page_results`.
"""

from __future__ import annotations

import shlex

from edgekd.escaping import html_command, html_text
from edgekd.number_formats import NONE, percent, probability_difference, setting
from edgekd.report import page_results
from edgekd.report.figures import GLOSSARY, known_figures, row
from edgekd.report.machines import machine_rows, machines_of
from edgekd.report.page_parts import table
from edgekd.report.page_style import style_sheet
from edgekd.report.results import Profile

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
MANY = 3  # sentences of a verdict that are still set large


def report_html(profile: Profile) -> str:
    """The whole page."""
    title = f"Profile of {profile.dataset or profile.subjects[0].name}"
    sections = {
        "Key figures": page_results.key_figures(profile),
        "Accuracy and time": page_results.accuracy_and_time(profile),
        "Noise and short clips": page_results.noise_and_short_clips(profile),
        "Sounds of no class": page_results.sounds_of_no_class(profile),
        "Classes": page_results.classes(profile),
        "Layers": page_results.layers(profile),
        "Throughput": page_results.throughput(profile),
        "Energy and battery": page_results.energy_and_battery(profile),
        "Machine and environment": _machine(profile),
        "Make this report again": _again(profile),
        "Glossary": _glossary(profile),
    }
    present = {_anchor(heading): (heading, content) for heading, content in sections.items() if content}
    links = "".join(
        f'<li><a href="#{anchor}">{html_text(heading)}</a></li>' for anchor, (heading, _) in present.items()
    )
    body = "\n".join(
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{html_text(heading)}</h2>{content}</section>'
        for anchor, (heading, content) in present.items()
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
<title>{html_text(title)}</title>
<style>{style_sheet()}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the figures</a>
<header><h1>{html_text(title)}</h1>{_verdict(profile)}{_facts(profile)}
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main id="content" tabindex="-1">
{_notes(profile)}
{body}
</main>
<footer><p>Made by edgekd {html_text(profile.edgekd)}.</p></footer>
</body>
</html>
"""


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _verdict(profile: Profile) -> str:
    if not profile.verdict:
        return ""
    many = " many" if len(profile.verdict) > MANY else ""
    sentences = "".join(f"<p>{html_text(sentence)}</p>" for sentence in profile.verdict)
    return f'<div class="verdict{many}">{sentences}</div>'


def _facts(profile: Profile) -> str:
    length = f"{setting(profile.clip_seconds)} s" if profile.clip_seconds else ""
    rate = f"{setting(profile.sample_rate / 1000)} kHz" if profile.sample_rate else ""
    machine = ", ".join(filter(None, (profile.machine.cpu, profile.machine.gpu)))
    created = html_text(profile.created[:16].replace("T", " "))
    facts = [html_text(fact) for fact in (profile.clips, " at ".join(filter(None, (length, rate))), machine) if fact]
    facts.append(f'<time datetime="{html_text(profile.created)}">{created} UTC</time>')
    return f'<ul class="facts">{"".join(f"<li>{fact}</li>" for fact in facts)}</ul>'


def _notes(profile: Profile) -> str:
    if not profile.notes:
        return ""
    machines = (profile.machine, *machines_of(profile).values())
    doubtful = any(machine.busy or machine.throttled for machine in machines) or not all(
        subject.latency.settled for subject in profile.subjects
    )
    title = "Mind this before you use the times" if doubtful else "Notes"
    items = "".join(f"<li>{html_text(note)}</li>" for note in profile.notes)
    kind = "notes warn" if doubtful else "notes"
    return f'<section class="{kind}" aria-labelledby="notes"><h2 id="notes">{title}</h2><ul>{items}</ul></section>'


def _machine(profile: Profile) -> str:
    machines, state = machine_rows(profile)
    subjects = [
        (
            subject.name,
            subject.source,
            subject.runtime,
            NONE if subject.threads is None else str(subject.threads),
            str(subject.latency.repetitions),
        )
        for subject in profile.subjects
    ]
    golden = [
        (
            subject.name,
            "agree" if subject.golden.agrees else "disagree",
            percent(subject.golden.agreement),
            probability_difference(subject.golden.largest_difference),
        )
        for subject in profile.subjects
        if subject.golden
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
        digest = f'<p class="quiet">The scored clips: sha256 <code>{html_text(profile.clips_digest)}</code></p>'
    if profile.command:
        command = f'<pre tabindex="0" aria-label="Command">{html_command(shlex.join(profile.command))}</pre>'
    return command + digest


def _glossary(profile: Profile) -> str:
    known = known_figures([row(subject) for subject in profile.subjects])
    shown = {figure.key for figures in known.values() for figure in figures}
    items = "".join(
        f"<div><dt>{html_text(word)}</dt><dd>{html_text(meaning)}</dd></div>"
        for figure_key, (word, meaning) in GLOSSARY.items()
        if figure_key in shown
    )
    return f"<dl>{items}</dl>"
