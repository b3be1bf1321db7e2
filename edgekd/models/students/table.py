"""The students by name. A new one is a module beside this file and a row here.

Its network maps a normalised log-mel `(B, 1, T, F)` to a `StudentOutput` and has its tap's channels as `tap_channels`.
The module is imported when a network is built: what is known of the students costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class StudentSpec:
    """What is known about a student before it is built. Its figures are those for 10 classes and clips of 5 s at 32 kHz
    on the default front end, at width 1."""

    summary: str
    """What it is for, in a word or two."""
    build: Callable[..., Any]
    """`(num_classes, width) -> nn.Module`, or `(num_classes)` where it has one size."""
    parameters: int
    macs: int
    """Multiplications of the network for one clip; the log-mel is not counted."""
    tap: tuple[int, int, int]
    """`(C, T, F)`."""
    sized: bool = True
    """Whether a width multiplies its channels."""

    def network(self, num_classes: int, width: float) -> Any:
        """A new network; `width` is 1 for a student of one size."""
        return self.build(num_classes, width) if self.sized else self.build(num_classes)


def _of(module: str, name: str) -> Callable[..., Any]:
    """A class in a module of this folder, which is imported when it is called."""

    def build(*sizes: float) -> Any:
        return getattr(import_module(f"edgekd.models.students.{module}"), name)(*sizes)

    return build


STUDENTS: dict[str, StudentSpec] = {
    "hltdnn": StudentSpec(
        summary="the paper's",
        build=_of("hltdnn", "HLTDNN"),
        parameters=14_222,
        macs=218_104_448,
        tap=(16, 501, 62),
        sized=False,
    ),
    "hltdnn_ds": StudentSpec(
        summary="small devices",
        build=_of("hltdnn_ds", "HLTDNNDS"),
        parameters=33_494,
        macs=11_932_384,
        tap=(36, 126, 16),
    ),
    "hltdnn_micro": StudentSpec(
        summary="microcontrollers",
        build=_of("hltdnn_micro", "HLTDNNMicro"),
        parameters=15_778,
        macs=2_905_184,
        tap=(24, 126, 16),
    ),
}
