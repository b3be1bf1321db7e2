"""Folders put in place: whatever moment a process is killed at, the old or the new one is found, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.files import folders


def make(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.fixture(params=["in one step", "by two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the disk puts a folder in another's place."""
    if request.param == "by two renames":
        monkeypatch.setattr(folders, "exchange", lambda *_: False)
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("old", [True, False])
def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path: Path, old: bool) -> None:
    place = tmp_path / "run"
    if old:
        make(place, "old")
    with folders.held(place):
        new = folders.begin(place)
        make(new, "new")
        assert folders.unfinished(place) == new
        folders.install(new, place, replace=old)
    assert (place / "file").read_text() == "new"
    assert names(tmp_path) == ["file", "run"]


def test_what_is_there_is_not_replaced_unless_it_may_be(tmp_path: Path) -> None:
    place = make(tmp_path / "run", "old")
    with folders.held(place):
        new = make(folders.begin(place), "new")
        with pytest.raises(OSError, match="not empty"):
            folders.install(new, place, replace=False)
    assert (place / "file").read_text() == "old"


class Killed(BaseException):
    """Stands for SIGKILL: nothing that tidies up is run. (`tests/kills` kills processes.)"""


@pytest.mark.usefixtures("way")
def test_the_old_or_the_new_one_is_there_after_a_kill_at_any_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    for at in range(20):
        place = make(tmp_path / f"run{at}", "old")
        steps = 0

        def step(name: str, real: object, at: int = at) -> object:
            def stepped(*arguments: object) -> object:
                nonlocal steps
                if steps == at:
                    raise Killed(name)
                steps += 1
                return real(*arguments)  # type: ignore[operator]

            return stepped

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", step("rename", Path.rename))
            patch.setattr(folders, "exchange", step("exchange", folders.exchange))
            patch.setattr(folders, "_delete", step("delete", folders._delete))
            try:
                with folders.writing(place):
                    new = make(folders.begin(place), "new")
                    folders.install(new, place, replace=True)
            except Killed:
                pass
        folders.put_back(place)  # as any command does that looks for it
        assert (place / "file").read_text() in ("old", "new")
        with folders.held(place):
            if (place / "file").read_text() == "old":
                folders.install(make(folders.begin(place), "new"), place, replace=True)
        assert (place / "file").read_text() == "new"
        assert names(place) == ["file"]
        if steps < at:
            break
    else:
        pytest.fail("it never came to its end")
    assert steps >= 3
    assert names(tmp_path) == sorted(["file", *(f"run{number}" for number in range(at + 1))] + ["file"] * at)


def test_a_folder_is_not_put_back_while_somebody_is_at_it(tmp_path: Path) -> None:
    make(tmp_path / ".run.edgekd-old", "old")
    import threading

    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with folders.writing(tmp_path / "run"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(10)
    folders.put_back(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    leave.set()
    thread.join()
    folders.put_back(tmp_path / "run")
    assert (tmp_path / "run" / "file").read_text() == "old"


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    make(tmp_path / "disk", "old")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with folders.held(tmp_path / "run"):
        folders.install(make(folders.begin(tmp_path / "run"), "new"), tmp_path / "run", replace=True)
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "file").read_text() == "new"


def test_tidying_removes_halves_and_nothing_else(tmp_path: Path) -> None:
    for name in ("file", ".hidden", ".file.vm.123.partial", ".file.123.partial", "notes.partial"):
        (tmp_path / name).touch()
    make(tmp_path / ".int8.edgekd-gone", "half")
    make(tmp_path / "student", "")
    (tmp_path / "student" / ".last.pt.other-host.77.partial").touch()
    folders.tidy(tmp_path)
    assert names(tmp_path) == [".hidden", "file", "file", "notes.partial", "student"]
