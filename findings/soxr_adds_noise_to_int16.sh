#!/usr/bin/env bash
# soxr resamples digital silence in int16 to noise, even to the same rate.
#
# Expected: zeros remain zeros, and an unchanged rate changes nothing, for integers as for floats.
# Seen (soxr 1.1.0 and 0.5.0.post1): int16 output is dithered: a quarter of the samples of a silent clip become +1 or
# -1, and 16000 Hz to 16000 Hz changes a quarter of the samples of a recording. The error is 0.50 steps rms where
# rounding has 0.29. Floats and int32 are not dithered. It is the same noise in every call.
# Matters: gates that look for digital silence (a muted or broken microphone) fail, log-mel of padding is no longer
# the floor, and int16 and float pipelines differ. Resample floats.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 soxr==1.1.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import soxr

silence = np.zeros(16000, "int16")
noise = soxr.resample(silence, 16000, 8000)
recording = np.random.default_rng(0).integers(-3000, 3000, 16000).astype("int16")
same_rate = soxr.resample(recording, 16000, 16000)
error = soxr.resample(recording, 16000, 8000) - soxr.resample(recording.astype("float64"), 16000, 8000)
changed = (same_rate != recording).mean()
print("silence becomes", np.unique(noise, return_counts=True), "same rate changes", changed, "error", error.std())
assert set(np.unique(noise)) == {-1, 0, 1} and (noise != 0).mean() > 0.1
assert np.array_equal(noise, soxr.resample(silence, 16000, 8000))
assert changed > 0.1
assert 0.4 < error.std() < 0.6
for kind in ("int32", "float32", "float64"):
    assert not soxr.resample(silence.astype(kind), 16000, 8000).any()
    assert np.allclose(soxr.resample(recording.astype(kind), 16000, 16000), recording, atol=0.01), kind
PY
