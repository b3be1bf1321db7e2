"""Code of the user's own: what has been named here may be imported, and nothing else."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.own_code import is_own, trust, trust_flags, trust_model, trusted, trusted_folder


def test_a_name_with_a_colon_is_the_user_s() -> None:
    assert is_own("package.module:factory")
    assert not is_own("hltdnn_ds")


def test_what_the_user_names_is_looked_for_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    trust(["ears:make", "/srv/code: mine/pack.ears:Net.make", "/top:make"])
    assert trusted_folder("it", "ears:make", Path("/stored")) == tmp_path, "and never where a file says"
    assert trusted_folder("it", "pack.ears:Net.make", None) == Path("/srv/code: mine")
    assert trusted_folder("it", "top:make", None) == Path("/")
    trust(trusted())  # as a worker is told
    assert trusted_folder("it", "pack.ears:Net.make", None) == Path("/srv/code: mine")


@pytest.mark.parametrize("name", ["ears", "ears:", ":make", "/srv/:make", "ears:make it", "a-b:make", ""])
def test_what_is_no_factory_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^trust '.*': write a factory as package\.module:factory"):
        trust([name])


def test_models_that_flags_name_are_trusted_as_far_as_they_are_code(tmp_path: Path) -> None:
    trust_model("yamnet, ears:make,nonsense: no")
    trust_model("cuts:make-cut7", tmp_path)
    trust_model(None)
    assert trusted() == [f"{Path.cwd()}/ears:make", f"{tmp_path}/cuts:make"]


@pytest.mark.parametrize("stored", ["/srv/it's here", None])
def test_what_nobody_has_named_is_refused_with_what_names_it(stored: str | None) -> None:
    folder = None if stored is None else Path(stored)
    with pytest.raises(UsageError, match=r"^Teacher 'm:f' is code, in .* or an installed package") as refused:
        trusted_folder("Teacher 'm:f'", "m:f", folder)
    typed = re.search(r"--trust (.*) \(in Python: trust=\[(.*)\]\)$", str(refused.value))
    assert typed is not None
    trust(shlex.split(typed[1]))
    assert trusted_folder("", "m:f", folder) == (folder or Path.cwd())


def test_a_command_is_told_with_what_it_needs() -> None:
    models = [("hltdnn", None), ("m:f-cut2", None), ("n:g", Path("/srv/it's")), ("m:f", None)]
    flags = trust_flags(models)
    assert shlex.split(flags) == ["--trust", "m:f", "--trust", "/srv/it's/n:g"]
    assert trust_flags([("hltdnn", None)]) == ""
