"""The convolutions of a student as bakenn compiles them to C: for the Python of an environment that has bakenn[tflite].

    python in_bakenn.py FOLDER

In FOLDER lies `convolutions.tflite`. Written there are the folders `bakenn-portable`, `bakenn-m4` (what bakenn has for
a Cortex-M4) and `bakenn-cmsis-nn`, with the same numbers. Padding, an operator of its own in that file, is put into the
convolution that takes it, as bakenn can. Prints a line of JSON: of each folder its sources, places of headers, its
memory for maps, its constants.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import bakenn
from bakenn import CBackendOptions, KernelPolicy

FORMS: dict[str, dict[str, Any]] = {
    "portable": {},
    "m4": {"kernel_policy": KernelPolicy.STATIC_PRIORITY},
    "cmsis-nn": {"kernel_policy": KernelPolicy.STATIC_PRIORITY, "enable_cmsis_nn": True},
}


def padded_within(graph: Any) -> Any:
    """The graph with the padding of each convolution in itself."""
    pads = {op.output: op for op in graph.ops if type(op).__name__ == "Pad2DOp"}
    ops = [
        replace(op, input=pads[op.inputs[0]].input, padding=tuple(pads[op.inputs[0]].padding))
        if op.inputs[0] in pads
        else op
        for op in graph.ops
        if op.outputs[0] not in pads
    ]
    values = {name: value for name, value in graph.values.items() if name not in pads}
    return replace(graph, ops=tuple(ops), values=values)


def main(folder: Path) -> None:
    graph = padded_within(bakenn.import_tflite((folder / "convolutions.tflite").read_bytes(), name="net"))
    found = {}
    for name, options in FORMS.items():
        place = folder / f"bakenn-{name}"
        target = None if name == "portable" else "cortex-m4"
        bakenn.compile(graph, place, model_name="net", backend_options=CBackendOptions(**options), target=target)
        manifest = json.loads((place / "bknn_net_manifest.json").read_text())
        bundled = manifest.get("bundled_dependencies", [])
        found[name] = {
            "folder": str(place),
            "sources": [
                *(f"bknn_net{part}.c" for part in ("", "_kernels", "_weights")),
                *(source for each in bundled for source in each["sources"]),
            ],
            "headers": [".", *(header for each in bundled for header in each["include_dirs"])],
            "arena_bytes": manifest["arena_bytes"],
            "constant_bytes": manifest["constant_payload_bytes"],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
