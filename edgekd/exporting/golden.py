"""Golden examples: real clips that travel with a bundle, and what its classifier must answer.

They are how a device shows that it computes what was exported (`verify` of the on-device runner), and how a bundle is
checked before it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.device.runner.answers import same_answers
from edgekd.errors import GateError
from edgekd.exporting.manifest import Reject
from edgekd.exporting.runtimes.runtime import Classify
from edgekd.exporting.targets import Precision, Tolerance
from edgekd.exporting.verify import Probabilities, split_known
from edgekd.runs.data import RunData
from edgekd.task import THRESHOLD, Activation, Task

GOLDEN = "golden.npz"
GOLDEN_CLIPS = 12
GOLDEN_CANDIDATES = 48  # test clips they are chosen from


@dataclass(frozen=True)
class GoldenExamples:
    """Real clips and what the model must answer.

    `waveform` int16 `(N, S)` and `scale` float32 `(N,)`: sample values are `waveform * scale / 32767`;
    `probabilities` float32 `(N, K)`: the expected output of the exported model for exactly those values, and
    `float_probabilities` that of the float student, which is the same where the model is one; `labels` int64 `(N,)`, or
    memberships `(N, K)` where clips may be of several classes; `known` and `float_known` float32 `(N,)`, where the
    model tells how familiar a clip is.
    """

    waveform: NDArray[np.int16]
    scale: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    float_probabilities: NDArray[np.float32] | None = None
    known: NDArray[np.float32] | None = None
    float_known: NDArray[np.float32] | None = None

    @classmethod
    def read(cls, folder: Path) -> GoldenExamples:
        """Those of the bundle in `folder`."""
        with np.load(folder / GOLDEN, allow_pickle=False) as arrays:
            return cls(**arrays)

    def write(self, folder: Path) -> None:
        """Into the bundle in `folder`."""
        np.savez_compressed(folder / GOLDEN, **self.arrays())

    def arrays(self) -> dict[str, Any]:
        """What `golden.npz` holds, by name."""
        floats = self.probabilities if self.float_probabilities is None else self.float_probabilities
        float_known = self.known if self.float_known is None else self.float_known
        arrays = {**vars(self), "float_probabilities": floats, "float_known": float_known}
        return {name: array for name, array in arrays.items() if array is not None}

    def clips(self) -> NDArray[np.float32]:
        """The sample values `(N, S)`."""
        return self.waveform.astype(np.float32) * (self.scale[:, None] / np.float32(32767))

    def expected(self, precision: Precision) -> NDArray[np.float32]:
        """The probabilities `(N, K)` that a model of this precision is held to, as the on-device runner holds it."""
        answers: NDArray[np.float32] = self.arrays()["probabilities" if precision == "int8" else "float_probabilities"]
        return answers

    def expected_known(self, precision: Precision) -> NDArray[np.float32] | None:
        """`known (N,)` that it is held to; None where the model does not tell."""
        found: NDArray[np.float32] | None = self.arrays().get("known" if precision == "int8" else "float_known")
        return found


def choose_golden(
    trained: Probabilities,
    float_student: Probabilities,
    data: RunData,
    tolerance: Tolerance,
    *,
    full_scale: bool = False,
) -> GoldenExamples:
    """Test clips, classes in turn, rounded to int16, with what the students say of the rounded clips.

    A clip whose two best classes are nearer than twice the tolerance may rightly fall to either of them on a device,
    and so may an answer to a class that is as near to its threshold. Such clips come last, the least ambiguous first:
    by what `trained` says of the clips as they are, which it may have been asked before. Each
    clip is rounded at a scale of its own or, with `full_scale`, as a 16-bit converter does.
    """
    by_class: dict[int, list[int]] = {}
    for row in data.split.test:
        by_class.setdefault(data.index.clips[row].label, []).append(row)
    turns = [rows[turn] for turn in range(GOLDEN_CANDIDATES) for rows in by_class.values() if turn < len(rows)]
    rows = turns[:GOLDEN_CANDIDATES]
    waveforms = data.waveforms(rows)
    classes = len(data.index.classes)
    answers = np.concatenate([trained(batch).numpy() for batch in waveforms.split(GOLDEN_CLIPS)])
    margin = np.minimum(_margins(answers[:, :classes], data.index.task), 2 * tolerance.probability)
    chosen = np.argsort(-margin, kind="stable")[:GOLDEN_CLIPS]
    clips = waveforms.numpy()[chosen]
    scale = np.maximum(np.abs(clips).max(axis=1), 1e-9).astype(np.float32)
    if full_scale:
        scale[:] = 32767 / 32768  # a step is 1 / 32768
    integers = np.clip(np.round(clips / scale[:, None] * 32767), -32768, 32767).astype(np.int16)
    exact = torch.from_numpy(integers * scale[:, None] / np.float32(32767))
    (said, known), (float_said, float_known) = (
        split_known(each(exact).numpy(), classes) for each in (trained, float_student)
    )
    return GoldenExamples(
        waveform=integers,
        scale=scale,
        probabilities=said,
        labels=data.at([rows[number] for number in chosen]).labels,
        float_probabilities=float_said,
        known=known,
        float_known=float_known,
    )


def _margins(probabilities: NDArray[np.float32], task: Task) -> NDArray[np.float32]:
    """By how much the probabilities `(N, K)` would have to change for another answer, twice, `(N,)`."""
    if task.several:
        return 2 * np.abs(probabilities - np.float32(THRESHOLD)).min(axis=1)
    second, best = np.sort(probabilities, axis=1)[:, -2:].T
    return best - second


def check_golden(
    classify: Classify,
    golden: GoldenExamples,
    precision: Precision,
    tolerance: Tolerance,
    activation: Activation = "softmax",
    reject: Reject | None = None,
) -> None:
    """Raise `GateError` with the figures where a bundle's classifier does not get the golden probabilities, or with
    `reject` not the golden `known`."""
    expected = golden.expected(precision)
    scores, known = split_known(classify(golden.clips()), expected.shape[1])
    agreement = same_answers(scores, expected, activation)
    difference = float(np.abs(scores - expected).max())
    if not (agreement >= tolerance.agreement and difference <= tolerance.probability):  # NaN refuses too
        raise GateError(
            f"The bundle's runner does not get the golden probabilities: largest difference {difference:.3g}"
            f" (at most {tolerance.probability:g}), agreement {agreement:.1%} (at least {tolerance.agreement:.1%})."
            " No bundle was written."
        )
    wanted = golden.expected_known(precision)
    if reject is None or wanted is None:
        return
    apart = np.inf if known is None else float(np.abs(known - wanted).max()) / reject.span
    if not apart <= tolerance.probability:
        raise GateError(
            f"The bundle's runner does not get the golden scores of how familiar clips are: largest difference"
            f" {apart:.3g} of their range (at most {tolerance.probability:g}). No bundle was written."
        )
