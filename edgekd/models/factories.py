"""Models of the user's own, `package.module:factory`: where their code is found, and what it is held to.

A factory is a callable of the user's that returns a `torch.nn.Module`. Its module is imported from the installed
packages or from the folder that the user names with it, and only where the user names it (see `edgekd.own_code`). All
of it is tried on noise before any work: whatever is wrong becomes one line that says where.

Code of the user's is imported in one place, `find_factory`, for teachers and students alike.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from shlex import quote
from types import ModuleType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.models.outputs import StudentOutput, TeacherOutput
from edgekd.own_code import is_factory, name_here, trusted_folder

_TORCH = str(Path(torch.__file__).parent)  # whose lines say less than the user's that led there


def find_factory(subject: str, name: str, folder: Path | None, arguments: str) -> Callable[..., Any]:
    """The callable named `package.module:factory`, where the user has named it (see `edgekd.own_code`).

    `subject`: how messages begin (`Teacher 'm:f'`); `folder`: where the name's settings say that its module is, which
    is told and not looked in; `arguments`: what it takes, in words. Raises `UsageError` for a factory that the user has
    not named and for a module or attribute that is not there, with the nearest that is, and `InputError` for a module
    that cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not is_factory(name):
        raise UsageError(f"{subject}: write one of your own as package.module:factory.")
    module = _import(subject, name, trusted_folder(subject, name, folder), folder)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            callables = [each for each, member in vars(value).items() if callable(member) and not each.startswith("_")]
            raise UsageError(f"{subject}: {unknown_name(f'name in {module_name}', part, callables)}")
        value = getattr(value, part)
    if not callable(value):
        raise UsageError(
            f"{subject}: {attribute} is {_kind(value)}, not a function. "
            f"Name one that takes {arguments} and returns a module."
        )
    return value


def make(subject: str, name: str, factory: Callable[..., Any], *arguments: float) -> nn.Module:
    """The module that the factory called `name` returns. Raises `InputError` where it fails, or returns none."""
    with UserCode(f"{subject}: {name.partition(':')[2]}({', '.join(map(str, arguments))})"):
        network = factory(*arguments)
    if not isinstance(network, nn.Module):
        raise InputError(f"{subject}: the factory returned {_kind(network)}, not a torch.nn.Module.")
    return network


def try_on(subject: str, network: nn.Module, inputs: Tensor, what: str, num_classes: int) -> Tensor:
    """The tap `(2, C, T, F)` of `network`, called in evaluation mode with two clips, `inputs (2, ...)`; nothing of it
    is changed by that. `what`: the inputs, in a word.

    Raises `InputError` where it fails or returns something else than logits `(2, num_classes)` and a finite tap.
    """
    training = network.training
    with UserCode(f"{subject}: its module, given {what} of shape {tuple(inputs.shape)},"), torch.no_grad():
        output = network.eval()(inputs)
    network.train(training)
    wanted = f"logits (2, {num_classes}) and a tap (2, C, T, F)"
    if isinstance(output, StudentOutput | TeacherOutput):
        output = output[:2]
    if not (isinstance(output, tuple | list) and len(output) == 2 and all(isinstance(each, Tensor) for each in output)):
        raise InputError(f"{subject}: its module must return a pair of tensors, {wanted}, not {_kind(output)}.")
    logits, tap = output
    if logits.shape != (2, num_classes):
        classes = logits.ndim == 2 and len(logits) == 2
        reason = f"it has {logits.shape[1]} classes and the data has {num_classes}" if classes else f"not {wanted}"
        raise InputError(
            f"{subject}: logits of shape {tuple(logits.shape)} for two clips: {reason}. "
            "Its factory is told the number of classes as its first argument."
        )
    if tap.ndim != 4 or len(tap) != 2 or tap.numel() == 0:
        raise InputError(
            f"{subject}: a tap of shape {tuple(tap.shape)} for two clips: it must be (2, C, T, F), an early "
            "feature map of C channels over time and frequency (F = 1 where there is none)."
        )
    for part, tensor in (("logits", logits), ("tap", tap)):
        if not tensor.is_floating_point():
            raise InputError(f"{subject}: its {part} are {tensor.dtype}, not floating point.")
        if not tensor.isfinite().all():
            raise InputError(f"{subject}: its {part} are not finite for clips of noise.")
    return tap


