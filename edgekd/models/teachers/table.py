"""The teachers by name. A new one is a module beside this file, a function and a row in `TEACHERS`.

The digests of weights are the publishers': Zenodo's for PANNs (with the sha256 of CNN14 as those who downloaded it
publish it), Google's file for YAMNet, the Git LFS objects of Hugging Face at a fixed revision for HuBERT and wav2vec.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import UsageError, unknown_name
from edgekd.models.download import WeightsFile, teachers_folder

if TYPE_CHECKING:
    from edgekd.config import FrontendConfig
    from edgekd.models.teachers.base import Teacher


@dataclass(frozen=True)
class TeacherSpec:
    """What is known about a teacher before it is built."""

    summary: str
    build: Callable[[int, int, FrontendConfig, Path | None], Teacher]
    """`(num_classes, sample_rate in Hz, front end of the run, weights) -> Teacher`; imports its module when called.

    Weights are for those teachers whose shape is told by their folder (`from_folder`), and loaded by them.
    """
    parameters: int
    """Below the head."""
    tap: tuple[int, int, int]
    """`(C, T, F)` of the tap for a clip of 5 s at 32 kHz on the default front end."""
    own_rate: int | None
    """The rate it works at, Hz, whatever the data's; None: the data's own."""
    licence: str
    """Of the weights."""
    weights_from: str
    """Where to get the weights, for a person to read."""
    needs_weights: bool = True
    """Whether it is of use only with published weights; the others are trained from scratch."""
    file: WeightsFile | None = None
    """What `edgekd teachers fetch` downloads."""
    from_folder: bool = False
    """Whether the weights are a folder of Hugging Face (`config.json` beside them), not a file."""
    cut: Mapping[str, Any] | None = None
    """What the front end of a student that is cut from it has besides the defaults, where the user names nothing else;
    None: it is no chain of convolutions."""
    mark: str = ""
    """A tensor that its weights have and no other teacher's: a regular expression of the name."""


def _cnn14(num_classes: int, sample_rate: int, _: FrontendConfig, __: Path | None) -> Teacher:
    from edgekd.models.teachers.panns import Cnn14

    return Cnn14(num_classes, sample_rate)


def _resnet38(num_classes: int, sample_rate: int, _: FrontendConfig, __: Path | None) -> Teacher:
    from edgekd.models.teachers.panns import ResNet38

    return ResNet38(num_classes, sample_rate)


def _mobilenetv1(num_classes: int, sample_rate: int, _: FrontendConfig, __: Path | None) -> Teacher:
    from edgekd.models.teachers.panns import MobileNetV1

    return MobileNetV1(num_classes, sample_rate)


def _yamnet(num_classes: int, sample_rate: int, _: FrontendConfig, __: Path | None) -> Teacher:
    from edgekd.models.teachers.yamnet import YamNet

    return YamNet(num_classes, sample_rate)


def _hubert(num_classes: int, sample_rate: int, _: FrontendConfig, __: Path | None) -> Teacher:
    from edgekd.models.teachers.wav2vec2 import hubert_base

    return hubert_base(num_classes, sample_rate)


def _wav2vec2(num_classes: int, sample_rate: int, _: FrontendConfig, __: Path | None) -> Teacher:
    from edgekd.models.teachers.wav2vec2 import wav2vec2_base

    return wav2vec2_base(num_classes, sample_rate)


def _wavlm(num_classes: int, sample_rate: int, _: FrontendConfig, __: Path | None) -> Teacher:
    from edgekd.models.teachers.wav2vec2 import wavlm_base

    return wavlm_base(num_classes, sample_rate)


def _ast(num_classes: int, sample_rate: int, _: FrontendConfig, weights: Path | None) -> Teacher:
    from edgekd.models.teachers.transformers import ast

    assert weights is not None
    return ast(num_classes, sample_rate, weights)


def _whisper(num_classes: int, sample_rate: int, _: FrontendConfig, weights: Path | None) -> Teacher:
    from edgekd.models.teachers.transformers import whisper

    assert weights is not None
    return whisper(num_classes, sample_rate, weights)


def _convnet(num_classes: int, sample_rate: int, frontend: FrontendConfig, _: Path | None) -> Teacher:
    from edgekd.models.teachers.convnet import ConvNet

    return ConvNet(num_classes, sample_rate, frontend)


def _panns_file(name: str, size: int | None, digest: str) -> WeightsFile:
    address = f"https://zenodo.org/records/3987831/files/{name.replace('=', '%3D')}?download=1"
    return WeightsFile(address, name, size, digest)


