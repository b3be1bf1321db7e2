"""A student as ExecuTorch exports it for Cortex-M: run by the Python of an environment that has it.

    python in_executorch.py FOLDER

In FOLDER lie `student.pt2`, an exported float student, `int8.pt2` and `scales.json`, an int8 one as float and its
scales (`tests.benchmarks.peers.as_float`), `log_mel.npy` and `network.npz`. The first is quantised as ExecuTorch does,
calibrated on the first clips; the second gets our scales in place of those that its observers would choose, where it
has one for them. Prints a line of JSON: of each core the bytes of the program, the memory that its plan takes, how
often each operator is called; on how many clips the class is that of our integers, by how much a score is another.
"""

from __future__ import annotations

import json
import re
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
CLIPS = 32  # that its own calibration sees


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


def _module_of(node: Any) -> str:
    """The name of the module that a node comes from, such as `blocks.0.1`."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return (
        ".".join(a or b for a, b in re.findall(r"\.(\w+)|'(\w+)'", paths[-1].replace("L['self']", ""))) if paths else ""
    )


def set_scales(prepared: torch.fx.GraphModule, scales: dict[str, Any]) -> dict[str, list[str]]:
    """Has observers say our scales; where nodes share one, those of the first. Returns the nodes by whose they are."""
    kept: dict[str, list[str]] = {"ours": [], "its own": []}
    said = set()
    for node in prepared.graph.nodes:
        observer = prepared.get_submodule(str(node.target)) if node.op == "call_module" else None
        kind = type(observer).__name__
        if not hasattr(observer, "calculate_qparams") or kind.startswith("Derived") or id(observer) in said:
            continue
        source, pair = node.args[0], None
        if source.op == "get_attr":
            name = f"weight of {_module_of(source) or 'the last layer'}"
            found = scales.get(_module_of(source)) if kind == "PerChannelMinMaxObserver" else None
            pair = found and (torch.tensor(found), torch.zeros(len(found), dtype=torch.int64))
        else:
            name = _module_of(source).replace(".", "_") or source.name
            found = scales.get(name)
            pair = found and (torch.tensor([found[0]]), torch.tensor([found[1]]))
        if pair:
            observer.calculate_qparams = lambda pair=pair: pair
            said.add(id(observer))
        kept["ours" if pair else "its own"].append(name)
    return kept


def quantised(model: torch.nn.Module, log_mels: torch.Tensor, scales: dict[str, Any] | None) -> tuple[Any, Any]:
    prepared = prepare_pt2e(model, CortexMQuantizer())
    for each in log_mels:
        prepared(each[None].contiguous(memory_format=torch.channels_last))
    told = set_scales(prepared, scales) if scales else None
    return convert_pt2e(prepared), told


def main(folder: Path) -> None:
    log_mels, found = torch.from_numpy(np.load(folder / "log_mel.npy")), {}
    logits = np.load(folder / "network.npz")["logits"] * 2.0**-12
    first = log_mels[:1].contiguous(memory_format=torch.channels_last)
    for name, scales in (("student", None), ("int8", json.loads((folder / "scales.json").read_text()))):
        model = torch.export.load(folder / f"{name}.pt2").module(check_guards=False)
        network, told = quantised(model, log_mels[:CLIPS], scales)
        with torch.no_grad():
            made = torch.cat([network(each[None].contiguous(memory_format=torch.channels_last)) for each in log_mels])
        apart = torch.softmax(made, 1) - torch.softmax(torch.from_numpy(logits), 1)
        found[name] = {
            "clips": len(log_mels),
            "equal_class": int((made.argmax(1).numpy() == logits.argmax(1)).sum()),
            "largest_score_difference": float(apart.abs().max()),
            "our_scales": told,
            "cores": [of_core(network, first, core) for core in CORES],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
