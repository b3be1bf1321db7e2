"""A student as constants of C: `edgekd_model.h` has the sizes, `edgekd_model.c` the numbers.

All else that computes with them is the same for every student (`edgekd/device/c`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil

from edgekd.front_end import FrontendConfig
from edgekd.microcontrollers.c.constants import network_constants
from edgekd.microcontrollers.c.definitions import bytes_of
from edgekd.microcontrollers.c.front_end import fixed_log_mel_constants, log_mel_constants
from edgekd.microcontrollers.integer.layers import SHARE, Convolution, IntegerNetwork
from edgekd.microcontrollers.integer.log_mel import fixed_log_mel
from edgekd.microcontrollers.integer.lower import lower
from edgekd.microcontrollers.integer.memory import Memory, padded, plan
from edgekd.microcontrollers.integer.trained_log_mel import TrainedLogMel
from edgekd.models.students.student import Student
from edgekd.quantization.prepare import QuantizedNetwork

MODEL, HEADER = "edgekd_model.c", "edgekd_model.h"
CLASSES = "edgekd_classes.h"
LOG_MEL, NETWORK = "edgekd_model_log_mel", "edgekd_model_network"  # constants
_ARRAY = re.compile(r"static const (\w+) \w+\[(\d*)\] = \{\n(.*?)\n\};", re.DOTALL)
_FOR_CPP = ('#ifdef __cplusplus\nextern "C" {\n#endif\n\n', "#ifdef __cplusplus\n}\n#endif\n\n")
_ALL = "NAMES"  # of EDGEKD_CLASS_NAMES
_SIZE = re.compile(r"^#define EDGEKD_(\w+) (\d+)$", re.MULTILINE)


def model_files(
    student: Student, network: QuantizedNetwork, clip_samples: int, hop_samples: int, fixed_point: bool = False
) -> dict[str, str]:
    """The constants of a student with the quantised `network` in place of its own, by file.

    Windows of `clip_samples` begin every `hop_samples`; `fixed_point`: the log-mel is in integers too. Raises
    `GateError` for what has no form in C.
    """
    config = student.frontend.config
    integers = lower(network, *config.shape(clip_samples), several=student.task.several)
    memory = plan(integers)
    trained, entry = TrainedLogMel.of(student), integers.entry
    if fixed_point:
        front_end = fixed_log_mel_constants(fixed_log_mel(trained, entry), LOG_MEL)
    else:
        front_end = log_mel_constants(trained, entry, LOG_MEL)
    numbers = network_constants(integers, memory, NETWORK)
    model = f'#include "{HEADER}"\n\n{front_end}\n{numbers}'
    sizes = {
        **_sizes(config, trained.sample_rate, integers, memory, clip_samples),
        "FIXED_POINT": int(fixed_point),
        "PARAMETERS": sum(layer.weight.size for layer in integers.layers if isinstance(layer, Convolution))
        + integers.classifier.weight.size,
        "MACS": sum(layer.macs for layer in integers.layers if isinstance(layer, Convolution))
        + integers.classifier.weight.size,
        "CONSTANT_BYTES": _constant_bytes(model),
    }
    return {MODEL: model, HEADER: header_of(sizes, hop_samples)}


def sizes_of(header: str) -> dict[str, int]:
    """What `edgekd_model.h` says, without the names' beginning."""
    return {name: int(value) for name, value in _SIZE.findall(header)}


def header_of(sizes: Mapping[str, int], hop_samples: int, *, for_cpp: bool = True) -> str:
    """`edgekd_model.h` of a model with these `sizes`, whose windows begin every `hop_samples`; as it was when it was
    for C alone where it is not `for_cpp`."""
    defined = "".join(f"#define EDGEKD_{name} {value}\n" for name, value in sizes.items())
    begin, end = _FOR_CPP if for_cpp else ("", "")
    names = {"log_mel": LOG_MEL, "type_of_log_mel": log_mel_type(sizes), "network": NETWORK}
    return _HEADER.format(sizes=defined, hop=hop_samples, begin=begin, end=end, **names)


def log_mel_type(sizes: Mapping[str, int]) -> str:
    """The structure of the log-mel's constants."""
    return "edgekd_fixed_log_mel" if sizes.get("FIXED_POINT") else "edgekd_log_mel"


