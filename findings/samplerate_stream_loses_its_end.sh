#!/usr/bin/env bash
# The samplerate package resamples a stream to fewer samples than the same signal in one call.
#
# Expected: pieces of 1000 samples, the last with end_of_input=True, give together what one call gives.
# Seen (samplerate 0.2.4, sinc_best): 44.1 kHz to 16 kHz, 1 s: 15858 of 16000 samples; 16 kHz to 48 kHz: 131868 of
# 132300. What is there is equal; the filter's tail never comes out, nor does another call with an empty piece bring
# it. "linear" is complete.
# Matters: offline and live features of a clip differ in their last frame, and clips of exactly one window become too
# short for one. Append zeros before the end.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 samplerate==0.2.4
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import samplerate

signal = 0.1 * np.random.default_rng(0).standard_normal(44100).astype("float32")


def streamed(ratio, converter):
    resampler = samplerate.Resampler(converter)
    pieces = [
        resampler.process(signal[start : start + 1000], ratio, end_of_input=start + 1000 >= len(signal))
        for start in range(0, len(signal), 1000)
    ]
    assert len(resampler.process(signal[:0], ratio, end_of_input=True)) == 0
    return np.concatenate(pieces)


for ratio, length in ((16000 / 44100, 15858), (3, 131868)):
    whole, pieces = samplerate.resample(signal, ratio, "sinc_best"), streamed(ratio, "sinc_best")
    print(f"ratio {ratio:.3f}: one call {len(whole)}, stream {len(pieces)}")
    assert len(whole) == round(44100 * ratio) and abs(len(pieces) - length) < 3
    assert np.allclose(whole[: len(pieces)], pieces, atol=1e-5)
    assert len(streamed(ratio, "linear")) == len(whole)
PY
