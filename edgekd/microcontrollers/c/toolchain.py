"""C compilers of this machine, and the emulator: what builds and runs the sources of a bundle here.

A program is what is compiled of a folder's sources together with `host.c`, or with `emulator.c` for a core under QEMU.
No floating-point operation may be fused with another (`-ffp-contract=off`): then all cores round alike.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import GateError, InputError
from edgekd.microcontrollers.c.cores import Core

CROSS_COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-ffp-contract=off")
_SECONDS = 600  # for a program under the emulator


def host_compiler() -> str:
    """The C compiler of this machine: `$CC`, or `cc`, `gcc` or `clang`. Raises `InputError` where there is none."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(name):
            return name
    raise InputError(
        "No C compiler is installed, which checks the exported C: install gcc or clang, or name it in $CC."
    )


def version(program: str) -> str:
    """Of a compiler or the emulator, with the name of a compiler that `cc` may be."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", check=False).stdout
    numbers = re.findall(r"\d+\.\d+(?:\.\d+)?", said)
    return numbers[0] if numbers else "of unknown version"


def missing_for_emulation() -> str | None:
    """Which of the programs is not installed that a check under the emulator takes; None where both are."""
    return next((name for name in (CROSS_COMPILER, EMULATOR) if shutil.which(name) is None), None)


def build(sources: Sequence[Path], program: Path, flags: Sequence[str] = ()) -> None:
    """A program for this machine. Raises `GateError` with the compiler's first complaint."""
    _compile([host_compiler(), *FLAGS, *flags, *map(str, sources), "-o", str(program), "-lm"])


def cross_build(sources: Sequence[Path], program: Path, core: Core, flags: Sequence[str] = ()) -> None:
    """A program for a core under the emulator; beside the sources lies `emulator.ld`. Raises as `build` does."""
    target = ["-mthumb", *core.flags, *linked_for(core, str(sources[0].parent / "emulator.ld"))]
    _compile([CROSS_COMPILER, *FLAGS, *target, *flags, *map(str, sources), "-o", str(program), "-lm"])


def cross_objects(sources: Sequence[Path], folder: Path, core: Core, flags: Sequence[str] = ()) -> None:
    """An object of each source, in `folder`. Raises as `build` does."""
    command = [CROSS_COMPILER, *FLAGS, "-mthumb", *core.flags, *flags]
    _compile([*command, "-c", *(str(source.resolve()) for source in sources)], folder)


def linked_for(core: Core, script: str) -> list[str]:
    """What the linker is told for the board that emulates `core`."""
    symbols = [f"-Wl,--defsym={name}={value}" for name, value in core.emulated.linker_symbols.items()]
    return ["-nostartfiles", "--specs=nano.specs", "-T", script, *symbols]


def emulator_arguments(core: Core) -> list[str]:
    """What QEMU is told, but for the program."""
    options = ["-nographic", "-monitor", "none", "-serial", "none", "-icount", "shift=0"]
    return ["-machine", core.emulated.machine, *options, "-semihosting-config", "enable=on,target=native"]


def run(program: Path) -> str:
    """What a program for this machine prints. Raises `GateError` where it ends with anything but 0."""
    return _run([str(program)], program.name)


def emulate(program: Path, core: Core) -> str:
    """What a program for `core` prints under the emulator. Raises as `run` does."""
    return _run(
        [EMULATOR, *emulator_arguments(core), "-kernel", str(program)], f"{program.name} on an emulated {core.name}"
    )


def _compile(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=folder)
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["nothing"]
        raise GateError(f"{command[0]} does not compile the exported C: {told[0]}.")


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise GateError(f"{what} did not end within {_SECONDS} seconds.") from None
    if done.returncode:
        told = " ".join((done.stderr + done.stdout).split())[-300:] or f"exit code {done.returncode}"
        raise GateError(f"{what} failed: {told}.")
    return done.stdout + done.stderr
