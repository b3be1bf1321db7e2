"""A bundle: the folder that goes to a device, with everything needed to run, check and measure one classifier.

The model in the files of its runtime (sound in, probabilities out), `manifest.json`, `golden.npz` (real clips with the
outputs expected of them), `README.md`, and what the runtime needs beside them: the on-device runner, a script that
builds engines. A bundle is written whole and checked as it will run, or not at all.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd import __version__
from edgekd.device import runner
from edgekd.errors import NO_SPACE, GateError, InputError, UsageError
from edgekd.escaping import markdown_text
from edgekd.exporting.golden import GOLDEN, GoldenExamples, check_golden
from edgekd.exporting.manifest import (
    Bundle,
    Check,
    Classifier,
    Detection,
    FloatOperators,
    Manifest,
    Parity,
    Provenance,
    Reject,
    Steps,
)
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.runtime import Runtime
from edgekd.exporting.targets import Precision, Target
from edgekd.files import folders
from edgekd.files.whole import all_to_disk
from edgekd.models.build import sized

_NOBODYS = Detection()


@dataclass(frozen=True)
class Findings:
    """What was found out about the model of a bundle on the way to it."""

    parity: Parity
    checks: tuple[Check, ...] = ()
    float_operators: FloatOperators = field(default_factory=FloatOperators)
    steps: Steps | None = None
    unwritten: str | None = None


def write_bundle(
    out: Path,
    files: Mapping[str, bytes],
    models: Mapping[Precision, str],
    *,
    classifier: Classifier,
    detection: Detection = _NOBODYS,
    provenance: Provenance,
    findings: Findings,
    golden: GoldenExamples,
    target: Target,
    overwrite: bool = False,
) -> Bundle:
    """Write the bundle folder `out` for `target`.

    `files`: what the target's runtime emitted, by name; `models`: which of them is the model of each precision, first
    the one that was verified. Raises `UsageError` when `out` exists (with `overwrite`, only when it is not a bundle),
    `InputError` when it cannot be written, `GateError` when it is over the target's storage budget or its runtime does
    not get the golden probabilities. Whenever it raises, nothing is left behind and an older bundle is untouched.
    """
    refuse_existing(out, overwrite)
    runtime = RUNTIMES[target.runtime]
    main, *others = models
    manifest = Manifest(
        classifier=classifier,
        detection=detection,
        target=target,
        provenance=provenance,
        parity=findings.parity,
        precision=main,
        alternatives={precision: models[precision] for precision in others},
        checks=findings.checks,
        float_operators=findings.float_operators,
        steps=findings.steps,
        unwritten=findings.unwritten,
        files={},
        sha256="0" * 64,
    )
    with _written_whole(out, overwrite) as folder:
        for name, content in {**files, **runtime.device_files(manifest, files, golden)}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            if name.endswith(".sh"):
                (folder / name).chmod(0o755)
        golden.write(folder)
        (folder / "README.md").write_text(_readme(manifest, runtime), encoding="utf-8")
        bundle = Bundle(folder, _sealed(folder, manifest))
        if bundle.size_bytes > target.storage_bytes:
            raise GateError(
                f"The bundle takes {bundle.size_bytes:,} bytes; target '{target.name}' allows {target.storage_bytes:,}"
                " (storage_bytes). Use a smaller student, or raise storage_bytes."
            )
        _check(folder, bundle.manifest, runtime)
    return Bundle(out, bundle.manifest)


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise `UsageError` where `write_bundle` would refuse `out`; worth asking before the work is done."""
    folders.put_back(out)
    if not (out.exists() or out.is_symlink()):
        return
    if not overwrite:
        raise UsageError(f"{out}: already exists. Choose another --out, or replace the bundle with --overwrite.")
    # What --overwrite deletes must be a bundle, so that a mistyped --out does not cost somebody a home directory.
    if out.is_symlink() or not (out / "manifest.json").is_file() or not (out / GOLDEN).is_file():
        raise UsageError(f"{out}: is not a bundle, so --overwrite does not replace it. Choose another --out.")
    if folders.is_here(out):
        raise UsageError(f"{out}: is where you are, and is to be replaced. Go to another folder (cd) first.")


