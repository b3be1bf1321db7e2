"""Modules that may be absent or broken: whatever their import raises and prints becomes one `ImportError`.

`torch_tensorrt` raises `Exception` itself where its libraries are missing, `RuntimeError` where there is no driver, and
prints the reason on standard output, which is for JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from types import ModuleType


def import_optional(name: str) -> ModuleType:
    """The module of that name. Raises `ImportError` with the reason in one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(name)
    except Exception as failure:
        reason = " ".join(str(failure).split()) or type(failure).__name__
        raise ImportError(reason) from None
