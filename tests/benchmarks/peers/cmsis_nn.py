"""Instructions a MAC of single layers in C beside CMSIS-NN's, on emulated cores, built with the same flags.

    python -m tests.benchmarks.peers.cmsis_nn FOLDER [--cores cortex-m4 cortex-m55] [--layers pointwise-32 depthwise-16]
        [--optimise O2] [--single-rounding]

FOLDER has `Include` and `Source` of CMSIS-NN, such as those in a wheel of `bakenn` 1.0.0 on PyPI, of CMSIS-NN 4.0.0:
`bakenn/backend/cmsis_nn/vendor/cmsis_nn`. The layers are those of `tests.benchmarks.layers`: the same weights, factors
and values. Printed too: what share of CMSIS-NN's values is another than ours, and by how much at most. It rounds twice
unless it is built with CMSIS_NN_USE_SINGLE_ROUNDING, which `--single-rounding` does.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.device.c import SOURCES
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.constants import array
from edgekd.microcontrollers.c.cores import CORES, Core
from edgekd.microcontrollers.integer.layers import Map
from tests.benchmarks import layers
from tests.benchmarks.layers import NAMES, Alone, alone
from tests.benchmarks.peers.on_cores import COMPARED

_IN_FLOAT = re.compile(r"_(f16|f32|flt)\.c$")
_MAIN = """\
#include "arm_nnfunctions.h"
#include "edgekd_report.h"
%(constants)s
static int8_t made[%(values)d];
static uint32_t buffer[1 << 14];

int main(void) {
    %(kind)s_params how = {0};
    cmsis_nn_per_channel_quant_params by = {(int32_t *)multiplier, (int32_t *)shift};
    cmsis_nn_dims entry = {1, %(entry)s}, filter = {%(filter)s}, biases = {0}, target = {1, %(target)s};
    cmsis_nn_context context = {buffer, sizeof buffer};
    uint32_t begun, ended;
    int differ = 0, largest = 0;
    how.input_offset = %(offset)d, how.output_offset = -128;
    how.stride.w = how.stride.h = %(step)d, how.padding.w = how.padding.h = %(padding)d;
    how.dilation.w = how.dilation.h = 1, how.activation.min = -128, how.activation.max = 127;
    %(more)s
    edgekd_count_start();
    begun = edgekd_count();
    if (%(function)s(&context, &how, &by, &entry, values, &filter, weight, &biases, bias, &target, made)) return 3;
    ended = edgekd_count();
"""


def instructions(layer: Alone, folder: Path, core: Core, flags: Sequence[str] = ("-O2",)) -> tuple[float, float, int]:
    """Of the whole layer; the share of outputs that differ from ours; by how much at most."""
    convolution, folder = layer.layer, folder.resolve()
    depthwise, size = convolution.depthwise, convolution.kernel[0]
    outputs, inputs = convolution.target.channels, convolution.source.channels
    fractions, shifts = np.frexp(layer.real)
    weight = convolution.weight
    if depthwise:
        weight = np.ascontiguousarray(weight[..., 0].transpose(1, 2, 0))
    constants = {
        "values": layer.values,
        "expected": layer.expected,
        "weight": weight,
        "bias": layer.bias,
        "multiplier": np.minimum(np.rint(fractions * 2.0**31), 2**31 - 1).astype(np.int32),
        "shift": shifts.astype(np.int32),
    }
    told = {
        "constants": "\n".join(array(name, values) for name, values in constants.items()),
        "values": convolution.target.size,
        "kind": "cmsis_nn_dw_conv" if depthwise else "cmsis_nn_conv",
        "function": "arm_depthwise_conv_wrapper_s8" if depthwise else "arm_convolve_wrapper_s8",
        "entry": _sizes(convolution.source),
        "target": _sizes(convolution.target),
        "filter": f"1, {size}, {size}, {outputs}" if depthwise else f"{outputs}, {size}, {size}, {inputs}",
        "offset": -convolution.source.zero_point,
        "step": convolution.stride[0],
        "padding": convolution.padding[0],
        "more": "how.ch_mult = 1;" if depthwise else "",
    }
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for source in SOURCES.iterdir():
            if source.suffix in (".c", ".h", ".ld"):
                (place / source.name).write_bytes(source.read_bytes())
        (place / "main.c").write_text((_MAIN + COMPARED) % told)
        theirs = [path for path in folder.glob("Source/*Functions/*.c") if not _IN_FLOAT.search(path.name)]
        headers = [f"-I{path}" for path in (folder / "Include", folder.parent / "cmsis_core/Include") if path.exists()]
        kept = ["-w", *headers, "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
        every = [place / "main.c", place / "emulator.c", *theirs]
        toolchain.cross_build(every, place / "layer.elf", core, [*flags, *kept])
        ticks, differ, largest = map(int, re.findall(r"\d+", toolchain.emulate(place / "layer.elf", core)))
    return ticks * core.emulated.instructions_a_tick, differ / convolution.target.size, largest


def _sizes(each: Map) -> str:
    return f"{each.rows}, {each.columns}, {each.channels}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", nargs="+", choices=CORES, default=["cortex-m4", "cortex-m55"])
    parser.add_argument("--layers", nargs="+", default=NAMES)
    parser.add_argument("--optimise", default="O2")
    parser.add_argument("--single-rounding", action="store_true")
    options = parser.parse_args()
    flags = [f"-{options.optimise}"]
    once = ["-DCMSIS_NN_USE_SINGLE_ROUNDING"] if options.single_rounding else []
    print(f"{'layer':<15}{'core':<15}{'ours':>7}{'CMSIS-NN':>10}   values that differ")
    for name in options.layers:
        layer = alone(name)
        for core in options.cores:
            ours = layers.instructions(layer, CORES[core], flags) / layer.layer.macs
            theirs, differ, largest = instructions(layer, options.folder, CORES[core], [*flags, *once])
            theirs /= layer.layer.macs
            print(f"{name:<15}{core:<15}{ours:>7.2f}{theirs:>10.2f}   {100 * differ:.2f} % by {largest}", flush=True)


if __name__ == "__main__":
    main()
