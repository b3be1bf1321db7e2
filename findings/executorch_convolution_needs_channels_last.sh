#!/usr/bin/env bash
# ExecuTorch's quantiser for Cortex-M leaves every convolution in float where the input is not channels-last.
#
# Expected: a float network that is quantised and lowered for a Cortex-M has int8 convolutions, or is refused.
# Seen (executorch 1.5.1, torchao 0.18.0, torch 2.13.0): of an ordinary contiguous network and input the linear layer
# alone becomes an operator of Cortex-M, and the convolution stays aten's, in float. With the same network and input in
# torch.channels_last the convolution is cortex_m's, in int8. The export succeeds either way;
# a line of the log says that an activation could not be fused, and no more.
# Matters: what goes to the microcontroller computes in float, and only a look at its operators tells.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 flatbuffers ruamel.yaml pyyaml tabulate packaging
"$work/venv/bin/pip" install --quiet --no-deps executorch==1.5.1 torchao==0.18.0 tosa-tools==2026.5.0
cd "$work"
venv/bin/python -I -W ignore - 2>/dev/null <<'PY'
import torch
from executorch.backends.cortex_m.edge_compile_config import cortex_m_edge_compile_config
from executorch.backends.cortex_m.passes.cortex_m_pass_manager import CortexMPassManager
from executorch.backends.cortex_m.quantizer.quantizer import CortexMQuantizer
from executorch.backends.cortex_m.target_config import CortexMTargetConfig
from executorch.exir import to_edge
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(4, 8, 3, padding=1)
        self.linear = torch.nn.Linear(8 * 16 * 16, 4)

    def forward(self, maps):
        return self.linear(self.convolution(maps).relu().flatten(1))


def operators(layout):
    torch.manual_seed(0)
    network = Network().eval().to(memory_format=layout)
    maps = torch.randn(1, 4, 16, 16).contiguous(memory_format=layout)
    exported = torch.export.export(network, (maps,), strict=True).module(check_guards=False)
    prepared = prepare_pt2e(exported, CortexMQuantizer())
    prepared(maps)
    lowered = to_edge(
        torch.export.export(convert_pt2e(prepared), (maps,), strict=True),
        compile_config=cortex_m_edge_compile_config(),
    )
    program = CortexMPassManager(
        lowered.exported_program(), target_config=CortexMTargetConfig.from_target_string("cortex-m4")
    ).transform()
    names = [str(getattr(node.target, "__name__", node.target)) for node in program.graph.nodes]
    return [name for name in names if "conv" in name or "linear" in name]


contiguous, channels_last = operators(torch.contiguous_format), operators(torch.channels_last)
print("contiguous:", contiguous)
print("channels-last:", channels_last)
assert any("aten" in name and "conv" in name for name in contiguous), contiguous
assert not any("cortex_m" in name and "conv" in name for name in contiguous), contiguous
assert any("cortex_m" in name and "quantized_conv2d" in name for name in channels_last), channels_last
PY
echo "as described"
