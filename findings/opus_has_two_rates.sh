#!/usr/bin/env bash
# One Opus file has the rate 16000 for libsndfile and 48000 for FFmpeg.
#
# Opus always decodes to 48 kHz; its header keeps the rate of what was encoded as information.
# Expected: two readers of a file agree on its rate and length.
# Seen: written at 16 kHz, soundfile (0.14.0 and 0.13.1, libsndfile 1.2.2) says 16000 and 15999 samples; FFmpeg (PyAV
# 18.1.0) says 48000 and 47997. And libsndfile does not write Opus at 44.1 kHz or 22.05 kHz at all: "only supports
# sample rates of 8000, 12000, 16000, 24000, and 48000".
# Matters: a manifest of rates and sample offsets made with one is wrong by a factor of 3 for the other, and 44.1 kHz
# data sets cannot be packed without resampling.
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

samples = 0.1 * np.random.default_rng(0).standard_normal(15999)
soundfile.write("clip.opus", samples, 16000, format="OGG", subtype="OPUS")
info = soundfile.info("clip.opus")
with av.open("clip.opus") as container:
    rate = container.streams.audio[0].rate
    length = sum(frame.samples for frame in container.decode(audio=0))
print("libsndfile:", info.samplerate, info.frames, "FFmpeg:", rate, length)
assert (info.samplerate, info.frames) == (16000, 15999)
assert (rate, length) == (48000, 47997)
for refused in (22050, 44100):
    try:
        soundfile.write("clip.opus", samples, refused, format="OGG", subtype="OPUS")
    except soundfile.LibsndfileError as error:
        print(refused, error)
        assert "only supports sample rates" in str(error)
    else:
        raise SystemExit(f"{refused} is written")
PY
