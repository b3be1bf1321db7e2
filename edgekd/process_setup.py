"""How a process is set up: for what the C library and Python do by default that costs most, and for what it imports."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

THREADS_SPIN = "20000"
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3)
_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def python_environment() -> dict[str, str]:
    """The environment of a Python that this process starts: with the current folder, which may be a data set with a
    `torch.py` in it, not on its path.

    Its own children are kept from that too (`PYTHONSAFEPATH`), and an empty entry of `PYTHONPATH`, which stands for the
    current folder, is left out. The folder that edgekd itself lies in stays.
    """
    root, here = Path(__file__).resolve().parents[1], Path.cwd().resolve()
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    kept = [entry for entry in named if Path(entry).resolve() != here or here == root]
    if sys.path and Path(sys.path[0]).resolve() == root:  # as `python -m edgekd` is started beside a checkout
        kept.insert(0, str(root))
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(kept)}
    if not kept:
        del environment["PYTHONPATH"]
    return environment


def set_up_threads() -> None:
    """Have OpenMP's threads spin for a while when they wait; it reads this when torch is loaded.

    Threads that spin for long made training 12 times slower on a machine with other work on it; ones that do not spin
    at all, twice as slow on an idle one.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", THREADS_SPIN)


def keep_freed_memory() -> None:
    """Have the C library keep what is freed and use it again, rather than give it back to the system.

    A step allocates and frees the same hundreds of megabytes as the one before it. Given back, each page of them is
    taken, and filled with zeros, anew: 20,000 page faults a step, and 1.07 to 1.29 times the time (`hltdnn_ds`, batches
    of 16, one and two threads; in batches of 8 no difference could be shown), for the same peak of memory. Only glibc
    has the setting, and one of the user's own stands.
    """
    import ctypes

    if any(name in os.environ for name in _SET_BY_USER):
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_MMAP_THRESHOLD, 1 << 30)
        adjust(_TRIM_THRESHOLD, (1 << 31) - 1)


def look_for_garbage_seldom() -> None:
    """Have Python look for reference cycles a seventieth as often as by default.

    What a command imports makes half a million objects that stay: looking through them took an eighth of the time of
    `import torch`. Not for training, where a cycle may hold a batch.
    """
    gc.set_threshold(50_000, 20, 50)
