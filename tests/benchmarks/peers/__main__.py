"""The int8 network of a student in C beside the same in tflite-micro, bakenn, and ExecuTorch's export for Cortex-M.

    python -m tests.benchmarks.peers RUN [--rounds 100] [--environments FOLDER] [--json]

RUN is a run with int8 weights. The peers are installed from the package index into environments of their own, in FOLDER
(by default beside the run, `peers`); what cannot be installed is left out, with the reason.

tflite-micro: reference kernels on this machine, which has none of the cores that C is written for. Its model has the
same weights and scales; a histogram layer is a table of float there, and logits are int8. Both compute the clips of the
verification side from the same quantised log-mels, in one process, by turns. Printed: processor milliseconds a window
(medians) and their ratio, the memory that changes (the arena; a plan of C), on how many clips the class is that of the
integer reference, and by how much a score is another at most.

bakenn, which compiles to C as well, has no histogram: its part are the convolutions one behind the other, on emulated
cores, with the same weights and scales, as plain C, as C for a Cortex-M4, and with CMSIS-NN. Printed: instructions a
MAC (QEMU counts no cycles), memory for maps with those that enter and come out, and what share of the values is
another than ours, which are rounded once, and by how many steps at most.

ExecuTorch: the float student goes through its own quantiser (`CortexMQuantizer`), calibrated on clips, and its passes
for the core; and once more the int8 student, with our weights and scales where the quantiser has a place for them.
Printed: bytes of the program, planned memory, on how many clips the class is that of the integer reference, by how much
a score is another, the operators, of which those named aten are in float, and what has scales of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.exporting.deployable import deployable_of
from edgekd.exporting.export import verification_rows
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.c.toolchain import lacking
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.reference import quantised
from edgekd.runs.run import Run
from tests.benchmarks.measure import ratio
from tests.benchmarks.peers.as_float import as_float
from tests.benchmarks.peers.network import write
from tests.benchmarks.peers.on_cores import beside

HERE = Path(__file__).parent
TFLITE_MICRO = ("numpy", "flatbuffers", "tflite-micro")
BAKENN = ("bakenn[tflite]==1.0.0",)
EXECUTORCH = (
    "executorch==1.5.1",
    "torchao==0.18.0",
    "tosa-tools==2026.5.0",
    *("flatbuffers", "ruamel.yaml", "pyyaml", "tabulate", "packaging"),
)


class Logits(nn.Module):
    """A student's network without its tap."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, log_mel: Tensor) -> Tensor:
        logits: Tensor = self.network(log_mel).logits
        return logits


