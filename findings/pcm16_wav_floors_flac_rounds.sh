#!/usr/bin/env bash
# One float array written as 16-bit WAV and as 16-bit FLAC gives different samples.
#
# Expected: both are lossless and 16-bit, so both hold the same integers.
# Seen (soundfile 0.14.0 and 0.13.1, libsndfile 1.2.2): WAV, AIFF, Wave64 and CAF round down, FLAC rounds to the
# nearest: 3947 of 8000 samples differ by one step, and the WAV has an offset of half a step.
# Matters: hashes and golden scores of "the same" data set change when it is packed as FLAC from floats. Rounding to
# int16 before writing makes all of them equal.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import soundfile

floats = 0.1 * np.random.default_rng(0).standard_normal(8000)


def written(samples, container):
    soundfile.write("clip", samples, 8000, format=container, subtype="PCM_16")
    return soundfile.read("clip", dtype="int16")[0]


wav, flac = written(floats, "WAV"), written(floats, "FLAC")
print(
    "differ:",
    (wav != flac).sum(),
    "of",
    len(wav),
    "offsets in steps:",
    (wav - floats * 32768).mean(),
    (flac - floats * 32768).mean(),
)
assert np.array_equal(wav, np.floor(floats * 32768))
assert np.array_equal(flac, np.rint(floats * 32768))
assert 3000 < (wav != flac).sum() < 5000
for container in ("AIFF", "W64", "CAF"):
    assert np.array_equal(written(floats, container), wav), container
whole = np.rint(floats * 32768).astype("int16")
assert np.array_equal(written(whole, "WAV"), written(whole, "FLAC"))
PY
