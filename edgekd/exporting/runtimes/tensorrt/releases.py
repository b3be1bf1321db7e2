"""Releases of TensorRT: what each understands, and the `[tensorrt]` table of a target's TOML.

    JetPack 4.6.1 to 4.6.2  TensorRT 8.2.1   the host computes the log-mel, no int8
    JetPack 5.0.2           8.4.1            a layer can be pinned to float32; of the others TensorRT chooses the type
    JetPack 5.1 to 5.1.2    8.5.2            likewise, and int8
    JetPack 6.1 and 6.2     10.3             the types in the graph are binding, if asked for
    JetPack 7.1 and 7.2     10.13 and 10.16  likewise
    JetPack 7.2.2           11.4.1           on AGX Orin and Thor, from NVIDIA's Linux SBSA package: always binding

A `Language` is what `trtexec` and the ONNX parser take from a release on. Sources: the options that trtexec parses are
in samples/common/sampleOptions.cpp of each tag of github.com/NVIDIA/TensorRT, 8.2.1 to v11.1; what 11.4.1 takes is in
docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-trtexec.html; operator sets are in
"Supported ONNX Operators" (docs/operators.md of github.com/onnx/onnx-tensorrt) of each release; DLA is in
docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html. What a JetPack brings is in the
`[sources]` of `targets/jetson-*.toml`, developer.nvidia.com/embedded/jetpack-sdk-502 and .../downloads/archive-7.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from edgekd.config import Section

if TYPE_CHECKING:
    from edgekd.exporting.targets import Precision, Target

Release = tuple[int, ...]  # (10, 3)

# Releases from which on ...
OLDEST: Release = (8, 2)  # ... bundles can be made at all
LAYER_PRECISIONS: Release = (8, 4)  # ... a layer can be pinned to float32
EXPLICIT_INT8: Release = (8, 5)  # ... Q/DQ pairs are relied on here
STRONGLY_TYPED: Release = (10,)  # ... the types in the graph decide
SBSA: Release = (11,)  # ... a Jetson takes NVIDIA's package for Linux SBSA, and JetPack brings none
DLA: Release = (11, 4, 1)  # ... a strongly typed network runs on the accelerator of a Jetson AGX Orin


@dataclass(frozen=True)
class Language:
    """What releases from `since` on understand.

    `opset`: the newest operator set that the parser reads, 20 at most, which is all that is written here. `precision`:
    what makes trtexec build each precision; one that is missing cannot be built. `pins`: whether fp16 can leave a layer
    in float32, by name. `workspace` and `build_only`: its words for the memory that a build may take, in MiB, and for
    building without running.
    """

    since: Release
    opset: int
    precision: Mapping[Precision, tuple[str, ...]]
    workspace: str = "--memPoolSize=workspace:{}"
    build_only: str = "--skipInference"
    pins: bool = False


_WEAK: Mapping[Precision, tuple[str, ...]] = {"int8": ("--int8",), "fp16": ("--fp16",), "fp32": ()}
_TOLD: Mapping[Precision, tuple[str, ...]] = dict.fromkeys(("int8", "fp16", "fp32"), ("--stronglyTyped",))
_ALWAYS: Mapping[Precision, tuple[str, ...]] = dict.fromkeys(("int8", "fp16", "fp32"), ())
_NO_INT8: Mapping[Precision, tuple[str, ...]] = {"fp16": ("--fp16",), "fp32": ()}

LANGUAGES = (
    Language(OLDEST, 13, _NO_INT8, workspace="--workspace={}", build_only="--buildOnly"),
    Language(LAYER_PRECISIONS, 13, _NO_INT8, build_only="--buildOnly", pins=True),
    Language(EXPLICIT_INT8, 17, _WEAK, build_only="--buildOnly", pins=True),
    Language((8, 6), 17, _WEAK, pins=True),
    Language(STRONGLY_TYPED, 20, _TOLD),
    Language((11,), 20, _ALWAYS),
)
UNKNOWN: Release = (12,)  # nobody knows what it will take


class Installed(Section):
    """The TensorRT release on the device, which decides the flags of `trtexec`."""

    version: str = Field(description="TensorRT version, e.g. 10.3")
    jetpack: str | None = Field(default=None, description="JetPack release that brings it")
    cuda: str | None = Field(default=None, description="CUDA toolkit version")
    compute_capability: str | None = Field(default=None, pattern=r"^\d+\.\d$", description="of the GPU, e.g. 8.7")
    max_batch: int = Field(default=8, ge=1, le=256, description="largest batch of the engine's optimisation profile")
    dla: bool = Field(default=False, description="whether it can use a deep-learning accelerator (DLA) of the board")

    @field_validator("version", mode="before")
    @classmethod
    def _is_a_version(cls, version: object) -> object:
        if not isinstance(version, str) or not re.fullmatch(r"\d+(\.\d+)+", version):
            raise ValueError('write numbers and dots, in quotes: version = "10.3"')
        return version

    @property
    def release(self) -> Release:
        """The version as numbers: `(10, 3)`."""
        return tuple(int(part) for part in self.version.split("."))


def language_of(release: Release) -> Language:
    """What a TensorRT release understands; of one that is older than the oldest, what that does."""
    return next((language for language in reversed(LANGUAGES) if language.since <= release), LANGUAGES[0])


def spoken_until(language: Language) -> Release:
    """The first release after `language.since` that understands something else."""
    return next((later.since for later in LANGUAGES if later.since > language.since), UNKNOWN)


def check_release(target: Target, installed: Installed) -> None:
    """Raise `ValueError` where `target` asks for what its TensorRT is too old for."""
    version, release = installed.version, installed.release
    if release < OLDEST:
        raise ValueError(f"tensorrt.version = '{version}': the oldest that bundles are made for is 8.2")
    language = language_of(release)
    if "int8" in target.precisions and "int8" not in language.precision:
        raise ValueError(f"precisions: TensorRT {version} is too old for 'int8' from Q/DQ pairs, which needs 8.5")
    if target.frontend == "graph" and "fp16" in target.precisions and release < LAYER_PRECISIONS:
        raise ValueError(
            f"frontend = 'graph': TensorRT {version} cannot keep the log-mel in float32 beside 'fp16';"
            " write frontend = 'external'"
        )
    if target.opset > language.opset:
        raise ValueError(f"opset = {target.opset}: TensorRT {version} reads up to {language.opset}")
    if installed.dla and release < DLA:
        raise ValueError(
            f"tensorrt.dla: TensorRT {version} is not asked to use an accelerator here; 11.4.1 or later is, on AGX "
            "Orin: leave dla out"
        )


def newest_opset(release: Release) -> int:
    """The newest ONNX operator set that the parser of a TensorRT release reads, 20 at most, which is all we write."""
    return language_of(release).opset
