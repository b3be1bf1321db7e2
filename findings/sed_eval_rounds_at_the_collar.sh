#!/usr/bin/env bash
# sed_eval lets the rounding of floats decide about a time that is exactly at its collar, or at a segment's border.
#
# Expected: an onset that is off by the collar counts, or does not count, wherever in the clip it is; psds_eval and
# DCASE say "within", so it counts.
# Seen (sed_eval 0.2.1): with a collar of 0.2 s, 0.7 for 0.5 counts, and 5.2 for 5.0 does not, since in floats 5.2 - 5.0
# is more than 0.2; of 100 onsets at tenths of a second 0.2 s apart from their reference 44 count. In segments of 0.1 s
# an event from 0.7 to 0.8 is active in two of them, one from 1.1 to 1.2 in one.
# Matters: a detector's frames and an annotator's table are on such grids (0.1 s, 0.02 s), so differences of exactly
# the collar are common: F-scores of two detectors differ by the position of the events. Take a collar between the
# steps of the grid.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==1.26.4 sed_eval==0.2.1 dcase_util==0.2.20
cd "$work"
venv/bin/python -I - <<'PY'
import sed_eval


def event(onset, offset):
    return {"filename": "clip.wav", "event_label": "tug", "onset": onset, "offset": offset}


def counts(reference, estimate, collar):
    metrics = sed_eval.sound_event.EventBasedMetrics(["tug"], t_collar=collar, percentage_of_length=0.0)
    offset = reference + 1
    metrics.evaluate([event(reference, offset)], [event(estimate, offset)])
    return int(metrics.results_overall_metrics()["f_measure"]["f_measure"] == 1.0)


def active(onset, offset):
    metrics = sed_eval.sound_event.SegmentBasedMetrics(["tug"], time_resolution=0.1)
    metrics.evaluate([event(onset, offset)], [event(onset, offset)], evaluated_length_seconds=3.0)
    return int(metrics.overall["Nref"])


on_collar = [counts(tenths / 10, (tenths + 2) / 10, 0.2) for tenths in range(100)]
inside = [counts(tenths / 10, (tenths + 2) / 10, 0.25) for tenths in range(100)]
print("0.7 for 0.5:", counts(0.5, 0.7, 0.2), "5.2 for 5.0:", counts(5.0, 5.2, 0.2), "of 100:", sum(on_collar))
print("with a collar of 0.25:", sum(inside))
print("segments of 0.7 to 0.8:", active(0.7, 0.8), "of 1.1 to 1.2:", active(1.1, 1.2))
assert counts(0.5, 0.7, 0.2) == 1
assert counts(5.0, 5.2, 0.2) == 0
assert sum(on_collar) == 44
assert sum(inside) == 100
assert (active(0.7, 0.8), active(1.1, 1.2)) == (2, 1)
PY
