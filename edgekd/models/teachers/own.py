"""A teacher of the user's own: `--teacher package.module:factory`.

    def factory(num_classes: int, sample_rate: int) -> torch.nn.Module

The module it returns takes waveforms `(B, S)` in [-1, 1] at `sample_rate` Hz and returns a pair, `(logits (B, K), tap
(B, C, T, F))`: a tuple, a named tuple or a `TeacherOutput`. The tap is any early feature map, C channels over time and
frequency (F = 1 where there is no frequency axis).

What can be adapted follows from what it is: `none` takes it as it is, `full` trains all of it, and `head` trains
`module.head` where that is an `nn.Linear` from an embedding `(B, E)` to the logits. A module that is an
`edgekd.models.teachers.base.Teacher` is used as those of the package are.

The factory's module is imported from the installed packages or from the run's `teacher.folder`, which is the current
folder where nothing else is said. Everything that could be wrong with it is found by a trial on noise, before any work.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from edgekd.errors import InputError, UsageError, unknown_name
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.base import Teacher
from edgekd.models.weights import load_matching, read_weights

Factory = Callable[[int, int], nn.Module]


def is_own(name: str) -> bool:
    """Whether a teacher's name is `package.module:factory`, not one of the table."""
    return ":" in name


def find_factory(name: str, folder: Path | None = None) -> Factory:
    """The callable named `package.module:factory`; modules in `folder` (default: the current one) are found as well.

    Raises `UsageError` for a module or attribute that is not there, with the nearest that is, and `InputError` for a
    module that cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise UsageError(f"Teacher '{name}': write one of your own as package.module:factory.")
    module = _import(name, module_name, (folder or Path.cwd()).absolute())
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            callables = [each for each, value in vars(found).items() if callable(value) and not each.startswith("_")]
            raise UsageError(f"Teacher '{name}': {unknown_name(f'name in {module_name}', part, callables)}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"Teacher '{name}': {attribute} is {_kind(found)}, not a function. "
            "Name one that takes (num_classes, sample_rate) and returns a module."
        )
    return found


def build_own(name: str, num_classes: int, sample_rate: int, samples: int, folder: Path | None = None) -> Teacher:
    """The teacher that the factory `name` makes, tried on two clips of noise `(2, samples)`.

    Raises `UsageError` for a name that leads nowhere, and `InputError` for a factory or a module that fails or returns
    something else than logits `(B, num_classes)` and a finite tap `(B, C, T, F)`.
    """
    factory = find_factory(name, folder)
    with _UserCode(f"Teacher '{name}': {name.partition(':')[2]}({num_classes}, {sample_rate})"):
        network = factory(num_classes, sample_rate)
    if not isinstance(network, nn.Module):
        raise InputError(f"Teacher '{name}': the factory returned {_kind(network)}, not a torch.nn.Module.")
    waveforms = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    training = network.training
    with _UserCode(f"Teacher '{name}': its module, given waveforms of shape (2, {samples}),"), torch.no_grad():
        output = network.eval()(waveforms)
    network.train(training)
    tap = _checked_tap(name, output, num_classes)
    if isinstance(network, Teacher):
        return network
    return OwnTeacher(network, sample_rate, tap.shape[1])


class OwnTeacher(Teacher):
    """A module that is no `Teacher`: its logits are what it returns, and its head, where it has one, is its own."""

    def __init__(self, network: nn.Module, sample_rate: int, tap_channels: int) -> None:
        nn.Module.__init__(self)  # `Teacher`'s own would put a new head beside the network's
        self.sample_rate = sample_rate
        self.tap_channels = tap_channels
        self.network = network

    def forward(self, waveform: Tensor) -> TeacherOutput:
        logits, tap = self.network(waveform)
        return TeacherOutput(logits, tap)

    def tap(self, waveform: Tensor) -> Tensor:
        return self(waveform).tap

    def embed(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the network's head, `(B, E)`, and the tap. Raises `InputError` where nothing does."""
        head = self.classifier()
        seen: list[Tensor] = []
        if head is not None:
            handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                tap = self(waveform).tap
            finally:
                handle.remove()
        if head is None or len(seen) != 1 or seen[0].ndim != 2:
            raise InputError(
                "This teacher has no head to train: its module needs an attribute 'head', an nn.Linear called once "
                "with an embedding (B, E). Give it one, or pass --adaptation full or none."
            )
        return seen[0], tap

    def classifier(self) -> nn.Linear | None:
        head = getattr(self.network, "head", None)
        return head if isinstance(head, nn.Linear) else None

    def load_pretrained(self, path: Path) -> None:
        """Load weights named as in the user's module; a head for another number of classes stays new."""
        state, head = read_weights(path), self.classifier()
        given = state.get("head.weight")
        if head is not None and given is not None and given.shape != head.weight.shape:
            load_matching(self.network, state, path, ignore_prefixes=("head.",), reinitialised=("head.",))
        else:
            load_matching(self.network, state, path)

    def load_whole(self, path: Path) -> None:
        load_matching(self.network, read_weights(path), path)


