#!/usr/bin/env bash
# crowsetta takes a label of digits for a number, and refuses a table whose times are whole seconds.
#
# Expected: a column of labels is text, and one of times or frequencies numbers, whatever stands in it.
# Seen (crowsetta 5.1.2, pandas 3.1.1): types are guessed from the whole column. Labels 007 and 01 become 7 and 1,
# without a word; the same 007 next to a label of letters stays 007. Times 0 and 3, or frequencies 100 and 200, are
# refused ("expected float64, got int64"), in Raven tables and in Audacity's labels; one 0.5 in the column, and all are
# read. A label NA is refused as a missing one.
# Matters: codes of species and of call types are digits in many schemes, and a split by file changes which labels stand
# in one table: the same class has two names. Detectors with windows of 3 s write whole seconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pandas==3.1.1 pandera==0.35.0 crowsetta==5.1.2
cd "$work"
venv/bin/python -I -W ignore - <<'PY'
import pathlib

from crowsetta.formats.bbox import Raven
from crowsetta.formats.seq import AudSeq

HEADER = "Selection\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies"
path = pathlib.Path("table.txt")


def raven(*rows):
    lines = [f"{number}\t" + "\t".join(row) for number, row in enumerate(rows, 1)]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    try:
        return [box.label for box in Raven.from_file(path, annot_col="Species").to_bbox()]
    except Exception as error:
        return str(error).splitlines()[0]


def audacity(*rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    try:
        return [str(label) for label in AudSeq.from_file(path).labels]
    except Exception as error:
        return str(error).splitlines()[0]


band = ("100.5", "200.5")
digits = raven(("0.5", "3.5", *band, "007"), ("4.5", "7.5", *band, "01"))
mixed = raven(("0.5", "3.5", *band, "007"), ("4.5", "7.5", *band, "tug"))
whole = raven(("0", "3", *band, "tug"), ("3", "6", *band, "tug"))
half = raven(("0", "3.5", *band, "tug"), ("3.5", "6", *band, "tug"))
frequencies = raven(("0.5", "3.5", "100", "200", "tug"))
missing = raven(("0.5", "3.5", *band, "NA"), ("4.5", "7.5", *band, "tug"))
label_digits, label_whole = audacity(("0.5", "3.5", "007")), audacity(("0", "3", "tug"))
print("Raven:", digits, mixed, whole, half, frequencies, missing, sep="\n  ")
print("Audacity:", label_digits, label_whole, sep="\n  ")
assert digits == ["7", "1"] and mixed == ["007", "tug"]
assert "to have type float64, got int64" in whole and half == ["tug", "tug"]
assert "to have type float64, got int64" in frequencies
assert "null values" in missing
assert label_digits == ["7"]
assert "to have type float64, got int64" in label_whole
PY
