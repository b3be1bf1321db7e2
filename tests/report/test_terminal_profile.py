"""A profile in the terminal: 80 columns, whatever it holds, and the best values marked in letters."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.number_formats import MINUS, NONE, TIMES
from edgekd.report.results import Profile
from edgekd.report.terminal_profile import print_profile

Lines = Callable[..., list[str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Lines:
    """`printed(profile, out)`: the lines that are printed."""

    def lines(profile: Profile, out: Path | None = None) -> list[str]:
        capsys.readouterr()
        print_profile(profile, out)
        wrote = capsys.readouterr()
        assert wrote.err == ""
        return wrote.out.splitlines()

    return lines


def renamed(profile: Profile, *names: str) -> Profile:
    subjects = [one.model_copy(update={"name": name}) for one, name in zip(profile.subjects, names, strict=False)]
    return profile.model_copy(update={"subjects": tuple(subjects)})


def cells(lines: list[str], name: str) -> list[list[str]]:
    """What stands beside a name, in each table in turn."""
    return [re.split(r" {2,}", line.strip())[1:] for line in lines if re.match(rf"{re.escape(name)} {{2,}}", line)]


@pytest.mark.parametrize(
    "names", [("teacher", "student", "int8", "x"), tuple(f"runs/{'esc10-' * 8}{n}" for n in range(4))]
)
def test_no_line_is_wider_than_80_columns(names: tuple[str, ...], printed: Lines, sample_profile: Profile) -> None:
    lines = printed(renamed(sample_profile, *names), Path("runs/esc10/profile"))
    assert max(map(len, lines)) <= 80
    assert not any("\x1b" in line for line in lines), "plain text when piped"


def test_the_verdict_comes_first_and_the_folder_last(printed: Lines, sample_profile: Profile) -> None:
    lines = printed(sample_profile, Path("out"))
    assert lines[0].startswith("student is 7.0 times faster than teacher")
    assert lines[-1] == "Written: out (report.html, report.json, report.md, report.csv)"
    assert "Note: macro-F1 is the mean over classes." in lines
    assert not any(line.startswith("Written") for line in printed(sample_profile))


def test_the_best_values_are_marked_and_the_mark_is_explained(printed: Lines, sample_profile: Profile) -> None:
    lines = printed(sample_profile)
    accuracy, against, time = cells(lines, "teacher")[0], cells(lines, "teacher")[1], cells(lines, "int8")[3]
    assert accuracy == ["*98.8%", "93.5 to 100.0", "*98.7%"]
    assert against == [NONE, NONE, NONE]
    assert time[:3] == ["*2.57", "*2.92", "*3.64"]
    assert "* best of its column." in lines
    alone = sample_profile.model_copy(update={"subjects": sample_profile.subjects[:1]})
    assert not any("*" in line for line in printed(alone))


def test_numbers_are_those_of_the_profile(printed: Lines, sample_profile: Profile) -> None:
    lines = printed(renamed(sample_profile, "teacher", "student", "int8", "board"))
    accuracy, against, calibration, time, cost = cells(lines, "student")[:5]
    assert accuracy == ["92.5%", "85.5 to 96.8", "92.5%"]
    assert against == [f"{MINUS}6.2 ({MINUS}12.7 to {MINUS}1.6)", "0.062", "0.062"]
    assert calibration == ["11.6% (8.1 to 17.4)", "16.2% (11.6 to 23.1)", "0.720"]
    assert time == ["3.37", "3.81", "4.77", "0.211", f"7.0{TIMES} (6.8 to 7.2)", "0.00067", "2.20", "1.20"]
    assert cost == ["*25.5 k", "*31.9 M", "14.3 M", "303 KiB", "3.12 MiB", "58.9 MiB", "75.0 MiB"]
    energy, noise, length, throughput = cells(lines, "student")[-4:]
    assert energy == ["14.6 mJ", "4.30 W", "1.90 W", "1.10", "rapl"]
    assert (noise[0], noise[-1], length[-1]) == ("91.7%", "15.9%", "63.6%")
    assert throughput[:3] == ["294", "365", "385"]
    assert sum(line.startswith("Layers of") for line in lines) == 4


def test_many_conditions_continue_in_a_second_table(printed: Lines, sample_profile: Profile) -> None:
    first = sample_profile.subjects[0]
    assert first.robustness
    points = [first.robustness.noise[0].model_copy(update={"value": float(value)}) for value in range(30)]
    many = first.model_copy(update={"robustness": first.robustness.model_copy(update={"noise": tuple(points)})})
    lines = printed(sample_profile.model_copy(update={"subjects": (many, *sample_profile.subjects[1:])}))
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line in lines if re.match(rf" +\d+( +{MINUS}?\d+)*$", line)]
    assert len(heads) > 1
    assert [int(word.replace(MINUS, "-")) for words in heads for word in words] == [*range(29, -1, -1), -5]


def test_a_profile_of_little_prints_little(printed: Lines, bare_profile: Profile) -> None:
    lines = printed(bare_profile)
    assert len(cells(lines, "teacher")) == 2, "time and cost"
    assert "teacher: float32, PyTorch 2.13.0, CPU" in lines
    assert not any("None" in line or "Machine" in line or "Scored" in line for line in lines)


def test_paths_stay_whole(printed: Lines, sample_profile: Profile) -> None:
    long = Path("/data") / ("a-folder-" * 12)
    lines = printed(sample_profile, long)
    assert any(str(long) in line for line in lines)


def test_no_name_moves_the_cursor_or_ends_a_line(printed: Lines, sample_profile: Profile) -> None:
    hard = "a\x1b[2J\nb\x07"
    layer = sample_profile.subjects[0].layers[0].model_copy(update={"name": hard, "precision": hard})
    changes: dict[str, object] = {"name": hard, "host": hard, "runtime": hard, "layers": (layer,)}
    subject = sample_profile.subjects[0].model_copy(update=changes)
    profile = sample_profile.model_copy(
        update={"subjects": (subject,), "verdict": (hard,), "notes": (hard,), "clips": hard}
    )
    lines = printed(profile, Path(hard))
    assert all(letter.isprintable() for line in lines for letter in line)
    assert lines[0] == "a\\x1b[2J b\\x07"
    assert any(line.startswith("Note: a\\x1b[2J b\\x07") for line in lines)
