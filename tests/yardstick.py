"""A fixed tiny chain, and digests of what comes out: the same before and after a change that is to change no number.

    python -m tests.yardstick [FOLDER]

Simulated sonar, two epochs of teacher and student, int8, export for `cpu` and `gpu`, `profile --quick`, each by its
command and on one thread. Prints one digest for each set of weights, for scores, graphs, golden examples and the
profile's accuracies. Figures of time are left out, and of a graph its names and comments, which tell of the code.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONFIG = """
seed = 3
device = "cpu"
[data]
dataset = "sonar_sim"
data_dir = "DATA"
sample_rate = 4000
clip_seconds = 1.0
[data.simulation]
vessels_per_class = 6
windows_per_vessel = 4
snr_db = [10.0, 20.0]
[frontend]
n_fft = 256
hop_length = 128
n_mels = 32
f_max = 1900.0
[teacher]
name = "convnet"
adaptation = "full"
epochs = 2
batch_size = 8
learning_rate = 3e-3
[augment]
shifts_per_clip = 2
mixes_per_clip = 1
time_mask_frames = 6
[training]
epochs = 2
batch_size = 8
[quantize]
epochs = 2
frozen_epochs = 1
"""


def edgekd(folder: Path, *arguments: str) -> None:
    """Run a command of this checkout on one thread, with a cache of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "EDGEKD_CACHE_DIR": str(folder / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, "-m", "edgekd", *arguments, "--quiet"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def digest(parts: Iterable[Any]) -> str:
    """A short hash of bytes, or of what `repr` makes of anything else."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else repr(part).encode())
        whole.update(b"\0")
    return whole.hexdigest()[:16]


def arrays(found: Any) -> Iterable[Any]:
    """Names, types, shapes and bytes of a mapping of arrays, in the order of their names."""
    for name in sorted(found):
        yield from (name, str(found[name].dtype), found[name].shape, found[name].tobytes())


def graph_parts(path: Path) -> Iterable[Any]:
    """Operators, attributes, constants and connections of an ONNX graph; tensors are numbered, not named."""
    import onnx

    model = onnx.load(path)
    numbers: dict[str, int] = {}

    def number(name: str) -> int:
        return numbers.setdefault(name, len(numbers)) if name else -1

    yield [(each.domain, each.version) for each in model.opset_import]
    for value in (*model.graph.input, *model.graph.output):
        yield (value.name, value.type.SerializeToString(deterministic=True))
        number(value.name)
    constants = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        for name in node.input:
            if name in constants:
                constant = constants[name]
                yield (
                    number(name),
                    constant.data_type,
                    tuple(constant.dims),
                    onnx.numpy_helper.to_array(constant).tobytes(),
                )
        yield (node.op_type, node.domain, [number(name) for name in node.input], [number(name) for name in node.output])
        yield from sorted(each.SerializeToString(deterministic=True) for each in node.attribute)


def measure(folder: Path) -> dict[str, str]:
    """Run the chain in `folder` and return its digests by name."""
    import numpy as np
    from safetensors.numpy import load_file

    settings, run = folder / "yardstick.toml", folder / "run"
    settings.write_text(CONFIG.replace("DATA", str(folder / "recordings")))
    edgekd(folder, "distill", "--config", str(settings), "--out", str(run))
    found = {}
    for stage in ("teacher", "student", "int8"):
        found[f"weights {stage}"] = digest(arrays(load_file(run / stage / "best.safetensors")))
    found["splits"] = digest([(run / "splits.csv").read_bytes()])
    found["predictions"] = digest([(run / "predictions.csv").read_bytes()])
    found["scores"] = digest([json.dumps(json.loads((run / "report.json").read_text())["test"], sort_keys=True)])
    with open(run / "metrics.csv", newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    found["metrics"] = digest([json.dumps([{k: v for k, v in sorted(row.items()) if v} for row in rows])])
    for target in ("cpu", "gpu"):
        bundle = folder / target
        edgekd(folder, "export", str(run), "--target", target, "--out", str(bundle))
        for model in sorted(bundle.glob("*.onnx")):
            found[f"graph {target}/{model.name}"] = digest(graph_parts(model))
        with np.load(bundle / "golden.npz") as golden:
            found[f"golden {target}"] = digest(arrays(dict(golden)))
    edgekd(folder, "profile", str(run), str(folder / "cpu"), "--quick", "--out", str(folder / "profile"))
    profile = json.loads((folder / "profile" / "report.json").read_text())
    scored = [(subject["name"], subject.get("scores"), subject.get("cost")) for subject in profile["subjects"]]
    found["profile"] = digest([json.dumps(scored, sort_keys=True)])
    return found


def main() -> None:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(folder)
    else:
        with tempfile.TemporaryDirectory() as name:
            found = measure(Path(name))
    for name, value in found.items():
        print(f"{value}  {name}")


if __name__ == "__main__":
    main()
