"""Students: name -> network. Adding one is a module and a line here.

A network of `SIZED` is built as `network(num_classes, width)`, with its channels times `width`; the others have one
size, and are built as `network(num_classes)`.
"""

from __future__ import annotations

from edgekd.models.students.hltdnn import HLTDNN
from edgekd.models.students.hltdnn_ds import HLTDNNDS
from edgekd.models.students.hltdnn_micro import HLTDNNMicro
from edgekd.models.students.student import Student

SIZED: dict[str, type[HLTDNNDS] | type[HLTDNNMicro]] = {
    "hltdnn_ds": HLTDNNDS,
    "hltdnn_micro": HLTDNNMicro,
}
STUDENTS: dict[str, type[HLTDNN] | type[HLTDNNDS] | type[HLTDNNMicro]] = {
    "hltdnn": HLTDNN,
    **SIZED,
}

__all__ = ["SIZED", "STUDENTS", "Student"]
