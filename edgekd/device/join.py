"""Joins the parts in `runner/` into `edgekd_runner.py`, the one file that ships: `python -m edgekd.device.join`.

The docstring of the last part, the command line, opens the file; those of the others stand below their section marks.
The imports of the parts become one block, less those of other parts; what follows them is taken over as it is. Before
that the file takes the folders that it lies and is started in off its path: `python3 -P` would do so, but came with
Python 3.11, and `-I` would hide what pip has installed for a user.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from edgekd.device import RUNNER_FILE

PARTS = {  # a module of runner/ and its section's title; each imports only from those before it
    "errors": "Errors",
    "manifest": "The manifest",
    "arrays": "Arrays",
    "bundle": "The bundle",
    "level": "What is no sound",
    "detection": "Events",
    "answers": "What scores answer",
    "wav_header": "The header of a WAV file",
    "wav": "WAV files",
    "resample": "Sample rates",
    "log_mel": "The log-mel",
    "engine_layers": "The layers of an engine",
    "cuda": "CUDA",
    "trtexec": "Engines by trtexec",
    "engines": "Engines",
    "steps": "Windows that overlap",
    "classifier": "The classifier",
    "scorer": "Windows on their way to the classifier",
    "stream": "A live signal",
    "scores": "A recording in pieces",
    "detect": "Tables of events",
    "live": "Standard input",
    "machine": "The machine",
    "bench": "Timing",
    "choose": "The choice of an engine",
    "commands": "Commands",
}
ORIGIN = "# Joined from the modules of edgekd/device/runner by edgekd/device/join.py: to change it, change those.\n"
ISOLATED = """\
import os
import sys

if __name__ == "__main__":  # a numpy.py beside this file, or where it is started, is not numpy
    _beside = ("", os.path.dirname(os.path.realpath(__file__)), os.path.realpath("/proc/self/cwd"))  # noqa: PTH120
    sys.path[:] = [_folder for _folder in sys.path if (_folder and os.path.realpath(_folder)) not in _beside]
"""
NUMPY = """\
try:
    import numpy as np
except ImportError:
    print("edgekd_runner: numpy is not installed. Next: python3 -m pip install numpy onnxruntime", file=sys.stderr)
    raise SystemExit(3) from None
"""


def sources() -> dict[str, str]:
    """The text of each part."""
    folder = RUNNER_FILE.with_name("runner")
    return {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in PARTS}


def join(texts: Mapping[str, str]) -> str:
    """The text of one module that holds everything the parts `texts` (name of a part to its text, in order) define.

    Raises `ValueError` for a name that two parts define.
    """
    modules = {name: ast.parse(text) for name, text in texts.items()}
    times = Counter(name for module in modules.values() for name in _defined(module))
    if twice := sorted(name for name in times if times[name] > 1):
        raise ValueError(f"defined in more than one part: {', '.join(twice)}")
    about = {name: ast.get_docstring(module) or "" for name, module in modules.items()}
    opening = about.pop(list(texts)[-1])
    sections = [f'#!/usr/bin/env python3\n"""{opening}\n"""\n\n{ORIGIN}\n{_imports(modules.values())}']
    for name, text in texts.items():
        mark = f"# --- {PARTS[name]} ".ljust(120, "-")
        comment = "".join(f"# {line}".rstrip() + "\n" for line in about.get(name, "").splitlines())
        sections.append(f"{mark}\n{comment}\n\n{_body(modules[name], text)}")
    return "\n\n".join(sections)


def _defined(module: ast.Module) -> list[str]:
    """Names that a module gives to something of its own."""
    names = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return names


def _imports(modules: Iterable[ast.Module]) -> str:
    """One block of imports, sorted as ruff does, for all of them."""
    plain: set[str] = set()
    members: dict[str, set[str]] = defaultdict(set)
    for node in (node for module in modules for node in module.body):
        if isinstance(node, ast.Import):
            plain |= {ast.unparse(alias) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__"):
            members[str(node.module)] |= {ast.unparse(alias) for alias in node.names}
    lines = [f"import {name}\n" for name in sorted(plain - {"numpy as np", "os", "sys"})]
    lines += [
        f"from {module} import {', '.join(sorted(names, key=lambda name: (not name.isupper(), name)))}\n"
        for module, names in sorted(members.items())
        if not module.startswith("edgekd.")
    ]
    return f"from __future__ import annotations\n\n{ISOLATED}\n{''.join(lines)}\n{NUMPY}"


def _body(module: ast.Module, text: str) -> str:
    """What follows the imports of a module."""
    last = max(node.end_lineno or 0 for node in module.body if isinstance(node, ast.Import | ast.ImportFrom))
    return "".join(text.splitlines(keepends=True)[last:]).lstrip("\n")


def write() -> None:
    """Write `edgekd_runner.py` anew."""
    RUNNER_FILE.write_text(join(sources()), encoding="utf-8")


if __name__ == "__main__":
    write()
