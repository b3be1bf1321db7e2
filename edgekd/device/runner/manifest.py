"""What `manifest.json` must hold to be used here: every entry that is read, its type and its bounds, checked once."""

from __future__ import annotations

import re
from typing import Any, Callable, Tuple

from edgekd.device.runner.errors import RunnerError

LONGEST_CLIP = 1 << 26  # samples: a minute at 192 kHz is a sixth of it
PRECISIONS = ("int8", "fp16", "fp32")
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # no folder in it: nothing outside the bundle is read
MOST_FOLDERS = 8  # one in the other

Wanted = Tuple[Callable[[Any], bool], str]  # whether a value will do, and what would


def shown(value: Any) -> str:
    """A value in a message: on one line, and only how it begins where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python prints no integer of more than 4,300 digits
        return f"a value too large to print ({type(value).__name__})"
    return text if len(text) <= 80 else text[:80] + "..."


def check_manifest(manifest: dict[str, Any], where: str) -> None:
    """Raises `RunnerError`, which begins with `where`, for the first entry that is missing or of another type."""
    _check_entries(manifest, _MANIFEST, where)
    for name in manifest["files"]:
        parts = name.split("/")
        if len(parts) > MOST_FOLDERS or not all(map(PLAIN_NAME.fullmatch, parts)):
            raise RunnerError(f"{where}: files.{shown(name)}: not the name of a file in the bundle")
    classifier, target = manifest["classifier"], manifest["target"]
    if classifier["input"] == "log_mel":
        _check_entries(manifest, _LOG_MEL, where)
        unknown = set(classifier["frontend"]) - _FRONTEND
        if unknown:
            raise RunnerError(
                f"{where}: classifier.frontend has {shown(min(unknown))}, which this program does not know"
            )
    if manifest.get("steps") is not None:
        _check_entries(manifest, _LOG_MEL, where)
        _check_entries(manifest, _STEPS, where)
        names = [manifest["steps"]["end"], *(part["file"] for part in manifest["steps"]["parts"])]
        if any(name not in manifest["files"] for name in names):
            raise RunnerError(f"{where}: steps names a file that the bundle does not have. Export the bundle again")
    for table in ("tensorrt", "tensorrt_rtx"):
        if target.get(table) is not None:
            within = {f"target.{table}.max_batch": _whole(1, 1 << 16), f"target.{table}.dla": _one_of(True, False)}
            _check_entries(manifest, {f"target.{table}": _TABLE}, where)
            _check_entries(manifest, within, where, optional=True)
    if manifest.get("detection") is not None:  # older bundles have none
        _check_entries(manifest, {"detection": _TABLE}, where)
        _check_entries(manifest, _detection(classifier["classes"]), where, optional=True)
        if manifest["detection"].get("reject") is not None:
            _check_entries(manifest, _REJECT, where)
    if manifest.get("float_operators") is not None:
        _check_entries(manifest, {"float_operators": _TABLE}, where)
        _check_entries(manifest, {"float_operators.on_integers": (_nodes, "names")}, where, optional=True)


def _check_entries(manifest: dict[str, Any], wanted: dict[str, Wanted], where: str, optional: bool = False) -> None:
    for place, (fits, description) in wanted.items():
        value: Any = manifest
        *folders, name = place.split(".")
        for folder in folders:
            value = value[folder]  # that it is a table has been asked before
        if name not in value:
            if optional or place in _OPTIONAL:
                continue
            raise RunnerError(f"{where}: {place} is missing. Export the bundle again")
        if not fits(value[name]):
            raise RunnerError(f"{where}: {place} = {shown(value[name])}: not {description}. Export the bundle again")


def _whole(least: int, most: int) -> Wanted:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


def _within(least: float, most: float) -> Wanted:
    def fits(value: Any) -> bool:
        return type(value) in (int, float) and least <= value <= most  # NaN is in no range

    return fits, f"a number from {least:g} to {most:g}"


def _one_of(*values: Any) -> Wanted:
    def fits(value: Any) -> bool:
        return any(type(value) is type(other) and value == other for other in values)

    return fits, " or ".join(map(repr, values))


def _channel(value: Any) -> bool:
    return value == "mean" or (type(value) is int and 0 <= value < 1024)


def _names(value: Any) -> bool:
    named = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    return named and len(value) > 1 and len(set(value)) == len(value)


def _nodes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _files(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values())


def _graphs(value: Any) -> bool:
    return isinstance(value, dict) and all(
        precision in PRECISIONS and isinstance(name, str) and PLAIN_NAME.fullmatch(name)
        for precision, name in value.items()
    )


def _parts(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 16 and all(isinstance(part, dict) and _part(part) for part in value)


def _part(part: dict[str, Any]) -> bool:
    file, maps = part.get("file"), part.get("maps")
    if set(part) != {"file", "lead", "maps"} or not isinstance(file, str) or not PLAIN_NAME.fullmatch(file):
        return False
    return _count(part["lead"], 0) and isinstance(maps, list) and 0 < len(maps) < 16 and all(map(_map, maps))


def _map(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"columns", "stride", "left", "right", "reach"}:
        return False
    at_least = {"columns": 1, "stride": 1, "left": 0, "right": 0, "reach": 0}
    return all(_count(value[name], least) for name, least in at_least.items())


def _count(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= 1 << 24


def _detection(classes: list[str]) -> dict[str, Wanted]:
    def scores(value: Any) -> bool:
        fits = _within(0, 1)[0]
        return isinstance(value, dict) and all(name in classes and fits(score) for name, score in value.items())

    def periods(value: Any) -> bool:
        return isinstance(value, list) and len(value) <= 64 and all(hop(each) for each in value)

    hop, described = _whole(1, LONGEST_CLIP)
    wanted: dict[str, Wanted] = {
        "hop_samples": (lambda value: value is None or hop(value), described),
        "shared_samples": (periods, "whole numbers of samples"),
        **dict.fromkeys(("open", "close"), (scores, "classes, and a number from 0 to 1 for each")),
        **dict.fromkeys(("minimum_s", "gap_s"), _within(0, 1e6)),
        "exclusive": _one_of(True, False),
        "background": _one_of(None, *classes),
    }
    return {f"detection.{name}": each for name, each in wanted.items()}


_TABLE: Wanted = (lambda value: isinstance(value, dict), "a table")
_MANIFEST: dict[str, Wanted] = {
    "files": (_files, "names of files, and the digest of each"),
    "precision": _one_of(*PRECISIONS),
    "alternatives": (_graphs, "precisions, and the name of a file for each"),
    "classifier": _TABLE,
    "classifier.classes": (_names, "the names of two classes or more, none twice"),
    "classifier.activation": _one_of("softmax", "sigmoid"),
    "classifier.sample_rate": _whole(1, 10_000_000),
    "classifier.clip_samples": _whole(1, LONGEST_CLIP),
    "classifier.hop_samples": _whole(1, LONGEST_CLIP),
    "classifier.padding": _one_of("repeat", "zeros"),
    "classifier.channel": (_channel, "'mean' or a whole number from 0 to 1023"),
    "classifier.full_scale": _within(1e-300, 1e300),
    "classifier.trim_silence": _one_of(True, False),
    "classifier.input": _one_of("waveform", "log_mel"),
    "classifier.batch": _one_of("dynamic", 1),
    "classifier.resampler": _TABLE,
    "classifier.resampler.lowpass_filter_width": _whole(1, 256),
    "classifier.resampler.rolloff": _within(1e-3, 1),
    "target": _TABLE,
    "target.runtime": (lambda value: isinstance(value, str), "the name of a runtime"),
    "target.opset": _whole(1, 1000),
    "target.memory_bytes": _whole(1, 1 << 50),
    "target.tolerance": _TABLE,
    "target.tolerance.probability": _within(0, 1),
    "target.tolerance.agreement": _within(0, 1),
}
_REJECT: dict[str, Wanted] = {
    "detection.reject": _TABLE,
    "detection.reject.threshold": _within(-1e30, 1e30),
    "detection.reject.span": _within(1e-30, 1e30),
}
_LOG_MEL: dict[str, Wanted] = {
    "classifier.gain": _within(1e-30, 1e30),
    "classifier.frontend": _TABLE,
    "classifier.frontend.convention": _one_of("panns", "yamnet"),
    "classifier.frontend.n_fft": _whole(2, 1 << 16),
    "classifier.frontend.window_length": _whole(0, 1 << 16),
    "classifier.frontend.hop_length": _whole(1, 1 << 20),
    "classifier.frontend.n_mels": _whole(1, 4096),
    "classifier.frontend.f_min": _within(0, 1e7),
    "classifier.frontend.f_max": _within(1e-3, 1e7),
    "classifier.frontend.frames_per_step": _whole(1, 1 << 16),
    "classifier.frontend.bins_per_step": _whole(1, 4096),
}
_STEPS: dict[str, Wanted] = {
    "steps": _TABLE,
    "steps.parts": (_parts, "parts of a graph, each with its file, what leads it and its maps"),
    "steps.end": (lambda value: isinstance(value, str) and bool(PLAIN_NAME.fullmatch(value)), "the name of a file"),
}
_FRONTEND = {place.rpartition(".")[2] for place in _LOG_MEL if place.startswith("classifier.frontend.")}
# What bundles of earlier versions lack, and `LogMel` or `Runner` has a value for.
_OPTIONAL = {
    *(f"classifier.frontend.{name}" for name in ("convention", "window_length", "frames_per_step", "bins_per_step")),
    *(f"classifier.{name}" for name in ("activation", "channel", "full_scale", "trim_silence")),
}
