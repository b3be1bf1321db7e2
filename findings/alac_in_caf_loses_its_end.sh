#!/usr/bin/env bash
# Since PyAV 17.1 FFmpeg cuts the end of some ALAC files in CAF that libsndfile writes: those whose last packet is
# more than half full.
#
# CAF's packet table counts valid and remainder samples: how much of the last packet of 4096 does not count.
# libsndfile stores a last packet that is short already, and the remainder besides.
# Expected: lossless is lossless, whoever reads; if two disagree, then for every length.
# Seen: 15999 samples written by soundfile 0.14.0 (libsndfile 1.2.2) are all read by PyAV 17.0.1, and 15614 of them by
# 17.1.0 and 18.1.0: the last packet of 3711 loses 385 more. 13289 samples, whose last packet of 1001 is shorter than
# its remainder of 3095, are read whole by all, as by libsndfile.
# Matters: up to 2048 samples at the end vanish with an update of the decoder, for some clips only; event labels there
# point past the end.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soundfile==0.14.0
cd "$work"
cat >read.py <<'PY'
import struct

import av
import numpy as np
import soundfile


def lengths(count):
    samples = np.random.default_rng(0).integers(-3000, 3000, count).astype("int16")
    soundfile.write("clip.caf", samples, 16000, subtype="ALAC_16")
    data = open("clip.caf", "rb").read()
    packets, valid, priming, remainder = struct.unpack_from(">qqii", data, data.index(b"pakt") + 12)
    assert valid == count and priming == 0 and remainder == packets * 4096 - count
    assert np.array_equal(soundfile.read("clip.caf", dtype="int16")[0], samples)
    with av.open("clip.caf") as container:
        read = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.array_equal(read, samples[: len(read)])
    return remainder, len(read)


full, short = lengths(3 * 4096 + 3711), lengths(3 * 4096 + 1001)
print("PyAV", av.__version__, "(remainder, read) of 15999:", full, "of 13289:", short)
assert full == (385, 15999 if av.__version__ == "17.0.1" else 15999 - 385)
assert short == (3095, 13289)
PY
for version in 17.0.1 18.1.0; do
    venv/bin/pip install --quiet "av==$version"
    venv/bin/python -I read.py
done
