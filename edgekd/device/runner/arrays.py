"""Arrays in `.npz` files: what each promises to be is looked at before any memory is taken for it."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Optional, Tuple

import numpy as np

from edgekd.device.runner.errors import RunnerError
from edgekd.device.runner.manifest import shown

# What a file that is cut short, or is something else under this name, makes `zipfile` and numpy raise.
ARRAY_DAMAGE = (
    *(EOFError, ValueError, LookupError, TypeError, ArithmeticError, SyntaxError, AssertionError, MemoryError),
    *(RuntimeError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error),
)
MOST_CLIPS = 4096  # of the golden examples
GOLDEN_AGAIN = "Copy or export the bundle again"

Shape = Tuple[Optional[int], ...]  # None: any, and the same number in all arrays


def array_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array in an `.npz`, of which nothing more is read.

    Raises `ValueError` for an array that is not as long as its shape says, or holds objects, and one of `ARRAY_DAMAGE`
    for what is no such file.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename[:-4] if member.filename.endswith(".npy") else member.filename
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                if version not in readers:
                    raise ValueError(f"{name} is an array of version {version}")
                shape, _, dtype = readers[version](file)
                if dtype.hasobject:
                    raise ValueError(f"{name} holds Python objects, which allow_pickle=False refuses")
                if any(type(length) is not int or length < 0 for length in shape):
                    raise ValueError(f"{name} has the shape {shown(shape)}")
                promised, held = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
                if promised != held:
                    raise ValueError(
                        f"{name} of the shape {shown(shape)} has {shown(promised)} bytes, and holds {held}"
                    )
            headers[name] = shape, dtype
    return headers


def read_golden(
    path: Path, clip_samples: int, classes: int, labelled: bool = False, known: bool = False
) -> dict[str, np.ndarray]:
    """The golden examples of a bundle, by name: N clips and what is expected of them.

    `waveform` int16 `(N, clip_samples)` and `scale` float `(N,)`: sample values are `waveform * scale / 32767`;
    `probabilities` and `float_probabilities` float `(N, classes)`, from 0 to 1; `labels` integers `(N,)`, or 0 and 1
    for each class `(N, classes)`, where they are there or, with `labelled`, always; with `known` also `known` and
    `float_known` float `(N,)`. Raises `RunnerError` for a file that holds anything else.
    """
    wanted: dict[str, tuple[str, Shape]] = {
        "waveform": ("i", (None, clip_samples)),
        "scale": ("f", (None,)),
        "probabilities": ("f", (None, classes)),
        "float_probabilities": ("f", (None, classes)),
        "labels": ("iu", (None,)),
        **({"known": ("f", (None,)), "float_known": ("f", (None,))} if known else {}),
    }
    try:
        headers = array_headers(path)
        if "float_probabilities" not in headers:  # of bundles of before, whose model is the float student
            del wanted["float_probabilities"]
        if "labels" not in headers and not labelled:
            del wanted["labels"]
        elif len(headers.get("labels", ((0,), None))[0]) == 2:
            wanted["labels"] = ("iu", (None, classes))
        _check_headers(headers, wanted)
        with np.load(str(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in wanted}
        _check_values(arrays, classes)
    except OSError as failure:
        raise RunnerError(f"{path}: {failure.strerror or failure}. {GOLDEN_AGAIN}") from None
    except ARRAY_DAMAGE as failure:
        reason = (str(failure).splitlines() or ["it ends too early"])[0].rstrip(".")
        raise RunnerError(f"{path}: not the golden examples of this model: {reason[:200]}. {GOLDEN_AGAIN}") from None
    return arrays


def _check_headers(headers: dict[str, tuple[tuple[int, ...], np.dtype]], wanted: dict[str, tuple[str, Shape]]) -> None:
    for name, (kinds, shape) in wanted.items():
        if name not in headers:
            raise ValueError(f"{name} is missing")
        found, dtype = headers[name]
        clips = headers["waveform"][0][:1]
        if dtype.kind not in kinds or len(found) != len(shape) or found[:1] != clips or found[1:] != shape[1:]:
            raise ValueError(f"{name} is {dtype} of the shape {shown(found)}, not of {shown(clips + shape[1:])}")
        if not 1 <= found[0] <= MOST_CLIPS:
            raise ValueError(f"{found[0]} clips, not 1 to {MOST_CLIPS}")


def _check_values(arrays: dict[str, np.ndarray], classes: int) -> None:
    for name in ("scale", "probabilities", "float_probabilities"):
        values = arrays.get(name, arrays["probabilities"])
        if not np.isfinite(values).all() or (values < -1e-4).any():
            raise ValueError(f"{name} has values that are negative, NaN or infinite")
        if name != "scale" and (values > 1 + 1e-4).any():
            raise ValueError(f"{name} has values above 1")
    for name in ("known", "float_known"):
        if not np.isfinite(arrays.get(name, np.zeros(1))).all():
            raise ValueError(f"{name} has values that are NaN or infinite")
    labels = arrays.get("labels", np.zeros(1, np.int64))
    most = classes - 1 if labels.ndim == 1 else 1
    if labels.min() < 0 or labels.max() > most:
        raise ValueError(f"labels has {'classes' if labels.ndim == 1 else 'values'} outside 0 to {most}")