def _hub_file(model: str, revision: str, name: str, size: int, digest: str) -> WeightsFile:
    return WeightsFile(f"https://huggingface.co/{model}/resolve/{revision}/pytorch_model.bin", name, size, digest)


_PANNS = "https://zenodo.org/records/3987831"
_SPEECH = r"(.*\.)?feature_extractor\.conv_layers\."
_BUNDLES = "https://download.pytorch.org/torchaudio/models"

TEACHERS: dict[str, TeacherSpec] = {
    "cnn14": TeacherSpec(
        summary="PANNs CNN14, AudioSet; the SSATKD paper's main teacher",
        build=_cnn14,
        parameters=79_673_792,
        tap=(64, 250, 32),
        own_rate=32_000,
        licence="CC BY 4.0",
        weights_from=f"Cnn14_mAP=0.431.pth from {_PANNS}",
        file=_panns_file(
            "Cnn14_mAP=0.431.pth",
            327_428_481,
            "sha256:0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
        ),
        cut={},
        mark=r"conv_block6\.",
    ),
    "resnet38": TeacherSpec(
        summary="PANNs ResNet38, AudioSet",
        build=_resnet38,
        parameters=72_703_424,
        tap=(64, 250, 32),
        own_rate=32_000,
        licence="CC BY 4.0",
        weights_from=f"ResNet38_mAP=0.434.pth from {_PANNS}",
        file=_panns_file("ResNet38_mAP=0.434.pth", None, "md5:bf12f36aaabac4e0855e22d3c3239c1b"),
        mark=r"conv_block_after1\.",
    ),
    "mobilenetv1": TeacherSpec(
        summary="PANNs MobileNetV1, AudioSet; small for a teacher",
        build=_mobilenetv1,
        parameters=4_256_128,
        tap=(32, 250, 32),
        own_rate=32_000,
        licence="CC BY 4.0",
        weights_from=f"MobileNetV1_mAP=0.389.pth from {_PANNS}",
        file=_panns_file("MobileNetV1_mAP=0.389.pth", 23_639_473, "md5:a419303e1c88aa1b9d2ac3811563d371"),
        cut={},
        mark=r"features\.13\.",
    ),
    "yamnet": TeacherSpec(
        summary="YAMNet, AudioSet; quick on a CPU",
        build=_yamnet,
        parameters=3_195_456,
        tap=(128, 125, 16),
        own_rate=16_000,
        licence="Apache-2.0",
        weights_from=(
            "yamnet.h5 from https://storage.googleapis.com/audioset/yamnet.h5 (to read it: pip install "
            "'edgekd[yamnet]'), or an .npz as described in edgekd/models/teachers/yamnet.py"
        ),
        file=WeightsFile(
            "https://storage.googleapis.com/audioset/yamnet.h5",
            "yamnet.h5",
            15_296_092,
            "sha256:13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
        ),
        cut={"convention": "yamnet", "hop_ms": 20.0, "bins_per_step": 2},
        mark=r"conv\.?26\.|layer14/",
    ),
    "hubert": TeacherSpec(
        summary="HuBERT base, waveform in, LibriSpeech",
        build=_hubert,
        parameters=94_370_944,
        tap=(768, 249, 1),
        own_rate=16_000,
        licence="Apache-2.0",
        weights_from=(
            "pytorch_model.bin of https://huggingface.co/facebook/hubert-base-ls960, "
            f"or {_BUNDLES}/hubert_fairseq_base_ls960.pth"
        ),
        file=_hub_file(
            "facebook/hubert-base-ls960",
            "dba3bb02fda4248b6e082697eee756de8fe8aa8a",
            "hubert-base-ls960.bin",
            377_569_754,
            "sha256:062249fffb353eab67547a2fbc129f7c31a2f459faf641b19e8fb007cc5c48ad",
        ),
        mark=_SPEECH,
    ),
    "wav2vec2": TeacherSpec(
        summary="wav2vec 2.0 base, waveform in, LibriSpeech",
        build=_wav2vec2,
        parameters=94_370_944,
        tap=(768, 249, 1),
        own_rate=16_000,
        licence="Apache-2.0",
        weights_from=(
            "pytorch_model.bin of https://huggingface.co/facebook/wav2vec2-base, "
            f"or {_BUNDLES}/wav2vec2_fairseq_base_ls960.pth"
        ),
        file=_hub_file(
            "facebook/wav2vec2-base",
            "0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
            "wav2vec2-base.bin",
            380_267_417,
            "sha256:3249fe98bfc62fcbc26067f724716a6ec49d12c4728a2af1df659013905dff21",
        ),
        mark=_SPEECH,
    ),
    "wavlm": TeacherSpec(
        summary="WavLM base, waveform in, LibriSpeech",
        build=_wavlm,
        parameters=94_381_168,
        tap=(768, 249, 1),
        own_rate=16_000,
        licence="MIT",
        weights_from=(
            f"{_BUNDLES}/wavlm_base.pth, or pytorch_model.bin of https://huggingface.co/microsoft/wavlm-base"
        ),
        file=WeightsFile(f"{_BUNDLES}/wavlm_base.pth", "wavlm_base.pth", None, None),
        mark=_SPEECH,
    ),
    "ast": TeacherSpec(
        summary="Audio Spectrogram Transformer, AudioSet",
        build=_ast,
        parameters=86_187_264,
        tap=(768, 49, 12),
        own_rate=16_000,
        licence="BSD-3-Clause",
        weights_from=(
            "a folder with config.json and model.safetensors: hf download MIT/ast-finetuned-audioset-10-10-0.4593 "
            "--local-dir ast (pip install 'edgekd[transformers]')"
        ),
        from_folder=True,
        mark=r"(audio_spectrogram_transformer|ast)\.",
    ),
    "whisper": TeacherSpec(
        summary="Whisper encoder, 680 000 h of speech",
        build=_whisper,
        parameters=20_590_592,
        tap=(512, 250, 1),
        own_rate=16_000,
        licence="Apache-2.0",
        weights_from=(
            "a folder with config.json and model.safetensors: hf download openai/whisper-base --local-dir whisper "
            "(pip install 'edgekd[transformers]')"
        ),
        from_folder=True,
    ),
    "convnet": TeacherSpec(
        summary="the small student three times as wide, trained on your own data (adaptation: full)",
        build=_convnet,
        parameters=244_060,
        tap=(48, 251, 32),
        own_rate=None,
        licence="your own",
        weights_from="none needed: it is trained from scratch",
        needs_weights=False,
        mark=r"squeeze\.0\.",
        cut={},
    ),
}


