"""What the classes of a data set are to each other: each clip is of one of them, or of any of them at once.

What follows from that is asked of a `Task`: how logits become probabilities, what a probability means, by what figure
a model is judged. Losses (`edgekd.losses.response`) and scores (`edgekd.scoring`) have a form for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

Labels = Literal["single", "multi"]
Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Task:
    """One of `SINGLE` and `MULTI`.

    `measure`: the figure by which checkpoints are chosen and models compared, as `metrics.csv` and `report.json` name
    it; `title`: as people read it.
    """

    labels: Labels
    activation: Activation
    measure: Literal["accuracy", "mean_average_precision"]
    title: str

    @property
    def several(self) -> bool:
        """Whether a clip may be of several classes, or of none."""
        return self.labels == "multi"

    @property
    def column(self) -> str:
        """The column of `metrics.csv` that has the measure of the validation side."""
        return f"validation_{self.measure}"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities of `logits (B, K)`: shares of one, or each for itself."""
        return logits.sigmoid() if self.several else logits.softmax(dim=1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """What gives these probabilities `(B, K)` again."""
        least = 1.1754943508222875e-38  # the smallest normal float32: a probability of 0 has no logarithm
        if not self.several:
            return probabilities.clamp(min=least).log()
        return probabilities.clamp(min=least).log() - (1 - probabilities).clamp(min=least).log()

    def sureness(self, logits: Tensor) -> Tensor:
        """How sure an answer is: the probability of its best class, `(B,)`; where each class is answered for itself,
        that of what is answered, yes or no, `(B, K)`."""
        shares = self.probabilities(logits)
        return (shares - 0.5).abs() + 0.5 if self.several else shares.amax(dim=1)


SINGLE = Task("single", "softmax", "accuracy", "accuracy")
MULTI = Task("multi", "sigmoid", "mean_average_precision", "mAP")
TASKS: dict[str, Task] = {task.labels: task for task in (SINGLE, MULTI)}
BY_ACTIVATION: dict[str, Task] = {task.activation: task for task in (SINGLE, MULTI)}
THRESHOLD = 0.5  # from which probability a class is answered where nobody chose another


def task_of(labels: Tensor | npt.NDArray[np.int64]) -> Task:
    """Of clips with one class each, `(N,)`, or with 1 for each class that they are of, `(N, K)`."""
    return MULTI if labels.ndim == 2 else SINGLE