def environment(folder: Path, packages: tuple[str, ...], *, ours: bool = False) -> Path | str:
    """The Python of an environment that has `packages` and, where `ours`, those of this one; or why there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    flags = ["--pre", "--quiet", "--disable-pip-version-check", *(["--no-deps"] if ours else [])]
    done = subprocess.run(
        [str(python), "-m", "pip", "install", *flags, *packages], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    if ours:
        place = next((folder / "lib").glob("python*/site-packages"))
        (place / "ours.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return python


def answer(python: Path, script: str, *arguments: str) -> dict[str, Any] | str:
    """What a script prints last; or why it did not."""
    done = subprocess.run(
        [str(python), str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["nothing said"])[-1]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(options.run)
    deployable = deployable_of(run, "int8")
    assert deployable.network is not None
    student, config = deployable.student, deployable.student.frontend.config
    clips = run.open_data()
    waveforms = clips.waveforms(verification_rows(clips.split))
    network = lower(deployable.network, *config.shape(deployable.clip_samples), several=student.task.several)
    with torch.no_grad():
        log_mel = torch.cat([student.log_mel(part) for part in waveforms.split(16)]).numpy()
    environments = options.environments or options.run / "peers"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = quantised(log_mel, network.entry)
        memory = write(folder, network, values)
        np.save(folder / "log_mel.npy", log_mel)
        python = environment(environments / "tflite-micro", TFLITE_MICRO)
        if isinstance(python, Path):
            python = answer(python, "in_tflite_micro.py", str(folder), str(options.rounds))
        found["tflite-micro"], found["c"] = python, {"memory_bytes": memory.size}
        python = environment(environments / "bakenn", BAKENN)
        if isinstance(python, Path):
            python = answer(python, "in_bakenn.py", str(folder))
        absent = next((lack.why for lack in lacking(CORES["cortex-m4"]).values()), None)
        if absent or isinstance(python, str):
            found["bakenn"] = absent or python
        else:
            found["bakenn"] = beside(network, values[0], python)
        floats = deployable_of(run, "fp32")
        model = Logits(floats.student.network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        first = torch.from_numpy(log_mel[:1]).to(memory_format=torch.channels_last)  # else convolutions stay in float
        torch.export.save(torch.export.export(model, (first,)), folder / "student.pt2")
        int8, scales = as_float(deployable.network)
        int8 = int8.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.export.save(torch.export.export(int8, (first,), strict=True), folder / "int8.pt2")
        (folder / "scales.json").write_text(json.dumps(scales))
        python = environment(environments / "executorch", EXECUTORCH, ours=True)
        if isinstance(python, Path):
            python = answer(python, "in_executorch.py", str(folder))
        found["executorch"] = python
    print(json.dumps(found) if options.json else _text(found))


def _text(found: dict[str, Any]) -> str:
    lines, micro = [], found["tflite-micro"]
    if isinstance(micro, str):
        lines.append(f"tflite-micro: left out: {micro}")
    else:
        spent = micro["seconds"]
        for name, memory in (("c", found["c"]["memory_bytes"]), ("tflite-micro", micro["arena_bytes"])):
            lines.append(f"{name}: {1000 * statistics.median(spent[name]):.2f} ms a window, {memory:,} bytes")
        lines += [
            f"tflite-micro / c: {ratio(spent['tflite-micro'], spent['c'])} times the time",
            f"the class of the reference: tflite-micro on {micro['equal_class']} of {micro['clips']} clips, "
            f"c all scores {'equal' if micro['c_as_numpy'] else 'NOT equal'}",
            f"largest difference of a logit {micro['largest_logit_difference']:.3f}, of which int8 has steps of "
            f"{micro['logit_step']:.3f}; gaps between the two first classes where they differ: "
            f"{[round(each, 3) for each in micro['closest_where_class_differs']]}",
            f"largest difference of a score {micro['largest_score_difference']:.4f}; "
            f"model {micro['model_bytes']:,} bytes",
        ]
    baked = found["bakenn"]
    if isinstance(baked, str):
        lines.append(f"bakenn: left out: {baked}")
    else:
        lines += [
            f"convolutions on {each['core']}, {each['form']}: {each['a_mac']:.2f} a MAC, {each['memory_bytes']:,} bytes"
            + (f", {100 * each['differ']:.1f} % differ by {each['largest']} at most" if "differ" in each else "")
            for each in baked
        ]
    torched = found["executorch"]
    if isinstance(torched, str):
        lines.append(f"executorch: left out: {torched}")
    else:
        for name, of in (("its own int8", torched["student"]), ("our int8", torched["int8"])):
            lines.append(
                f"executorch, {name}: the class of the reference on {of['equal_class']} of {of['clips']} clips, "
                f"largest difference of a score {of['largest_score_difference']:.4f}"
            )
            lines += [
                f"executorch, {name}, {each['core']}: program {each['program_bytes']:,} bytes, "
                f"planned {each['planned_bytes']:,} bytes"
                for each in of["cores"]
            ]
        operators = torched["int8"]["cores"][0]["operators"].items()
        lines.append("executorch calls " + ", ".join(f"{count} {name}" for name, count in operators))
        lines.append("executorch keeps scales of its own for " + ", ".join(torched["int8"]["our_scales"]["its own"]))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
