"""The statistics of a trained student's batch norms, computed anew from the training clips as they are.

While a student learns, its batch norms keep running averages over the last batches: of shifted, masked and mixed clips,
through weights that still moved, and of a few batches, so that where training happens to end moves the student. Here
the weights stand still, each training clip is heard once and unaltered, batches are normalised by themselves, and means
and variances are those of all values of all batches ("precise batch norm": Wu and Johnson 2021, "Rethinking 'Batch' in
BatchNorm", arXiv 2105.07576). What they were before has no part in it, so that doing it again changes nothing.

Means and sums of squares about them are put together batch by batch, then process by process, as `shared_layers` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgekd import processes
from edgekd.models.students.student import Student
from edgekd.models.weights import save_weights
from edgekd.progress import Progress
from edgekd.runs.run import Run, Stage
from edgekd.training.batches import TrainingBatches, batch_count, seeded, shuffled
from edgekd.training.shared_layers import BatchNorm
from edgekd.training.views import Views


def settle_norms(run: Run, stage: Stage, student: Student, batches: TrainingBatches, progress: Progress) -> bool:
    """Have the `student` that `stage` of `run` has trained, and its weights in the run folder, normalise as
    `training.norm_statistics` says; whether that changed anything."""
    if run.config.training.norm_statistics == "running" or not reestimate(student, batches, progress):
        return False
    processes.from_first(lambda: save_weights(run.weights(stage), student.state_dict()))
    return True


@torch.no_grad()
def reestimate(student: Student, batches: TrainingBatches, progress: Progress) -> bool:
    """Put the statistics of the labelled clips of `batches`, each as it is, into the batch norms of `student`, and
    leave that in eval mode; whether it has batch norms that learn any.

    Those of a student cut from a teacher do not: they are the teacher's.
    """
    norms = _learning(student)
    if not norms:
        return False
    views, rows = batches.views, batches.rows
    assert isinstance(views, Views)
    tracked = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    count, done = batch_count(len(rows), batches.batch_size), 0
    with _watched(norms) as moments:
        # In random order, since neighbours in the index are of one class, and would be normalised by it.
        for chosen in shuffled(rows, count, seeded(batches.seed, batches.stage, "norm statistics")):
            places = views.places(chosen)[processes.share_of(len(chosen))]
            waveforms = views.request(batches.clips, places, torch.zeros_like(places))()  # view 0 is the clip as it is
            with processes.batch(len(chosen)):
                student(waveforms)
            done += len(chosen)
            progress("norm statistics", done, len(rows))
    for norm, seen, before in zip(norms, moments, tracked, strict=True):
        seen.put_into(norm)
        if before is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.copy_(before)
    processes.spread(student)
    student.eval()
    return True


class _Moments:
    """Count, mean and sum of squares about it, `(C,)`, of all values that a batch norm was given by this process."""

    def __init__(self, norm: BatchNorm) -> None:
        self.count = 0
        self.mean = torch.zeros(norm.num_features, dtype=torch.float64, device=norm.get_buffer("running_mean").device)
        self.squares = torch.zeros_like(self.mean)

    def add(self, _norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Take in a batch `(B, C, ...)` on its way into the norm."""
        values = inputs[0].double().transpose(0, 1).flatten(1)
        count, mean = values.shape[1], values.mean(1)
        squares = (values - mean[:, None]).square().sum(1)
        total, apart = self.count + count, mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares + apart.square() * (self.count * count / total)
        self.count = total

    def put_into(self, norm: BatchNorm) -> None:
        """The mean and the (unbiased) variance of all processes, where any values have come."""
        count = processes.summed(torch.tensor(float(self.count), dtype=torch.float64, device=self.mean.device))
        if not count:
            return
        mean = processes.summed(self.mean * self.count) / count
        squares = processes.summed(self.squares + self.count * (self.mean - mean).square())
        norm.get_buffer("running_mean").copy_(mean)
        norm.get_buffer("running_var").copy_(squares / (count - 1).clamp_min(1))


def _learning(student: Student) -> list[BatchNorm]:
    """The batch norms that learn statistics when `student` is trained."""
    student.train()
    found = [
        each for each in student.modules() if isinstance(each, BatchNorm) and each.training and each.track_running_stats
    ]
    student.eval()
    return found


@contextmanager
def _watched(norms: list[BatchNorm]) -> Iterator[list[_Moments]]:
    """Within it, `norms` normalise by the batch and what enters each is counted."""
    moments = [_Moments(norm) for norm in norms]
    handles = [norm.register_forward_pre_hook(each.add) for norm, each in zip(norms, moments, strict=True)]
    for norm in norms:
        norm.train()
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()
