"""The whole chain in Python, looked at on the way: simulated sonar, a tiny student, int8, a bundle, predictions.

    python examples/sonar_in_two_minutes.py [FOLDER]

Takes one to two minutes on two CPU cores and leaves everything in FOLDER (default: `sonar-example`). Cells begin with
`# %%`: editors that know them run one at a time. The student here learns from labels and from a teacher that is trained
on the same simulation; at this size both are poor, which is what the intervals say.
"""

# ruff: noqa: E402 - a cell imports what it needs
# %% Threads as the commands set them up, before torch is loaded.
from edgekd.process_setup import keep_freed_memory, set_up_threads

set_up_threads()
keep_freed_memory()

# %% The settings. What is left out has its default (edgekd/config.py).
import sys
import time
from pathlib import Path

import edgekd

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "sonar-example")
started = time.perf_counter()

config = edgekd.DistillConfig.model_validate(
    {
        "out": folder / "run",
        "student": "hltdnn_micro",
        "data": {
            "dataset": "sonar_sim",
            "data_dir": folder / "recordings",
            "sample_rate": 8_000,
            "clip_seconds": 2.0,
            "simulation": {"vessels_per_class": 16, "windows_per_vessel": 4, "snr_db": (0.0, 12.0)},
        },
        "frontend": {"n_fft": 512, "hop_length": 256, "f_min": 20.0, "f_max": 3_900.0},
        "teacher": {"name": "convnet", "adaptation": "full", "epochs": 15, "learning_rate": 2e-3, "batch_size": 16},
        "augment": {"shifts_per_clip": 2, "time_mask_frames": 12},
        "training": {"epochs": 15},
        "quantize": {"epochs": 3, "frozen_epochs": 1},
    }
)

# %% Distil. The recordings are simulated first, the split is audited, then teacher and student are trained.
run = edgekd.distill(config)

# %% Who is on which side? A vessel is a group; no vessel is on two sides.
data = run.open_data()
for side in ("train", "validation", "test"):
    clips = data.side(side)
    print(f"{side:<11}{len(clips):>4} clips of {len(set(clips.groups)):>2} vessels")

# %% What was learned? Intervals are 95 % and over vessels, not over clips: so few vessels tell little.
for subject, scores in run.report()["test"].items():
    low, high = scores["accuracy_interval"]
    print(f"{subject:<9}{scores['accuracy']:.1%} right on {scores['clips']} test clips ({low:.0%} to {high:.0%})")

# %% The last epoch of each stage, as metrics.csv has it.
for stage in ("teacher", "student"):
    last = [row for row in run.metrics().rows if row["stage"] == stage][-1]
    shown = {name: value for name, value in last.items() if value and not name.startswith("weight_")}
    print(shown)

# %% int8: calibrated, then trained for three epochs.
run = edgekd.quantize(run)
print("int8     ", f"{run.report()['test']['int8']['accuracy']:.1%} right")

# %% Export. The graph is compared with the trained student on real clips, or there is no bundle.
bundle = edgekd.export(run, "cpu", folder / "bundle")
parity = bundle.manifest.parity
print(
    f"{bundle.folder}: {bundle.size_bytes / 1024:.0f} KiB, the graph {(bundle.folder / 'model.onnx').stat().st_size} B"
)
print(
    f"same class on {parity.agreement:.1%} of {parity.clips} clips, largest difference {parity.largest_difference:.2g}"
)

# %% The golden examples: real clips with what the model must answer, on every device.
import numpy as np

with np.load(bundle.folder / "golden.npz") as golden:
    print({name: (golden[name].shape, str(golden[name].dtype)) for name in golden.files})

# %% Predict with the bundle, as a device does. `edgekd predict BUNDLE FILE` is the same.
from edgekd.exporting.predict import open_predictor

predictor = open_predictor(bundle.folder)
test = data.side("test")
for place in range(0, len(test), len(test) // 5):
    name, _ = test.names[place]
    scores = predictor.predict_file(data.index.root / name)
    best = int(scores.argmax())
    print(f"{name}: {predictor.classes[best]} {scores[best]:.0%}, in truth {run.classes[test.labels[place]]}")

# %% How fast, how small? In turns with the teacher. (`edgekd profile` writes the page with all of it.)
from edgekd.config import ProfileConfig

quick = ProfileConfig(batches=(), noise=None, memory=False, energy=False, repetitions=50)
measured = edgekd.profile(run, quick)
print(*measured.verdict, sep="\n")
print(f"{time.perf_counter() - started:.0f} s in all")
