"""Weights in and out of files, safely.

Weight files come from strangers. A `.pth` is a pickle, and a pickle can run any code when it is read; so it is read
with PyTorch's restricted unpickler, which builds tensors and plain containers and refuses everything else. The files of
PANNs keep the state of their training sampler, numpy arrays, beside the tensors, and those of fairseq their settings:
those are read past, and nothing is asked to build them. `.npz` is read without pickle; `.safetensors`, which this
package writes, and `.h5` cannot hold code at all.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from edgekd.device.runner.arrays import ARRAY_DAMAGE, array_headers
from edgekd.errors import InputError, shown
from edgekd.escaping import is_utf8
from edgekd.files.whole import write_bytes
from edgekd.models.checkpoints import AVERAGED, State, Unwrapped, fitted, unwrapped

MOST_PACKED, SMALL = 100, 1 << 28  # weights are noise, which does not pack; what is small may be all zeros


def read_weights(path: Path, wanted: Collection[str] = ()) -> State:
    """The tensors of a `.safetensors`, `.pth`/`.pt`/`.bin`/`.ckpt`, `.npz` or `.h5` file, by name, on the CPU.

    A checkpoint that wraps them, `{"model": {...}}` or `{"ema": {...}}`, is unwrapped (see `checkpoints`); entries that
    are not tensors (class names, step counts) are left out, and a prefix that all names share, where more of those
    `wanted` are there without it. Raises `InputError` when the file is missing, damaged, not a weights file, or holds
    code; no code in it is ever run.
    """
    return fitted(_read(path).state, wanted)


def taken_of_several(path: Path) -> str | None:
    """Which of several sets of weights in a checkpoint is read, where averaged ones are among them: a sentence."""
    found = _read(path)
    if not found.left or not set(found.taken) & set(AVERAGED):
        return None
    return (
        f"{path}: its averaged weights ('{'.'.join(found.taken)}') were taken, not '{found.left[0]}'."
        f" Save '{found.left[0]}' alone to have it instead."
    )


def _read(path: Path) -> Unwrapped:
    reader = _READERS.get(path.suffix.lower())
    if not path.is_file():
        raise InputError(
            f"{path}: no such weights file. Check the path, or see `edgekd teachers` for where to get one."
        )
    if reader is None:
        raise InputError(f"{path}: not a weights file: its name must end in {', '.join(_READERS)}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: not a weights file: it is empty. Copy or download it again.")
    try:
        found = unwrapped(reader(path))
    except OSError as failure:
        raise InputError(f"{path}: cannot be read: {failure.strerror or failure}.") from None
    if found.several:
        raise InputError(
            f"{path}: holds tensors under {_first([repr(name) for name in found.several], 6)}, and nothing says which"
            f" are meant. Save one of them: {_HOW_TO_SAVE}."
        )
    if not found.state:
        raise InputError(f"{path}: not a weights file: it holds no named tensors. Save them: {_HOW_TO_SAVE}.")
    return found


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors to a `.safetensors` file, whole or not at all. Raises `InputError` when the disk refuses."""
    # Tensors that share memory or are views would be refused, so each is made whole and its own.
    whole = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(whole))


def load_matching(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    ignore_prefixes: tuple[str, ...] = (),
    reinitialised: tuple[str, ...] = (),
) -> None:
    """Copy `state`, read from `path`, into `module`; every name and shape has to agree, but for a prefix that all names
    of the file share.

    Names in the file that start with one of `ignore_prefixes` are left out; those of the module that start with one of
    `reinitialised` keep the values they have. Raises `InputError` that says how much agrees and what does not.
    """
    own = module.state_dict()
    state = fitted(state, own)
    wanted = {name: tensor.shape for name, tensor in own.items() if not name.startswith(reinitialised)}
    given = {name: tensor for name, tensor in state.items() if not name.startswith(ignore_prefixes)}
    # Files of PyTorch before 0.4.1 have no batch counts; nothing computed in this package depends on them.
    missing = [name for name in wanted if name not in given and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in given if name not in wanted]
    misshaped = [name for name in wanted if name in given and given[name].shape != wanted[name]]
    if missing or unexpected or misshaped:
        agree = sum(name in given for name in wanted) - len(misshaped)
        shapes = [f"{name} is {tuple(given[name].shape)}, not {tuple(wanted[name])}" for name in misshaped]
        differences = [
            f"{kind}: {_first(names)}"
            for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if names
        ]
        raise InputError(
            f"{path}: not weights of {type(module).__name__}: {agree} of its {len(wanted)} tensors are there; "
            f"{'; '.join(differences)}. Give a file of that model, or name the model this file is of."
        )
    module.load_state_dict({**own, **given})


