from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import write_recordings

RATE = 4_000
FORM = ["--sample-rate", str(RATE), "--clip-seconds", "0.5", "--quiet"]


@pytest.fixture
def data(edgekd: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`data("audit", folder, ...)`, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda command, folder, *more: edgekd("data", command, "--data-dir", folder, *FORM, *more)


@pytest.fixture
def leaking(recordings: Path) -> Path:
    """`recordings` of which one is there again under every name of its class, so that it is on every side."""
    sound, rate = soundfile.read(recordings / "low" / "0.wav")
    for number in range(1, 4):
        soundfile.write(recordings / "low" / f"{number}.wav", sound[number * 300 :] / (1 + number), rate)
    return recordings


def test_inspect_shows_what_is_there_and_draws_it(data: Callable, recordings: Path) -> None:
    done = data("inspect", recordings)
    assert done.code == 0
    for words in ("32 from 8 groups", "high", "low", "4000 Hz", "wav PCM_16", "Duplicates: 0", "Unreadable: 0"):
        assert words in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines() if str(recordings) not in line)
    assert Path("folder-spectrograms.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_as_json(data: Callable, recordings: Path) -> None:
    found = data("inspect", recordings, "--json", "--no-picture").json()
    assert (found["clips"], found["files"], found["picture"]) == (32, 8, None)
    assert not list(Path.cwd().glob("*.png"))


def test_inspect_lists_broken_files_and_goes_on(data: Callable, recordings: Path) -> None:
    (recordings / "low" / "0.wav").write_text("not audio")
    done = data("inspect", recordings, "--no-picture")
    assert done.code == 0
    assert "Unreadable: 1 file(s).\n  low/0.wav: not an audio file" in done.out


def test_inspect_names_duplicates_whose_labels_differ(data: Callable, recordings: Path) -> None:
    (recordings / "low" / "copy.wav").write_bytes((recordings / "high" / "0.wav").read_bytes())
    shown = data("inspect", recordings, "--no-picture").out
    told = "Two labels: 1 set(s) of files with the same audio; one label is wrong."
    assert shown.startswith(f"folder: {recordings}\n{told}\n  high/0.wav (high) = low/copy.wav (low)\n")


def test_what_is_simulated_is_inspected_and_audited_like_the_rest(edgekd: Callable) -> None:
    few = ["--set", "data.simulation.vessels_per_class=5", "--set", "data.simulation.windows_per_vessel=1"]
    call = ["--dataset", "sonar_sim", *FORM, *few, "--json"]
    assert edgekd("data", "inspect", *call, "--no-picture").json()["clips"] == 25
    assert edgekd("data", "audit", *call).json()["leaks"] == []


def test_audit_passes_a_split_that_does_not_leak(data: Callable, recordings: Path) -> None:
    done = data("audit", recordings)
    assert done.code == 0
    assert "No leak: no group and no near-duplicate audio is on two sides." in done.out
    assert data("audit", recordings, "--json").json()["leaks"] == []


def test_audit_ends_with_4_and_names_what_leaks(data: Callable, leaking: Path) -> None:
    done = data("audit", leaking)
    assert done.code == 4
    assert "Leak: low/" in done.out
    assert "hold the same audio" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith(f"edgekd: error: {leaking}: the split leaks in ")
    as_json = data("audit", leaking, "--json")
    assert as_json.code == 4
    assert json.loads(as_json.out)["leaks"][0]["kind"] == "near-duplicate"
    warned = data("audit", leaking, "--set", "data.near_duplicates=warn")
    assert warned.code == 0
    assert warned.out.splitlines()[-1].startswith("Training warns of this and goes on")


def test_a_published_split_that_leaks_is_warned_of_and_ends_with_0(data: Callable, leaking: Path) -> None:
    lines = [f"{name}/{number}.wav,{name},{number + 1}" for name in ("high", "low") for number in range(4)]
    (leaking / "manifest.csv").write_text("\n".join(["path,label,fold", *lines]) + "\n")
    done = data("audit", leaking)
    assert done.code == 0
    assert "Leak: low/" in done.out
    assert done.out.splitlines()[-1] == (
        "Training warns of this and goes on (--set data.near_duplicates=refuse refuses)."
    )
    assert data("audit", leaking, "--set", "data.near_duplicates=refuse").code == 4
    assert data("audit", leaking, "--set", "data.given_split=false", "--split-seed", "1").code == 4
    told = data("audit", leaking, "--write-groups", leaking / "groups.csv").out
    assert "  The data set's own split parts 1 of them: beside this file, training refuses a split that does." in told
    assert "split by group: --set data.given_split=false" in data("audit", leaking).refusal(4)


def test_the_audit_writes_the_groups_with_which_training_then_splits(
    data: Callable, quick: Callable, recordings: Path, tmp_path: Path
) -> None:
    sound, rate = soundfile.read(recordings / "low" / "0.wav")
    soundfile.write(recordings / "low" / "1.wav", sound[100:] / 2, rate)
    (recordings / "low" / "2.wav").write_bytes((recordings / "low" / "1.wav").read_bytes())
    for number in (4, 5):
        noise = np.random.default_rng(number).standard_normal(2 * rate)
        soundfile.write(recordings / "low" / f"{number}.wav", 0.2 * noise, rate)
    assert data("audit", recordings, "--split-seed", "1").code == 4
    file = recordings / "groups.csv"
    written = data("audit", recordings, "--split-seed", "1", "--write-groups", file)
    assert written.code == 4, "the split that was audited does leak"
    assert f"Groups: {file}: 8, of 10 before; the largest has 12 of 40 clips." in written.out
    assert file.read_text().splitlines()[:2] == ["path,group", "high/0.wav,high/0.wav"]
    assert "low/2.wav,low/0.wav" in file.read_text()
    for seed in (1, 2):
        assert data("audit", recordings, "--split-seed", str(seed)).code == 0
    quick("--data-dir", recordings, "--out", tmp_path / "run", "--no-quantize", "--json").json()

    again = data("audit", recordings, "--write-groups", file)
    assert "groups.csv exists already. Replace it (--overwrite; its groups stay together)" in again.refusal(2)
    joined = data("audit", recordings, "--write-groups", file, "--overwrite", "--json").json()["written"]
    assert (joined["before"], joined["after"], joined["too_few"]) == (8, 8, [])
    elsewhere = data("audit", recordings, "--write-groups", tmp_path / "mine.csv").out
    assert f"It counts as {file}: copy it there." in elsewhere
    assert (tmp_path / "mine.csv").read_text() == file.read_text()


def test_the_same_audio_under_two_labels_is_the_first_thing_that_is_said(
    data: Callable, quick: Callable, recordings: Path
) -> None:
    (recordings / "low" / "copy.wav").write_bytes((recordings / "high" / "0.wav").read_bytes())
    told = "high/0.wav ('high') and low/copy.wav ('low') hold the same samples, in 4 clips: one label is wrong."
    done = data("audit", recordings)
    assert done.code == 4
    assert done.out.splitlines()[2] == f"Two labels: {told}"
    refusal = quick("--data-dir", recordings, "--out", "run", "--no-quantize").refusal(4)
    assert f"audio has two labels: {told} Take out the one with the wrong label" in refusal
    warned = ("--set", "data.near_duplicates=warn")
    report = quick("--data-dir", recordings, "--out", "run", "--no-quantize", "--json", *warned).json()
    assert report["warnings"][0] == f"audio has two labels: {told}"
    assert report["audit"]["contradictions"][0]["about"]["files"] == ["high/0.wav", "low/copy.wav"]


def test_what_was_left_out_is_named_by_inspect_audit_and_training(
    data: Callable, quick: Callable, recordings: Path
) -> None:
    (recordings / "low" / "annexed.wav").symlink_to("../.git/annex/objects/1.wav")
    (recordings / "stray.wav").write_bytes((recordings / "high" / "0.wav").read_bytes())
    (recordings / "notes.txt").write_text("calm sea")
    lines = [
        "Left out: 3 file(s) or folder(s).",
        "  a link that leads nowhere: fetch what it stands for ('git annex get'), or mend it (1: low/annexed.wav)",
        "  outside the folders of the classes (1: stray.wav)",
        "  no audio (1: notes.txt)",
    ]
    for command in (["inspect", recordings, "--no-picture"], ["audit", recordings]):
        assert "\n".join(lines) in data(*command).out
        found = data(*command, "--json").json()["left_out"]
        assert [(each["count"], each["files"], each["lost"]) for each in found] == [
            (1, ["low/annexed.wav"], True),
            (1, ["stray.wav"], True),
            (1, ["notes.txt"], False),
        ]
    report = quick("--data-dir", recordings, "--out", "run", "--no-quantize", "--json").json()
    assert report["audit"]["left_out"] == found
    (warning,) = [line for line in report["warnings"] if "left out" in line]
    assert warning.startswith("left out of the data: a link that leads nowhere")
    assert warning.endswith("; outside the folders of the classes (1: stray.wav).")


def test_training_refuses_a_split_that_leaks_and_trains_when_told_to(
    data: Callable, quick: Callable, leaking: Path
) -> None:
    refusal = quick("--data-dir", leaking, "--out", "run", "--no-quantize").refusal(4)
    assert "the split leaks: low/" in refusal
    assert "--set data.near_duplicates=warn" in refusal
    assert not Path("run").exists()
    done = quick(
        *("--data-dir", leaking, "--out", "run", "--no-quantize", "--json", "--set", "data.near_duplicates=warn")
    ).json()
    assert done["warnings"][0].startswith("the split leaks: low/")
    assert done["audit"]["warnings"][0]["about"]["crosses"] is True


def test_training_writes_down_its_audit(quick: Callable, recordings: Path, tmp_path: Path) -> None:
    report = quick("--data-dir", recordings, "--out", tmp_path / "run", "--no-quantize", "--json").json()
    assert (report["audit"]["leaks"], report["audit"]["searched"]) == ([], True)
    assert sum(report["audit"]["clips"].values()) == 32


def test_prepare_decodes_once(data: Callable, recordings: Path) -> None:
    first = data("prepare", recordings, "--set", "data.padding=zeros", "--json").json()
    assert (first["clips"], first["decoded"], first["sample_rate"]) == (32, 32, RATE)
    assert first["real_time_factor"] > 0
    assert first["bytes"] == sum(file.stat().st_size for file in Path(first["folder"]).iterdir())
    again = data("prepare", recordings, "--set", "data.padding=zeros", "--json").json()
    assert (again["folder"], again["decoded"], again["real_time_factor"]) == (first["folder"], 0, None)
    shown = data("prepare", recordings, "--set", "data.padding=zeros").out
    assert "32 clips of 0.5 s at 4000 Hz: all there already" in shown


@pytest.mark.parametrize("command", ["inspect", "audit", "prepare"])
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--dataset", "ecs50"], 2, "Did you mean 'esc50'?"),
        (["--data-dir", "nowhere"], 3, "nowhere: no such folder"),
        (["--data-dir", "."], 3, "the folder is empty"),
        (["--set", "data.speed=2"], 2, "unknown key 'data.speed'"),
        ([], 2, "pass --data-dir FOLDER"),
    ],
)
def test_bad_input_is_one_line(
    edgekd: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert words in edgekd("data", command, "--quiet", *arguments).refusal(code)


def test_a_fold_that_is_not_there_is_wrong_usage(edgekd: Callable, esc10: Path) -> None:
    assert "fold = 9: esc10 has no such fold" in edgekd(
        "data", "audit", "--data-dir", esc10, "--fold", "9", "--quiet"
    ).refusal(2)


def test_an_unreadable_file_stops_the_audit_with_its_name(data: Callable, recordings: Path) -> None:
    (recordings / "low" / "0.wav").write_text("not audio")
    for command in ("audit", "prepare"):
        assert "low/0.wav" in data(command, recordings).refusal(3)


def test_the_audit_tells_what_audio_without_labels_is_left_out(
    data: Callable, recordings: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for name in ("low/0.wav", "low/1.wav", "low/2.wav", "low/3.wav"):  # one of them is on the test side
        sound, rate = soundfile.read(recordings / name)
        soundfile.write(more / name.replace("/", "-"), 0.3 * sound[333:], rate)
    done = data("audit", recordings, "--unlabelled", more)
    assert done.code == 0
    assert "clips without labels teach; left out: " in done.out
    assert " of recordings that share audio with clips that are scored." in done.out
    found = data("audit", recordings, "--unlabelled", more, "--json").json()["unlabelled"]
    assert 0 < found["dropped"]["audio"] < found["clips"]
    assert {each["side"] for each in found["shared"]} == {"validation", "test"}
    line = data("audit", recordings, "--unlabelled", tmp_path / "nowhere").refusal(3)
    assert line == f"{tmp_path}/nowhere: no such folder. Check --unlabelled."


def test_inspect_ends_with_a_command_that_trains(
    edgekd: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recordings(tmp_path / "my recordings", seconds=0.7)
    for path in (tmp_path / "my recordings").rglob("*.wav"):
        sound, rate = soundfile.read(path)
        soundfile.write(path, np.stack([sound, (1 if path.stem == "0" else -1) * sound], 1), rate)
    asked = ("--data-dir", "my recordings", "--no-picture", "--quiet", "--set", "data.split_seed=3")
    command = edgekd("data", "inspect", *asked).out.splitlines()[-1].removeprefix("With what fits this data: ")
    fitting = "--sample-rate 4000 --clip-seconds 0.7 --set data.channel=0"
    assert command == f"edgekd distill --data-dir 'my recordings' --set data.split_seed=3 {fitting}"
    assert edgekd("data", "inspect", *asked, "--json").json()["command"] == command
    for refused in ("audit", "prepare"):
        assert "Pass --clip-seconds 0.7." in edgekd("data", refused, *asked[:2], "--quiet").refusal(2)
    quickly = ["--terms", "classification", "--epochs", "1", "--batch-size", "2", "--no-quantize", "--quiet"]
    done = edgekd(*shlex.split(command)[1:], *quickly, "--json").json()
    assert (done["test"]["student"]["clips"], done["audit"]["warnings"], done.get("warnings")) == (2, [], None)
    mixed = shlex.split(command)[1:-2]
    (warning, *_) = edgekd(*mixed, *quickly, "--set", "data.split_seed=1", "--overwrite", "--json").json()["warnings"]
    assert "6 clips are lost when their channels are averaged" in warning


def test_a_manifest_is_written_from_names_shown_and_read(edgekd: Callable, tmp_path: Path) -> None:
    for name in ("a_tug_swift_1.wav", "a_tug_swift_2.wav", "a_cargo_poyang_1.wav", "notes.wav"):
        soundfile.write(tmp_path / name, [0.1] * RATE, RATE)
    pattern = ["data", "manifest", tmp_path, "--pattern", "{_}_{label}_{group}_{_}"]
    shown = edgekd(*pattern, "--dry-run")
    assert shown.code == 0
    assert not (tmp_path / "manifest.csv").exists()
    done = edgekd(*pattern)
    assert done.code == 0
    for words in (
        "a_tug_swift_2.wav",
        "Files: 3 in 2 groups",
        "cargo (1)",
        "Left out: 1 file(s)",
        "notes.wav",
        "Written: ",
    ):
        assert words in done.out
    text = (tmp_path / "manifest.csv").read_text()
    assert text.splitlines()[:2] == ["path,label,group", "a_cargo_poyang_1.wav,cargo,poyang"]
    again = edgekd(*pattern)
    assert again.code == 2
    assert "is there already" in again.err
    assert edgekd(*pattern, "--overwrite", "--json").json()["labels"] == {"cargo": 1, "tug": 2}
    assert edgekd("data", "manifest", tmp_path, "--pattern", "{label}{group}").code == 2
    assert edgekd("data", "manifest", tmp_path, "--pattern", "{label}+{_}", "--overwrite").code == 3


def test_neighbours_in_time_are_told_of_until_they_are_grouped(edgekd: Callable, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("owl", "rain"):
        (tmp_path / "night" / label).mkdir(parents=True)
        for day in range(1, 6):
            for minute in range(3):
                sound = 0.1 * rng.standard_normal(RATE // 2)
                soundfile.write(tmp_path / "night" / label / f"{label}_2024050{day}_12{minute:02d}00.WAV", sound, RATE)
    command = ["data", "audit", "--data-dir", tmp_path / "night", *FORM]
    told = edgekd(*command)
    assert told.code == 0
    assert "Warning: 30 recordings of 1 deployment are named by times within an hour" in told.out
    grouped = edgekd(*command, "--set", "data.group_by=day", "--json").json()
    assert (grouped["groups"], [each for each in grouped["warnings"] if each["kind"] == "groups"]) == (5, [])


def test_times_tells_deployments_and_what_is_odd(edgekd: Callable, tmp_path: Path) -> None:
    for name, seconds in (("A_20240501_120000.wav", 2), ("A_20240501_120010.wav", 2), ("B_20240501_120000Z.wav", 2)):
        soundfile.write(tmp_path / name, np.zeros(4_000 * seconds), 4_000)
    shown = edgekd("data", "times", tmp_path)
    assert shown.code == 0
    assert "2024-05-01 12:00" in shown.out
    assert "Add --time-zone UTC" in shown.out
    printed = json.loads(edgekd("data", "times", tmp_path, "--time-zone", "-03:00", "--json").out)
    one, other = printed["deployments"]
    assert one["gaps"] == [{"after": "A_20240501_120000.wav", "before": "A_20240501_120010.wav", "seconds": 8.0}]
    assert [each["recordings"][0]["time_utc"][:13] for each in (one, other)] == ["2024-05-01T15", "2024-05-01T12"]
    assert edgekd("data", "times", tmp_path, "--time-pattern", "%Y_%m_%d_%H").code == 3
    assert edgekd("data", "times", tmp_path, "--time-zone", "Oslo").code == 2
