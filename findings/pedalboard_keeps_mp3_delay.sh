#!/usr/bin/env bash
# Pedalboard does not remove the encoder's delay from an mp3; libsndfile and FFmpeg do.
#
# The Info frame of LAME holds how many samples the encoder put before the sound and after it.
# Expected: a reader that opens mp3 files for machine learning gives the samples of the recording.
# Seen: a click at sample 5000 of 15999 is at 5000 of 15999 in soundfile 0.14.0 and PyAV 18.1.0, and at 6105 of 17280
# in pedalboard 0.9.26 and 0.9.17: 1105 samples (69 ms at 16 kHz) late.
# Matters: event labels shift by more than a frame, and golden scores differ, between a training loader and a service
# that happen to use different readers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 pedalboard==0.9.26 numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import av
import numpy as np
import soundfile
from pedalboard.io import AudioFile

click = np.zeros(15999)
click[5000] = 0.9
soundfile.write("clip.mp3", click, 16000)
read = {"soundfile": soundfile.read("clip.mp3")[0]}
with av.open("clip.mp3") as container:
    read["av"] = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
with AudioFile("clip.mp3") as file:
    read["pedalboard"] = file.read(file.frames)[0]
seen = {name: (int(np.abs(samples).argmax()), len(samples)) for name, samples in read.items()}
print("(place of the click, length):", seen)
assert seen == {"soundfile": (5000, 15999), "av": (5000, 15999), "pedalboard": (6105, 17280)}
PY
