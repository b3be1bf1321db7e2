"""Groups that are joined to others: disjoint sets, by union-find."""

from __future__ import annotations

from collections.abc import Iterable


class DisjointGroups:
    """Groups by name, each its own at first; what is joined goes by the name of one of its members."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def name_of(self, group: str) -> str:
        """The name that `group` goes by now."""
        while self._parent[group] != group:
            self._parent[group] = self._parent[self._parent[group]]
            group = self._parent[group]
        return group

    def join(self, group: str, into: str) -> None:
        """Have all that is joined to `group` go by the name that `into` goes by."""
        self._parent[self.name_of(group)] = self.name_of(into)
