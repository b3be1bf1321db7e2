#!/usr/bin/env bash
# ExecuTorch's quantiser for Cortex-M gives a convolution a scale for each output, and a linear layer one for all.
#
# Expected: weights of both are quantised for each output channel, as the default configuration, INT8_PER_CHANNEL_CONFIG,
# says and as TensorFlow Lite's converter does.
# Seen (executorch 1.5.1, torchao 0.18.0, torch 2.13.0): with CortexMQuantizer() the weights of a 1 x 1 convolution are
# dequantised per channel, those of a linear layer per tensor. An output whose weights are 200 times smaller than those
# of another has 128 steps in the convolution, and in the linear layer the values -1, 0 and 1.
# Matters: the classifier of a network is a linear layer. Rows of rare classes, or ones into which a normalisation was
# folded, lose their bits, without a warning. Write the classifier as a 1 x 1 convolution, or scale its rows alike.
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


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.linear = torch.nn.Conv2d(64, 4, 1), torch.nn.Linear(64, 4)
        with torch.no_grad():
            self.linear.weight[3] *= 0.005
            self.convolution.weight.copy_(self.linear.weight[:, :, None, None])

    def forward(self, maps):
        return self.convolution(maps), self.linear(maps.flatten(1))


torch.manual_seed(0)
network = Network().eval().to(memory_format=torch.channels_last)
maps = torch.randn(32, 1, 64, 1, 1).to(torch.float32)
first = maps[0].contiguous(memory_format=torch.channels_last)
exported = torch.export.export(network, (first,), strict=True).module(check_guards=False)
prepared = prepare_pt2e(exported, CortexMQuantizer())
for each in maps:
    prepared(each.contiguous(memory_format=torch.channels_last))
made = convert_pt2e(prepared)
steps = {}
for node in made.graph.nodes:
    name = str(getattr(node.target, "__name__", node.target))
    if "dequantize" in name and node.args[0].op == "get_attr":
        weight = getattr(made, node.args[0].target)
        if weight.dtype == torch.int8:
            steps[name] = sorted(set(weight[3].flatten().tolist()))
            print(name, tuple(weight.shape), "the small output's weights:", steps[name])
(per_channel,) = [values for name, values in steps.items() if "per_channel" in name]
(per_tensor,) = [values for name, values in steps.items() if "per_tensor" in name]
assert max(map(abs, per_channel)) >= 127 and len(per_channel) > 30
assert set(per_tensor) <= {-1, 0, 1}
PY
echo "as described"