@contextmanager
def _written_whole(out: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `out` that takes its place when the block ends well and vanishes when it does not."""
    try:
        with folders.held(out):
            folder = folders.begin(out)
            try:
                yield folder
                all_to_disk(folder)
                _install(folder, out, overwrite)
            finally:
                folders.remove(folder)
    except OSError as failure:
        reason = "no space left on the device" if failure.errno in NO_SPACE else failure.strerror
        raise InputError(
            f"{out}: cannot be written: {reason}. Nothing was left behind: make room, or choose another --out."
        ) from None


def _install(folder: Path, out: Path, overwrite: bool) -> None:
    try:
        folders.install(folder, out, replace=overwrite)
    except OSError as failure:
        if failure.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(f"{out}: was made by another process meanwhile. Choose another --out.") from None
        raise


def _sealed(folder: Path, manifest: Manifest) -> Manifest:
    """Write `manifest` with the digests of the files in `folder`, and its own; returns what was written."""
    files = {
        path.relative_to(folder).as_posix(): runner.file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != folders.MARK
    }
    contents = manifest.model_copy(update={"files": files}).model_dump(mode="json")
    contents["sha256"] = runner.manifest_digest(contents)
    text = json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return Manifest.model_validate_json(text)


def _check(folder: Path, manifest: Manifest, runtime: Runtime) -> None:
    """Have the new bundle answer its golden examples as it will be run."""
    try:
        check_golden(
            runtime.open(folder),
            GoldenExamples.read(folder),
            manifest.precision,
            manifest.target.tolerance,
            manifest.classifier.activation,
            manifest.detection.reject,
        )
    except InputError as failure:
        raise InputError(f"The new bundle cannot be run: {failure}") from None


def _readme(manifest: Manifest, runtime: Runtime) -> str:
    classifier, target = manifest.classifier, manifest.target
    seconds = classifier.clip_samples / classifier.sample_rate
    hop_seconds = classifier.hop_samples / classifier.sample_rate
    accuracy, ranked = manifest.provenance.test_accuracy, manifest.provenance.test_mean_average_precision
    tested = "" if accuracy is None else f", {accuracy:.1%} right on its test clips"
    tested = tested if ranked is None else f", mAP {ranked:.1%} on its test clips"
    several = classifier.activation == "sigmoid"
    outside = "" if classifier.input == "waveform" else "; its log-mel is computed by what runs the model, not in it"
    student = sized(classifier.student, classifier.width)
    heard = "averaged" if classifier.channel == "mean" else f"left out but for number {classifier.channel}, from 0"
    files = {
        "Longer files": f"the mean over windows every {hop_seconds:g} s",
        "Shorter files": {"repeat": "repeated to full length", "zeros": "filled with zeros"}[classifier.padding],
    }
    sixteen = runtime.hears_16_bits
    facts: dict[str, Any] = {
        "Classes": ", ".join(classifier.classes) + ("; any of them at once, or none" if several else ""),
        "Student": f"{student}, distilled on {manifest.provenance.dataset}{tested}",
        "Precision": manifest.precision
        + "".join(f"; {name} in {file}" for name, file in manifest.alternatives.items()),
        "Input": f"{seconds:g} s at {classifier.sample_rate} Hz; "
        + ("16-bit samples of one channel" if sixteen else f"other rates are resampled, channels {heard}{outside}"),
        **({} if sixteen else files),
        **_heard_otherwise(classifier),
        **_heard_from(manifest.detection),
        **_unknown(manifest.detection.reject),
        **({} if manifest.memory_on_the_core is None else {"Takes": manifest.memory_on_the_core}),
        "Export check": f"{manifest.parity.clips} clips, "
        f"{'same answers' if several else 'same top class'} on {manifest.parity.agreement:.1%}, "
        f"largest difference in probability {manifest.parity.largest_difference:.2g}",
        **_compared_too(manifest),
        "Exported by": f"edgekd {__version__} from run {manifest.provenance.run}",
    }
    return _README.format(
        title=markdown_text(target.title),
        whole="It goes into your project whole." if sixteen else "Copy it to the device whole.",
        usage=runtime.usage(manifest),
        notes="".join(
            ("\n## Notes\n\n", *(f"- {markdown_text(note)}\n" for note in target.notes)) if target.notes else ()
        ),
        facts="\n".join(f"| {name} | {markdown_text(value)} |" for name, value in facts.items()),
    )


def _compared_too(manifest: Manifest) -> dict[str, str]:
    """The emulated core, or why there was none."""
    facts = {}
    for check in manifest.checks:
        if "scores_that_differ" in (check.figures or {}):
            assert check.figures is not None
            same = f"{check.figures['clips']} clips, scores that differ: {check.figures['scores_that_differ']}"
            facts["Emulated core"] = f"{same} ({check.by})"
        elif check.not_run is not None and manifest.target.c is not None:
            facts[f"Not checked by {check.by}"] = check.not_run
    return facts


def _heard_otherwise(classifier: Classifier) -> dict[str, str]:
    facts = {}
    if classifier.full_scale != 1:
        facts["Float samples"] = f"divided by {classifier.full_scale:g}, their full scale"
    if classifier.trim_silence:
        facts["Digital silence"] = "at the ends of a window it is not used; the window is filled as a shorter file is"
    return facts


def _heard_from(detection: Detection) -> dict[str, str]:
    if detection.chosen is None:
        return {}
    scores = ", ".join(f"{name} {score:.3g}" for name, score in detection.open.items())
    return {"Heard from a score of": f"{scores} ({detection.chosen})"}


def _unknown(reject: Reject | None) -> dict[str, str]:
    if reject is None:
        return {}
    told = f"where known, the second output ({reject.score}), is below {reject.threshold:.4g}"
    return {"Unknown": f"{told}: at most {reject.share:.0%} of {reject.clips} known clips, none of them trained on"}


_README = """\
# An audio classifier for {title}

This folder is all that is needed. {whole}

{usage}{notes}
## Facts

| | |
|---|---|
{facts}
"""
