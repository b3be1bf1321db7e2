#!/usr/bin/env bash
# After `import emlearn` numpy raises an exception at every underflow, anywhere in the process.
#
# Expected: importing a converter changes nothing in how other code computes.
# Seen (emlearn 0.23.2, numpy 2.4.6): numpy.geterr() is "raise" for all four kinds after the import, where it was
# "warn", and "ignore" for underflow. A float32 softmax of logits that are 120 apart, which gives 0 and 1 before, raises
# FloatingPointError ("underflow encountered in exp"), and a log of 0, for a floor in decibels, raises, too.
# Matters: training, features or a metric fail in code that has nothing to do with emlearn, only in the script that
# imports it, and only for data with small numbers. Restore what numpy.geterr() gave before the import.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scikit-learn==1.9.1 emlearn==0.23.2
cd "$work"
venv/bin/python -I -W ignore - <<'PY'
import numpy as np


def softmax():
    logits = np.array([0.0, 120.0], "float32")
    scores = np.exp(logits - logits.max())
    return (scores / scores.sum()).tolist()


def decibels():
    return float(np.log10(np.zeros(1))[0])


def seen(function):
    try:
        return function()
    except FloatingPointError as error:
        return str(error)


before = np.geterr()
first = [seen(softmax), seen(decibels)]
import emlearn

after = np.geterr()
second = [seen(softmax), seen(decibels)]
print("before:", before, first)
print("after emlearn", emlearn.__version__ if hasattr(emlearn, "__version__") else "", after, second)
assert before["under"] == "ignore" and "raise" not in before.values()
assert set(after.values()) == {"raise"}
assert first == [[0.0, 1.0], float("-inf")]
assert second == ["underflow encountered in exp", "divide by zero encountered in log10"]
np.seterr(**before)
assert [seen(softmax), seen(decibels)] == first
PY
