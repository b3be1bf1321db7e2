"""The script for a GPU, on a CPU: its parts are guarded, its checks find what is wrong, and it comes to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.benchmarks.data_flows import VARIANTS
from tests.benchmarks.gpu import __main__ as script
from tests.benchmarks.gpu import attempts, memory, speed, trace
from tests.benchmarks.gpu.parts import DeviceLost, NotHere, Part, Task, run_parts
from tests.benchmarks.gpu.steps import Outcome
from tests.benchmarks.gpu.trace import Event, own_parts, summary

ROOT = Path(__file__).parents[3]
ABSENT = ("kornia", "ot", "sklearn", "transformers", "pytest", "scipy", "h5py")


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))  # put back at the end: `Bench` names another
    return Task("cpu", True, tmp_path / "scratch", tmp_path, 60, lambda _: None)


def test_what_one_part_does_the_others_do_not_lose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(task: Task) -> None:
        task.result["kept"] = 1
        raise ValueError("broken\nin two lines")

    def never_ends(task: Task) -> None:
        task.result["kept"] = 2
        while True:
            time.sleep(0.01)

    def cannot(task: Task) -> None:
        raise NotHere("no card")

    def works(task: Task) -> None:
        task.check("one", lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        task.check("two", lambda: {"figure": 3})

    shares = {fails: 1.0, never_ends: 1e-6, cannot: 1.0, works: 1.0}
    parts = [Part(work.__name__, share, work, lambda _: iter(())) for work, share in shares.items()]
    found: dict[str, Any] = {}
    saved: list[int] = []

    def make(_: str, __: float) -> Task:
        return Task("cpu", True, tmp_path, tmp_path, 0.3, lambda _: None)

    monkeypatch.setattr("tests.benchmarks.gpu.parts.LEAST_SECONDS", 0.1)
    run_parts(parts, time.monotonic() + 200, make, found, lambda: saved.append(len(found)), lambda _: None)
    late: dict[str, Any] = {}
    run_parts(parts[:1], time.monotonic(), make, late, lambda: None, lambda _: None)
    assert {name: part["state"] for name, part in found.items()} == {
        "fails": "failed",
        "never_ends": "cut short",
        "cannot": "not here",
        "works": "done",
    }
    assert found["fails"]["why"] == "ValueError: broken" and "ZeroDivisionError" not in found["fails"]["traceback"]
    assert (found["fails"]["result"]["kept"], found["never_ends"]["result"]["kept"]) == (1, 2)
    checks = found["works"]["result"]["checks"]
    assert checks["one"]["state"] == "failed" and checks["two"]["figure"] == 3
    assert sorted(set(saved)) == [1, 2, 3, 4]
    assert late["fails"]["state"] == "left out"


def test_checks_that_are_known_are_not_done_again(tmp_path: Path) -> None:
    known = {"done": {"state": "done"}, "lost": {"state": "lost"}}
    task = Task("cpu", True, tmp_path, tmp_path, 60, lambda _: None, result={"checks": dict(known)})
    begun = list[str]()

    def work(name: str) -> Callable[[], dict[str, Any]]:
        return lambda: begun.append(name) or {}  # type: ignore[func-returns-value]

    assert task.check("done", work("done")) and not task.check("lost", work("lost"))
    assert task.result["checks"] == known and begun == []
    assert task.check("done", work("done"), needed=True) and not task.check("lost", work("lost"), needed=True)
    assert task.check("new", work("new"))
    assert begun == ["done", "new"]


def test_a_device_that_answers_no_more_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers_no_more() -> None:
        raise RuntimeError("an illegal memory access was encountered\nmore")

    saved = list[str]()
    task = Task("cuda", False, tmp_path, tmp_path, 60, lambda _: None)
    task.save = lambda: saved.append(task.result["checks"]["one"]["state"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", answers_no_more)
    found: dict[str, Any] = {}
    part = Part("a part", 1.0, lambda task: task.check("one", dict) and None, lambda _: iter(()))
    with pytest.raises(DeviceLost, match=r"illegal memory access was encountered$"):
        run_parts([part], time.monotonic() + 60, lambda *_: task, found, lambda: None, lambda _: None)
    assert saved == ["at work", "done"]
    assert found["a part"]["state"] == "at work", "what is left of it is for another process"


def test_what_does_not_hold_is_wrong() -> None:
    def wrong(state: str, **check: Any) -> bool:
        return script._is_wrong({"state": "done", "result": {"checks": {"one": {"state": state, **check}}}})

    assert wrong("failed") and wrong("lost") and wrong("done", holds=False)
    assert not (wrong("done", holds=True) or wrong("cut short") or wrong("not here") or wrong("left out"))
    assert script._is_wrong({"state": "lost"})


def test_a_step_that_is_off_is_seen() -> None:
    right = Outcome(2.0, {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0])})
    same = Outcome(2.0, {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0])}).against(right)
    assert (same["loss_difference"], same["gradient_difference"], same["worst_difference"]) == (0, 0, 0)
    off = Outcome(2.1, {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([0.1])}).against(right)
    assert off["loss_difference"] == pytest.approx(0.05)
    assert off["gradient_difference"] == pytest.approx((0.25 + 0.01) ** 0.5 / 5, rel=1e-5)
    assert off["worst_parameter"] == "b" and off["worst_difference"] == pytest.approx(0.1 / 0.005, rel=1e-5)


def test_batches_that_do_not_fit_are_halved_with_the_same_loss(task: Task) -> None:
    found = memory.halved_batch(task)
    assert found["holds"] and "in 2 parts" in found["words"]
    heard = memory.halved_teacher(task)
    assert heard["holds"] and heard["heard_at_once"] == 2


def test_the_innermost_of_nested_operators_has_the_time() -> None:
    host, stream = (False, 1), (True, 7)
    events = [
        Event("aten::conv", 0.0, 10.0, host),
        Event("aten::copy_", 2.0, 3.0, host),
        Event("aten::add", 11.0, 1.0, host),
    ]
    assert [(part.name, part.start, part.seconds) for part in own_parts(events)] == [
        ("aten::conv", 0.0, 2.0),
        ("aten::copy_", 2.0, 3.0),
        ("aten::conv", 5.0, 5.0),
        ("aten::add", 11.0, 1.0),
    ]
    on_host = summary(events, 1)
    assert on_host["longest"][0] == {"name": "aten::conv", "ms_a_step": 7000.0, "calls_a_step": 1.0}
    kernels = [
        Event("cudaLaunchKernel", 0.0, 0.1, host),
        Event("fprop_kernel", 1.0, 4.0, stream),
        Event("fprop_kernel", 6.0, 4.0, stream),
    ]
    on_device = summary(events + kernels, 2)
    assert on_device["kernels_a_step"] == 1 and on_device["starts_a_step"] == {"cudaLaunchKernel": 0.5}
    assert on_device["busy_share"] == pytest.approx(8 / 12)


def test_a_trace_is_drawn(task: Task, tmp_path: Path) -> None:
    weight = torch.randn(32, 32, requires_grad=True)

    def flow(steps: int) -> float:
        for _ in range(steps + 1):
            (torch.randn(8, 32) @ weight).relu().sum().backward()
        return 0.0

    found = trace.trace(flow, task, "a -> b, c")
    assert (tmp_path / found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert any(kernel["name"] == "aten::mm" for kernel in found["longest"])


def test_every_flow_is_measured_and_those_of_runs_come_first() -> None:
    for shapes in (speed.SHAPES, speed.SMALL_SHAPES):
        assert len({str(shape) for shape in shapes}) == len(shapes)
        assert {name for shape in shapes for name in shape.flows} == set(VARIANTS)
        assert {shape.flows[0] for shape in shapes} == {"naive"}
    assert speed.SHAPES[0].flows[1:] == ("taps", "student alone")


def test_the_bars_are_those_of_the_best_flow() -> None:
    rates = {"naive": 1, "taps": 2, "compiled step": 16, "no textures": 9}
    flows = {
        name: {"clips_a_second": rate, "times_base": (rate,), "share_of_flops_floor": 0.3}
        for name, rate in rates.items()
    }
    found = speed.bars(flows)
    assert {bar: (said["flow"], said["met"]) for bar, said in found.items()} == {
        "times naive, textures": ("compiled step", True),
        "share of FLOP floor, textures": ("compiled step", False),
        "times naive, no textures": ("no textures", False),
        "share of FLOP floor, no textures": ("no textures", False),
    }


def test_an_earlier_call_is_taken_up(tmp_path: Path) -> None:
    before = tmp_path / "before"
    (before / "study").mkdir(parents=True)
    (before / "study" / "study.json").write_text("{}")
    checks = {"one": {"state": "done"}, "two": {"state": "failed"}}
    parts = {
        "card": {"state": "done", "card": "A", "result": {"ceilings": {"copy_gb_s": 1.0}}},
        "correctness": {"state": "done", "card": "A", "result": {"checks": checks}},
        "training": {"state": "cut short", "card": "B", "result": {"checks": checks}},
        "profile": {"state": "done", "card": "B", "result": {}},
        "memory": {"state": "failed", "card": "A", "why": "x"},
        "study": {"state": "done", "card": "A", "result": {}},
    }
    (before / "gpu.json").write_text(json.dumps({"parts": parts}))
    all_parts = [SimpleNamespace(name=name) for name in script.SHARES]
    found: dict[str, Any] = {"parts": {}, "call": "1.5", "card": "A"}
    left, kept = script._take_up(before, tmp_path / "now", found, all_parts)
    names = ["correctness", "training", "memory", "profile", "chain", "study"]
    assert [part.name for part in left] == names, "what was done on another card is done again"
    assert kept["correctness"]["checks"] == {"one": {"state": "done"}} and "training" not in kept
    assert list(found["parts"]) == list(parts), "what is not reached again is not lost"
    assert (tmp_path / "now" / "study" / "study.json").read_text() == "{}"
    # A process of that call died in the check "three" of the first part.
    checks |= {"three": {"state": "at work"}}
    found["parts"]["correctness"] = {"state": "at work", "card": "A", "result": {"checks": checks}}
    attempts.lose(found["parts"], "it died")
    (tmp_path / "now" / "gpu.json").write_text(json.dumps(found))
    again: dict[str, Any] = {"parts": {}, "call": "1.5", "card": "A"}
    left, kept = script._take_up(before, tmp_path / "now", again, all_parts)
    assert [part.name for part in left] == names
    assert kept["correctness"]["checks"]["three"] == {"state": "lost", "why": "it died"}
    assert kept["correctness"]["checks"]["two"] == {"state": "failed"}, "not tried twice in a call"


DYING = """
import json, os, signal, sys, time
file, call, how = sys.argv[1:]
if not os.path.exists(file):  # the first process
    checks = {"first": {"state": "done"}, "second": {"state": "at work"}}
    part = {"state": "at work", "until": time.time() + 0.2, "result": {"checks": checks}}
    json.dump({"call": call, "parts": {"work": part}}, open(file, "w"))
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
time.sleep(0.7)  # what it loads, in which it is not taken for the one that hung
found = json.load(open(file))
json.dump({**found, "exit_code": 7}, open(file, "w"))
"""


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_what_a_process_dies_in_the_next_one_leaves_out(how: str, tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    command = [sys.executable, "-c", DYING, str(file), "1.5", how]
    assert attempts.work(command, file, "1.5", time.time() + 60, grace=0.5) == 7
    checks = json.loads(file.read_text())["parts"]["work"]["result"]["checks"]
    assert {name: check["state"] for name, check in checks.items()} == {"first": "done", "second": "lost"}
    assert ("exit code -9" if how == "dies" else "did not come back") in checks["second"]["why"]


def test_a_process_that_begins_nothing_is_not_started_again(tmp_path: Path) -> None:
    stale = tmp_path / "gpu.json"
    stale.write_text(json.dumps({"call": "1.0", "parts": {}, "exit_code": 0}))
    assert attempts.work([sys.executable, "-c", "raise SystemExit(2)"], stale, "1.5", time.time() + 60) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--out: which folder?"),
        (["--out", "FOLDER", "--minutes", "nan"], "--minutes: more than 0, at most 600"),
        (["--out", "FOLDER", "--only", "card", "--skip", "card"], "no part is left"),
        (["--out", "FOLDER", "--only", "nothing"], "invalid choice: 'nothing'"),
        (["--out", "FOLDER", "--esc10", "FOLDER/none"], "--esc10: no folder"),
        (["--out", "FOLDER", "--yamnet", "FOLDER/none"], "--yamnet: no file"),
        (["--out", "FOLDER", "--only", "study"], "needs --esc10 DIR"),
        (["--out", "FOLDER/a-file/x"], "--out: "),
        (["--show", "FOLDER/none"], "--show: no gpu.json"),
        (["--show", "FOLDER/damaged"], "is damaged"),
        (["--show", "FOLDER/other"], "is not of this script"),
        (["--continue", "FOLDER/none"], "--continue: no gpu.json"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a-file").write_text("")
    for name, text in (("damaged", "{"), ("other", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gpu.json").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        script._options(["--device", "cpu", *(part.replace("FOLDER", str(tmp_path)) for part in arguments)])
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and said in told and told.count("\n") == 1


def test_what_is_printed_fits() -> None:
    assert script._fitting("short") == "short"
    assert len(script._fitting("x" * 20_000)) < 12_000


def test_nothing_is_imported_that_the_machine_lacks() -> None:
    program = f"""
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from tests.benchmarks.gpu import __main__ as script
assert len(script._parts()) == 7
import tests.benchmarks.gpu.study
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=_environment())


@pytest.mark.slow
def test_it_comes_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.gpu",
        "--device",
        "cpu",
        "--minutes",
        "1",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["parts"]) == list(script.SHARES)
    assert not [name for name, part in found["parts"].items() if part["state"] == "failed"]
    assert "== card" in done.stdout and "== study: not here: no --esc10 DIR" in done.stdout
    assert sum(path.is_file() for path in tmp_path.rglob("*")) <= 8


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
