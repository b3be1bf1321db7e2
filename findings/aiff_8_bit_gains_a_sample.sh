#!/usr/bin/env bash
# An AIFF file of 8-bit samples comes back one sample longer when their number is odd, and that sample can be a click.
#
# AIFF pads a chunk of odd size with one byte that does not count; the number of samples stands in the COMM chunk
# besides.
# Expected: 4001 samples written are 4001 samples read.
# Seen (soundfile 0.14.0 and 0.13.1, libsndfile 1.2.2): 4002 in COMM and read back, for PCM_S8, PCM_U8, ULAW and ALAW.
# The last one is what the pad byte decodes to: 0 for PCM_S8, -1.0 (full scale) for PCM_U8, -0.98 for ULAW. WAV pads,
# too, and keeps 4001.
# Matters: every second file of such a data set ends in a full-scale click, which peak normalisation then scales by.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import struct

import numpy as np
import soundfile

samples = 0.1 * np.random.default_rng(0).standard_normal(4001)
last = {}
for subtype in ("PCM_S8", "PCM_U8", "ULAW", "ALAW"):
    soundfile.write("clip.aiff", samples, 8000, format="AIFF", subtype=subtype)
    data = open("clip.aiff", "rb").read()
    comm = struct.unpack_from(">I", data, data.index(b"COMM") + 10)[0]
    read = soundfile.read("clip.aiff")[0]
    last[subtype] = float(read[-1])
    print(subtype, "COMM:", comm, "read:", len(read), "last:", read[-1])
    assert comm == len(read) == 4002
assert last["PCM_S8"] == 0 and last["PCM_U8"] == -1 and last["ULAW"] < -0.9
soundfile.write("clip.wav", samples, 8000, subtype="PCM_U8")
assert len(soundfile.read("clip.wav")[0]) == 4001
PY
