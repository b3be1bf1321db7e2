"""How a run's students tell the unknown: the score is fitted, and its threshold chosen, when a bundle is made.

Means and covariance of a Mahalanobis score are those of the training side, as it is heard without augmentation. The
threshold is the highest that rejects no more than a share of the *validation* side, of which training has seen nothing:
of what is unknown there are no examples to weigh against. int8 training moves the weights, so each student is fitted
and measured by itself, and what the float one says is shifted to have the same threshold.

A run that was told to reject also does so with a student that is trained later (`fit_answering`).

    RUN/reject.json                which score, and the share (`kept_rejection`)
    RUN/student/known.npz          what was fitted and chosen for a student; it goes with the student that it is of
    RUN/int8/known.npz
"""

from __future__ import annotations

import copy
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgekd import processes
from edgekd.config import parse
from edgekd.errors import InputError, UsageError
from edgekd.exporting.deployable import Deployable, deployable_of
from edgekd.exporting.kept_rejection import AGAIN, SETTING, Rejection, kept_rejection
from edgekd.exporting.known import KnownScore
from edgekd.exporting.manifest import Reject
from edgekd.exporting.runtimes.onnxruntime import OnnxRuntime
from edgekd.exporting.targets import Precision
from edgekd.files.whole import write_bytes, write_json
from edgekd.models.students.student import Student
from edgekd.progress import Progress, silent
from edgekd.quantization.fake_quant import FlavourName, set_flavour
from edgekd.quantization.int8_student import settings_file
from edgekd.runs.data import RunData
from edgekd.runs.run import Run, Stage
from edgekd.runs.thresholds import temperature_of
from edgekd.scoring.familiarity import Gaussians, known_threshold

FITTED = "known.npz"
_BATCH = 32
_STAGES: dict[Precision, Stage] = {"int8": "int8", "fp32": "student"}


class Outputs(NamedTuple):
    """What a student makes of clips: `logits (N, K)`, and `embeddings (N, D)` where it has such."""

    logits: Tensor
    embeddings: Tensor | None


@dataclass(frozen=True)
class Fitted:
    """What tells the unknown for one student."""

    known: KnownScore
    reject: Reject


@torch.no_grad()
def outputs_on(
    student: Student, data: RunData, rows: Sequence[int], progress: Progress = silent, stage: str = "known"
) -> Outputs:
    """What `student`, which is on the CPU and left as it is, makes of the clips in `rows`."""
    heard = copy.deepcopy(student).eval()
    if heard.embedding_layer is not None:
        heard.give_embedding()
    logits, embeddings = [], []
    for start in range(0, len(rows), _BATCH):
        output = heard(data.waveforms(rows[start : start + _BATCH]))
        logits.append(output.logits.float())
        embeddings.append(output.embedding)
        progress(stage, min(start + _BATCH, len(rows)), len(rows))
    return Outputs(torch.cat(logits), torch.cat(embeddings).float() if heard.embedding_layer is not None else None)


def fit(student: Student, rejection: Rejection, data: RunData, progress: Progress = silent) -> Fitted:
    """The score of `student` and its threshold, from the training and the validation side of `data`.

    Raises `UsageError` for a Mahalanobis score of a student without an embedding.
    """
    gaussians = None
    if rejection.score == "mahalanobis":
        if student.task.several:
            raise UsageError(
                "--reject mahalanobis: a clip may be of several classes, so none is a place to be far from. Next:"
                " --reject energy."
            )
        if student.embedding_layer is None:
            raise UsageError(
                f"Student '{student.name}' has no embedding to take distances of: its logits are not what one nn.Linear"
                " makes of it. Next: --reject energy."
            )
        train = data.side("train")
        embeddings = outputs_on(student, data, train.rows, progress, "known: training side").embeddings
        assert embeddings is not None
        gaussians = Gaussians.fit(embeddings.numpy(), train.labels, len(data.index.classes))
    known = KnownScore(rejection.score, gaussians, independent=student.task.several)
    told = outputs_on(student, data, data.split.validation, progress, "known: validation side")
    scores = known.of(told.logits, student.task.probabilities(told.logits), told.embeddings).numpy()
    reject = Reject(
        score=rejection.score,
        threshold=known_threshold(scores, rejection.share),
        span=max(float(np.ptp(scores)), 1e-6),
        share=rejection.share,
        clips=len(scores),
        shrinkage=None if gaussians is None else gaussians.shrinkage,
    )
    return Fitted(known, reject)


def fits(
    deployables: Mapping[Precision, Deployable],
    rejection: Rejection,
    data: RunData,
    flavour: FlavourName,
    progress: Progress = silent,
) -> dict[Stage, Fitted]:
    """What tells the unknown for each student that `deployables` are of, by its stage. Raises as `fit` does."""
    found: dict[Stage, Fitted] = {}
    for each in deployables.values():
        if each.stage not in found:
            found[each.stage] = fit(as_it_computes(each, flavour), rejection, data, progress)
    return found


