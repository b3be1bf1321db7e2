"""What tests of C need, and the reasons to leave them out."""

from __future__ import annotations

import shutil

import pytest

from edgekd.microcontrollers.c import toolchain

needs_host = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="needs a C compiler, which is not installed"
)
needs_emulator = pytest.mark.skipif(
    toolchain.missing_for_emulation() is not None, reason=f"needs {toolchain.missing_for_emulation()}, not installed"
)
