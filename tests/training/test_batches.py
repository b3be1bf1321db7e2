"""What batches are made of, on seven points in place of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgekd import processes
from edgekd.config import AugmentConfig
from edgekd.errors import InputError
from edgekd.losses.response import classification_loss
from edgekd.training import batches as batches_module
from edgekd.training.batches import AHEAD, Batch, TrainingBatches, check_shares, passes, seed_all, seeded, shuffled
from edgekd.training.device_rows import Pending
from edgekd.training.views import FreshShifts, Views, draw_views
from tests.training.test_fill_cache import SHIFTS, Listener, Store, fill

ROWS = (11, 2, 5, 7, 3, 0, 4, 9)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])


class Clips:
    """Clips of `Store`, and what was requested and had of them."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.store = Store()
        self.events: list[str] = []

    def request(self, rows: Tensor, /) -> Pending:
        self.events.append("request")

        def pending() -> Tensor:
            self.events.append("have")
            return self.store.waveforms(rows.tolist())

        return pending


def batches(**changes: object) -> TrainingBatches:
    values: dict[str, object] = {
        "stage": "student",
        "seed": 3,
        "rows": ROWS,
        "batch_size": 3,
        "clips": Clips(),
        "labels": LABELS,
        "num_classes": 3,
        "augment": AugmentConfig(shifts_per_clip=3, time_mask_frames=6),
        "views": draw_views(ROWS, 64, SHIFTS, 3),
    }
    return TrainingBatches(**{**values, **changes})  # type: ignore[arg-type]


def test_an_epoch_has_every_clip_once_with_its_view_and_its_target() -> None:
    made = batches()
    epoch = list(made.epoch(1))
    assert len(epoch) == len(made) == 3
    assert sorted(row for batch in epoch for row in batch.rows.tolist()) == sorted(ROWS)
    store = Store()
    for batch in epoch:
        assert batch.size == len(batch) == len(batch.rows)
        assert batch.whole
        assert batch.labelled is None
        assert batch.targets.argmax(1).tolist() == LABELS[batch.rows].tolist()
        assert batch.waveforms is not None
        for waveform, row in zip(batch.waveforms, batch.rows.tolist(), strict=True):
            turned = [torch.roll(store.clips[row], by) for by in range(64)]
            assert any(torch.equal(waveform, each) for each in turned)


def test_an_epoch_follows_from_seed_stage_and_number_alone() -> None:
    def content(batch: Batch) -> list[object]:
        assert batch.waveforms is not None
        return [batch.rows.tolist(), batch.waveforms.tolist(), batch.masks.time.tolist()]

    first = [content(batch) for batch in batches().epoch(1)]
    torch.manual_seed(99)
    assert [content(batch) for batch in batches().epoch(1)] == first
    for other in (batches().epoch(2), batches(seed=4).epoch(1), batches(stage="int8").epoch(1)):
        assert [content(batch) for batch in other] != first


def test_batches_are_drawn_ahead_of_their_step_and_in_order() -> None:
    made = batches(batch_size=2)
    clips = made.clips
    assert isinstance(clips, Clips)
    for _ in made.epoch(1):
        clips.events.append("step")
    assert AHEAD == 2
    pattern = ["request"] * 3 + ["have", "step", "request", "have", "step"] + ["have", "step"] * 2
    assert clips.events == pattern


@pytest.mark.parametrize("with_tap", [False, True])
def test_the_teacher_answers_about_what_the_student_hears(with_tap: bool, own_cache: object) -> None:
    listener = Listener()
    cache = fill(listener, "logits")
    made = batches(teacher=cache)
    for batch in made.epoch(1, {"tap", "logits"} if with_tap else {"logits"}):
        assert batch.teacher is not None
        assert batch.waveforms is not None
        with torch.inference_mode():
            expected = listener.eval()(batch.waveforms)
        torch.testing.assert_close(batch.teacher.logits, expected.logits)
        if with_tap:
            torch.testing.assert_close(batch.teacher.tap, expected.tap)
        else:
            assert batch.teacher.tap.numel() == 0


class Table:
    """Log-mels `(N, T, F)` numbered by clip and view."""

    def request(self, numbers: Tensor, /) -> Pending:
        return lambda: numbers[:, None, None].expand(-1, 4, 5).half()


