#!/usr/bin/env bash
# A chained Ogg file is read up to the end of its first stream by libsndfile, and whole by others.
#
# RFC 3533 (section 4) allows logical streams one after another in a file: `cat a.ogg b.ogg`, and what radio recorders
# write.
# Expected: all decoders give all streams.
# Seen: of two Vorbis streams with 4001 samples each, libsndfile 1.2.2 (soundfile 0.14.0 and 0.13.1) gives 4001
# samples, in `info` and in `read`, without an error; FFmpeg (PyAV 18.1.0) gives the second one as well.
# Matters: long recordings from loggers that chain are silently reduced to their first minutes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import av
import numpy as np
import soundfile

soundfile.write("one.ogg", 0.1 * np.random.default_rng(0).standard_normal(4001), 8000)
one = open("one.ogg", "rb").read()
with open("two.ogg", "wb") as file:
    file.write(one + one)
with av.open("two.ogg") as container:
    ffmpeg = sum(frame.samples for frame in container.decode(audio=0))
with av.open("one.ogg") as container:
    ffmpeg_of_one = sum(frame.samples for frame in container.decode(audio=0))
print(
    "libsndfile:",
    soundfile.info("two.ogg").frames,
    len(soundfile.read("two.ogg")[0]),
    "FFmpeg:",
    ffmpeg,
    "of one:",
    ffmpeg_of_one,
)
assert soundfile.info("two.ogg").frames == len(soundfile.read("two.ogg")[0]) == 4001
assert ffmpeg > 7900
PY
