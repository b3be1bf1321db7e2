"""A student as sources of C: its constants, and what computes with them.

`edgekd_model.h` has the sizes, `edgekd_model.c` the constants; all other sources are the same for every student.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from edgekd.device.c import SOURCES
from edgekd.front_end import FrontendConfig
from edgekd.log_mel import mel_bin_affine
from edgekd.microcontrollers.c.constants import network_constants
from edgekd.microcontrollers.c.front_end import log_mel_constants
from edgekd.microcontrollers.integer.layers import IntegerNetwork
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.memory import Memory, plan
from edgekd.models.students.student import Student
from edgekd.quantization.prepare import QuantizedNetwork

MODEL, HEADER = "edgekd_model.c", "edgekd_model.h"
LIBRARY = ("edgekd.c", "edgekd_kernels.c", "edgekd_log_mel.c", "edgekd_network.c", MODEL)
HEADERS = ("edgekd.h", "edgekd_exp.h", "edgekd_kernels.h", "edgekd_log_mel.h", "edgekd_network.h", HEADER)


@dataclass(frozen=True)
class Hearing:
    """What a classifier hears: clips of `clip_samples` at `sample_rate` Hz, one every `hop_samples`."""

    classes: tuple[str, ...]
    sample_rate: int
    clip_samples: int
    hop_samples: int

    @property
    def windows(self) -> int:
        """At work at once."""
        return ceil(self.clip_samples / self.hop_samples)


def whole_frames(hop_samples: int, config: FrontendConfig) -> int:
    """The nearest hop between windows at which frames of one lie where those of the next do, so that each is computed
    once."""
    return max(1, round(hop_samples / config.hop_length)) * config.hop_length


def sources(student: Student, network: QuantizedNetwork, hearing: Hearing) -> dict[str, str]:
    """Every source by name. Raises `GateError` for what has no form in C."""
    config = student.frontend.config
    integers = lower(network, *config.shape(hearing.clip_samples))
    memory = plan(integers)
    scale, shift = (each.double().numpy() for each in mel_bin_affine(student.norm))
    gain = float(student.gain)
    front_end = log_mel_constants(
        config, hearing.sample_rate, gain, scale, shift, integers.entry, "edgekd_model_log_mel"
    )
    names = ",\n".join(f"    {_text(name)}" for name in hearing.classes)
    model = "\n".join(
        [
            f'#include "{HEADER}"\n',
            f"const char *const edgekd_class_names[EDGEKD_CLASSES] = {{\n{names},\n}};\n",
            front_end,
            network_constants(integers, memory, "edgekd_model_network"),
        ]
    )
    shipped = {name: (SOURCES / name).read_text() for name in (*LIBRARY, *HEADERS) if name not in (MODEL, HEADER)}
    return {**shipped, MODEL: model, HEADER: _header(config, integers, memory, hearing)}


def _header(config: FrontendConfig, network: IntegerNetwork, memory: Memory, hearing: Hearing) -> str:
    centred = config.convention != "yamnet"
    sizes = {
        "EDGEKD_CLASSES": len(hearing.classes),
        "EDGEKD_SAMPLE_RATE": hearing.sample_rate,
        "EDGEKD_WINDOW_SAMPLES": hearing.clip_samples,
        "EDGEKD_HOP_SAMPLES": hearing.hop_samples,
        "EDGEKD_WINDOWS": hearing.windows,
        "EDGEKD_FRAME_SAMPLES": config.window_length,
        "EDGEKD_FRAME_HOP": config.hop_length,
        "EDGEKD_CENTRED": int(centred),
        "EDGEKD_FRAMES": network.entry.rows * config.frames_per_step,
        "EDGEKD_FRAMES_PER_STEP": config.frames_per_step,
        "EDGEKD_BINS": network.entry.columns,
        "EDGEKD_SPECTRUM": config.n_fft + 2,
        "EDGEKD_MEMORY_WORDS": memory.size // 4,
    }
    defined = "".join(f"#define {name} {value}\n" for name, value in sizes.items())
    numbers = "".join(
        f"#define EDGEKD_CLASS_{name} {number}\n" for number, name in enumerate(_identifiers(hearing.classes))
    )
    return _HEADER.format(sizes=defined, classes=numbers)


_HEADER = """\
/* Sizes and constants of one classifier. */
#ifndef EDGEKD_MODEL_H
#define EDGEKD_MODEL_H

#include "edgekd_log_mel.h"
#include "edgekd_network.h"

{sizes}
/* The number of each class. */
{classes}
extern const char *const edgekd_class_names[EDGEKD_CLASSES];
extern const edgekd_log_mel edgekd_model_log_mel;
extern const edgekd_network edgekd_model_network;

#endif
"""


def _text(name: str) -> str:
    """A string literal of UTF-8; a byte that C would read otherwise stands in octal."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in name.encode()) + '"'


def _identifiers(classes: Sequence[str]) -> list[str]:
    """The classes in the letters that C has, in capitals; of those that come out alike, each with its number."""
    names = [re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") for name in classes]
    found: list[str] = []
    for number, name in enumerate(names):
        mine = name if name and names.count(name) == 1 else f"{name}_{number}".lstrip("_")
        while mine in found:
            mine += "_"
        found.append(mine)
    return found
