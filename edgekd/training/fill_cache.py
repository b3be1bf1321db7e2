"""Asking the frozen teacher about every view of every training clip, once, into tables on disk.

A cache is a folder `teacher-...` in `files.caches.cache_folder()`, named by a hash of everything that decides its
numbers: the teacher's parameters and settings, the clips and their views, the precision, this format's version. So
another run, a resumed one, int8 training and the cells of a comparison find it again. It is filled in fixed batches, by
all the processes of a machine together, each batch by one of them, and what a kill or a damaged row leaves out is asked
again in the same ones (`row_table`). The first answers are asked at every opening and must agree: the hash cannot see
the code of a teacher of the user's own. With `auto`, the taps of all caches together take no more than `AUTO_SHARE` of
the free space and `AUTO_BYTES`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd import processes
from edgekd.config import DistillConfig
from edgekd.data.clip_store import ClipStore
from edgekd.errors import NO_SPACE, InputError
from edgekd.files.caches import cache_folder, locked
from edgekd.files.row_table import RowTable, crc_path
from edgekd.losses.terms import Need
from edgekd.models.build import teacher_front_end
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.models.teachers.ensemble import Ensemble
from edgekd.progress import Progress, silent
from edgekd.training.frozen_teacher import FrozenTeacher
from edgekd.training.teacher_cache import Answers, AveragedAnswers, TeacherCache
from edgekd.training.views import Views

FORMAT = 1
AUTO_SHARE, AUTO_BYTES = 0.1, 16 << 30
PROBES = 2  # answers asked at every opening
PROBE_TOLERANCE = 0.05  # of the largest magnitude; bfloat16 in batches of another size differs by 1 %

Present = Sequence[NDArray[np.bool_]]

Kept = tuple[Need, ...]
Tables = dict[Need, RowTable]

_FILES: dict[Need, tuple[str, str]] = {
    "logits": ("logits.f32", "<f4"),
    "embedding": ("embeddings.f16", "<f2"),
    "tap": ("taps.f16", "<f2"),
}
_TAPS = _FILES["tap"][0]
_HALF_MAX = float(torch.finfo(torch.float16).max)
_BATCH, _BATCH_CUDA = 16, 64
_FLUSH_SECONDS = 1.0  # what a kill can cost at most
_STAGE = "teacher outputs"


def answers_of(
    config: DistillConfig,
    teacher: Teacher,
    device: torch.device,
    store: ClipStore,
    views: Views,
    *,
    needs: Collection[Need],
    repeated: bool,
    progress: Progress = silent,
) -> Answers:
    """The answers of `teacher` as `fill_cache` has them; of several, each has a cache of its own, the one that it would
    have alone."""
    if not isinstance(teacher, Ensemble):
        frozen = FrozenTeacher(teacher, device)
        return fill_cache(config, frozen, store, views, needs=needs, repeated=repeated, progress=progress)
    caches: list[TeacherCache] = []
    for member, settings in zip(teacher.each(), config.teacher.members(), strict=True):
        alone = config.model_copy(update={"teacher": settings})
        frozen, own = FrozenTeacher(member, device), frozenset(needs) - ({"tap"} if caches else set())
        caches.append(fill_cache(alone, frozen, store, views, needs=own, repeated=repeated, progress=progress))
    return AveragedAnswers(tuple(caches))


def fill_cache(
    config: DistillConfig,
    teacher: FrozenTeacher,
    store: ClipStore,
    views: Views,
    *,
    needs: Collection[Need],
    repeated: bool,
    progress: Progress = silent,
) -> TeacherCache:
    """Ask `teacher` about every view of every training clip, as far as the cache of `config.teacher` has no answer yet.

    `needs`: what a loss needs of it; `repeated`: whether each view is heard more than once. Raises `InputError` for a
    folder that cannot be written, and for too little space, but for taps that `auto` would have kept.
    """
    clips = len(views.rows)
    if config.teacher.cache == "off":
        return TeacherCache(teacher, clips)
    questions = _Questions(
        teacher, store, views, teacher(_waveforms(store, views, range(min(PROBES, clips * len(views)))))
    )
    with processes.together():
        if processes.node().place > 0:
            return _help(questions)
        try:
            cache = _filled(config, questions, needs, repeated, progress)
        except processes.FORESEEN:
            processes.node().from_first(None)
            raise
        assert cache.folder is not None
        kept = tuple(cache.tables)
        present = [np.ones(questions.rows, dtype=bool)] * len(kept)
        processes.node().from_first(_Done(cache.folder, kept, present, cache.warning))
    return cache


# Filling


@dataclass(frozen=True)
class _Questions:
    """Who is asked about what, and the `first` answers."""

    teacher: FrozenTeacher
    store: ClipStore
    views: Views
    first: TeacherOutput

    @property
    def rows(self) -> int:
        return len(self.views.rows) * len(self.views)

    def open(
        self,
        folder: Path,
        kept: Kept,
        within: ExitStack,
        progress: Progress = silent,
        present: Present | None = None,
    ) -> Tables:
        """The tables in `folder` of what is `kept`, open as long as `within`; `present` as in `RowTable`, for each."""

        def table(number: int, need: Need) -> RowTable:
            shape, (name, dtype) = tuple(_part(self.first, need).shape[1:]), _FILES[need]
            known = None if present is None else present[number]
            return within.enter_context(RowTable(folder / name, self.rows, shape, dtype, progress, known))

        return {need: table(number, need) for number, need in enumerate(kept)}


@dataclass(frozen=True)
class _Work:
    """What the first process of a machine tells the others: fill, with me, what is not `present` in the tables of what
    is `kept`."""

    folder: Path
    kept: Kept
    present: Present


@dataclass(frozen=True)
class _Done(_Work):
    """And, in the end, that all is there."""

    warning: str


def _filled(
    config: DistillConfig, questions: _Questions, needs: Collection[Need], repeated: bool, progress: Progress
) -> TeacherCache:
    """Open the tables, fill them with the other processes of this machine, and say what is kept."""
    mode = config.teacher.cache
    tap_bytes = questions.rows * questions.first.tap[0].numel() * 2
    parent = cache_folder()
    folder = parent / f"teacher-{_key(config, questions)}"

    def fill(with_taps: bool, warning: str = "") -> TeacherCache:
        with ExitStack() as stack:
            stack.enter_context(locked(parent / f"{folder.name}.lock", lambda: progress(_STAGE, 0, questions.rows)))
            folder.mkdir(exist_ok=True)
            kept = _kept(questions, needs, with_taps)
            tables = questions.open(folder, kept, stack, progress)
            _begin(questions, tables)
            present = [table.present.copy() for table in tables.values()]
            processes.node().from_first(_Work(folder, kept, present))
            _fill(questions, tables, progress)
        return _cache(questions, folder, tables, warning)

    with_taps, warning = "tap" in needs and (mode == "full" or (mode == "auto" and repeated)), ""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if with_taps and mode == "auto":
            warning = _too_much(folder, tap_bytes)
            with_taps = not warning
        try:
            return fill(with_taps, warning)
        except OSError as failure:
            if not with_taps or failure.errno not in NO_SPACE:
                raise
            for path in (folder / _TAPS, crc_path(folder / _TAPS)):  # leave the user the space there is
                path.unlink(missing_ok=True)
            if mode == "full":
                raise
            with_taps = False
            return fill(with_taps, _anew(tap_bytes, f"there is no space for them in {parent}"))
    except OSError as failure:
        raise _refused(failure, parent, tap_bytes if with_taps else 0) from None


def _help(questions: _Questions) -> TeacherCache:
    """What the other processes of a machine do: fill their part of what the first one opens."""
    node = processes.node()
    while True:
        work: _Work | None = node.from_first(None)
        if work is None:
            raise processes.FailedElsewhere(1)
        with ExitStack() as stack:
            try:
                tables = questions.open(work.folder, work.kept, stack, present=work.present)
            except OSError as failure:
                if isinstance(work, _Done):
                    raise
                node.gathered(failure)  # where the first process waits for what each has filled
                continue
            if not isinstance(work, _Done):
                with suppress(*processes.FORESEEN):  # the first process hears of it, and says what follows
                    _fill(questions, tables, silent)
                continue
        return _cache(questions, work.folder, tables, work.warning)


def _cache(questions: _Questions, folder: Path, tables: Tables, warning: str) -> TeacherCache:
    values = {need: table.values for need, table in tables.items()}
    return TeacherCache(questions.teacher, len(questions.views.rows), folder, values, warning)


def _begin(questions: _Questions, tables: Tables) -> None:
    """Have the first answers in the tables, and none that do not agree with them."""
    first, probes = questions.first, len(questions.first.logits)
    if not all(_agree(table, _part(first, need)) for need, table in tables.items()):
        for table in tables.values():
            table.forget()
    _write({need: table for need, table in tables.items() if not table.present[:probes].all()}, 0, first)


def _fill(questions: _Questions, tables: Tables, progress: Progress) -> None:
    """Ask for what the tables lack, in batches that are the same each time, of which this process has its share."""
    each, node = list(tables.values()), processes.node()
    total, probes = questions.rows, len(questions.first.logits)
    size_text = f"{'full' if 'tap' in tables else 'logits'}, {sum(table.size for table in each) / 1e6:.1f} MB"
    lacking = ~np.logical_and.reduce([np.ones(total, dtype=bool), *(table.present for table in each)])
    size = _BATCH_CUDA if questions.teacher.device.type == "cuda" else _BATCH
    ranges = [range(start, min(start + size, total)) for start in range(probes, total, size)]
    own = [numbers for numbers in ranges if lacking[numbers].any()][node.place :: node.processes]
    done = total - sum(map(len, own))
    progress(_STAGE, done, total, kept=size_text)
    failure: Exception | None = None
    flushed = time.monotonic()
    try:
        for numbers in own:
            waveforms = _waveforms(questions.store, questions.views, numbers)
            lacks = {need: table for need, table in tables.items() if not table.present[numbers].all()}
            if list(lacks) == ["tap"]:
                _write_rows(lacks["tap"], numbers.start, questions.teacher.tap(waveforms))
            else:
                _write(lacks, numbers.start, questions.teacher(waveforms))
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                for table in each:
                    table.flush()
                flushed = time.monotonic()
            done += len(numbers)
            progress(_STAGE, done, total, kept=size_text)
        for table in each:
            table.flush()
    except processes.FORESEEN as failed:
        failure = failed
    # All of the machine's processes are through, and all know of it where one of them has failed.
    for reason in node.gathered(failure):
        if reason is not None:
            raise reason


def _write(tables: Tables, start: int, said: TeacherOutput) -> None:
    for need, table in tables.items():
        _write_rows(table, start, _part(said, need))


def _write_rows(table: RowTable, start: int, answers: Tensor) -> None:
    if table.values.dtype == np.float16:
        answers = answers.clamp(-_HALF_MAX, _HALF_MAX).half()
    table.write(start, answers.cpu().numpy())


def _part(said: TeacherOutput, need: Need) -> Tensor:
    """What is kept of an answer in the table of `need`."""
    part = getattr(said, need)
    assert isinstance(part, Tensor)
    return part


def _kept(questions: _Questions, needs: Collection[Need], taps: bool) -> Kept:
    """What there are tables of: logits whoever needs them, where the teacher gives any."""
    wanted: dict[Need, bool] = {
        "logits": questions.first.logits.numel() > 0,
        "embedding": "embedding" in needs,
        "tap": taps,
    }
    return tuple(need for need, is_wanted in wanted.items() if is_wanted)


def _waveforms(store: ClipStore, views: Views, rows: range) -> Tensor:
    """What the teacher hears for these rows of a table."""
    numbers, clips = torch.arange(rows.start, rows.stop), len(views.rows)
    return views.waveforms(store, numbers % clips, numbers // clips)


def _agree(table: RowTable, answers: Tensor) -> bool:
    """Whether the first rows of `table`, those that are there, are what the teacher says now."""
    present = table.present[: len(answers)]
    if not present.any():
        return True
    stored = table.values[: len(answers)][present].astype(np.float32)
    largest = float(np.finfo(table.values.dtype).max)
    now = answers.clamp(-largest, largest).cpu().numpy()[present]
    return bool(np.abs(stored - now).max() <= PROBE_TOLERANCE * np.abs(now).max())


# Whether, where and how much


def _too_much(folder: Path, needed: int) -> str:
    """Why `auto` does not keep `needed` bytes of taps in `folder`; empty where it does."""
    if (folder / _TAPS).is_file():  # a run that goes on does so in the mode it was begun in
        return ""
    others = sum(path.stat().st_size for path in folder.parent.glob(f"teacher-*/{_TAPS}"))
    allowed = min(AUTO_BYTES, int(AUTO_SHARE * (shutil.disk_usage(folder.parent).free + others)))
    if needed + others <= allowed:
        return ""
    return _anew(
        needed,
        f"with the {others / 1e6:.0f} MB of other caches that is more than {allowed / 1e6:.0f} MB, "
        f"{AUTO_SHARE:.0%} of the free space in {folder.parent} or {AUTO_BYTES >> 30} GiB",
    )


def _anew(needed: int, why: str) -> str:
    return (
        f"the teacher's taps ({needed / 1e6:.0f} MB) are not kept but computed for every batch: {why}. Delete old "
        "teacher-* folders there, or pass --teacher-cache full to keep them all the same."
    )


def _key(config: DistillConfig, questions: _Questions) -> str:
    """Hash of everything that decides the numbers of a cache, as far as it can be seen."""
    teacher, store, views = questions.teacher, questions.store, questions.views
    settings = {
        "format": FORMAT,
        "teacher": [config.teacher.name, type(teacher.module).__qualname__],
        "frontend": teacher_front_end(config),
        "precision": teacher.precision,
        "clips": [store.folder.name, *views.rows],
        "shapes": [list(answers.shape[1:]) for answers in questions.first[:2]],  # E follows from the parameters
    }
    digest = hashlib.sha256(json.dumps(settings).encode())
    drawn = [views.shifts, views.partners, views.partner_shifts, views.shares]
    if views.gains is not None:  # without them a cache is named as before there were any
        drawn.append(views.gains)
    network = [*teacher.module.named_parameters(), *teacher.module.named_buffers()]
    for name, tensor in [*((str(number), each) for number, each in enumerate(drawn)), *network]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:24]


def _refused(failure: OSError, folder: Path, tap_bytes: int) -> InputError:
    """The user's error for a cache that cannot be kept."""
    elsewhere = "set EDGEKD_CACHE_DIR to a folder on another disk"
    if failure.errno not in NO_SPACE:
        return InputError(
            f"{folder}: the teacher's answers cannot be kept ({failure.strerror}). Allow it, {elsewhere}, or pass "
            "--teacher-cache off."
        )
    free = shutil.disk_usage(folder).free / 1e6
    what = f"{tap_bytes / 1e6:.1f} MB of taps are" if tap_bytes else "the teacher's logits are"
    less = "logits" if tap_bytes else "off"
    return InputError(
        f"{folder}: no space left for the teacher cache: {what} to be kept, {free:.1f} MB are free. Make room, "
        f"{elsewhere}, or pass --teacher-cache {less} (to a run that was begun, with --resume)."
    )
