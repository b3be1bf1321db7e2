"""Several processes on this machine, joined by gloo, against one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd import processes
from edgekd.errors import UsageError
from edgekd.losses.terms import Need
from edgekd.models.weights import read_weights
from edgekd.processes import join
from edgekd.progress import silent
from edgekd.runs.metrics_log import MetricsLog
from edgekd.training.fill_cache import PROBES
from edgekd.training.loop import fit
from tests.training import in_processes
from tests.training.test_fill_cache import ROWS, Listener, answers, fill, views_of

PROCESSES = 2


def started_like_torchrun(count: int, command: list[str]) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of `PROCESSES` found."""
    in_processes.fit_until(folder / "begun by one", 3)
    started = started_like_torchrun(PROCESSES, ["-m", in_processes.__name__, str(folder)])
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0] * PROCESSES, said
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


@pytest.mark.parametrize("way", ["outcome", "outcome of collectives", "outcome, compiled"])
@pytest.mark.parametrize("part", ["gradients", "state", "figures", "said"])
def test_training_in_several_processes_is_training_in_one(part: str, way: str, found: list[dict[str, Any]]) -> None:
    """Batch norms, dropout, gradients, figures and predictions; the batch is dealt in shares of 3 and 4 rows."""
    alone = in_processes.outcome()[part]
    for each in found:
        torch.testing.assert_close(each[way][part], alone, rtol=2e-4, atol=5e-5)


def test_processes_of_one_machine_sum_by_sockets(found: list[dict[str, Any]]) -> None:
    assert [each["sockets"] for each in found] == [1] * PROCESSES


