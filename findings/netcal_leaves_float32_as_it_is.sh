#!/usr/bin/env bash
# netcal calibrates float32 probabilities not at all, and says nothing.
#
# Expected: a float32 softmax, which is what every network gives, is calibrated as its float64 copy is; perhaps with
# some digits less.
# Seen (netcal 1.4.0, numpy 2.4.6, torch 2.13.0): five classes, logits 2.5 times too large, ECE 0.234. In float64
# TemperatureScaling and LogisticCalibration bring it to 0.016, and BetaCalibration to 0.018. In float32 the first two
# return what they were given (temperature 1, ECE 0.234), and BetaCalibration makes it worse (0.337). No warning.
# Also: the temperature of the float64 fit is 0.400, where the documentation divides the logits by T, so that T is 2.5:
# the attribute is what they are multiplied by.
# Matters: "calibration does not help this net" is concluded from it; and a temperature that is written into a graph as
# a divisor makes a sure net surer. Convert to float64 first, and look at the ECE after.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 netcal==1.4.0
cd "$work"
venv/bin/python -I -W ignore - <<'PY'
import numpy as np
from netcal.metrics import ECE
from netcal.scaling import BetaCalibration, LogisticCalibration, TemperatureScaling

random = np.random.default_rng(0)
logits = random.standard_normal((4000, 5))
exact = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
labels = np.array([random.choice(5, p=row) for row in exact])
sure = np.exp(2.5 * logits) / np.exp(2.5 * logits).sum(1, keepdims=True)
before = ECE(15).measure(sure, labels)
print("before:", before)
after = {}
temperature = {}
for kind in ("float64", "float32"):
    scores = sure.astype(kind)
    for method in (TemperatureScaling, LogisticCalibration, BetaCalibration):
        calibration = method()
        calibration.fit(scores, labels)
        after[kind, method.__name__] = float(ECE(15).measure(calibration.transform(scores), labels))
        if method is TemperatureScaling:
            temperature[kind] = float(calibration.temperature[0])
print(after, temperature)
assert 0.23 < before < 0.24
assert max(value for (kind, _), value in after.items() if kind == "float64") < 0.02
for name in ("TemperatureScaling", "LogisticCalibration"):
    assert abs(after["float32", name] - before) < 1e-4
assert after["float32", "BetaCalibration"] > before + 0.05
assert temperature["float32"] == 1.0
assert abs(temperature["float64"] - 1 / 2.5) < 0.01
PY