class UserCode:
    """Within it runs code that is not ours: whatever it raises becomes one `InputError` that says where, and then
    `advice`."""

    def __init__(self, doing: str, advice: str = "") -> None:
        self.doing, self.advice = doing, advice

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # `sys.exit` in it would end a command as if all were well; only Ctrl-C and SIGTERM do end one.
        if error is not None and not isinstance(error, KeyboardInterrupt):
            frames = traceback.extract_tb(trace)
            last = next((frame for frame in reversed(frames) if not frame.filename.startswith(_TORCH)), frames[-1])
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            where = f"{last.filename}, line {last.lineno}"
            raise InputError(
                f"{self.doing} failed: {type(error).__name__}: {reason} ({where}; EDGEKD_DEBUG=1 shows all)"
                f"{self.advice}"
            ) from error


def _import(subject: str, name: str, folder: Path, stored: Path | None) -> ModuleType:
    module_name = name.partition(":")[0]
    importlib.import_module("edgekd._torchaudio")  # first: the module may import torchaudio itself
    importlib.invalidate_caches()
    there = PathFinder.find_spec(module_name.partition(".")[0], [str(folder)])
    try:
        with _on_path(folder, there), UserCode(f"{subject}: importing {module_name}"):
            module = importlib.import_module(module_name)
        _check_it_is_that(subject, folder, there)
        return module
    except InputError as failure:
        absent = failure.__cause__
        if not isinstance(absent, ModuleNotFoundError) or absent.name not in (module_name, *_parents(module_name)):
            raise
        near = unknown_name("module", module_name, _modules(folder, module_name))
        elsewhere = stored is not None and stored != folder
        other = f" Its settings say {stored}: --trust {quote(name_here(name, stored))}" if elsewhere else ""
        raise UsageError(f"{subject}: {near} Looked in {folder} and the installed packages.{other}") from None


@contextmanager
def _on_path(folder: Path, there: ModuleSpec | None) -> Iterator[None]:
    """Within it `folder` is first where modules are looked for, if the module that is wanted is in it; then the last,
    for neighbours that the module imports later. What lies in a folder of data then stands for no library."""
    entry = str(folder)
    if there is None or entry in sys.path:
        yield
        return
    sys.path.insert(0 if there.loader is not None else len(sys.path), entry)  # a plain folder is found at the end too
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have changed the path itself
            sys.path.remove(entry)
        sys.path.append(entry)


def _check_it_is_that(subject: str, folder: Path, there: ModuleSpec | None) -> None:
    """Raise `UsageError` where Python has given another module of the same name than the one that `folder` has."""
    if there is None or there.loader is None or there.origin is None:
        return
    given = getattr(sys.modules[there.name], "__file__", None)
    if given is None or Path(given).resolve() != Path(there.origin).resolve():
        raise UsageError(
            f"{subject}: a process has one module '{there.name}', and it has that of {given or 'Python'} already: "
            f"rename the one in {folder}."
        )


def _parents(module_name: str) -> Iterator[str]:
    while "." in module_name:
        module_name = module_name.rpartition(".")[0]
        yield module_name


def _modules(folder: Path, module_name: str) -> list[str]:
    """The names of modules in `folder` that could have been meant."""
    package = module_name.rpartition(".")[0]
    inside = folder.joinpath(*package.split(".")) if package else folder
    prefix = f"{package}." if package and inside.is_dir() else ""
    entries = (inside if prefix else folder).iterdir()
    modules = [path for path in entries if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return [prefix + path.stem for path in modules if path.stem.isidentifier() and path.stem != "__init__"]


def _kind(value: object) -> str:
    """`a tuple`, `an int`, `None`."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
