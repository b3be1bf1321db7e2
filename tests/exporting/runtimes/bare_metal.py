"""A runtime that this package does not have: all that a new one takes is such a file and a row of the table.

It is for microcontrollers. Its model is a graph's bytes in reverse, which nobody else can read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.exporting.budget import Figures, figures_of
from edgekd.exporting.deployable import Deployable
from edgekd.exporting.golden import GoldenExamples
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.manifest import Check, FloatOperators, Manifest
from edgekd.exporting.runtimes.runtime import Checker, Classify
from edgekd.exporting.targets import Precision, Target
from edgekd.exporting.verify import in_onnxruntime

BOARD = """
name = "m4"
title = "Cortex-M4 with 256 KiB"
runtime = "bare-metal"
flavour = "tensorrt"
opset = 20
precisions = ["int8"]
batch = 1
architecture = "armv7e-m"
memory_bytes = 262_144
storage_bytes = 1_048_576

[tolerance]
probability = 0.05
agreement = 0.95

[budget]
parameters = 100_000
"""


class BareMetal:
    name = "bare-metal"
    title = "Bare Metal"
    flavour = "tensorrt"
    flavour_reason = "its kernels are symmetric"
    folds_constants = False
    architectures = ("armv7e-m", "armv8.1-m.main")
    least_memory_bytes = 1 << 14
    hears_16_bits = False
    tells_unknown = False
    settings = None
    in_steps = False
    first_command = "make flash"

    def check_target(self, target: Target) -> None:
        if target.precisions != ("int8",):
            raise ValueError(f"precisions = {list(target.precisions)}: {self.name} has kernels for int8 alone")

    def describe(self, target: Target) -> str:
        return self.title

    def models(self, target: Target) -> dict[Precision, str]:
        return {"int8": "model.bin"}

    def emit(self, deployables: Mapping[Precision, Deployable], target: Target, progress: Any) -> dict[str, bytes]:
        return {"model.bin": onnx_of(deployables["int8"], "tensorrt", Form.of(target))[::-1]}

    def check(self, files: Mapping[str, bytes], deployables: Any, target: Target) -> FloatOperators:
        return FloatOperators()

    def figures(self, files: Mapping[str, bytes], target: Target) -> Figures:
        return figures_of(files["model.bin"][::-1])

    def classifier(self, files: Mapping[str, bytes], deployable: Deployable, target: Target) -> Checker:
        return Checker("bare metal 1.0", in_onnxruntime(files["model.bin"][::-1]))

    def checks(self, *_: Any) -> Iterator[Check]:
        yield Check(by="a simulator", precision="int8", not_run="there is none")

    def device_files(self, manifest: Manifest, files: Mapping[str, bytes], golden: GoldenExamples) -> dict[str, bytes]:
        return {"main.c": b"int main(void) { for (;;); }\n", "flash.sh": b"#!/bin/sh\n"}

    def usage(self, manifest: Manifest) -> str:
        return f"## Prepare\n\n    {self.first_command}\n"

    def open(self, folder: Path, threads: int = 1) -> Classify:
        assert json.loads((folder / "manifest.json").read_text())["target"]["runtime"] == self.name
        run = in_onnxruntime((folder / "model.bin").read_bytes()[::-1])

        def classify(clips: NDArray[np.float32]) -> NDArray[np.float32]:
            return run(torch.from_numpy(clips)).numpy()

        return classify

    def engine_builder(self) -> None:
        return None
