from __future__ import annotations

import tomllib
from collections.abc import Callable

from edgekd.export.targets import Target, list_targets, load_target


def test_every_target_is_listed_by_a_name_that_can_be_copied(edgekd: Callable) -> None:
    shown = edgekd("targets")
    assert (shown.code, shown.err) == (0, "")
    first_words = [line.split()[0] for line in shown.out.splitlines() if line[:1].strip()]
    assert {target.name for target in list_targets()} <= set(first_words)
    assert max(map(len, shown.out.splitlines())) <= 80


def test_a_target_is_shown_as_the_toml_it_is_read_from(edgekd: Callable) -> None:
    for name in ("jetson", "raspberry-pi-5", "cpu"):
        assert Target.model_validate(tomllib.loads(edgekd("targets", name).out)) == load_target(name)


def test_targets_as_json(edgekd: Callable) -> None:
    targets = edgekd("targets", "--json").json()["targets"]
    assert [Target.model_validate(target) for target in targets] == list_targets()
    assert Target.model_validate(edgekd("targets", "jetson", "--json").json()) == load_target("jetson")


def test_an_unknown_target_gets_the_nearest(edgekd: Callable) -> None:
    assert "Did you mean 'jetson'?" in edgekd("targets", "jetsn").refusal(2)
