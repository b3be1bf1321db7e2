#!/usr/bin/env bash
# emlearn turns a forest of trees over features between 0 and 1 into one that guesses.
#
# Expected: the C code of a tree compares the features as scikit-learn does, or refuses features that its type cannot
# hold.
# Seen (emlearn 0.23.2, scikit-learn 1.9.1): without dtype, features and thresholds are int16_t, converted without
# scaling. A forest of ten trees on features scaled to 0..1 (500 clips, two classes, 0.94 right on its own training
# data) agrees with its conversion on half of them, which all get one class. With dtype="float" 0.96 agree, and so do
# features multiplied by 1000. No warning. A net (MLPClassifier) is converted in float, and is right.
# Matters: MinMaxScaler before a tree, band energies as shares and probabilities as features are usual, and the
# microcontroller then gives a constant class. Pass dtype="float", or scale to the range of int16 before training, and
# compare emlearn's predict with scikit-learn's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scikit-learn==1.9.1 emlearn==0.23.2
cd "$work"
venv/bin/python -I - <<'PY'
import warnings

import emlearn
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier

np.seterr(all="ignore")
features, classes = make_classification(500, 6, n_informative=4, n_redundant=0, random_state=0)
shares = (features - features.min(0)) / (features.max(0) - features.min(0))
forest = RandomForestClassifier(10, max_depth=6, random_state=0)
agree = {}
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for name, values, options in (
        ("0..1", shares, {}),
        ("0..1 as float", shares, {"dtype": "float"}),
        ("0..1000", shares * 1000, {}),
    ):
        forest.fit(values, classes)
        converted = np.asarray(emlearn.convert(forest, method="inline", **options).predict(values)).ravel()
        agree[name] = float((converted == forest.predict(values)).mean())
        print(name, "right:", forest.score(values, classes), "agree:", agree[name], "classes:", set(converted.tolist()))
        assert forest.score(values, classes) > 0.9
        if name == "0..1":
            assert len(set(converted.tolist())) == 1
print("warnings:", [str(warning.message) for warning in said])
assert not said
assert 0.4 < agree["0..1"] < 0.6
assert agree["0..1 as float"] > 0.95 and agree["0..1000"] > 0.95
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it need not converge
    net = MLPClassifier((8,), max_iter=100, random_state=0).fit(shares, classes)
assert (np.asarray(emlearn.convert(net, method="inline").predict(shares)).ravel() == net.predict(shares)).mean() > 0.99
PY