def test_all_processes_end_with_the_very_same_weights(found: list[dict[str, Any]]) -> None:
    first = found[0]["outcome"]["state"]
    for each in found[1:]:
        assert all(torch.equal(tensor, first[name]) for name, tensor in each["outcome"]["state"].items())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process that was not interrupted."""
    folder = tmp_path_factory.mktemp("alone")
    fit(in_processes.stage(folder), silent)
    return folder


def same_end(folder: Path, other: Path) -> None:
    """Metrics and weights agree; each epoch has one row."""
    ours, theirs = (MetricsLog(each / "metrics.csv").rows for each in (folder, other))
    assert [row["epoch"] for row in ours] == [row["epoch"] for row in theirs] == ["1", "2", "3", "4"]
    for name in ("total", "classification", "validation_loss", "validation_accuracy", "learning_rate"):
        assert [float(row[name]) for row in ours] == pytest.approx([float(row[name]) for row in theirs], rel=2e-3)
    weights = [read_weights(each / "student" / "best.safetensors") for each in (folder, other)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=2e-4)


def test_a_stage_ends_as_it_does_in_one_process(found: list[dict[str, Any]], folder: Path, alone: Path) -> None:
    same_end(folder / "unbroken", alone)


def test_several_processes_go_on_where_one_was_interrupted(
    found: list[dict[str, Any]], folder: Path, alone: Path
) -> None:
    same_end(folder / "begun by one", alone)


def test_one_process_goes_on_where_several_were_interrupted(
    found: list[dict[str, Any]], folder: Path, alone: Path
) -> None:
    begun = folder / "begun by several"
    assert MetricsLog(begun / "metrics.csv").last_epoch("student") == 2
    fit(in_processes.stage(begun), silent)
    same_end(begun, alone)


def test_the_average_of_weights_is_that_of_one_process(
    found: list[dict[str, Any]], folder: Path, alone: Path, tmp_path: Path
) -> None:
    fit(in_processes.stage(tmp_path, average=0.8), silent)
    same_end(folder / "averaged", tmp_path)
    best = [read_weights(each / "student" / "best.safetensors") for each in (tmp_path, alone)]
    assert not torch.equal(best[0]["network.head.1.weight"], best[1]["network.head.1.weight"])


def test_the_statistics_of_batch_norms_are_those_of_the_clips_of_all_processes(found: list[dict[str, Any]]) -> None:
    alone = in_processes.reestimated()
    for each in found:
        torch.testing.assert_close(each["statistics"], alone, rtol=1e-4, atol=1e-5)
        assert all(torch.equal(value, found[0]["statistics"][name]) for name, value in each["statistics"].items())


def test_fewer_clips_than_processes_are_refused(found: list[dict[str, Any]]) -> None:
    told = [each["agreements"]["too few"] for each in found]
    assert [(name, code) for name, _, code in told] == [("InputError", 3), ("FailedElsewhere", 3)]
    assert "batches of 1 clips (1 training clips in all) are too few for 2 processes: start 1 at most" in told[0][1]


def test_a_teacher_is_asked_once_whoever_asks_it(found: list[dict[str, Any]]) -> None:
    """But for the first two answers, which every process asks to see what it has to do with."""
    heard = Counter(clip for each in found for clip in each["answers"]["heard"])
    views = len(ROWS) * len(views_of())
    assert len(heard) == views
    assert sorted(heard.values()) == [1] * (views - PROBES) + [PROCESSES] * PROBES
    assert all(len(each["answers"]["heard"]) > PROBES for each in found), "all have had a part in it"
    assert [len(each["answers"]["heard again"]) for each in found] == [PROBES] * PROCESSES


def test_all_processes_read_the_answers_that_one_would_have(
    found: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))
    needs: tuple[Need, ...] = ("logits", "embedding", "tap")
    right = tuple(answers(fill(Listener(), needs=needs), needs))
    for each in found:
        told = each["answers"]
        assert told["mode"] == "full"
        assert told["files"] == found[0]["answers"]["files"]
        torch.testing.assert_close(told["said"], right)


def test_a_disk_that_is_full_for_one_process_costs_all_the_taps(found: list[dict[str, Any]]) -> None:
    assert [each["answers"]["spared"] for each in found] == [("logits", True)] * PROCESSES
    name, line = found[0]["answers"]["refused"]
    assert (name, "no space left for the teacher cache" in line) == ("InputError", True)
    assert [each["answers"]["refused"][0] for each in found[1:]] == ["FailedElsewhere"] * (PROCESSES - 1)


def test_a_process_that_cannot_open_the_tables_ends_all_of_them(found: list[dict[str, Any]]) -> None:
    """Rather than that they wait for one another."""
    name, line = found[0]["answers"]["closed"]
    assert (name, "the teacher's answers cannot be kept (Permission denied)" in line) == ("InputError", True)
    assert [each["answers"]["closed"][0] for each in found[1:]] == ["FailedElsewhere"] * (PROCESSES - 1)


def test_int8_ranges_are_those_of_the_whole_batch(found: list[dict[str, Any]]) -> None:
    for each in found:
        torch.testing.assert_close(each["bounds"], in_processes.bounds())


def test_every_row_is_in_one_share(found: list[dict[str, Any]]) -> None:
    shares = [each["agreements"]["share"] for each in found]
    assert [row for share in shares for row in range(in_processes.ROWS)[share]] == list(range(in_processes.ROWS))
    assert {share.stop - share.start for share in shares} == {3, 4}


def test_what_the_first_process_finds_all_have(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["agreements"]["from first"] == {"rank": 0}
        assert each["agreements"]["after it"] == "they go on"
        assert each["agreements"]["spread"].eq(0).all()


def test_what_the_first_process_fails_of_ends_all_and_is_said_once(found: list[dict[str, Any]]) -> None:
    for case in ("first failing", "node failing"):
        told = [each["agreements"][case] for each in found]
        assert told[0] == ("InputError", "only process 0 says this", 3)
        assert [name for name, _, _ in told[1:]] == ["FailedElsewhere"] * (PROCESSES - 1)
        assert {code for _, _, code in told} == {3}


def test_what_another_process_fails_of_ends_all(found: list[dict[str, Any]]) -> None:
    told = [each["agreements"]["one failing"] for each in found]
    assert [name for name, _, _ in told] == ["FailedElsewhere", "InputError"]
    assert {code for _, _, code in told} == {3}


def test_the_first_of_a_machine_makes_what_the_others_then_find(found: list[dict[str, Any]]) -> None:
    assert [each["agreements"]["on node"] for each in found] == [1, "x"]
    assert [each["agreements"]["node"] for each in found] == [(2, place, [0, 1]) for place in range(2)]


def test_things_rows_and_maxima_are_put_together(found: list[dict[str, Any]]) -> None:
    for each in found:
        assert each["agreements"]["gathered"] == [1]
        assert each["agreements"]["few rows"].tolist() == [[5.0]]
        assert each["agreements"]["largest"].tolist() == [1.0, 0.0]


def test_a_process_on_its_own_shares_with_nobody() -> None:
    assert (processes.count(), processes.rank(), processes.is_first()) == (1, 0, True)
    assert processes.share_of(5) == slice(0, 5)
    assert processes.from_first(lambda: "made") == "made"
    assert processes.first_on_node(lambda: "made", lambda: "found") == "made"
    assert processes.put_together([torch.ones(1), torch.zeros(1)], 2).tolist() == [1, 0]


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"--device cuda: this machine has no CUDA device"):
        join("cuda")
    assert join("auto").type == "cpu"


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "4"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="started 4 processes, and this machine has 2 CUDA devices"):
        join("cuda")


def test_machines_with_unequal_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "2"), ("WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="started 2 processes here and 3 in all"):
        join("cpu")


def test_what_a_batch_system_sets_makes_no_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert join("cpu") == torch.device("cpu")
    assert processes.count() == 1