def _import(name: str, module_name: str, folder: Path) -> ModuleType:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # and left there: the module may import its neighbours later
    importlib.invalidate_caches()
    importlib.import_module("edgekd._torchaudio")  # first: the module may import torchaudio itself
    try:
        with _UserCode(f"Teacher '{name}': importing {module_name}"):
            return importlib.import_module(module_name)
    except InputError as failure:
        absent = failure.__cause__
        if not isinstance(absent, ModuleNotFoundError) or absent.name not in (module_name, *_parents(module_name)):
            raise
        near = unknown_name("module", module_name, _modules(folder, module_name))
        raise UsageError(f"Teacher '{name}': {near} Looked in {folder} and the installed packages.") from None


class _UserCode:
    """Within it runs code that is not ours: whatever it raises becomes one `InputError` that says where."""

    def __init__(self, doing: str) -> None:
        self.doing = doing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            last = traceback.extract_tb(trace)[-1]
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            where = f"{last.filename}, line {last.lineno}"
            raise InputError(
                f"{self.doing} failed: {type(error).__name__}: {reason} ({where}; EDGEKD_DEBUG=1 shows all)"
            ) from error


def _checked_tap(name: str, output: object, num_classes: int) -> Tensor:
    """The tap of an output for two clips, which is as it should be."""
    wanted = f"logits (2, {num_classes}) and a tap (2, C, T, F)"
    if not (isinstance(output, tuple | list) and len(output) == 2 and all(isinstance(each, Tensor) for each in output)):
        raise InputError(f"Teacher '{name}': its module must return a pair of tensors, {wanted}, not {_kind(output)}.")
    logits, tap = output
    if logits.shape != (2, num_classes):
        classes = logits.ndim == 2 and len(logits) == 2
        reason = f"it has {logits.shape[1]} classes and the data has {num_classes}" if classes else f"not {wanted}"
        raise InputError(
            f"Teacher '{name}': logits of shape {tuple(logits.shape)} for two clips: {reason}. "
            "Its factory is told the number of classes as its first argument."
        )
    if tap.ndim != 4 or len(tap) != 2 or tap.numel() == 0:
        raise InputError(
            f"Teacher '{name}': a tap of shape {tuple(tap.shape)} for two clips: it must be (2, C, T, F), an early "
            "feature map of C channels over time and frequency (F = 1 where there is none)."
        )
    for what, tensor in (("logits", logits), ("tap", tap)):
        if not tensor.is_floating_point():
            raise InputError(f"Teacher '{name}': its {what} are {tensor.dtype}, not floating point.")
        if not tensor.isfinite().all():
            raise InputError(f"Teacher '{name}': its {what} are not finite for clips of noise.")
    return tap


def _parents(module_name: str) -> Iterator[str]:
    while "." in module_name:
        module_name = module_name.rpartition(".")[0]
        yield module_name


def _modules(folder: Path, module_name: str) -> list[str]:
    """The names of modules in `folder` that could have been meant."""
    package = module_name.rpartition(".")[0]
    inside = folder.joinpath(*package.split(".")) if package else folder
    prefix = f"{package}." if package and inside.is_dir() else ""
    found = (inside if prefix else folder).iterdir()
    modules = [path for path in found if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return [prefix + path.stem for path in modules if path.stem.isidentifier() and path.stem != "__init__"]


def _kind(value: object) -> str:
    """`a tuple`, `an int`, `None`."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
