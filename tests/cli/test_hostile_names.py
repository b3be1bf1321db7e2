"""One hostile name, of a folder and a class, walked through the commands: what shows it shows letters."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from markdown_it import MarkdownIt

from edgekd.data.load import load_index
from edgekd.data.splits import read_splits
from edgekd.runs.predictions import read_predictions
from edgekd.runs.run import Run

HOSTILE = "=\x1b[31m<b>[red]|`x`\u202e\n@y\x9b2J"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # but for tabs and line breaks


def assert_letters(text: str, of: object) -> None:
    assert not OBEYED.search(text), (of, text)


def test_a_hostile_name_is_letters_wherever_it_is_shown(
    edgekd: Callable, quick: Callable, recordings: Path, tmp_path: Path
) -> None:
    data, rng = recordings.rename(tmp_path / HOSTILE), np.random.default_rng(0)
    for file in sorted(data.rglob("*.wav")):
        pitch = 0.02 if file.parent.name == "low" else 0.3
        tone = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.8, 1.2) * np.arange(22_000))
        soundfile.write(file, tone + 0.05 * rng.standard_normal(len(tone)), 4_000)
    (data / "high").rename(data / HOSTILE)
    (data / HOSTILE / "0.wav").rename(data / HOSTILE / f"{HOSTILE}.wav")
    (data / "low" / "broken.wav").write_bytes(b"RIFF")
    (data / "low" / "broken.wav").rename(data / "low" / "\x1bbroken.wav")
    asked = ["--data-dir", data, "--sample-rate", "4000", "--clip-seconds", "0.5", "--set", "frontend.f_max=1900"]
    refused = edgekd("data", "audit", *asked, "--quiet")
    assert refused.code == 3 and "\\x1bbroken.wav" in refused.err
    seen = [refused, edgekd("data", "inspect", *asked, "--no-picture", "--quiet")]
    (data / "low" / "\x1bbroken.wav").unlink()
    run, bundle = tmp_path / f"run {HOSTILE}", tmp_path / f"bundle {HOSTILE}"
    seen += [
        edgekd("data", "audit", *asked),
        edgekd("data", "inspect", *asked, "--no-picture", "--json", "--quiet"),
        quick("--data-dir", data, "--out", run),
        quick("--data-dir", data, "--out", run),
        quick("--data-dir", data, "--out", run, "--dry-run"),
        edgekd("export", run, "--target", "cpu", "--out", bundle),
        edgekd("profile", run / "student", "--quick", "--out", run / "profile"),
        edgekd("predict", bundle, data / HOSTILE / f"{HOSTILE}.wav", data / "nothing\x1b"),
        edgekd("predict", bundle, data / HOSTILE / f"{HOSTILE}.wav", "--json"),
    ]
    for outcome in seen:
        assert_letters(outcome.out + outcome.err, outcome)
    assert [outcome.code for outcome in seen] == [3, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0], seen

    shown = [path for path in tmp_path.rglob("*") if path.suffix in {".csv", ".md", ".html", ".toml"}]
    assert {path.name for path in shown} >= {"splits.csv", "predictions.csv", "README.md", "report.html", "report.md"}
    for path in shown:
        text = path.read_text(encoding="utf-8")
        assert_letters(text, path)
        if path.suffix == ".csv":
            cells = [cell for line in csv.reader(text.splitlines()) for cell in line]
            assert not [cell for cell in cells if cell.lstrip().startswith(("=", "@")) or re.match(r"[-+][^\d.]", cell)]
    page = (run / "profile" / "report.html").read_text()
    assert "<b>" not in page
    for page in (run / "profile" / "report.md", bundle / "README.md"):
        tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text())
        assert not [token for token in tokens if token.type == "html_block" and "<b>" in token.content], page
        assert not [child for token in tokens for child in token.children or [] if child.type == "html_inline"], page

    opened = Run.open(run)
    assert HOSTILE in opened.classes, "and what is read back is what was written"
    index = load_index(opened.config.data)
    split = read_splits(run / "splits.csv", index)
    said = read_predictions(run, "student", opened.classes)
    assert said.groups == tuple(index.clips[row].group for row in split.test)
    assert json.loads(seen[-1].out)["files"][0]["file"].endswith(f"{HOSTILE}.wav")