def teacher_spec(name: str) -> TeacherSpec:
    """The row of a teacher. Raises `UsageError` for a name that is in no table."""
    if name not in TEACHERS:
        raise unknown_name("teacher", name, TEACHERS)
    return TEACHERS[name]


def fetched_weights(name: str) -> Path | None:
    """The file that `edgekd teachers fetch` left for this teacher; None where there is none."""
    spec = TEACHERS.get(name)
    if spec is None or spec.file is None:
        return None
    path = teachers_folder() / spec.file.name
    return path if path.is_file() else None


def published_file(name: str, sha256: str | None = None) -> WeightsFile:
    """The file to fetch for a teacher, with its digest, which is `sha256` where none was published.

    Raises `UsageError` for a name that is in no table, and where there is no file, or none that could be told from
    another.
    """
    spec = teacher_spec(name)
    if spec.file is None:
        raise UsageError(f"Teacher '{name}' has no file to fetch. Its weights: {spec.weights_from}.")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"--sha256 {sha256}: a sha256 has 64 hexadecimal digits.")
    if sha256 is not None and spec.file.digest is not None:
        raise UsageError(f"--sha256: {spec.file.name} is pinned already ({spec.file.digest}). Leave it out.")
    if sha256 is None and spec.file.digest is None:
        raise UsageError(
            f"Teacher '{name}': no published digest of {spec.file.name} is known, so a download could not be checked. "
            f"Get it from {spec.file.url} yourself and pass --teacher-weights FILE, or pass the --sha256 you trust."
        )
    return replace(spec.file, digest=f"sha256:{sha256.lower()}") if sha256 else spec.file


def weights_state(name: str) -> str:
    """What is to be done for the weights of a teacher, in two words."""
    spec = TEACHERS[name]
    if not spec.needs_weights:
        return "none needed"
    if spec.from_folder:
        return "a folder"
    if fetched_weights(name) is not None:
        return "fetched"
    return "to fetch" if spec.file is not None and spec.file.digest is not None else "a file"


def teacher_facts(name: str) -> dict[str, Any]:
    """What is known of a teacher, for programs. Raises `UsageError` for a name that is in no table."""
    spec, fetched = teacher_spec(name), fetched_weights(name)
    return {
        "teacher": name,
        "summary": spec.summary,
        "parameters": spec.parameters,
        "input_rate": spec.own_rate,
        "tap_at_5_s": list(spec.tap),
        "needs_weights": spec.needs_weights,
        "licence": spec.licence,
        "weights": spec.weights_from,
        "file": None if spec.file is None else vars(spec.file),
        "fetched": None if fetched is None else str(fetched),
    }
