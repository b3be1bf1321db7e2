"""The class of what is no event: sea without a ship, forest without a bird.

A network learns it like any other class, so that its scores of the others can be low together. A detector never reports
it, and counts false alarms an hour of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.errors import InputError
from edgekd.files.spelling import alike

BACKGROUND = "background"
"""What it is called where nobody has named another (`data.background`), in any case."""


def background_of(classes: Sequence[str], named: str | None = None) -> str | None:
    """Which of the `classes` is the background: the one that is `named`, or called so; None where there is none."""
    wanted = alike(BACKGROUND if named is None else named)
    return next((name for name in classes if alike(name) == wanted), None)


def check_background(classes: Sequence[str], named: str | None, where: str) -> None:
    """Raises `InputError` where the class that is `named` is not there."""
    if named is not None and background_of(classes, named) is None:
        raise InputError(
            f"{where}: data.background = '{named}' is none of its classes ({', '.join(classes)}). Name one of them, or "
            "leave it out."
        )
