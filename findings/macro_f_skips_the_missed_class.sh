#!/usr/bin/env bash
# A class that a detector never finds does not lower the macro F-score of sed_eval and psds_eval.
#
# Expected: two classes, one found perfectly and one not at all: F-scores of 1 and 0, and 0.5 for their mean.
# Seen (sed_eval 0.2.1, psds_eval 0.5.3): no detection means no precision, so the F-score of the class is nan, and the
# mean leaves nan out: 1.0. In sed_eval one detection in the wrong place makes it 0 and the mean 0.5, and the mean
# recall is 0.5 in any case; in psds_eval wrong detections change nothing either, only a right one brings the class in.
# Matters: the higher the threshold, the more rare classes fall out of the mean, and the better it is; a detector that
# only knows the easiest class has a perfect score. Take 2 TP / (2 TP + FP + FN) from the counts of each class.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==1.26.4 pandas==2.3.3 sed_eval==0.2.1 dcase_util==0.2.20 psds_eval==0.5.3
cd "$work"
venv/bin/python -I -W ignore - <<'PY'
import numpy as np
import pandas as pd
import sed_eval
from psds_eval import PSDSEval

COLUMNS = ["filename", "onset", "offset", "event_label"]
events = [("clip.wav", 0.0, 2.0, "tug"), ("clip.wav", 4.0, 6.0, "ferry")]
easy = events[:1]
wrong = [("clip.wav", 8.0, 9.0, "ferry")]


def sed(found):
    """Event-based means over classes: F-score, precision, recall; and the F-score of the class that is missed."""
    metrics = sed_eval.sound_event.EventBasedMetrics(["tug", "ferry"], t_collar=0.2)
    rows = [[dict(zip(COLUMNS, event)) for event in group] for group in (events, found)]
    metrics.evaluate(reference_event_list=rows[0], estimated_event_list=rows[1])
    mean = metrics.results_class_wise_average_metrics()["f_measure"]
    ferry = metrics.results_class_wise_metrics()["ferry"]["f_measure"]["f_measure"]
    return mean["f_measure"], mean["precision"], mean["recall"], ferry


def psds(found):
    truth = pd.DataFrame(events, columns=COLUMNS)
    durations = pd.DataFrame([("clip.wav", 10.0)], columns=["filename", "duration"])
    evaluation = PSDSEval(0.5, 0.5, ground_truth=truth, metadata=durations)
    mean, classes = evaluation.compute_macro_f_score(pd.DataFrame(found, columns=COLUMNS))
    return mean, classes["ferry"]


for name, found in (("one class of two", easy), ("and one wrong", easy + wrong)):
    print(name, "sed_eval (F, P, R, F of ferry):", sed(found), "psds_eval (F, F of ferry):", psds(found))
mean, precision, recall, ferry = sed(easy)
assert (mean, precision, recall) == (1.0, 1.0, 0.5) and np.isnan(ferry)
mean, ferry = psds(easy)
assert mean == 1.0 and np.isnan(ferry)
assert sed(easy + wrong) == (0.5, 0.5, 0.5, 0.0)
mean, ferry = psds(easy + wrong)
assert mean == 1.0 and np.isnan(ferry)
PY
