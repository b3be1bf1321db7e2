"""What is joined stays together, under the name of what it was joined to."""

from __future__ import annotations

from edgekd.data.disjoint_groups import DisjointGroups


def test_chains_of_joins_are_one_group() -> None:
    groups = DisjointGroups("abcde")
    groups.join("b", into="a")
    groups.join("d", into="c")
    groups.join("d", into="b")
    assert [groups.name_of(name) for name in "abcde"] == ["a", "a", "a", "a", "e"]


def test_what_is_one_already_stays_so() -> None:
    groups = DisjointGroups("ab")
    groups.join("b", into="a")
    groups.join("a", into="b")
    assert {groups.name_of(name) for name in "ab"} == {"a"}
