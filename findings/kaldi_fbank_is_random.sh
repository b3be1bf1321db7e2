#!/usr/bin/env bash
# kaldi-native-fbank gives other features for the same clip each time, unless told not to.
#
# Expected: a feature extractor is a function; Kaldi's dither of 1.0 on a 16-bit scale is either kept or left out.
# Seen (1.23.0 and 1.20.0): FbankOptions has a dither of 3e-05 (one step of 16 bits, where samples are in -1..1): two
# extractions of one clip differ, and loudness decides by how much: nothing to see at full scale, more than 0.1 in the
# log where a clip is near its noise floor. With dither = 0 they are equal.
# Matters: golden examples and caches keyed by content do not reproduce; the quiet clips, where it shows, are those
# near a decision.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet kaldi-native-fbank==1.23.0 numpy==2.4.6
cd "$work"
venv/bin/python -I - <<'PY'
import kaldi_native_fbank
import numpy as np


def features(samples, dither=None):
    options = kaldi_native_fbank.FbankOptions()
    if dither is not None:
        options.frame_opts.dither = dither
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(16000, samples.tolist())
    extractor.input_finished()
    return np.array([extractor.get_frame(frame) for frame in range(extractor.num_frames_ready)])


print("dither:", kaldi_native_fbank.FbankOptions().frame_opts.dither)
noise = np.random.default_rng(0).standard_normal(16000)
differences = {level: float(np.abs(features(level * noise) - features(level * noise)).max()) for level in (0.1, 1e-4)}
print("largest difference of two runs, by level:", differences)
assert abs(kaldi_native_fbank.FbankOptions().frame_opts.dither - 3e-5) < 1e-6
assert 0 < differences[0.1] < differences[1e-4] and differences[1e-4] > 0.1
assert np.array_equal(features(noise, 0), features(noise, 0))
PY
