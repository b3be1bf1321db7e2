"""When two names are one: of groups, which are then merged, and of classes, which are then refused.

Names go through hands, spreadsheets and file systems. `Ever Given`, `EVER  GIVEN ` and a decomposed or full-width
spelling of it are one ship, `1`, `01` and `1.0` one class. Merging two groups by mistake only makes a split stricter;
taking one for two lets it leak.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_WHOLE = re.compile(r"([+-]?)0*(\d+)(?:[.,]0*)?")
_BLANKS = re.compile(r"(?<!\d)\s+|\s+(?!\d)")  # between two digits a blank keeps numbers apart


def alike(name: str) -> str:
    """What two names that differ only in blanks, case, Unicode form (NFC, NFD, full-width) or, where all of the name is
    a whole number, in how that is written, have in common."""
    plain = name.casefold()
    if not name.isascii():
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    plain = re.sub(r"\s+", " ", _BLANKS.sub("", plain.strip()))
    number = _WHOLE.fullmatch(plain)
    return plain if number is None else f"{number[1].replace('+', '')}{number[2]}"


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """The spelling that stands for each of the `names`: the first of those that are alike."""
    first: dict[str, str] = {}
    return {name: first.setdefault(alike(name), name) for name in dict.fromkeys(names)}


def difference(name: str, other: str) -> str:
    """What two names that are `alike` differ in, in words."""
    if name.strip().replace(".", "").replace(",", "").lstrip("+-").isdigit():
        return "how the number is written"
    composed = (unicodedata.normalize("NFC", each) for each in (name, other))
    return "Unicode form (NFC, NFD)" if len(set(composed)) == 1 else "case or blanks"
