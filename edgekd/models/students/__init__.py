"""Students: name -> network. Adding one is a module and a line here."""

from __future__ import annotations

from edgekd.models.students.hltdnn import HLTDNN
from edgekd.models.students.hltdnn_ds import HLTDNNDS
from edgekd.models.students.student import Student

STUDENTS: dict[str, type[HLTDNN] | type[HLTDNNDS]] = {
    "hltdnn": HLTDNN,
    "hltdnn_ds": HLTDNNDS,
}

__all__ = ["STUDENTS", "Student"]
