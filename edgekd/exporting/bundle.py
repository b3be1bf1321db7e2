"""A bundle: the folder that goes to a device, with everything needed to run, check and measure one classifier.

`model.onnx` (sound in, probabilities out), `manifest.json`, `golden.npz` (real clips with the outputs expected of
them), `edgekd_runner.py`, `README.md`, and for TensorRT `build_engine.sh` and the same student in the other precisions
of the board (`model-fp16.onnx`, ...), since the fastest of a tiny model is often not int8. A bundle is written whole
and checked with its own runner, or not at all.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from edgekd import __version__
from edgekd.config import FrontendConfig, Section, parse
from edgekd.data.audio import RESAMPLE_FILTER_WIDTH, RESAMPLE_ROLLOFF
from edgekd.device import RUNNER_FILE, runner
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.graph import frontend_nodes, input_shape
from edgekd.exporting.targets import Batch, FrontEnd, Precision, Target, TensorRT
from edgekd.exporting.tensorrt import build_script
from edgekd.models.build import sized

# The name of a file in a bundle has no folder in it, so nothing outside the bundle is ever read.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Resampler(Section):
    """How the training data was resampled: the parameters of the filter in `edgekd.data.audio`."""

    method: Literal["sinc_interp_hann"] = "sinc_interp_hann"
    lowpass_filter_width: int = Field(default=RESAMPLE_FILTER_WIDTH, ge=1, le=256, description="zero crossings a side")
    rolloff: float = Field(
        default=RESAMPLE_ROLLOFF, gt=0, le=1, description="cut-off, as a share of the lower Nyquist frequency"
    )


class Classifier(Section):
    """What goes into the graph and what comes out."""

    student: str
    width: float = Field(1.0, gt=0, description="of the student: times its channels")
    classes: tuple[str, ...] = Field(min_length=2, description="in the order of the output")
    sample_rate: int = Field(ge=2_000, le=192_000, description="Hz")
    clip_samples: int = Field(ge=1, description="samples of one input")
    hop_samples: int = Field(
        default_factory=lambda fields: max(1, fields["clip_samples"] // 2),
        ge=1,
        description="samples between two windows of a longer signal; by default half a clip",
    )
    padding: Literal["repeat", "zeros"] = Field(description="how a shorter signal is filled")
    input: Literal["waveform", "log_mel"] = Field(
        "waveform", description="log_mel: (batch, 1, T, F) in dB, of the waveform times gain, computed by the caller"
    )
    batch: Batch = Field("dynamic", description="clips that one call takes; 1: exactly one")
    frontend: FrontendConfig = Field(description="log-mel; inside the graph where the input is a waveform")
    gain: float = Field(gt=0, description="factor on the waveform, before the log-mel")
    resampler: Resampler = Resampler()


class Provenance(Section):
    """The run a bundle was exported from."""

    run: str
    dataset: str
    fold: int | None = Field(description="test fold, where the data set has folds")
    seed: int
    test_accuracy: float | None = Field(ge=0, le=1, description="of the shipped graph, on the test side")


class Parity(Section):
    """The exported graph against the quantised student it was made from, on real clips."""

    clips: int = Field(ge=1)
    agreement: float = Field(ge=0, le=1, description="share of clips with the same winning class")
    largest_difference: float = Field(ge=0, description="of any class probability")


class Check(Section):
    """One means of checking the exported graph: what it was, and its figures or why it did not run."""

    by: str = Field(description="what ran it, with its version")
    precision: Precision = Field(description="of which graph")
    figures: dict[str, int | float | str] | None = None
    not_run: str | None = Field(None, description="the reason")


class FloatOperators(Section):
    """Operators that run in floating point: how many of each in the front end, and the nodes after it by name."""

    frontend: dict[str, int] = Field({}, description="operator -> how many")
    network: tuple[str, ...] = ()


class Manifest(Section):
    """`manifest.json`. `sha256` is the digest of the manifest itself, without that entry."""

    format: Literal[1] = 1
    edgekd: str = __version__
    classifier: Classifier
    target: Target
    provenance: Provenance
    parity: Parity
    precision: Precision = Field(description="of model.onnx")
    alternatives: dict[Precision, FileName] = Field({}, description="the float student in other precisions")
    checks: tuple[Check, ...] = ()
    float_operators: FloatOperators = FloatOperators()
    files: dict[FileName, Sha256] = Field(description="every other file")
    sha256: Sha256


@dataclass(frozen=True)
class GoldenExamples:
    """Real clips and what the model must answer.

    `waveform` int16 `(N, S)` and `scale` float32 `(N,)`: sample values are `waveform * scale / 32767`;
    `probabilities` float32 `(N, K)`: the expected output of `model.onnx` for exactly those values, and
    `float_probabilities` that of the float student, which is the same where `model.onnx` is one; `labels` int64 `(N,)`.
    """

    waveform: NDArray[np.int16]
    scale: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    float_probabilities: NDArray[np.float32] | None = None

    def arrays(self) -> dict[str, Any]:
        """What `golden.npz` holds, by name."""
        floats = self.probabilities if self.float_probabilities is None else self.float_probabilities
        return {**vars(self), "float_probabilities": floats}


@dataclass(frozen=True)
class Bundle:
    """A bundle folder whose files match its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def size_bytes(self) -> int:
        """Size of the files the manifest lists, and of the manifest."""
        return sum((self.folder / name).stat().st_size for name in (*self.manifest.files, "manifest.json"))


