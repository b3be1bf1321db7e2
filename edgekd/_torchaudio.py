"""torchaudio's Python part, on any machine: `from edgekd._torchaudio import functional`.

torchaudio's wheels carry a compiled extension that links one CUDA version. Beside a CPU-only torch, or a torch built
for another CUDA, `import torchaudio` fails in `torchaudio._extension`, although filter banks, resampling and the
model definitions are plain Python. Where that happens the package is imported again with a stand-in for `_extension`
that says "not available", which torchaudio handles itself: it falls back to Python. What truly needs the extension
(`forced_align`, `rnnt_loss`) is not used by edgekd and keeps failing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import NoReturn

_EXTENSION = "torchaudio._extension"


def _import_torchaudio() -> None:
    try:
        importlib.import_module("torchaudio")
    except ModuleNotFoundError:
        raise  # torchaudio, or something it is built on, is not installed: nothing to stand in for
    except (OSError, RuntimeError, ImportError):
        # A library that is not there; another CUDA version; an extension that will not initialise.
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules[_EXTENSION] = _stand_in()
        importlib.import_module("torchaudio")


def _stand_in() -> ModuleType:
    """A `torchaudio._extension` for a build without compiled parts, with the names the rest of torchaudio imports."""
    module = ModuleType(_EXTENSION, "Stand-in: the compiled extension cannot be loaded beside this torch.")
    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=_needs_extension,
    )
    return module


def _needs_extension(function: object) -> object:
    """Decorator: the function stays importable and says why it cannot be called."""

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        name = getattr(function, "__name__", "this function")
        raise RuntimeError(
            f"torchaudio.functional.{name} needs torchaudio's compiled extension, which does not load here."
        )

    return refuse


_import_torchaudio()

from torchaudio import functional, models, transforms  # noqa: E402 - only importable after the line above

__all__ = ["functional", "models", "transforms"]