def rejecting(
    deployables: Mapping[Precision, Deployable], found: Mapping[Stage, Fitted]
) -> dict[Precision, Deployable]:
    """`deployables`, the first the one that ships, telling the unknown with its threshold."""
    first = found[next(iter(deployables.values())).stage].reject
    ready = {}
    for precision, each in deployables.items():
        own = found[each.stage]
        ready[precision] = each.rejecting(replace(own.known, shift=first.threshold - own.reject.threshold), first)
    return ready


def keep_rejection(run: Run, rejection: Rejection | None, found: Mapping[Stage, Fitted]) -> None:
    """Have `run` reject by what was `found` for its students as they are; by None, nothing. What another student was
    told before by another score or share is forgotten."""
    if rejection is None or rejection != _kept_before(run):
        forget_rejection(run)
    if rejection is None:
        return
    write_json(run.folder / SETTING, rejection.model_dump(mode="json"))
    for stage, fitted in found.items():
        _keep(run, stage, fitted)


def fit_answering(run: Run, data: RunData | None = None, progress: Progress = silent) -> None:
    """Have the student that answers for a `run` (its int8 one, else its float one) reject the unknown where the run
    does: it is fitted where nothing has been found of it as it is now, since it was trained later or never exported.
    `data`: the run's, else opened. Several processes call it together."""

    def unfitted() -> Precision | None:
        precision = next((each for each, stage in _STAGES.items() if run.finished(stage)), None)
        if _kept_before(run) is None or precision is None or _is_fitted(run, _STAGES[precision]):
            return None
        return precision

    precision = processes.from_first(unfitted)
    if precision is None:
        return
    opened = data or run.open_data(progress)

    def fit_it() -> None:
        rejection = _kept_before(run)
        assert rejection is not None
        student = as_it_computes(deployable_of(run, precision), OnnxRuntime.flavour)
        _keep(run, _STAGES[precision], fit(student, rejection, opened, progress))

    processes.from_first(fit_it)


def forget_rejection(run: Run) -> None:
    """Have `run` reject nothing."""
    for path in (run.folder / SETTING, *(run.folder / stage / FITTED for stage in ("student", "int8"))):
        if path.is_file():  # of a run that cannot be written to, nothing need be deleted
            path.unlink()


def kept_fit(run: Run, stage: Stage) -> Fitted | None:
    """What was found for the student of a stage; None where nothing was.

    Raises `InputError` for a damaged file, and for one of another student, as before its temperature was chosen anew.
    """
    path = run.folder / stage / FITTED
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        if values["source"].item() != _source(run, stage):
            raise ValueError("of another student than the run's now")
        gaussians = None
        if "means" in values:
            gaussians = Gaussians(
                values["means"], values["factors"], float(values["rest"]), float(values["reject.shrinkage"])
            )
        told: dict[str, Any] = {
            name.removeprefix("reject."): array.item() for name, array in values.items() if name.startswith("reject.")
        }
        reject = parse(Reject, told, str(path))
        return Fitted(KnownScore(reject.score, gaussians, independent=run.task.several), reject)
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, UsageError) as failure:
        raise InputError(f"{path}: cannot be used: {str(failure)[:200]}. {AGAIN}") from None


def as_it_computes(deployable: Deployable, flavour: FlavourName) -> Student:
    """The student of `deployable`, an int8 one rounded as a runtime of `flavour` rounds."""
    if deployable.network is None:
        return deployable.student
    student = copy.deepcopy(deployable.student)
    student.network = copy.deepcopy(deployable.network).eval()
    set_flavour(student.network, flavour)
    return student


def _is_fitted(run: Run, stage: Stage) -> bool:
    with suppress(InputError):
        return kept_fit(run, stage) is not None
    return False


def _kept_before(run: Run) -> Rejection | None:
    with suppress(InputError):  # damaged, it is replaced
        return kept_rejection(run)
    return None


def _source(run: Run, stage: Stage) -> str:
    """A digest of what a student is: its weights, how they are rounded, and its temperature. Where its data are, and
    how it was trained, is no part of it."""
    digest = hashlib.sha256(repr(temperature_of(run, stage)).encode())
    digest.update(run.weights(stage).read_bytes())
    if stage == "int8" and settings_file(run).is_file():
        digest.update(settings_file(run).read_bytes())
    return digest.hexdigest()


def _keep(run: Run, stage: Stage, fitted: Fitted) -> None:
    arrays: dict[str, Any] = {
        f"reject.{name}": np.array(value) for name, value in fitted.reject.model_dump(exclude_none=True).items()
    }
    arrays["source"] = np.array(_source(run, stage))
    gaussians = fitted.known.gaussians
    if gaussians is not None:
        arrays |= {"means": gaussians.means, "factors": gaussians.factors, "rest": np.array(gaussians.rest)}
    held = io.BytesIO()
    np.savez(held, **arrays)
    write_bytes(run.folder / stage / FITTED, held.getvalue())
