"""C compilers of this machine, and the emulator: what builds and runs the sources of a bundle here.

A program is what is compiled of a folder's sources together with `host.c`, or with `emulator.c` for a core under QEMU.
No floating-point operation may be fused with another (`-ffp-contract=off`): then all cores round alike.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import GateError, InputError, shown
from edgekd.microcontrollers.c.cores import Core

CROSS_COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-ffp-contract=off")
STACK_USE = "-fcallgraph-info=su"
LEAST_EMULATOR = (7, 0)
"""6.2 is the first that has Helium, and its boards with an M33 or M55 have no SysTick, which counts instructions."""
_NEWLIB = "nano.specs"
_SECONDS = 600  # for a program under the emulator
_NAME_ANOTHER = "Name a C compiler of this machine in $CC, or unset it."


def host_compiler() -> list[str]:
    """The C compiler of this machine, with the options that belong to it: `$CC`, or `cc`, `gcc` or `clang`.

    Raises `InputError` where there is none, or `$CC` names none.
    """
    wanted = os.environ.get("CC", "").strip()
    if wanted:
        try:
            command = shlex.split(wanted)
        except ValueError:  # a quote that does not end
            command = [wanted]
        if shutil.which(command[0]) is None:
            raise InputError(f"$CC is {shown(wanted)}, which is no program here: name a C compiler, or unset CC.")
        return command
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise InputError(
        "No C compiler is installed, which checks the exported C: install gcc or clang, or name it in $CC."
    )


def version(program: str) -> str:
    """Of a compiler or the emulator."""
    numbers = _version(program)
    return ".".join(map(str, numbers)) if numbers else "of unknown version"


def _version(program: str) -> tuple[int, ...]:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return ()
    found = re.search(r"\d+\.\d+(?:\.\d+)?", done.stdout)
    return tuple(map(int, found[0].split("."))) if found else ()


@dataclass(frozen=True)
class Lack:
    """Why a program cannot be used, and what to do about it."""

    why: str
    step: str = "install a newer one"


def lacking(core: Core) -> dict[str, Lack]:
    """Of the programs that a check on `core` takes, those that cannot be used, by name."""
    found = {CROSS_COMPILER: _no_compiler(core), EMULATOR: _no_emulator()}
    return {program: lack for program, lack in found.items() if lack is not None}


def _not_installed(words: str) -> Lack:
    return Lack(words, f"apt install {PACKAGES}")


def _no_compiler(core: Core) -> Lack | None:
    if shutil.which(CROSS_COMPILER) is None:
        return _not_installed(f"{CROSS_COMPILER} is not installed")
    target = [*FLAGS, "-mthumb", *core.flags, STACK_USE]
    tried = _started([CROSS_COMPILER, *target, "-E", "-x", "c", os.devnull, "-o", os.devnull])
    if tried.returncode:
        return Lack(
            f"{CROSS_COMPILER} {version(CROSS_COMPILER)} does not compile for {core.name} ({_complaint(tried)})"
        )
    specs = _started([CROSS_COMPILER, f"-print-file-name={_NEWLIB}"]).stdout.strip()
    return None if Path(specs).is_absolute() else _not_installed(f"newlib is not installed for {CROSS_COMPILER}")


def _no_emulator() -> Lack | None:
    if shutil.which(EMULATOR) is None:
        return _not_installed(f"{EMULATOR} is not installed")
    have = _version(EMULATOR)
    if have and have < LEAST_EMULATOR:
        least = ".".join(map(str, LEAST_EMULATOR))
        return Lack(f"{EMULATOR} {version(EMULATOR)} is too old, {least} is the oldest that will do")
    return None


def build(sources: Sequence[Path], program: Path, flags: Sequence[str] = ()) -> None:
    """A program for this machine. Raises `GateError` with the compiler's first complaint, and `InputError` where it
    compiles nothing at all."""
    compiler = host_compiler()
    _compile([*compiler, *FLAGS, *flags, *map(str, sources), "-o", str(program), "-lm"])
    if not program.exists():
        raise InputError(
            f"{shlex.join(compiler)} compiles nothing: it ends well and writes no program. {_NAME_ANOTHER}"
        )


def check_loads(library: Path) -> None:
    """Raise `InputError` for a library that ends the process that loads it, as one with a sanitizer does. That takes
    options in `$CC`: without any nothing is tried."""
    compiler = host_compiler()
    if len(compiler) == 1:
        return
    tried = _started([sys.executable, "-I", "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(library)])
    if tried.returncode:
        told = (tried.stderr.strip().splitlines() or [f"it ended with {tried.returncode}"])[-1]
        raise InputError(
            f"What {shlex.join(compiler)} compiles cannot be loaded here: {told} Take options out of $CC, or unset it."
        )


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
    return ["-nostartfiles", f"--specs={_NEWLIB}", "-T", script, *symbols]


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
    done = _started(command, folder)
    if done.returncode == 0:
        return
    told = _complaint(done)
    if os.strerror(errno.ENOSPC) in done.stderr:
        raise InputError(
            f"{tempfile.gettempdir()}: no space left for what {command[0]} compiles. Make room, or name another folder "
            "in $TMPDIR."
        )
    if not _compiles_anything(command):
        raise InputError(f"{command[0]} compiles nothing, not even an empty program: {told}. {_NAME_ANOTHER}")
    another = "" if command[0] == CROSS_COMPILER else " Another C compiler of this machine may: name it in $CC."
    raise GateError(f"{command[0]} does not compile the exported C: {told}.{another}")


def _compiles_anything(command: list[str]) -> bool:
    """Whether the compiler of `command` compiles an empty program."""
    begin = command[: command.index(FLAGS[0])]
    with tempfile.TemporaryDirectory(prefix="edgekd-") as name:
        (Path(name) / "empty.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
        return _started([*begin, "-c", "empty.c", "-o", "empty.o"], Path(name)).returncode == 0


def _started(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a program said and how it ended, in English. Raises `InputError` where it cannot be started."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=folder,
            timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "C", "TMPDIR": tempfile.gettempdir()},  # one that can be written
        )
    except subprocess.TimeoutExpired:
        raise GateError(f"{Path(command[0]).name} did not end within {_SECONDS} seconds.") from None
    except OSError as failure:
        raise InputError(f"{command[0]} cannot be run: {failure.strerror}. {_NAME_ANOTHER}") from None


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The first error of what a compiler said."""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if "error" in line.lower()] or lines  # as says "Error"
    return errors[0].strip() if errors else f"it ended with {done.returncode} and said nothing"


def _run(command: list[str], what: str) -> str:
    try:
        done = _started(command)
    except GateError:
        raise GateError(f"{what} did not end within {_SECONDS} seconds.") from None
    if done.returncode:
        told = " ".join((done.stderr + done.stdout).split())[-300:] or f"exit code {done.returncode}"
        raise GateError(f"{what} failed: {told}.")
    return done.stdout + done.stderr
