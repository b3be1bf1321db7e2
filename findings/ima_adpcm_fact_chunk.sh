#!/usr/bin/env bash
# libsndfile halves the length in the `fact` chunk of a stereo IMA ADPCM file.
#
# The `fact` chunk of a compressed WAV or Wave64 file gives the samples of a channel.
# Expected: 4001 for mono and for stereo; or, for both, what the whole blocks hold.
# Seen (soundfile 0.14.0 and 0.13.1, libsndfile 1.2.2): 4001 samples written are 4040 in mono (whole blocks) and 2020
# in stereo, of which 4040 are read back. MS ADPCM of the same samples says 4001 for both.
# Matters: a reader on a device, or an index of a data set, that trusts `fact` loses the second half of every stereo
# clip.
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


def fact_and_read(channels, subtype):
    samples = 0.1 * np.random.default_rng(0).standard_normal((4001, channels))
    soundfile.write("clip.wav", samples, 8000, subtype=subtype)
    with open("clip.wav", "rb") as file:
        data = file.read()
    place = data.index(b"fact")
    return struct.unpack_from("<I", data, place + 8)[0], len(soundfile.read("clip.wav")[0])


seen = {
    (subtype, channels): fact_and_read(channels, subtype)
    for subtype in ("IMA_ADPCM", "MS_ADPCM")
    for channels in (1, 2)
}
print("(fact, samples read back):", seen)
assert seen["IMA_ADPCM", 1] == (4040, 4040)
assert seen["IMA_ADPCM", 2] == (2020, 4040)
assert seen["MS_ADPCM", 1][0] == seen["MS_ADPCM", 2][0] == 4001
PY
