#!/usr/bin/env bash
# opensoundscape and crowsetta give the events of a Raven table of many files times that are in no file, and each event
# twice.
#
# Raven lists the events of a sequence of files in one table: "Begin Time (s)" counts from the start of the first file;
# "Begin File" and "File Offset (s)" say where the event is. Each event has a row for each view that is shown (waveform
# and spectrogram).
# Expected: times within the file that is named, or a refusal; one event for each selection.
# Seen (opensoundscape 0.13.2, crowsetta 5.1.2): a selection at 10 s of b.wav, 610 s after the start of the sequence,
# is at 610 s; opensoundscape keeps the two columns, uses neither, and gives audio_file as nan, or as what it was told
# for the whole table. The selection comes twice, from its two views. No warning.
# Also: from_raven_files(column_mapping_dict={"Low Freq (Hz)": "low"}) of opensoundscape changes nothing: the argument
# is overwritten before it is read.
# Matters: events past the end of a clip are no labels at all, so that all of a long deployment but its first file
# trains as background. Subtract, file by file, and keep the rows of one view.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# Of opensoundscape the module of annotations, and what that needs.
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pandas==3.1.1 pandera==0.35.0 crowsetta==5.1.2 scipy==1.17.1 \
    scikit-learn==1.9.1 librosa==0.11.0 matplotlib==3.11.2 torch==2.13.0
"$work/venv/bin/pip" install --quiet --no-deps opensoundscape==0.13.2
cd "$work"
venv/bin/python -I -W ignore - <<'PY'
import importlib.machinery
import importlib.util
import pathlib
import sys

from crowsetta.formats.bbox import Raven

# The package without its __init__, which loads all of its networks.
found = importlib.machinery.PathFinder.find_spec("opensoundscape")
package = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("opensoundscape", None, is_package=True))
package.__path__ = list(found.submodule_search_locations)
sys.modules["opensoundscape"] = package
from opensoundscape.annotations import BoxedAnnotations

header = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
header += ["Begin File", "File Offset (s)", "Species"]
event = ["1", "610.0", "612.5", "100.5", "200.5", "b.wav", "10.0", "tug"]
rows = [[event[0], view, "1", *event[1:]] for view in ("Waveform 1", "Spectrogram 1")]
table = pathlib.Path("table.txt")
table.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))

times = [(box.onset, box.offset) for box in Raven.from_file(table, annot_col="Species").to_bbox()]
frame = BoxedAnnotations.from_raven_files([table], annotation_column="Species").df
named = BoxedAnnotations.from_raven_files([table], annotation_column="Species", audio_files=["a.wav"]).df
mapped = BoxedAnnotations.from_raven_files(
    [table], annotation_column="Species", column_mapping_dict={"Low Freq (Hz)": "low"}
).df
print("crowsetta:", times)
print(frame[["audio_file", "start_time", "end_time", "Begin File", "File Offset (s)"]])
print("mapped:", list(mapped.columns))
assert times == [(610.0, 612.5)] * 2
assert frame["start_time"].tolist() == [610.0] * 2 and frame["end_time"].tolist() == [612.5] * 2
assert frame["audio_file"].isna().all()
assert frame["Begin File"].tolist() == ["b.wav"] * 2 and frame["File Offset (s)"].tolist() == [10.0] * 2
assert named["audio_file"].tolist() == ["a.wav"] * 2 and named["start_time"].tolist() == [610.0] * 2
assert "low" not in mapped.columns and "low_f" in mapped.columns
PY
