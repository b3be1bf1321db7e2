#!/usr/bin/env bash
# Two float WAV files with the same samples are not the same bytes.
#
# Expected: WAV has no time stamp, so writing the same samples twice gives the same file.
# Seen (soundfile 0.14.0 and 0.13.1, libsndfile 1.2.2): 32-bit float WAV and AIFF get a PEAK chunk that holds the
# second of writing; files of two seconds differ in that word. PCM_16 in WAV, and float in Wave64, RF64 and CAF, are
# equal.
# Matters: hashing files finds no duplicates, and caches keyed by a hash are made anew, in a data set that somebody
# regenerates; compare decoded samples, or write RF64 or integers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import time

import numpy as np
import soundfile

samples = 0.1 * np.random.default_rng(0).standard_normal(1000).astype("float32")
kinds = [("WAV", "FLOAT"), ("AIFF", "FLOAT"), ("WAV", "PCM_16"), ("W64", "FLOAT"), ("RF64", "FLOAT"), ("CAF", "FLOAT")]


def written():
    files = {}
    for container, subtype in kinds:
        soundfile.write("clip", samples, 8000, format=container, subtype=subtype)
        files[container, subtype] = open("clip", "rb").read()
    return files


first = written()
time.sleep(2.1)
second = written()
differing = {kind for kind in kinds if first[kind] != second[kind]}
print("differ:", differing)
assert differing == {("WAV", "FLOAT"), ("AIFF", "FLOAT")}
wav = first["WAV", "FLOAT"], second["WAV", "FLOAT"]
places = [place for place, (a, b) in enumerate(zip(*wav, strict=True)) if a != b]
peak = wav[0].index(b"PEAK")
print("PEAK at", peak, "bytes that differ:", places)
assert set(places) <= set(range(peak + 12, peak + 16))
PY
