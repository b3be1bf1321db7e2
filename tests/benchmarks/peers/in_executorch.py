"""A student as ExecuTorch exports it for Cortex-M: run by the Python of an environment that has it.

    python in_executorch.py FOLDER

In FOLDER lie `student.pt2`, an exported float student, and `log_mel.npy`, what it is calibrated with. Prints a line of
JSON: of each core the bytes of the program, the memory that its plan takes, and how often each operator is called.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.backends.cortex_m.edge_compile_config import cortex_m_edge_compile_config
from executorch.backends.cortex_m.passes.cortex_m_pass_manager import CortexMPassManager
from executorch.backends.cortex_m.quantizer.quantizer import CortexMQuantizer
from executorch.backends.cortex_m.target_config import CortexMTargetConfig
from executorch.exir import ExecutorchBackendConfig, to_edge
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

CORES = ("cortex-m4", "cortex-m55")


def exported(model: torch.nn.Module, log_mel: torch.Tensor) -> Any:
    return torch.export.export(model, (log_mel,), strict=True)


def _name(target: Any) -> str:
    return str(target.name()) if hasattr(target, "name") else str(getattr(target, "__name__", target))


def of_core(quantised: torch.nn.Module, log_mel: torch.Tensor, core: str) -> dict[str, Any]:
    edge = to_edge(exported(quantised, log_mel), compile_config=cortex_m_edge_compile_config())
    target = CortexMTargetConfig.from_target_string(core)
    program = CortexMPassManager(edge.exported_program(), target_config=target).transform()
    edge._edge_programs["forward"] = program
    operators = Counter(_name(node.target) for node in program.graph.nodes if node.op == "call_function")
    made = edge.to_executorch(ExecutorchBackendConfig(extract_delegate_segments=False))
    (plan,) = made.executorch_program.execution_plan
    return {
        "core": core,
        "program_bytes": len(made.buffer),
        "planned_bytes": sum(plan.non_const_buffer_sizes),
        "operators": dict(operators),
    }


def main(folder: Path) -> None:
    log_mels = torch.from_numpy(np.load(folder / "log_mel.npy"))
    model = torch.export.load(folder / "student.pt2").module()
    first = log_mels[:1].contiguous(memory_format=torch.channels_last)
    prepared = prepare_pt2e(model, CortexMQuantizer())
    for each in log_mels:
        prepared(each[None].contiguous(memory_format=torch.channels_last))
    quantised = convert_pt2e(prepared)
    kept = sum(
        int(model(each[None]).argmax() == quantised(each[None].contiguous(memory_format=torch.channels_last)).argmax())
        for each in log_mels
    )
    cores = [of_core(quantised, first, core) for core in CORES]
    print(json.dumps({"clips": len(log_mels), "class_of_float": kept, "cores": cores}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
