"""Models of the user's own, written as a user writes them: how their factory is found, and what it is held to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.errors import InputError, UsageError
from edgekd.models.factories import UserCode, find_factory, make, try_on

Write = Callable[[str], str]
SHELF = """
def make(num_classes):
    return num_classes

class shelf:
    make = staticmethod(make)

number = 3
_hidden = make
"""


def find(name: str, folder: Path | None = None) -> Callable[..., object]:
    return find_factory(f"Student '{name}'", name, folder, "(num_classes)")


def test_a_factory_is_an_attribute_of_a_module_or_of_something_in_it(write: Write) -> None:
    module = write(SHELF)
    assert find(f"{module}:make")(3) == 3
    assert find(f"{module}:shelf.make")(4) == 4


def test_a_module_in_another_folder_is_imported_from_there_with_its_neighbours(write: Write, tmp_path: Path) -> None:
    name = write(SHELF)
    code = tmp_path / "code"
    (code / "pack").mkdir(parents=True)
    (tmp_path / f"{name}.py").rename(code / f"{name}.py")
    (code / "pack" / "__init__.py").touch()
    (code / "pack" / f"{name}_user.py").write_text(f"def make(k):\n    import {name}\n    return {name}.make(k)\n")
    with pytest.raises(UsageError, match=f"Unknown module '{name}'"):
        find(f"{name}:make")
    assert find(f"pack.{name}_user:make", code)(7) == 7


def test_a_folder_of_data_gives_no_library(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the factory is installed, nor later where it is in that folder."""
    trap = tmp_path / "data"
    trap.mkdir()
    installed = tmp_path / "installed"
    installed.mkdir()
    (trap / "some_library.py").write_text("raise SystemExit('ran')\n")
    (installed / "some_library.py").write_text(SHELF)
    (installed / "installed_ears.py").write_text("import some_library\nmake = some_library.make\n")
    (trap / "own_ears.py").write_text("def make(k):\n    import some_library\n    return some_library.make(k)\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    assert find("installed_ears:make", trap)(3) == 3
    assert str(trap) not in sys.path
    del sys.modules["some_library"]
    assert find("own_ears:make", trap)(3) == 3
    assert sys.path[-1] == str(trap), "its neighbours are found, after what is installed"


def test_two_modules_of_one_name_are_refused(write: Write, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "twice.py").write_text(SHELF)
    find("twice:make", tmp_path / "one")
    with pytest.raises(UsageError, match=r"one module 'twice', and it has that of .*one/twice\.py already: rename"):
        find("twice:shelf.make", tmp_path / "two")
    find("twice:make", tmp_path / "one")


def test_names_that_lead_nowhere_get_the_nearest(write: Write) -> None:
    name = write(SHELF)
    with pytest.raises(UsageError, match=rf"Unknown module '{name}s'\. Did you mean '{name}'\?.*installed packages"):
        find(f"{name}s:make")
    with pytest.raises(UsageError, match=rf"Unknown name in {name} 'mak'\. Did you mean 'make'\? Valid: make, shelf\."):
        find(f"{name}:mak")
    with pytest.raises(UsageError, match=r"^Student 'nobody\.home:x': Unknown module 'nobody\.home'"):
        find("nobody.home:x")
    with pytest.raises(UsageError, match=r"number is an int, not a function. Name one that takes \(num_classes\) and"):
        find(f"{name}:number")
    for malformed in ("a b:c", ":c", "a:", "a:b:c", "a/b.py:c"):
        with pytest.raises(UsageError, match=r"write one of your own as package\.module:factory"):
            find(malformed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_package_anywhere", "ModuleNotFoundError: No module named 'no_such_package_anywhere'"),
        ("def make(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_the_line(write: Write, text: str, reason: str) -> None:
    name = write(text)
    with pytest.raises(InputError, match=rf"importing {name} failed: {reason}") as caught:
        find(f"{name}:make")
    assert "\n" not in str(caught.value)
    assert "EDGEKD_DEBUG=1" in str(caught.value)


def test_a_failure_inside_torch_is_told_with_the_user_s_line(write: Write) -> None:
    name = write("from torch import nn, zeros\ndef make(num_classes):\n    return nn.Linear(4, 2)(zeros(2, 3))\n")
    with pytest.raises(
        InputError, match=rf"^Teacher 'm:make': make\(5\) failed: RuntimeError: mat1.*{name}\.py, line 3;"
    ):
        make("Teacher 'm:make'", "m:make", find(f"{name}:make"), 5)


def test_only_a_module_is_one() -> None:
    with pytest.raises(InputError, match=r"Student 'm:f': the factory returned None, not a torch\.nn\.Module"):
        make("Student 'm:f'", "m:f", lambda num_classes: None, 5)
    assert isinstance(make("Student 'm:f'", "m:f", nn.Linear, 5, 3), nn.Linear)


def test_user_code_may_end_the_program_but_not_fail_unseen() -> None:
    with pytest.raises(KeyboardInterrupt), UserCode("it"):
        raise KeyboardInterrupt
    words = r"^it failed: ValueError: no reason given \(.*line \d+; .*shows all\) Rest\.$"
    with pytest.raises(InputError, match=words), UserCode("it", " Rest."):
        raise ValueError


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.norm(x).mean((1, 3)), self.norm(x)]


def test_the_trial_leaves_no_trace_and_gives_the_tap() -> None:
    network = Norm()
    tap = try_on("Student 'm:f'", network, torch.randn(2, 1, 5, 4), "log-mels", 5)
    assert tap.shape == (2, 1, 5, 4)
    assert network.training
    assert network.norm.num_batches_tracked == 0
    assert not network.eval().training
    try_on("Student 'm:f'", network, torch.randn(2, 1, 5, 4), "log-mels", 5)
    assert not network.training
