#!/usr/bin/env bash
# ExecuTorch's quantiser for Cortex-M writes weights of -128, and cuts the largest positive ones.
#
# Expected: symmetric int8 weights lie between -127 and 127, as TensorFlow Lite's specification of int8 has them, and the
# largest magnitude of a channel is 127 steps.
# Seen (executorch 1.5.1, torchao 0.18.0, torch 2.13.0): the scale of a channel is its largest magnitude over 127.5. A
# largest weight that is negative becomes -128; one that is positive would be 127.5, and is cut to 127, 0.4 % less. The
# same channel with its signs turned has other magnitudes.
# Matters: kernels that add two products in 16 bits, or negate a weight, rest on -127: 2 * 128 * 128 is beyond int16.
# Weights taken over from a network that was trained for a scale of max / 127 move by up to half a step. Set the scales
# of the weights' observers, or use the weights with kernels that allow -128 (those of CMSIS-NN 7 do).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 flatbuffers ruamel.yaml pyyaml tabulate packaging
"$work/venv/bin/pip" install --quiet --no-deps executorch==1.5.1 torchao==0.18.0 tosa-tools==2026.5.0
cd "$work"
venv/bin/python -I -W ignore - 2>/dev/null <<'PY'
import torch
from executorch.backends.cortex_m.passes.cortex_m_pass_manager import CortexMPassManager  # noqa: F401, first
from executorch.backends.cortex_m.quantizer.quantizer import CortexMQuantizer
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

network = torch.nn.Sequential(torch.nn.Conv2d(4, 2, 1, bias=False)).eval()
with torch.no_grad():
    network[0].weight[0] = torch.tensor([127.0, 64.0, 1.0, 0.0])[:, None, None]
    network[0].weight[1] = -network[0].weight[0]
network = network.to(memory_format=torch.channels_last)
maps = torch.randn(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
exported = torch.export.export(network, (maps,), strict=True).module(check_guards=False)
prepared = prepare_pt2e(exported, CortexMQuantizer())
prepared(maps)
made = convert_pt2e(prepared)
(weight,) = [
    getattr(made, node.args[0].target)
    for node in made.graph.nodes
    if "dequantize_per_channel" in str(node.target) and node.args[0].op == "get_attr"
]
weight = weight.flatten(1).tolist()
print("127, 64, 1, 0 and the same negated:", weight)
assert weight == [[127, 64, 1, 0], [-128, -64, -1, 0]]
PY
echo "as described"