def _read_safetensors(path: Path) -> State:
    try:
        if not is_utf8(str(path)):  # which it does not find
            return load(path.read_bytes())
        return load_file(path)
    except SafetensorError as failure:
        raise _damaged(path, str(failure)) from None


def _read_npz(path: Path) -> State:
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "it is not an archive of arrays")
    try:
        headers = array_headers(path)
        _check_size(path, sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values()))
        with np.load(path, allow_pickle=False) as file:
            return {name: _tensor(file[name]) for name, (_, dtype) in headers.items() if _is_number(dtype)}
    except ARRAY_DAMAGE as failure:
        if "allow_pickle" in str(failure):
            raise _code(path, "an array of Python objects") from None
        raise _damaged(path, str(failure)) from None


def _read_h5(path: Path) -> State:
    """Keras weights: each array by its path in the file, `layer1/conv/layer1/conv/kernel:0`."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: reading .h5 needs h5py: pip install 'edgekd[yamnet]'.") from None
    found: dict[str, h5py.Dataset] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None and _is_number(item.dtype):
            found[name] = item

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
            _check_size(path, sum(math.prod(item.shape) * item.dtype.itemsize for item in found.values()))
            return {name: _tensor(np.asarray(item[()])) for name, item in found.items()}
    except (OSError, *ARRAY_DAMAGE) as failure:
        raise _damaged(path, str(failure)) from None


def _is_number(dtype: np.dtype[Any]) -> bool:
    """Whether PyTorch has such numbers."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def _check_size(path: Path, promised: int) -> None:
    """Raises `InputError` for arrays that would take far more memory than weights in a file of this size can."""
    most = max(SMALL, MOST_PACKED * path.stat().st_size)
    if promised > most:
        raise _damaged(path, f"its arrays are of {shown(promised)} bytes, in a file of {path.stat().st_size}")


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_ReadPast, name) for name in _READ_PAST]):
            warnings.simplefilter("ignore", UserWarning)  # that the pickle may be refused: then it is, below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as failure:
        forbidden = _FORBIDDEN.search(str(failure))
        if forbidden is None:
            raise _damaged(path, "torch.save did not write it") from None
        raise _code(path, forbidden[1]) from None
    except TORCH_DAMAGE as failure:
        if _is_program(path):
            raise _code(path, "a program that torch.jit.save or torch.export.save wrote") from None
        raise _damaged(path, str(failure)) from None
    return content


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("archive_format") for name in archive.namelist())


class _ReadPast:
    """What the unpickler gets in place of numpy's functions and classes: takes any arguments and keeps nothing."""

    def __init__(self, *_arguments: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


def _code(path: Path, offender: str) -> InputError:
    return InputError(
        f"{path}: contains code, not only tensors ({offender}): refused, and nothing in it was run. "
        f"Save the tensors alone: {_HOW_TO_SAVE}, or a .safetensors."
    )


def _damaged(path: Path, reason: str) -> InputError:
    line = (reason.strip() or "it ends too early").splitlines()[0].rstrip(".")
    return InputError(f"{path}: not a weights file, or a damaged one ({line[:120]}). Copy or download it again.")


def _first(names: list[str], count: int = 3) -> str:
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


_HOW_TO_SAVE = "torch.save(model.state_dict(), 'weights.pth')"
# What a pickle calls to rebuild a numpy array or number, before and since numpy 2; what fairseq keeps beside weights.
_READ_PAST = (
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "fairseq.data.dictionary.Dictionary",
)
# How PyTorch's restricted unpickler words the refusal of a function or class that it does not allow.
_FORBIDDEN = re.compile(r"GLOBAL (\S+) (?:was not|whose module)")
# What a file that is cut short, or is something else under this name, makes `torch.load` raise.
TORCH_DAMAGE = (
    RuntimeError,  # a RecursionError too
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
)
_READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".ckpt": _read_torch,
    ".npz": _read_npz,
    ".h5": _read_h5,
}