@dataclass(frozen=True)
class Findings:
    """What was found out about the graph of a bundle on the way to it."""

    parity: Parity
    checks: tuple[Check, ...] = ()
    float_operators: FloatOperators = field(default_factory=FloatOperators)


def write_bundle(
    out: Path,
    models: Mapping[Precision, bytes],
    *,
    classifier: Classifier,
    provenance: Provenance,
    findings: Findings,
    golden: GoldenExamples,
    target: Target,
    overwrite: bool = False,
) -> Bundle:
    """Write the bundle folder `out` for `target`.

    `models`: serialised ONNX graphs by precision; the first becomes `model.onnx`, another `model-PRECISION.onnx`.
    Raises `UsageError` when `out` exists (with `overwrite`, only when it is not a bundle), `InputError` when it cannot
    be written, `GateError` when it is over the target's storage budget or its own runner does not get the golden
    probabilities. Whenever it raises, nothing is left behind and an older bundle is untouched.
    """
    refuse_existing(out, overwrite)
    main, *others = models
    files = {main: "model.onnx", **{precision: f"model-{precision}.onnx" for precision in others}}
    manifest = Manifest(
        classifier=classifier,
        target=target,
        provenance=provenance,
        parity=findings.parity,
        precision=main,
        alternatives={precision: files[precision] for precision in others},
        checks=findings.checks,
        float_operators=findings.float_operators,
        files={},
        sha256="0" * 64,
    )
    with _written_whole(out, overwrite) as folder:
        for precision, model in models.items():
            (folder / files[precision]).write_bytes(model)
        np.savez_compressed(folder / "golden.npz", **golden.arrays())
        shutil.copyfile(RUNNER_FILE, folder / "edgekd_runner.py")
        (folder / "README.md").write_text(_readme(manifest), encoding="utf-8")
        if target.tensorrt is not None:
            script = folder / "build_engine.sh"
            script.write_text(_build_script(classifier, target.tensorrt, files, models[main]), encoding="utf-8")
            script.chmod(0o755)
        bundle = Bundle(folder, _sealed(folder, manifest))
        if bundle.size_bytes > target.storage_bytes:
            raise GateError(
                f"The bundle takes {bundle.size_bytes:,} bytes; target '{target.name}' allows {target.storage_bytes:,}"
                " (storage_bytes). Use a smaller student, or raise storage_bytes."
            )
        _check_with_its_runner(folder)
    return Bundle(out, bundle.manifest)


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`. Raises `InputError` naming the first missing, changed or malformed file."""
    try:
        contents = runner.read_manifest(folder)
        manifest = parse(Manifest, contents, str(folder / "manifest.json"))
        runner.check_files(folder, contents)
    except (runner.RunnerError, UsageError) as failure:
        raise InputError(str(failure)) from None
    return Bundle(folder, manifest)


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise `UsageError` where `write_bundle` would refuse `out`; worth asking before the work is done."""
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise UsageError(f"{out}: already exists. Choose another --out, or replace the bundle with --overwrite.")
    # What --overwrite deletes must be a bundle, so that a mistyped --out does not cost somebody a home directory.
    if out.is_symlink() or not (out / "manifest.json").is_file() or not (out / "model.onnx").is_file():
        raise UsageError(f"{out}: is not a bundle, so --overwrite does not replace it. Choose another --out.")


@contextmanager
def _written_whole(out: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `out` that takes its place when the block ends well and vanishes when it does not."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            folder = scratch / "new"  # made by mkdir: unlike mkdtemp's, readable as the user's umask says
            folder.mkdir()
            yield folder
            _swap(folder, out, scratch / "replaced", overwrite)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as failure:
        reason = "no space left on the device" if failure.errno == errno.ENOSPC else failure.strerror
        raise InputError(
            f"{out}: cannot be written: {reason}. Nothing was left behind: make room, or choose another --out."
        ) from None


def _swap(folder: Path, out: Path, replaced: Path, overwrite: bool) -> None:
    if overwrite and out.exists():
        out.rename(replaced)
    try:
        folder.rename(out)
    except OSError as failure:
        if replaced.exists():
            replaced.rename(out)
        if failure.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(f"{out}: was made by another process meanwhile. Choose another --out.") from None
        raise


def _sealed(folder: Path, manifest: Manifest) -> Manifest:
    """Write `manifest` with the digests of the files in `folder`, and its own; returns what was written."""
    files = {path.name: runner.file_digest(path) for path in sorted(folder.iterdir())}
    contents = manifest.model_copy(update={"files": files}).model_dump(mode="json")
    contents["sha256"] = runner.manifest_digest(contents)
    text = json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return Manifest.model_validate_json(text)


def _build_script(classifier: Classifier, tensorrt: TensorRT, files: Mapping[Precision, str], model: bytes) -> str:
    frontend: FrontEnd = "graph" if classifier.input == "waveform" else "external"
    shape = input_shape(classifier.frontend, classifier.clip_samples, frontend)
    pinned = frontend_nodes(model) if frontend == "graph" else []  # a log-mel's normalisation bears half precision
    return build_script(tensorrt, files, classifier.input, shape, classifier.batch, pinned=pinned)


def _check_with_its_runner(folder: Path) -> None:
    try:
        outcome = runner.Runner(folder).verify()
    except runner.RunnerError as failure:
        raise InputError(f"The new bundle cannot be run: {failure}") from None
    if not outcome["agrees"]:
        raise GateError(
            f"The bundle's runner does not get the golden probabilities: largest difference"
            f" {outcome['largest_difference']:.3g} (at most {outcome['tolerance']['probability']:g}), agreement"
            f" {outcome['agreement']:.1%} (at least {outcome['tolerance']['agreement']:.1%}). No bundle was written."
        )


def _readme(manifest: Manifest) -> str:
    classifier, target = manifest.classifier, manifest.target
    seconds = classifier.clip_samples / classifier.sample_rate
    hop_seconds = classifier.hop_samples / classifier.sample_rate
    accuracy = manifest.provenance.test_accuracy
    tested = "" if accuracy is None else f", {accuracy:.1%} right on its test clips"
    outside = (
        "" if classifier.input == "waveform" else "; its log-mel is computed by edgekd_runner.py, not by the graph"
    )
    student = sized(classifier.student, classifier.width)
    facts: dict[str, Any] = {
        "Classes": ", ".join(classifier.classes),
        "Student": f"`{student}`, distilled on {manifest.provenance.dataset}{tested}",
        "Precision": manifest.precision
        + "".join(f"; {name} in {file}" for name, file in manifest.alternatives.items()),
        "Input": f"{seconds:g} s at {classifier.sample_rate} Hz; other rates are resampled, channels averaged{outside}",
        "Longer files": f"the mean over windows every {hop_seconds:g} s",
        "Shorter files": {"repeat": "repeated to full length", "zeros": "filled with zeros"}[classifier.padding],
        "Export check": f"{manifest.parity.clips} clips, same top class on {manifest.parity.agreement:.1%}, "
        f"largest difference in probability {manifest.parity.largest_difference:.2g}",
        "Exported by": f"edgekd {__version__} from run `{manifest.provenance.run}`",
    }
    return _README.format(
        title=target.title,
        prepare=_prepare(target),
        notes="".join(f"- {note}\n" for note in target.notes),
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        rate=classifier.sample_rate,
    )


def _prepare(target: Target) -> str:
    if target.tensorrt is not None:
        release = f"JetPack {target.tensorrt.jetpack}, " if target.tensorrt.jetpack else ""
        install = "sudo apt install nvidia-jetpack python3-libnvinfer python3-numpy"
        if target.architecture == "x86_64":
            install = "python3 -m pip install tensorrt numpy      # and trtexec, from NVIDIA's TensorRT package"
        return f"""\
Made for {release}TensorRT {target.tensorrt.version}. Build the engines here, once:

    {install}
    sh build_engine.sh

builds every precision in this folder, checks each engine's own answers, times them, and keeps the fastest that agrees.
Without an engine the runner uses onnxruntime on the CPU (`python3 -m pip install onnxruntime`), which is the quick way
to see that the model itself is sound."""
    return """\
    python3 -m venv ~/edgekd-runner
    . ~/edgekd-runner/bin/activate
    python3 -m pip install numpy onnxruntime"""


_README = """\
# An audio classifier for {title}

This folder is all that is needed. Copy it to the device whole.

## Prepare

{prepare}

## Check

    python3 edgekd_runner.py verify

compares every file with its sha256 and runs the golden examples. Exit code 0: whole, and this device agrees;
3: a file is missing or changed; 4: the device computes something else.

## Use

    python3 edgekd_runner.py predict recording.wav
    python3 edgekd_runner.py predict *.wav --top 3 --json
    arecord -f S16_LE -r {rate} -t raw | python3 edgekd_runner.py stream

## Measure

    python3 edgekd_runner.py bench

{notes}
## Facts

| | |
|---|---|
{facts}
"""
