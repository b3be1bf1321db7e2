#!/usr/bin/env bash
# libsndfile refuses a CAF file whose data chunk leaves its size open.
#
# Apple's specification: the size of the audio data chunk may be -1 where it is the last chunk; its length is then
# that of the file. Recorders write it so from the start, so that a recording which is cut off remains valid.
# Expected: it is read to the end of the file.
# Seen: libsndfile 1.2.2 (soundfile 0.14.0 and 0.13.1): "file is malformed". FFmpeg (PyAV 18.1.0) reads all 4001
# samples.
# Matters: exactly the recordings that were interrupted, often the interesting ones, drop out of a data set.
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

samples = np.random.default_rng(0).integers(-3000, 3000, 4001).astype("int16")
soundfile.write("clip.caf", samples, 8000, subtype="PCM_16")
data = bytearray(open("clip.caf", "rb").read())
place = data.index(b"data")
assert place + 12 + int.from_bytes(data[place + 4 : place + 12], "big") == len(data)  # it is the last chunk
data[place + 4 : place + 12] = b"\xff" * 8
open("clip.caf", "wb").write(data)
with av.open("clip.caf") as container:
    ffmpeg = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
assert np.array_equal(ffmpeg, samples)
try:
    soundfile.read("clip.caf")
except soundfile.LibsndfileError as error:
    print("libsndfile:", error, "FFmpeg:", len(ffmpeg))
    assert "malformed" in str(error)
else:
    raise SystemExit("libsndfile reads it")
PY
