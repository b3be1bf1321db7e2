#!/usr/bin/env bash
# libsndfile reads an mp3 of variable bit rate without a Xing frame only in part, and says nothing.
#
# A Xing or Info frame with the length is optional in mp3; files cut out of a stream or recorded live have none.
# Expected: all frames are decoded, as the length is no more than a hint; or an error.
# Seen (soundfile 0.14.0 and 0.13.1, libsndfile 1.2.2): the length is guessed from the size of the first frame, and
# nothing past the guess is decoded. 5 s of noise, then 5 s of silence: 93100 of 442368 samples, without an error.
# Silence first: `frames` promises 651788, and 442368 are read. FFmpeg (PyAV 18.1.0) reads all of both.
# Matters: a recording that begins loud loses its end, labels of late events point past the end, and nothing is
# logged.
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

noise, silence = 0.3 * np.random.default_rng(0).standard_normal(220500), np.zeros(220500)


def without_xing(samples):
    """The name of an mp3 of variable bit rate without its first frame, which holds no sound."""
    with soundfile.SoundFile(
        "clip", "w", 44100, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5
    ) as file:
        file.write(samples)
    data = open("clip", "rb").read()
    tag = max(data.find(b"Xing", 0, 200), data.find(b"Info", 0, 200))
    assert data[0] == 0xFF and tag > 0
    with open("clip.mp3", "wb") as file:
        file.write(data[data.index(data[:2], tag) :])  # the next frame begins with the same bits
    return "clip.mp3"


def lengths(name):
    with av.open(name) as container:
        ffmpeg = sum(frame.samples for frame in container.decode(audio=0))
    return soundfile.info(name).frames, len(soundfile.read(name)[0]), ffmpeg


loud_first = lengths(without_xing(np.concatenate([noise, silence])))
loud_last = lengths(without_xing(np.concatenate([silence, noise])))
print("(frames, read, read by FFmpeg): loud first", loud_first, "loud last", loud_last)
assert loud_first[2] == loud_last[2] == loud_last[1] >= 441000
assert loud_first[0] == loud_first[1] < 150000
assert loud_last[0] > 600000
PY
