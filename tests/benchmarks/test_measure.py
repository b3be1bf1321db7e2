"""Benchmarks measure what they say: planted sleeps, counted operators, and one small pass through each."""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.config import AugmentConfig, SimulationConfig
from edgekd.data.simulation.sonar import simulate
from edgekd.losses.total import LossOutput
from edgekd.models.outputs import StudentOutput
from edgekd.training.batches import TrainingBatches
from edgekd.training.device_rows import Pending
from edgekd.training.views import draw_views
from tests.benchmarks import checkouts, data_flows, growth, losses, preparation, sections, training
from tests.benchmarks.measure import Clock, Limits, Timed, Work, anonymous_bytes, ratio, table, turns

NAP = 0.05  # seconds
LIMITS = Limits(flops=1e9, bandwidth=1e9)


class SleepyGradient(torch.autograd.Function):
    """The identity, whose gradient takes a nap."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, seconds: float) -> Tensor:  # type: ignore[override]
        ctx.seconds = seconds
        return features.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        time.sleep(ctx.seconds)
        return gradient, None


class CountedClips:
    """Silence, and how often it was requested."""

    device, requests = torch.device("cpu"), 0

    def request(self, rows: Tensor) -> Pending:
        self.requests += 1
        return lambda: torch.zeros(len(rows), 16)


def test_an_inner_sections_time_is_not_the_outers() -> None:
    clock = Clock("cpu")
    with clock.section("outer"):
        with clock.section("inner"):
            time.sleep(4 * NAP)
        time.sleep(NAP)
    assert clock.seconds["inner"] >= 4 * NAP
    assert NAP <= clock.seconds["outer"] < 4 * NAP


def test_a_stand_in_times_calls_subscripts_and_named_methods_and_passes_all_else_through() -> None:
    def nap(*_: object) -> str:
        time.sleep(NAP)
        return "rested"

    sleeper = type("Sleeper", (), {"__call__": nap, "__getitem__": nap, "__len__": lambda _: 3, "nap": nap, "other": 7})
    clock = Clock("cpu")
    timed = Timed(sleeper(), clock, "sleep", "nap")
    assert (timed(), timed[0], timed.nap()) == ("rested",) * 3
    assert clock.seconds["sleep"] >= 3 * NAP
    assert (len(timed), timed.other) == (3, 7)


def test_the_gradient_of_losses_is_told_from_that_of_the_student() -> None:
    layer, clock = nn.Linear(3, 2), Clock("cpu")

    def student(features: Tensor) -> StudentOutput:
        tap = SleepyGradient.apply(layer(features), 6 * NAP)  # type: ignore[no-untyped-call]
        return StudentOutput(2 * tap, tap)

    output = sections.Watched(student, clock)(torch.randn(4, 3))
    with clock.section("losses"):
        texture = SleepyGradient.apply(output.tap, 2 * NAP)  # type: ignore[no-untyped-call]
        (output.logits.square().sum() + texture.sum()).backward()
    assert 2 * NAP <= clock.seconds["losses"] < 6 * NAP
    assert clock.seconds["student"] >= 6 * NAP


def test_a_share_of_a_loss_is_differentiated_in_its_section() -> None:
    features, clock = torch.randn(4, 3, requires_grad=True), Clock("cpu")

    def loss(values: Tensor) -> LossOutput:
        total = SleepyGradient.apply(values, 2 * NAP).sum()  # type: ignore[no-untyped-call]
        return LossOutput(total, {}, {})

    output = sections.TimedLoss(loss, clock, "losses")(features)
    assert output.total.detach() == features.sum()
    forward = clock.seconds["losses"]
    (output.total * 0.5).backward()
    assert clock.seconds["losses"] - forward >= 2 * NAP
    assert features.grad is not None
    assert torch.equal(features.grad, torch.full((4, 3), 0.5))


def test_the_teacher_is_timed_when_its_answers_are_had_and_not_when_they_are_requested() -> None:
    def outputs(_: object) -> str:
        time.sleep(2 * NAP)
        return "answers"

    def request(*_: object) -> SimpleNamespace:
        time.sleep(NAP)
        return SimpleNamespace(outputs=outputs)

    clock = Clock("cpu")
    with clock.section("data"):
        requested = sections.TimedTeacher(SimpleNamespace(request=request), clock, "teacher").request(0, 1, True)
        assert requested.outputs(None) == "answers"
    assert clock.seconds["teacher"] >= 2 * NAP
    assert NAP <= clock.seconds["data"] < 2 * NAP


@pytest.mark.parametrize("steps", [1, 4])
def test_a_turn_times_as_many_draws_as_steps_and_neither_the_first_nor_what_follows(steps: int) -> None:
    clips, rows = CountedClips(), tuple(range(4))
    batches = TrainingBatches(
        stage="student",
        seed=0,
        rows=rows,
        batch_size=2,
        clips=clips,
        labels=torch.zeros(4, dtype=torch.long),
        num_classes=2,
        augment=AugmentConfig(),
        views=draw_views(rows, 16, AugmentConfig(), seed=0),
    )
    clock = Clock("cpu")
    turn, drawn = data_flows.Turn(batches, steps, clock, "cpu"), []
    for number, batch in enumerate(turn.epoch(1)):
        drawn.append(clips.requests)
        assert len(batch) == 2
        time.sleep(4 * NAP if number == 0 else NAP)
    time.sleep(4 * NAP)
    assert len(drawn) == len(turn) == steps + 1
    assert clips.requests == drawn[-1] == drawn[0] + steps
    assert steps * NAP <= turn.seconds < steps * NAP + 3 * NAP
    assert sum(clock.seconds.values()) == pytest.approx(turn.seconds)
    assert clock.seconds["rest"] >= steps * NAP


def test_work_counts_products_and_bytes_and_takes_the_slower_of_the_two() -> None:
    a, b = torch.rand(8, 32), torch.rand(32, 16)
    with Work(LIMITS) as product:
        a @ b
    moved = 4 * (8 * 32 + 32 * 16 + 8 * 16)
    assert (product.flops, product.bytes) == (2 * 8 * 32 * 16, moved)
    assert product.seconds == pytest.approx(max(product.flops, moved) / 1e9)
    with Work(LIMITS) as added:
        (a + 1).t()  # a view is free
    assert (added.flops, added.bytes) == (0, 2 * a.nbytes)


def test_work_counts_the_backward_pass_too() -> None:
    layer = nn.Conv2d(4, 6, 3, padding=1)
    images = torch.rand(2, 4, 10, 12, requires_grad=True)
    with Work(LIMITS) as forward:
        output = layer(images)
    with Work(LIMITS) as both:
        layer(images).sum().backward()
    assert forward.flops == 2 * output.numel() * 4 * 9
    assert both.flops == 3 * forward.flops


def test_all_take_a_turn_in_every_round() -> None:
    order: list[str] = []
    found = turns({name: lambda name=name: float(order.append(name) or len(order)) for name in "abc"}, 4)  # type: ignore[misc]
    rounds = [order[start : start + 3] for start in range(0, 12, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert [len(values) for values in found.values()] == [4, 4, 4]


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_medians() -> None:
    found = ratio([2.0, 40.0, 6.0, 80.0, 10.0], [1.0, 10.0, 3.0, 20.0, 5.0])
    assert tuple(found) == (2.0, 2.0, 4.0)
    assert str(found) == "2.00 (2.00-4.00)"


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(["", "ms"], [["first", "1"], ["b", "1000"]]) == "         ms\nfirst     1\nb      1000"


def test_every_variant_of_training_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))  # put back at the end
    arguments = "--teacher convnet --student hltdnn_ds --batch-size 2 --clips 4 --seconds 1 --sample-rate 8000"
    arguments += " --rounds 1 --steps 1 --workers 1 --no-memory --file-rate 11025"
    options = training.read_options([*arguments.split(), "--threads", str(torch.get_num_threads())])
    found = training.measure(options, tmp_path / "bench", LIMITS)
    assert [row["variant"] for row in found["rows"]] == list(data_flows.VARIANTS)
    for row in found["rows"]:
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert min(row["shares"].values()) >= 0
        assert row["floor_seconds"] >= max(row["floor_flops_seconds"], row["floor_bytes_seconds"]) * 0.999
    shares = {row["variant"]: row["shares"] for row in found["rows"]}
    assert all(shares["naive"][section] > 0 for section in training.SECTIONS)
    assert all(share["losses"] > 0 and share["teacher"] > 0 and share["data"] > 0 for share in shares.values())
    assert all(shares[name]["log-mel"] == 0 for name in ("log-mels", "taps", "no textures"))
    gflop = [row["gflop"] for row in found["rows"]]
    assert gflop == sorted(gflop, reverse=True)  # each step leaves work out, or none
    assert gflop[-1] < gflop[0] / 2
    assert "times naive" in "\n".join(training.show(found))


def test_the_naive_loader_reads_each_clip_at_the_wanted_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE_DIR", str(tmp_path))
    arguments = "--clips 2 --seconds 1 --sample-rate 8000 --file-rate 16000"
    bench = data_flows.Bench(training.read_options(arguments.split()), tmp_path / "bench")
    files = data_flows.Files(bench.data.index, bench.data.split.train, 8000, bench.data.store.samples)
    waveform, label = files[1]
    assert label == bench.data.index.labels[1]
    kept = bench.data.store.waveforms([1])[0]
    middle = slice(500, -500)  # filters differ at the ends
    assert torch.corrcoef(torch.stack([waveform[middle], kept[middle]]))[0, 1] > 0.98


def test_plain_losses_have_the_value_of_edgekds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "limits", lambda _: LIMITS)
    options = losses._options(["--student", "hltdnn_ds", "--batch-size", "2", "--rounds", "1"])
    found = losses.measure(options)
    off = {row["term"]: row["off"] / row["value"] for row in found["rows"] if row["form"] == "plain"}
    assert set(off) == {"structural", "co-occurrence", "transport"}
    assert off["structural"] < 1e-5
    assert off["co-occurrence"] < 1e-4
    assert off["transport"] < 0.05  # both are within a few hundredths of the exact one
    assert "times edgekd" in "\n".join(losses.show(found))


def test_preparation_is_measured_stage_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {name: preparation.KINDS[name] for name in ("wav 32 kHz", "ogg 32 kHz")}
    monkeypatch.setattr(preparation, "KINDS", kinds)
    found = preparation.measure(0.0)
    assert [row["kind"] for row in found] == list(kinds)
    for row in found:
        assert row["clips"] == 24
        assert row["hours"] == pytest.approx(2 / 60)
        assert tuple(row["processor_seconds"]) == preparation.STAGES
        assert min(row["processor_seconds"].values()) >= 0
    assert "ogg 32 kHz" in "\n".join(preparation.show(found))


def test_growth_is_measured_stage_by_stage_and_extrapolated(tmp_path: Path) -> None:
    recordings = tmp_path / "small"
    simulate(recordings, SimulationConfig(vessels_per_class=5, windows_per_vessel=1), growth.SAMPLE_RATE, 5.0)
    row = growth.measure_one(recordings)
    assert row["clips"] == 25
    assert tuple(row["processor_seconds"]) == tuple(row["memory_bytes"]) == growth.STAGES
    assert min(row["processor_seconds"].values()) >= 0
    twice = {
        **row,
        "hours": 2 * row["hours"],
        "processor_seconds": {stage: 2 * used for stage, used in row["processor_seconds"].items()},
    }
    rows, at = [row, twice], growth.EXTRAPOLATED / row["hours"]
    stages = {stage: growth._growth(rows, stage) for stage in growth.STAGES}
    for stage, grown in stages.items():
        assert grown["exponent"] == pytest.approx(1)
        assert grown["seconds"] == pytest.approx(at * row["processor_seconds"][stage])
        assert grown["bytes"] == pytest.approx(row["memory_bytes"][stage], abs=1)
    assert "extrapolated" in "\n".join(growth.show({"threads": 1, "rows": rows, "stages": stages}))


def test_memory_that_no_file_backs_grows_by_what_is_held() -> None:
    before = anonymous_bytes()
    if before is None:
        pytest.skip("this system does not say what memory a process holds")
    held = mmap.mmap(-1, 50 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # new, whatever was freed before
    held.write(bytes(len(held)))
    after = anonymous_bytes()
    assert after is not None
    assert after - before > 0.9 * len(held)


def test_checkouts_are_compared_round_by_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the first round, in which each is warming up."""
    seconds = {"before": iter([(9.0, 9.0)] * 2 + [(2.0, 3.0)] * 6), "now": iter([(0.1, 0.1)] * 2 + [(1.0, 1.0)] * 6)}
    stdin = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(
        checkouts,
        "worker",
        lambda checkout: SimpleNamespace(
            name="now" if checkout == checkouts.HERE else "before", stdin=stdin, wait=lambda: 0
        ),
    )
    monkeypatch.setattr(checkouts, "asked", lambda process, _: next(seconds[process.name]))
    found = checkouts.measure(SimpleNamespace(other=tmp_path, rounds=3))  # type: ignore[arg-type]
    assert [row["flow"] for row in found] == ["textures", "no textures", "a run"]
    assert {row["clock"]["times"].median for row in found} == {2}
    assert {row["processor"]["times"].median for row in found} == {3}
    assert (found[-1]["clock"]["before_ms"], found[-1]["clock"]["now_ms"]) == (4000, 2000)
