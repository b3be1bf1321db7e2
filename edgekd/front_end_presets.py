"""Front ends by name: a sample rate and what of `[frontend]` differs from its defaults.

A preset takes the place of the whole `[frontend]` of a file and of its sample rate; flags and `--set` are put over it.
All are of convention "panns": a student that is cut from a teacher has its teacher's front end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekd.errors import unknown_name


@dataclass(frozen=True)
class FrontEndPreset:
    """`settings`: of `[frontend]`, those that are not the default.

    What it costs a student that starts from nothing, for 5 s: `macs` and `kilobytes` of the log-mel in the exported
    graph, where onnxruntime computes its weights, and `cells`, frames x mel bins, with which the network's MACs grow.
    """

    sample_rate: int
    settings: Mapping[str, float]
    macs: int
    kilobytes: float
    cells: tuple[int, int]


PRESETS: dict[str, FrontEndPreset] = {
    "32k": FrontEndPreset(32_000, {}, 31_340_556, 21.0, (501, 64)),
    "16k": FrontEndPreset(16_000, {}, 14_132_208, 17.0, (501, 64)),
    "16k-20ms": FrontEndPreset(16_000, {"hop_ms": 20.0}, 7_080_208, 17.0, (251, 64)),
    "16k-20ms-40": FrontEndPreset(16_000, {"hop_ms": 20.0, "n_mels": 40}, 7_028_000, 15.1, (251, 40)),
}


def put_preset(values: dict[str, Any], name: str) -> None:
    """Put the preset of this name into `values`, the sections of a configuration, in place of what they say.

    Raises `UsageError` for a name that is not in the table.
    """
    if name not in PRESETS:
        raise unknown_name("front-end preset", name, PRESETS)
    preset = PRESETS[name]
    values["frontend"] = {"convention": "panns", **preset.settings}  # said: a cut student has its teacher's
    values["data"] = {**values.get("data", {}), "sample_rate": preset.sample_rate}
