"""What a classifier takes of a core: flash by the compiler's sections, stack by its call graph.

The stack is the longest way through the calls from `edgekd_push` and its like (`gcc -fcallgraph-info=su`), without that
of interrupts; functions of the C library, which copy and clear memory, count as nothing.
"""

from __future__ import annotations

import graphlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.device.c import LIBRARY, SOURCES
from edgekd.microcontrollers.c.cores import Core
from edgekd.microcontrollers.c.folder import write
from edgekd.microcontrollers.c.model import MODEL
from edgekd.microcontrollers.c.toolchain import CROSS_COMPILER, STACK_USE, cross_objects

_NODE = re.compile(r'^node: \{ title: "(?P<name>[^"]+)" label: "[^"]*\\n(?P<bytes>\d+) bytes \(static\)"', re.MULTILINE)
_EDGE = re.compile(r'^edge: \{ sourcename: "(?P<caller>[^"]+)" targetname: "(?P<called>[^"]+)"', re.MULTILINE)
_SIZE = CROSS_COMPILER.replace("gcc", "size")


def compiled(model: Mapping[str, str], core: Core, folder: Path) -> list[Path]:
    """The objects of the classifier `model` on `core`, beside their call graphs in `folder`, which is empty.

    Raises `GateError` where the compiler refuses it.
    """
    write(folder, model)
    sources = [*(SOURCES / source for source in LIBRARY), folder / MODEL]
    cross_objects(sources, folder, core, (STACK_USE, f"-I{folder}", f"-I{SOURCES}"))
    return sorted(folder.glob("*.o"))


def footprint(objects: Sequence[Path]) -> dict[str, int]:
    """`flash_bytes`, of which `code_bytes`, and `stack_bytes` of what `compiled` made."""
    sections = {object_.stem: _sections(object_) for object_ in objects}
    graphs = "".join(path.with_suffix(".ci").read_text(encoding="utf-8", errors="replace") for path in objects)
    flash = sum(sections.values())
    return {
        "flash_bytes": flash,
        "code_bytes": flash - sections[Path(MODEL).stem],
        "stack_bytes": deepest(graphs),
    }


def deepest(graphs: str) -> int:
    """The most stack that a chain of calls takes, in call graphs as GCC writes them."""
    own = {found["name"]: int(found["bytes"]) for found in _NODE.finditer(graphs)}
    calls: dict[str, set[str]] = {}
    for found in _EDGE.finditer(graphs):
        calls.setdefault(found["caller"], set()).add(found["called"])
    known: dict[str, int] = {}
    order = graphlib.TopologicalSorter({name: calls.get(name, set()) for name in own})  # nothing calls itself
    for name in order.static_order():
        known[name] = own.get(name, 0) + max((known.get(called, 0) for called in calls.get(name, ())), default=0)
    return max(known.values(), default=0)


def _sections(object_: Path) -> int:
    """Bytes of code and constants."""
    said = subprocess.run([_SIZE, str(object_)], capture_output=True, text=True, check=True).stdout
    text, data, *_ = said.splitlines()[1].split()
    return int(text) + int(data)
