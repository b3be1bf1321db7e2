"""The teacher of a run that names none: the best whose weights are at hand, else one that is trained on the data alone.

Nothing is downloaded unasked. What was chosen is said in the first line, with what would be better and how to get it.
"""

from __future__ import annotations

from importlib.util import find_spec
from shlex import quote

from edgekd.config import DistillConfig, parse
from edgekd.losses.terms import TERMS, needs_teacher
from edgekd.models.build import teachers_of
from edgekd.models.students.names import cut_of
from edgekd.models.teachers.table import fetched_weights

BEST = ("yamnet", "cnn14", "resnet38", "mobilenetv1")
"""Those that have heard AudioSet. YAMNet is first, for a student can be cut from it; the others by accuracy there."""
FROM_NOTHING = "convnet"
LOWEST_RATE = 16_000  # Hz; below it clips hold little of what these have heard
READERS = {"yamnet": ("h5py", "pip install 'edgekd[yamnet]'")}  # what reads a published file, beside torch


def with_default_teacher(config: DistillConfig) -> tuple[DistillConfig, str | None]:
    """`config` with a teacher where it names none and needs one, and a line that says which and why; None where it is
    the user's choice.

    Weights that are named say whose they are. Else it is the first of `BEST` that `edgekd teachers fetch` has got, or
    that the student is cut from; or a small network that is trained in full.
    """
    said = config.teacher.model_fields_set
    if "name" in said or not needs_teacher(term for term in config.loss.terms if term in TERMS):
        return config, None
    weights = config.teacher.weights
    if weights is not None:
        known = teachers_of(weights) if weights.is_file() else []
        if not known:
            return config, None  # refused with what it takes
        return _taught_by(config, known[0]), f"Teacher: {known[0]}, as the weights {quote(str(weights))} are."
    rate = config.data.sample_rate if "sample_rate" in config.data.model_fields_set else LOWEST_RATE
    cut = cut_of(config.student)
    first = [cut.teacher] if cut is not None and cut.teacher in BEST else []
    at_hand = [name for name in (*first, *BEST) if fetched_weights(name) is not None]
    readable = [name for name in at_hand if name not in READERS or find_spec(READERS[name][0]) is not None]
    chosen = readable[0] if readable and rate >= LOWEST_RATE else FROM_NOTHING
    return _taught_by(config, chosen), f"Teacher: {_why(chosen, at_hand, rate)}"


def _taught_by(config: DistillConfig, name: str) -> DistillConfig:
    values = config.model_dump(mode="json", exclude_unset=True)
    teacher = values.setdefault("teacher", {})
    teacher["name"] = name
    if name == FROM_NOTHING:
        teacher.setdefault("adaptation", "full")
    return parse(DistillConfig, values, "settings")


def _why(chosen: str, at_hand: list[str], rate: int) -> str:
    best = BEST[0]
    if chosen == best:
        return f"{chosen}, the best whose weights are at hand (edgekd teachers lists others for --teacher)."
    reader, install = READERS[best]
    has = best in at_hand and find_spec(reader) is None
    better = f"{install} (its weights are here)" if has else f"edgekd teachers fetch {best} ({install} to read it)"
    if chosen != FROM_NOTHING:
        return f"{chosen}, the best whose weights are at hand. {best} gives better students: {better}."
    if rate < LOWEST_RATE:
        return (
            f"{chosen}, trained in full on your data alone: what others have heard is mostly above the {rate // 2} Hz "
            f"that clips at {rate} Hz hold. With a higher --sample-rate one that has heard AudioSet may teach more."
        )
    return (
        f"{chosen}, trained in full on your data alone, for no published weights are at hand. One that has heard "
        f"AudioSet teaches more: {better}."
    )
