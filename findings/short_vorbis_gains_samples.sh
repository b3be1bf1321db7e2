#!/usr/bin/env bash
# A Vorbis clip that fits into one Ogg page is longer in FFmpeg than in libsndfile; a longer one is not.
#
# The granule position of the last page says where the sound ends; what the last block holds beyond is to be dropped.
# Expected: both decoders drop it, for clips of any length.
# Seen: 4001 samples are 4096 in FFmpeg (PyAV 18.1.0 and 16.0.1) and 4001 in libsndfile 1.2.2 (soundfile 0.14.0);
# 40001 samples, in several pages, are 40001 in both. The samples in common agree.
# Matters: one-second keyword clips fit into a page: windows are cut from other lengths on the two paths, and a clip
# gets an extra window.
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

for count, ffmpeg in ((4001, 4096), (40001, 40001)):
    soundfile.write("clip.ogg", 0.1 * np.random.default_rng(0).standard_normal(count), 8000)
    pages = open("clip.ogg", "rb").read().count(b"OggS")
    with av.open("clip.ogg") as container:
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    read = soundfile.read("clip.ogg", dtype="float32")[0]
    print(count, "written in", pages, "pages; libsndfile:", len(read), "FFmpeg:", len(decoded))
    assert len(read) == count and len(decoded) == ffmpeg
    assert np.abs(decoded[:count] - read).max() < 1e-4
PY
