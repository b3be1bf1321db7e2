"""How many instructions a classifier takes on a core, counted by the emulator."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.device.c import text
from edgekd.microcontrollers.c import folder, toolchain
from edgekd.microcontrollers.c.cores import Core
from edgekd.microcontrollers.c.model import HEADER, sizes_of

COUNTING = "main_count.c"


@dataclass(frozen=True)
class Instructions:
    """Of a second of a stream, in which windows overlap as the bundle's do: all, and those of the log-mel; and of the
    longest push, where each brings `push_samples` samples, a frame's hop."""

    total: int
    log_mel: int
    longest_push: int
    push_samples: int

    @property
    def network(self) -> int:
        """All but those of the log-mel."""
        return self.total - self.log_mel


def instructions(
    model: Mapping[str, str], objects: Sequence[Path], core: Core, recording: NDArray[np.int16]
) -> Instructions:
    """What the classifier `model` takes of `core` while it hears `recording (S,)`, a window, from its beginning again.

    `objects` are what `measure.compiled` makes of it for that core. Counts are in ticks of
    `core.emulated.instructions_a_tick` instructions. Raises `GateError` where it cannot be built or run.
    """
    sizes = sizes_of(model[HEADER])
    unused = np.zeros((1, sizes["CLASSES"]), np.int32)
    with tempfile.TemporaryDirectory(prefix="edgekd-") as name:
        place = Path(name)
        files = {**model, **folder.verification(recording[None], unused), COUNTING: text(COUNTING)}
        folder.write(place, files)
        program = place / "count.elf"
        wrapped = ("-Wl,--wrap=edgekd_log_mel_row", "-Wl,--wrap=edgekd_fixed_log_mel_row")
        toolchain.cross_build([place / COUNTING, place / "emulator.c", *objects], program, core, wrapped)
        said = toolchain.emulate(program, core)
    counted = dict(line.rsplit(maxsplit=1) for line in said.splitlines())
    seconds = int(counted["samples"]) / sizes["SAMPLE_RATE"]
    each = core.emulated.instructions_a_tick
    return Instructions(
        total=round(int(counted["total"]) * each / seconds),
        log_mel=round(int(counted["log-mel"]) * each / seconds),
        longest_push=round(int(counted["longest"]) * each),
        push_samples=sizes["FRAME_HOP"],
    )
