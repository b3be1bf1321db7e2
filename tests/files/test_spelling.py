"""Names that are one are found, and what they differ in is said in words."""

from __future__ import annotations

import unicodedata

import pytest

from edgekd.files.spelling import alike, difference, one_spelling


@pytest.mark.parametrize(
    ("name", "other", "in_words"),
    [
        ("EVER  GIVEN ", "Ever Given", "case or blanks"),
        ("01", "1.0", "how the number is written"),
        ("+7", "7", "how the number is written"),
        ("Fähre", unicodedata.normalize("NFD", "Fähre"), "Unicode form (NFC, NFD)"),
    ],
)
def test_two_spellings_of_one_name(name: str, other: str, in_words: str) -> None:
    assert alike(name) == alike(other)
    assert one_spelling([name, other]) == {name: name, other: name}
    assert difference(name, other) == in_words


@pytest.mark.parametrize(("name", "other"), [("1 2", "12"), ("10", "1"), ("tug", "tug 2"), ("-1", "1")])
def test_two_names(name: str, other: str) -> None:
    assert alike(name) != alike(other)