def test_stored_log_mels_stand_for_the_waveforms_of_the_same_view() -> None:
    views = draw_views(ROWS, 64, SHIFTS, 3)
    made, heard = batches(log_mels=Table(), views=views), batches(views=views)
    for batch, other in zip(made.epoch(1), heard.epoch(1), strict=True):
        assert batch.waveforms is None
        assert batch.log_mels is not None
        assert other.waveforms is not None
        numbers = batch.log_mels[:, 0, 0].long()
        places, choices = numbers // len(views), numbers % len(views)
        assert [ROWS[place] for place in places.tolist()] == batch.rows.tolist()
        assert torch.equal(views.waveforms(Store(), places, choices), other.waveforms)  # type: ignore[arg-type]


def test_parts_are_the_batch_cut_in_pieces() -> None:
    cache = fill(Listener(), "logits")
    batch = next(iter(batches(batch_size=8, teacher=cache).epoch(1, {"tap"})))
    assert list(batch.parts(1)) == [batch]
    parts = list(batch.parts(3))
    assert [len(part) for part in parts] == [2, 3, 3]
    assert not any(part.whole for part in parts)
    assert {part.size for part in parts} == {8}
    for name in ("rows", "waveforms", "targets"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    for field in range(2):
        pieces = [part.teacher[field] for part in parts if part.teacher is not None]
        assert batch.teacher is not None
        assert torch.equal(torch.cat(pieces), batch.teacher[field])
        assert torch.equal(torch.cat([part.masks[field] for part in parts]), batch.masks[field])


def test_clips_without_a_label_count_for_nothing_in_the_classification_and_the_others_in_full() -> None:
    labels = LABELS.clone()
    labels[[2, 7, 0]] = -1
    batch = next(iter(batches(batch_size=8, labels=labels).epoch(1)))
    assert batch.labelled is not None
    known = labels[batch.rows] >= 0
    assert torch.equal(batch.labelled > 0, known)
    assert batch.labelled.mean().item() == pytest.approx(1)
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(logits[known], labels[batch.rows][known])
    torch.testing.assert_close(classification_loss(logits, batch.targets, batch.labelled), expected)
    start, in_parts = 0, torch.zeros(())
    for part in batch.parts(3):
        mine = logits[start : start + len(part)]
        in_parts += classification_loss(mine, part.targets, part.labelled) * len(part) / batch.size
        start += len(part)
    torch.testing.assert_close(in_parts, expected)


OTHERS = (1, 6, 8, 10)


def mixed(share: float = 0.5, **changes: object) -> TrainingBatches:
    """`batches` of four with clips without a label beside them."""
    views = draw_views(OTHERS, 64, SHIFTS, 4).some(2)
    beside = batches(rows=OTHERS, labels=torch.full((12,), -1), views=views)
    return batches(batch_size=4, beside=beside, beside_share=share, **changes)


def test_clips_without_labels_make_up_their_share_and_an_epoch_stays_once_through_the_others() -> None:
    for share, sizes, others in ((0.5, [4] * 4, 8), (0.2, [5, 5], 2), (0.75, [4] * 8, 24)):
        made = mixed(share)
        epoch = list(made.epoch(1))
        assert len(made) == len(epoch)
        assert [len(batch) for batch in epoch] == [batch.size for batch in epoch] == sizes
        known = [batch.labelled > 0 for batch in epoch if batch.labelled is not None]
        with_label = torch.cat([batch.rows[labelled] for batch, labelled in zip(epoch, known, strict=True)])
        without = torch.cat([batch.rows[~labelled] for batch, labelled in zip(epoch, known, strict=True)])
        assert sorted(with_label.tolist()) == sorted(ROWS)
        assert len(without) == others
        assert set(without.tolist()) <= set(OTHERS)


def test_a_pass_over_the_clips_without_labels_goes_on_from_epoch_to_epoch() -> None:
    drawn = [row for start in (0, 6, 12) for row in passes(OTHERS, 3, start, 6).tolist()]
    assert [sorted(drawn[start : start + 4]) for start in (0, 4, 8, 12)] == [list(OTHERS)] * 4
    assert passes(OTHERS, 3, 0, 18).tolist() == drawn
    assert drawn[:4] != drawn[4:8]
    heard = [
        row
        for epoch in (1, 2)
        for batch in mixed(0.2).epoch(epoch)
        if batch.labelled is not None
        for row in batch.rows[batch.labelled == 0].tolist()
    ]
    assert sorted(heard) == list(OTHERS)


def test_each_clip_of_a_mixed_batch_keeps_its_waveform_its_answer_and_its_target() -> None:
    cache = fill(Listener(), "logits")
    made = mixed(teacher=cache)
    assert made.beside is not None
    made = replace(made, beside=replace(made.beside, teacher=replace(cache, folder=None, tables={}, clips=len(OTHERS))))
    store = Store()
    for batch in made.epoch(1, {"tap", "logits"}):
        assert batch.waveforms is not None
        assert batch.labelled is not None
        assert batch.teacher is not None
        assert batch.labelled.mean().item() == pytest.approx(1)
        for waveform, row in zip(batch.waveforms, batch.rows.tolist(), strict=True):
            assert any(torch.equal(waveform, torch.roll(store.clips[row], by)) for by in range(64))
        known = batch.labelled > 0
        assert batch.targets.argmax(1)[known].tolist() == LABELS[batch.rows[known]].tolist()
        with torch.inference_mode():
            expected = Listener().eval()(batch.waveforms)
        torch.testing.assert_close(batch.teacher.logits, expected.logits)
        torch.testing.assert_close(batch.teacher.tap, expected.tap)


@pytest.mark.parametrize(("share", "count"), [(0.5, 2), (0.2, 3), (0.75, 4)])
def test_the_processes_share_a_mixed_batch_and_each_has_of_both(
    share: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = list(mixed(share).epoch(2))

    def epoch_of(rank: int) -> Sequence[Batch]:
        monkeypatch.setattr(processes, "share_of", lambda total: processes.part_of(total, rank, count))
        return list(mixed(share).epoch(2))

    for whole, *parts in zip(alone, *map(epoch_of, range(count)), strict=True):
        assert {part.size for part in parts} == {whole.size}
        for name in ("rows", "waveforms", "targets", "labelled"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        for each, together in zip(zip(*(part.masks for part in parts), strict=True), whole.masks, strict=True):
            assert torch.equal(torch.cat(each), together)
        if share == 0.5:
            assert all(part.labelled is not None and 0 < (part.labelled > 0).sum() < len(part) for part in parts)


def test_a_stage_without_views_hears_each_clip_shifted_anew() -> None:
    made = batches(views=FreshShifts(64, enabled=True))
    first, second = ([batch.waveforms for batch in made.epoch(number)] for number in (1, 2))
    assert all(batch is not None for batch in (*first, *second))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None)
    assert next(iter(made.epoch(1))).targets.ndim == 1


@pytest.mark.parametrize("views", [draw_views(ROWS, 64, SHIFTS, 3), FreshShifts(64, enabled=True)])
def test_the_shares_of_the_processes_are_the_batch_of_one(
    views: Views | FreshShifts, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = list(batches(views=views).epoch(1))

    def epoch_of(rank: int) -> Sequence[Batch]:
        monkeypatch.setattr(processes, "share_of", lambda total: processes.part_of(total, rank, 2))
        return list(batches(views=views).epoch(1))

    for whole, first, second in zip(alone, epoch_of(0), epoch_of(1), strict=True):
        assert first.size == second.size == whole.size == len(first) + len(second)
        for name in ("rows", "waveforms", "targets"):
            assert torch.equal(torch.cat([getattr(first, name), getattr(second, name)]), getattr(whole, name))
        for own, other, together in zip(first.masks, second.masks, whole.masks, strict=True):
            assert torch.equal(torch.cat([own, other]), together)


def test_batches_smaller_than_the_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_shares("student", 8, 4)
    monkeypatch.setattr(batches_module.processes, "count", lambda: 5)
    with pytest.raises(InputError, match=r"student: batches of 4 clips \(8 training clips in all\) are too few for 5"):
        check_shares("student", 8, 4)
    with pytest.raises(InputError, match=r"teacher\.batch_size"):
        check_shares("teacher", 8, 4)


def test_a_generator_of_its_own_is_seeded_as_all_are() -> None:
    seed_all(1, "student", 2)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=seeded(1, "student", 2)))


def test_batches_are_all_rows_in_random_order_in_sizes_that_differ_by_one() -> None:
    rows = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]
    torch.manual_seed(0)
    first = [batch.tolist() for batch in shuffled(rows, 3)]
    second = [batch.tolist() for batch in shuffled(rows, 3)]
    for drawn in (first, second):
        assert sorted(row for batch in drawn for row in batch) == rows
        assert sorted(map(len, drawn)) == [3, 4, 4]
    assert first != second


def test_random_numbers_follow_from_seed_and_place_alone() -> None:
    def drawn(seed: int, *names: str | int) -> list[float]:
        seed_all(seed, *names)
        return torch.rand(3).tolist()

    first = drawn(1, "student", 4)
    assert drawn(1, "student", 4) == first
    others = [drawn(2, "student", 4), drawn(1, "teacher", 4), drawn(1, "student", 5), drawn(1, "student")]
    assert first not in others
