"""Whose code may be imported: factories `package.module:factory` that the user has named now, to this process.

A run folder, a file of settings, a bundle or a report is data that people send each other, and it may name a factory
and the folder of its module. To import what it names would be to run what its sender wrote. So a stored name says what
is needed, and never what is imported nor from where: that is what the user names on this command line (`--teacher`,
`--student`, `--trust`), or hands to a function as `trust`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from shlex import quote

from edgekd.errors import UsageError

_NAMED: dict[str, Path] = {}  # factory -> the folder that its module is imported from, beside the installed packages


def is_own(name: str) -> bool:
    """Whether a model's name is `package.module:factory`, not one of a table."""
    return ":" in name


def is_factory(name: str) -> bool:
    """Whether a name has the form `package.module:factory`."""
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def trust(names: Iterable[str]) -> None:
    """Let this process import the factories `names`: `package.module:factory`, found in the folder where you are and in
    the installed packages, or `FOLDER/package.module:factory`.

    Raises `UsageError` for anything else.
    """
    for each in names:
        place, _, factory = each.rpartition(":")
        folder, slash, module = place.rpartition("/")
        name = f"{module}:{factory}"
        if not is_factory(name):
            raise UsageError(
                f"trust '{each}': write a factory as package.module:factory, or FOLDER/package.module:factory where "
                "its module is not in the folder where you are."
            )
        _NAMED[name] = Path(folder or slash or ".").expanduser().absolute()


def trust_model(names: str | None, folder: Path | None = None) -> None:
    """`trust` for what `--teacher` or `--student` names, by comma, as far as it is code of the user's own; `folder`:
    where it is said to be beside it (None: where you are)."""
    for name in (names or "").split(","):
        factory = _factory(name)
        if is_own(factory) and is_factory(factory):
            _NAMED[factory] = (folder or Path()).expanduser().absolute()


def trusted() -> list[str]:
    """All that this process may import, as `trust` of another one takes it."""
    return [f"{folder}/{name}" for name, folder in _NAMED.items()]


def trusted_folder(subject: str, name: str, stored: Path | None) -> Path:
    """The folder that the module of the factory `name` is imported from.

    `subject`: how messages begin (`Teacher 'm:f'`); `stored`: the folder that goes with the name in a file. Raises
    `UsageError` where the user has not named the factory; the message says what to type.
    """
    if name not in _NAMED:
        asked = name_here(name, stored)
        raise UsageError(
            f"{subject} is code, in {stored or Path.cwd()} or an installed package, and a file that names it is not "
            f"reason enough to run it. If you trust it, add: --trust {quote(asked)} (in Python: trust=[{asked!r}])"
        )
    return _NAMED[name]


def trust_flags(models: Iterable[tuple[str, Path | None]]) -> str:
    """What a command needs to import those of `models` (name, folder of its settings) that are code: ` --trust ...`."""
    own = ((_factory(name), folder) for name, folder in models if is_own(name))
    return "".join(dict.fromkeys(f" --trust {quote(name_here(*each))}" for each in own))


def _factory(name: str) -> str:
    """What a model of the user's own, or one that is cut from it, is imported by."""
    return re.sub(r"-cut[0-9]+$", "", name.strip())


def name_here(name: str, stored: Path | None) -> str:
    """What `trust` takes for the factory `name` of the folder `stored`, said from where you are."""
    return name if stored is None or stored == Path.cwd() else f"{stored}/{name}"
