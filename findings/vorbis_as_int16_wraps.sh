#!/usr/bin/env bash
# Loud Vorbis wraps around when it is read as 16-bit integers; loud mp3 is clipped.
#
# A lossy codec overshoots: samples near full scale decode to more than 1.
# Expected: reading as int16 clips, as python-soundfile does for mp3 and as every player does.
# Seen (soundfile 0.14.0 and 0.13.1, libsndfile 1.2.2): Vorbis wraps: +1.058 becomes -0.942. Of 16000 samples of
# random sign at 0.999 thousands change their sign. Opus in the same container is clipped by its decoder.
# Matters: int16 is what a device or a loader of integers reads; such clicks are full-scale noise for a classifier,
# and happen only in loud clips. Read floats, then clip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import soundfile

loud = 0.999 * np.sign(np.random.default_rng(0).standard_normal(16000))


def flipped(name, **kind):
    soundfile.write(name, loud, 16000, **kind)
    floats = soundfile.read(name)[0]
    integers = soundfile.read(name, dtype="int16")[0] / 32768
    return int((np.abs(floats - integers) > 1.5).sum()), float(np.abs(floats).max()), floats, integers


vorbis, peak, floats, integers = flipped("clip.ogg", subtype="VORBIS")
mp3, mp3_peak, *_ = flipped("clip.mp3")
opus, opus_peak, *_ = flipped("clip.opus", format="OGG", subtype="OPUS")
where = np.flatnonzero(np.abs(floats - integers) > 1.5)[:3]
print("wrapped: vorbis", vorbis, "mp3", mp3, "opus", opus, "peaks", peak, mp3_peak, opus_peak)
print("floats", floats[where], "as int16", integers[where])
assert peak > 1.1 and mp3_peak > 1.1 and opus_peak <= 1
assert vorbis > 1000
assert opus == 0
soundfile.read("clip.mp3", dtype="int16")[0]
assert np.abs(soundfile.read("clip.mp3", dtype="int16")[0]).max() >= 32767
mp3_floats = soundfile.read("clip.mp3")[0]
mp3_integers = soundfile.read("clip.mp3", dtype="int16")[0]
assert (np.sign(mp3_integers[np.abs(mp3_floats) > 1]) == np.sign(mp3_floats[np.abs(mp3_floats) > 1])).all()
PY
