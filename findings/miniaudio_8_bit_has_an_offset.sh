#!/usr/bin/env bash
# miniaudio converts the silence of 8-bit WAV to 0.0039, and libsndfile to 0.
#
# Unsigned 8-bit samples are silent at 128; there are 128 values below and 127 above.
# Expected: 128 becomes 0.0, as in libsndfile, and +127 steps become 127/128.
# Seen (miniaudio 1.71 and 1.61): value / 127.5 - 1, so that silence is 0.00392 and full scale is 1.0. At 16 bits
# silence is 0.
# Matters: telephone and old animal recordings are 8-bit: silence gains a constant, which a mel band at 0 Hz and a
# normalisation per clip turn into signal.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet miniaudio==1.71 numpy==2.4.6 soundfile==0.14.0
cd "$work"
venv/bin/python -I - <<'PY'
import miniaudio
import numpy as np
import soundfile


def decoded(name):
    floats = miniaudio.SampleFormat.FLOAT32
    return np.array(miniaudio.decode_file(name, output_format=floats, nchannels=1, sample_rate=8000).samples)


def both(subtype, samples):
    soundfile.write("clip.wav", samples, 8000, subtype=subtype)
    return soundfile.read("clip.wav")[0], decoded("clip.wav")


bytes_ = np.array([-128, 0, 127]) / 128
libsndfile, mini = both("PCM_U8", bytes_)
print("libsndfile:", libsndfile, "miniaudio:", mini)
assert np.array_equal(libsndfile, bytes_)
assert np.allclose(mini, [-1, 128 / 127.5 - 1, 1], atol=1e-6)
assert np.array_equal(both("PCM_16", np.zeros(9))[1], np.zeros(9))
PY
