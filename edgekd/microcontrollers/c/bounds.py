"""Whether the numbers of a model keep the C inside of its arrays and its memory.

The C trusts its constants: a place, a size or a number of rows that is wrong has it read and write elsewhere. A
bundle may come from anybody, and its constants are compiled and run here. So they are read back (`definitions`), and
compared with what the C does with them (`log_mel_bounds`, `network_bounds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from edgekd.errors import InputError
from edgekd.microcontrollers.c.definitions import need, read
from edgekd.microcontrollers.c.log_mel_bounds import check_log_mel
from edgekd.microcontrollers.c.model import (
    HEADER,
    LOG_MEL,
    MODEL,
    NETWORK,
    header_of,
    log_mel_type,
    sizes_of,
    state_bytes,
)
from edgekd.microcontrollers.c.network_bounds import check_network
from edgekd.microcontrollers.c.packages import model_in

LARGEST_STATE = 1 << 28  # bytes of an edgekd_t: a board has less
_MOST_SAMPLES = 1 << 30  # of a window, whose frames are counted in 32 bits


def read_model(folder: Path) -> dict[str, str]:
    """The constants of the bundle in `folder`, by file, once they are numbers that the C may be trusted with.

    Raises `InputError` for others: they are compiled, and what they are compiled with is run.
    """
    try:
        model = model_in(folder)
    except UnicodeDecodeError:
        raise InputError(f"{folder}: its constants are no text. Export the bundle again.") from None
    check_model(model, folder)
    return model


def check_model(model: Mapping[str, str], place: object) -> None:
    """Raise `InputError` where constants of the bundle in `place` are more than numbers, or would lead the C astray."""
    sizes = sizes_of(model[HEADER])
    hop = sizes.pop("HOP_SAMPLES", 0)
    if model[HEADER] not in (header_of(sizes, hop), header_of(sizes, hop, for_cpp=False)):
        raise InputError(f"{place}: {HEADER} is not one that this edgekd wrote. Export the bundle again.")
    begin = f'#include "{HEADER}"\n\n'
    try:
        need(model[MODEL].startswith(begin), f"it does not begin with {begin.strip()}")
        expected = {LOG_MEL: log_mel_type(sizes), NETWORK: "edgekd_network"}
        _check(read(model[MODEL][len(begin) :], expected), {**sizes, "HOP_SAMPLES": hop})
    except ValueError as wrong:
        raise InputError(
            f"{place}: {MODEL} is not one that this edgekd wrote: {wrong}. Export the bundle again."
        ) from None


def _check(found: Mapping[str, SimpleNamespace], sizes: Mapping[str, int]) -> None:
    _windows(sizes)
    state = state_bytes(sizes)
    need(state <= LARGEST_STATE, f"an edgekd_t of {state:,} bytes is none that a board has")
    check_log_mel(found[LOG_MEL], sizes)
    check_network(found[NETWORK], sizes)


def _windows(sizes: Mapping[str, int]) -> None:
    """Frames lie in their window, but for the half of one at its ends that is reflected."""
    named = ("CLASSES", "WINDOW_SAMPLES", "FRAME_SAMPLES", "FRAME_HOP", "FRAMES", "FRAMES_PER_STEP", "BINS")
    missing = [name for name in (*named, "HOP_SAMPLES", "SPECTRUM", "MEMORY_WORDS") if sizes.get(name, 0) < 1]
    need(not missing, f"EDGEKD_{''.join(missing[:1])} is missing or 0")
    window, length, hop = sizes["WINDOW_SAMPLES"], sizes["FRAME_SAMPLES"], sizes["FRAME_HOP"]
    half = length // 2 if sizes.get("CENTRED", 0) else 0
    last = (sizes["FRAMES"] - 1) * hop
    need(window <= _MOST_SAMPLES and sizes["HOP_SAMPLES"] <= _MOST_SAMPLES, "a window has too many samples")
    need(sizes["FRAMES"] % sizes["FRAMES_PER_STEP"] == 0, "EDGEKD_FRAMES is no multiple of EDGEKD_FRAMES_PER_STEP")
    need(last + length - 2 * half <= window + (length % 2 if half else 0), "EDGEKD_FRAMES reach beyond the window")
    need(half < window, "a frame is longer than the window")
