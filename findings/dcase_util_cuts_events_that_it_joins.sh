#!/usr/bin/env bash
# dcase_util's joining of events cuts a long event at the end of a short one inside it, and drops what it was to join.
#
# Expected: process_events with a minimum gap joins events of a class that are close: what is covered remains covered;
# and a minimum length is asked of the result.
# Seen (dcase_util 0.2.20): an event from 1 to 9 s and one from 2 to 3 s become one from 1 to 3 s: the end is that of
# the event which begins last. Ten pieces of 0.08 s, 0.02 s apart, are one event of 0.98 s with a minimum gap of 0.05 s;
# with a minimum length of 0.5 s besides none is left, since the length is asked first. Two calls, gap first, give one.
# Matters: annotators draw a call inside a longer one, and tables of two annotators overlap: hours of labels vanish. A
# detector's flickering event, which is what the gap is for, is deleted by the length. Merge by the largest end so far.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==1.26.4 dcase_util==0.2.20
cd "$work"
venv/bin/python -I -W ignore - <<'PY'
from dcase_util.containers import MetaDataContainer


def processed(times, *calls):
    rows = [{"filename": "clip.wav", "event_label": "tug", "onset": onset, "offset": end} for onset, end in times]
    events = MetaDataContainer(rows)
    for options in calls:
        events = events.process_events(**options)
    return [(round(event.onset, 2), round(event.offset, 2)) for event in events]


inside = processed([(1.0, 9.0), (2.0, 3.0)], {"minimum_event_gap": 0.1})
pieces = [(index / 10, index / 10 + 0.08) for index in range(10)]
gap, length = {"minimum_event_gap": 0.05}, {"minimum_event_length": 0.5}
found = [processed(pieces, gap), processed(pieces, {**gap, **length}), processed(pieces, gap, length)]
print("1 to 9 and 2 to 3:", inside)
print("pieces with a gap, with both, with one after the other:", found)
assert inside == [(1.0, 3.0)]
assert found == [[(0.0, 0.98)], [], [(0.0, 0.98)]]
PY
