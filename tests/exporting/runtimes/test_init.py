"""The table of runtimes: the only place that knows them by name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import edgekd
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.quantization.fake_quant import FLAVOURS

PACKAGE = Path(edgekd.__file__).parent


def test_a_row_is_known_by_its_runtimes_own_name() -> None:
    assert [runtime.name for runtime in RUNTIMES.values()] == list(RUNTIMES)
    assert {"onnxruntime", "tensorrt"} <= set(RUNTIMES)
    assert {runtime.flavour for runtime in RUNTIMES.values()} <= set(FLAVOURS)


def test_nobody_compares_the_name_of_a_runtime_with_a_string() -> None:
    compared = []
    for module in PACKAGE.rglob("*.py"):
        if module.relative_to(PACKAGE).parts[0] == "device":  # it ships alone
            continue
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                constants = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                if constants & set(RUNTIMES):
                    compared.append(f"{module.relative_to(PACKAGE)}:{node.lineno}")
            elif isinstance(node, ast.match_case):
                names = {each.value for each in ast.walk(node.pattern) if isinstance(each, ast.Constant)}
                assert not names & set(RUNTIMES), f"{module.relative_to(PACKAGE)}: match"
    assert compared == []


def test_the_table_loads_no_settings_and_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "pydantic"}
    code = f"import sys; from edgekd.exporting.runtimes import RUNTIMES; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
