"""Names of students that are cut from a teacher: `yamnet-cut7`, its first seven convolutions.

yamnet-cut7                   a teacher of the table, and how many of its convolutions
package.module:factory-cut4   a teacher of the user's own that says what its `layers` are
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekd.config import DistillConfig

# Those that are listed; any other number of layers that the teacher has will do.
CUTS = ("yamnet-cut5", "yamnet-cut7", "yamnet-cut9", "mobilenetv1-cut5", "mobilenetv1-cut9")

_NAME = re.compile(r"(?P<teacher>.+)-cut(?P<layers>[1-9][0-9]*)")


@dataclass(frozen=True)
class Cut:
    """What a student's name says: the teacher that it is cut from, and how many of its convolutions it has."""

    teacher: str
    layers: int


def cut_of(student: str) -> Cut | None:
    """What the name of a student says where it is cut from a teacher, else None."""
    match = _NAME.fullmatch(student)
    return None if match is None else Cut(match["teacher"], int(match["layers"]))


def trains_head_alone(config: DistillConfig) -> bool:
    """Whether nothing below the head of the student is trained: the default of one that is cut from a teacher."""
    return cut_of(config.student) is not None and config.training.adaptation != "full"
