"""The graphs of a bundle for windows that overlap, and whether they say what its own graph says.

They ship where they agree with it on real audio; where they do not, the bundle has none, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekd.device.runner.answers import same_answers
from edgekd.device.runner.log_mel import LogMel
from edgekd.device.runner.steps import StepGraphs
from edgekd.exporting.deployable import Deployable
from edgekd.exporting.graph import Form, onnx_of
from edgekd.exporting.manifest import Check, Classifier, StepMap, StepPart, Steps
from edgekd.exporting.step_graphs import HOPS, step_graphs
from edgekd.exporting.targets import Target
from edgekd.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.exporting.verify import Probabilities
    from edgekd.quantization.fake_quant import FlavourName

SECONDS = 600  # of real audio that the windows of the gate are cut from
_END = "step-end.onnx"


@dataclass(frozen=True)
class Stepped:
    """What a bundle has for windows that overlap: the section of its manifest, its files, and how that was found."""

    check: Check
    described: Steps | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def stepped(
    deployable: Deployable,
    classifier: Classifier,
    flavour: FlavourName,
    target: Target,
    shipped: Probabilities,
    clips: torch.Tensor,
    progress: Progress,
) -> Stepped:
    """The graphs of `deployable` for windows that overlap, compared with `shipped`, its own graph, on `clips (N, S)`
    laid end to end."""
    by, precision = "overlapping windows in steps", deployable.precision
    told = classifier.model_dump(mode="json")
    log_mel = LogMel(**told["frontend"], sample_rate=classifier.sample_rate, gain=classifier.gain)
    model = onnx_of(deployable, flavour, Form(target.opset, "external", "dynamic"))
    graphs = step_graphs(model, log_mel, classifier.clip_samples)
    names = [f"step-{number}.onnx" for number in range(1, len(graphs.parts) + 1)]
    parts = tuple(
        StepPart(
            file=name,
            lead=part.lead,
            maps=tuple(
                StepMap(columns=m.columns, stride=m.stride, left=m.left, right=m.right, reach=m.reach)
                for m in part.maps
            ),
        )
        for name, part in zip(names, graphs.parts, strict=True)
    )
    described = Steps(parts=parts, end=_END)
    files = {**{name: part.graph for name, part in zip(names, graphs.parts, strict=True)}, _END: graphs.end}
    figures = compared(described, files, classifier, target, shipped, clips, progress)
    agrees = figures["agreement"] >= target.tolerance.agreement
    if agrees and figures["largest_difference"] <= target.tolerance.probability:
        return Stepped(Check(by=by, precision=precision, figures=figures), described, files)
    why = (
        f"they are computed whole: {figures['agreement']:.1%} same class, largest difference"
        f" {figures['largest_difference']:.3g} on {figures['windows']} windows of real audio"
    )
    return Stepped(Check(by=by, precision=precision, not_run=why))


def compared(
    described: Steps,
    files: Mapping[str, bytes],
    classifier: Classifier,
    target: Target,
    shipped: Probabilities,
    clips: torch.Tensor,
    progress: Progress,
) -> dict[str, Any]:
    """How the scores of windows of `clips (N, S)` laid end to end differ from those of `shipped`, at three hops: the
    `windows`, `seconds` of audio, `hops_samples`, `agreement` and the `largest_difference` of any probability."""
    sound = clips.reshape(-1).numpy()
    samples = classifier.clip_samples
    with TemporaryDirectory() as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        told: dict[str, Any] = {"steps": described.model_dump(), "classifier": classifier.model_dump(mode="json")}
        graphs = StepGraphs(Path(scratch), told["steps"], told["classifier"], target.opset, threads=1)
        hops = _hops(samples, [graphs.step_samples * each for each in accumulate(graphs.strides, mul, initial=1)])
        least = hops[0]
        starts = range(0, len(sound) - samples + 1, least)
        whole = _whole(sound, starts, samples, shipped, progress)
        found, expected = [], []
        for hop in hops:
            steps, taken = graphs.of_signal(), range(0, len(starts), hop // least)
            for number in taken:
                steps.ask(starts[number], sound[starts[number] : starts[number] + samples])
                found.append(steps.take())
            expected.append(whole[taken.start : taken.stop : taken.step])
    scores, answers = np.concatenate(found), np.concatenate(expected)
    difference = float(np.abs(scores - answers).max())
    return {
        "windows": len(scores),
        "seconds": round(len(sound) / classifier.sample_rate, 3),
        "hops_samples": ", ".join(map(str, hops)),
        "agreement": same_answers(scores, answers, classifier.activation),
        "largest_difference": difference if np.isfinite(difference) else float("inf"),
    }


def _hops(samples: int, periods: Sequence[int]) -> list[int]:
    """Three hops, multiples of the first, for windows of so many samples. At the first they share columns of the
    largest of `periods` that is shorter than a window: with the window before, or where it is too long for that, with
    one a few hops before."""
    period = max((each for each in periods if each < samples), default=min(periods))
    parts = period // periods[0]
    shares = [each for each in range(1, parts + 1) if parts % each == 0]
    share = next((each for each in shares if 4 * period <= each * samples), parts)
    least = period // share * (max(1, round(samples / (HOPS[0] * period))) if share == 1 else 1)
    return [least * times for times in (1, HOPS[0] // HOPS[1], HOPS[0] // 2)]


def _whole(
    sound: NDArray[np.float32], starts: Sequence[int], samples: int, shipped: Probabilities, progress: Progress
) -> NDArray[np.float32]:
    """What the whole graph says of the windows that begin at `starts`: `(windows, K)`."""
    found = []
    for done in range(0, len(starts), 8):
        progress("windows", done, len(starts))
        batch = np.stack([sound[start : start + samples] for start in starts[done : done + 8]])
        found.append(shipped(torch.from_numpy(batch)).numpy())
    progress("windows", len(starts), len(starts))
    return np.concatenate(found)