def state_bytes(sizes: Mapping[str, int]) -> int:
    """Of an `edgekd_t`, of a classifier of these sizes."""
    windows = ceil(sizes["WINDOW_SAMPLES"] / sizes["HOP_SAMPLES"])
    sums = sizes["BINS"] if sizes["FRAMES_PER_STEP"] > 1 else 0
    floats = sizes["SPECTRUM"] + sizes["BINS"] + sizes["CLASSES"]
    return 8 + padded(2 * sizes["FRAME_SAMPLES"]) + 4 * floats + windows * 4 * (3 + sums + sizes["MEMORY_WORDS"])


def whole_frames(hop_samples: int, config: FrontendConfig) -> int:
    """The nearest hop between windows at which the frames of one lie where those of the next do, so that each is
    computed once."""
    return max(1, round(hop_samples / config.hop_length)) * config.hop_length


def class_names(classes: Sequence[str], heard_from: Mapping[str, float]) -> str:
    """`edgekd_classes.h`: the names of the classes, their numbers under names that C has, and from which score each is
    heard: one that `heard_from` does not have, the background, never is."""
    numbers = "".join(f"#define EDGEKD_CLASS_{name} {number}\n" for number, name in enumerate(_identifiers(classes)))
    texts = ", \\\n".join(f"    {_text(name)}" for name in classes)
    scores = ", \\\n".join(f"    {_in_units(heard_from.get(name))}" for name in classes)
    return _CLASSES.format(numbers=numbers, texts=texts, scores=scores)


def _in_units(score: float | None) -> int:
    """A threshold in units of 1 / EDGEKD_ONE: the first score that reaches it; more than any where there is none."""
    return SHARE + 1 if score is None else ceil(score * SHARE)


def _sizes(
    config: FrontendConfig, rate: int, network: IntegerNetwork, memory: Memory, clip_samples: int
) -> dict[str, int]:
    return {
        "CLASSES": len(network.classifier.weight),
        "SAMPLE_RATE": rate,
        "WINDOW_SAMPLES": clip_samples,
        "FRAME_SAMPLES": config.window_length,
        "FRAME_HOP": config.hop_length,
        "CENTRED": int(config.convention != "yamnet"),
        "FRAMES": network.entry.rows * config.frames_per_step,
        "FRAMES_PER_STEP": config.frames_per_step,
        "BINS": network.entry.columns,
        "SPECTRUM": config.n_fft + 2,
        "MEMORY_WORDS": memory.size // 4,
    }


def _constant_bytes(model: str) -> int:
    """What the arrays of `model` take on a core of 32 bits."""
    arrays = _ARRAY.findall(model)
    return sum(bytes_of(kind) * (int(count) if count else len(body.splitlines())) for kind, count, body in arrays)


_HEADER = """\
/* Sizes of one classifier. */
#ifndef EDGEKD_MODEL_H
#define EDGEKD_MODEL_H

#include "edgekd_log_mel.h"
#include "edgekd_network.h"

{sizes}
/* Samples from the beginning of a window to that of the next: yours to change. Multiples of EDGEKD_FRAME_HOP let
 * windows share frames; half as much takes twice the memory and twice the work of the network. */
#ifndef EDGEKD_HOP_SAMPLES
#define EDGEKD_HOP_SAMPLES {hop}
#endif
#define EDGEKD_WINDOWS ((EDGEKD_WINDOW_SAMPLES + EDGEKD_HOP_SAMPLES - 1) / EDGEKD_HOP_SAMPLES)

{begin}extern const {type_of_log_mel} {log_mel};
extern const edgekd_network {network};

{end}#endif
"""
_CLASSES = """\
/* The classes, in the order of the scores. */
#ifndef EDGEKD_CLASSES_H
#define EDGEKD_CLASSES_H

{numbers}
#define EDGEKD_CLASS_NAMES {{ \\
{texts} \\
}}

/* From which score a class is heard, in units of 1 / EDGEKD_ONE; that of the background is never reached. */
#define EDGEKD_HEARD_FROM {{ \\
{scores} \\
}}

#endif
"""


def _text(name: str) -> str:
    """A string literal of UTF-8; a byte that C would read otherwise stands in octal."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in name.encode()) + '"'


def _identifiers(classes: Sequence[str]) -> list[str]:
    """The classes in the letters that C has, in capitals; of those that come out alike, each with its number. None is
    `NAMES`, which is what all are called."""
    names = [re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_") for name in classes]
    alike, found = Counter(names), dict.fromkeys([_ALL])
    for number, name in enumerate(names):
        mine = name if name and alike[name] == 1 else f"{name}_{number}".lstrip("_")
        while mine in found:
            mine += "_"
        found[mine] = None
    return list(found)[1:]
