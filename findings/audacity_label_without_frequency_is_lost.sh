#!/usr/bin/env bash
# crowsetta drops the last label of an Audacity file without a word if it has no frequencies.
#
# Audacity writes a label's frequencies on a second line, for those labels that were drawn in a spectrogram; a label of
# time alone has one line. Both may stand in one file.
# Expected: labels without frequencies are read without them, or refused with their line.
# Seen (crowsetta 5.1.2, format "aud-bbox"): lines are taken in pairs, whatever they hold. A label of one line at the
# end is not read, and nothing is said; one before the others raises "could not convert string to float: 'tug'", which
# names a label that is right. The format "aud-seq", for files without frequencies, reads neither.
# Matters: annotators add the last event of a clip in a hurry, in the waveform; it is missing in training and counted as
# a false alarm in evaluation. Compare the number of labels with the number of lines that do not begin with a backslash.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pandas==3.1.1 pandera==0.35.0 crowsetta==5.1.2
cd "$work"
venv/bin/python -I -W ignore - <<'PY'
import pathlib

from crowsetta.formats.bbox import AudBBox
from crowsetta.formats.seq import AudSeq

tug = "0.5\t1.5\ttug\n\\\t100.0\t200.0\n"
gull = "4.0\t5.0\tgull\n\\\t2000.0\t4000.0\n"
ferry = "2.0\t3.0\tferry\n"


def labels(text):
    path = pathlib.Path("labels.txt")
    path.write_text(text)
    found = []
    for read in (lambda: [box.label for box in AudBBox.from_file(path).to_bbox()], lambda: AudSeq.from_file(path)):
        try:
            found.append(read())
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return found


for name, text in (("all with", tug + gull), ("last without", tug + gull + ferry), ("first without", ferry + tug)):
    print(name, labels(text))
assert labels(tug + gull)[0] == ["tug", "gull"]
assert labels(tug + gull + ferry)[0] == ["tug", "gull"]
assert labels(ferry + tug)[0] == "ValueError: could not convert string to float: 'tug'"
assert "Error" in labels(tug + gull + ferry)[1]
PY
