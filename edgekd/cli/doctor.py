"""`edgekd doctor`: what this machine can do."""

from __future__ import annotations

from edgekd.cli import options


def doctor(json_: options.Json = False) -> None:
    """Show what this machine can do: versions, devices, back ends, space for the cache."""
    from edgekd.doctor import examine
    from edgekd.report.terminal import print_json, table

    facts = examine()
    if json_:
        print_json(facts)
    else:
        table(("", "on this machine"), list(facts.items()))
