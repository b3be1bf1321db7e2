"""The teachers by name. A new one is a module beside this file, a function and a line in `TEACHERS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekd.config import FrontendConfig
    from edgekd.models.teachers.base import Teacher


@dataclass(frozen=True)
class TeacherSpec:
    """What is known about a teacher before it is built."""

    summary: str
    build: Callable[[int, int, FrontendConfig], Teacher]
    """`(num_classes, sample_rate in Hz, front end of the run) -> Teacher`; imports its module when called."""
    needs_weights: bool
    """Whether it is of use only with published weights; the others are trained from scratch."""
    own_rate: int | None
    """The rate it works at, Hz, whatever the data's; None: the data's own."""
    licence: str
    """Of the weights."""
    weights_from: str
    """Where to get the weights, for a person to read."""


def _cnn14(num_classes: int, sample_rate: int, _: FrontendConfig) -> Teacher:
    from edgekd.models.teachers.panns import Cnn14

    return Cnn14(num_classes, sample_rate)


def _resnet38(num_classes: int, sample_rate: int, _: FrontendConfig) -> Teacher:
    from edgekd.models.teachers.panns import ResNet38

    return ResNet38(num_classes, sample_rate)


def _mobilenetv1(num_classes: int, sample_rate: int, _: FrontendConfig) -> Teacher:
    from edgekd.models.teachers.panns import MobileNetV1

    return MobileNetV1(num_classes, sample_rate)


def _yamnet(num_classes: int, sample_rate: int, _: FrontendConfig) -> Teacher:
    from edgekd.models.teachers.yamnet import YamNet

    return YamNet(num_classes, sample_rate)


def _convnet(num_classes: int, sample_rate: int, frontend: FrontendConfig) -> Teacher:
    from edgekd.models.teachers.convnet import ConvNet

    return ConvNet(num_classes, sample_rate, frontend)


_PANNS_RECORD = "https://zenodo.org/records/3987831"

TEACHERS: dict[str, TeacherSpec] = {
    "cnn14": TeacherSpec(
        summary="PANNs CNN14, 80 M parameters, AudioSet; the SSATKD paper's main teacher",
        build=_cnn14,
        needs_weights=True,
        own_rate=32_000,
        licence="CC BY 4.0",
        weights_from=f"Cnn14_mAP=0.431.pth from {_PANNS_RECORD}",
    ),
    "resnet38": TeacherSpec(
        summary="PANNs ResNet38, 73 M parameters, AudioSet",
        build=_resnet38,
        needs_weights=True,
        own_rate=32_000,
        licence="CC BY 4.0",
        weights_from=f"ResNet38_mAP=0.434.pth from {_PANNS_RECORD}",
    ),
    "mobilenetv1": TeacherSpec(
        summary="PANNs MobileNetV1, 4.3 M parameters, AudioSet",
        build=_mobilenetv1,
        needs_weights=True,
        own_rate=32_000,
        licence="CC BY 4.0",
        weights_from=f"MobileNetV1_mAP=0.389.pth from {_PANNS_RECORD}",
    ),
    "yamnet": TeacherSpec(
        summary="YAMNet, 3.2 M parameters, AudioSet; quick on a CPU",
        build=_yamnet,
        needs_weights=True,
        own_rate=16_000,
        licence="Apache-2.0",
        weights_from=(
            "https://github.com/tensorflow/models/tree/master/research/audioset/yamnet, converted to an .npz with the "
            "names listed in edgekd/models/teachers/yamnet.py"
        ),
    ),
    "convnet": TeacherSpec(
        summary="the small student three times as wide, 0.25 M parameters, trained on your own data (adaptation: full)",
        build=_convnet,
        needs_weights=False,
        own_rate=None,
        licence="your own",
        weights_from="none needed: it is trained from scratch",
    ),
}
