"""What tests of C need, and the reasons to leave them out."""

from __future__ import annotations

import shutil

import pytest

from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES

needs_host = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler, which is not installed"
)
_LACKING = toolchain.lacking(CORES["cortex-m55"])
needs_emulator = pytest.mark.skipif(bool(_LACKING), reason="; ".join(lack.why for lack in _LACKING.values()))
