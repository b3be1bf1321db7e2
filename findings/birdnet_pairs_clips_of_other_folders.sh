#!/usr/bin/env bash
# BirdNET-Analyzer's segments take the results of one folder for the clips of another, or of none, by the letters of
# the folders' names.
#
# Clips in audio/NAME/ and results in results/NAME/ with the same tree: what "segments" is made for.
# Expected: each clip goes with the result at its own place.
# Seen (birdnet-analyzer 2.4.0): folders "site1" and "site2" are right; of the grid squares "4a" and "4e" the clip of 4a
# gets the detections of 4e, and that of 4e is left out; of "day" and "night" night is left out. With both roots below
# data/ "site1" and "site2" are left out, too. It depends on which letters of a name occur in the path of the root:
# these are taken off both ends (str.strip), where the root was meant to be taken off.
# Matters: recorders write the same file names in each folder (by the minute, or 0001.wav), so that a clip is cut at
# the times of another recording and stored under its species: training data with wrong labels, without a word.
# Run it on one folder at a time, or from a combined table, which names the files.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# Less what the models need (TensorFlow); the function here reads folders alone.
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 librosa==0.11.0 soundfile==0.14.0 tqdm==4.70.1
"$work/venv/bin/pip" install --quiet --no-deps birdnet-analyzer==2.4.0
cd "$work"
venv/bin/python -I - <<'PY'
import contextlib
import io
import os
import pathlib
import tempfile

from birdnet_analyzer.segments.utils import parse_folders


def pairs(audio, results, names):
    """Which folder's result each folder's clip gets."""
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        for name in names:
            for path in (f"{audio}/{name}/0001.wav", f"{results}/{name}/0001.BirdNET.results.csv"):
                pathlib.Path(path).parent.mkdir(parents=True)
                pathlib.Path(path).touch()
        with contextlib.redirect_stdout(io.StringIO()):
            found = parse_folders(audio, results)
        os.chdir("/")
    return {pathlib.Path(pair["audio"]).parent.name: pathlib.Path(pair["result"]).parent.name for pair in found}


seen = {
    "site1, site2": pairs("audio", "results", ["site1", "site2"]),
    "4a, 4e": pairs("audio", "results", ["4a", "4e"]),
    "day, night": pairs("audio", "results", ["day", "night"]),
    "site1, site2 below data": pairs("data/audio", "data/results", ["site1", "site2"]),
}
for name, found in seen.items():
    print(name, found)
assert seen["site1, site2"] == {"site1": "site1", "site2": "site2"}
assert seen["4a, 4e"] == {"4a": "4e"}
assert seen["day, night"] == {"day": "day"}
assert seen["site1, site2 below data"] == {}
PY
