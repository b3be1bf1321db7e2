"""Compilers that are not there, are none, fail, or are too old: a line that says which, and what to do."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from edgekd.errors import GateError, InputError
from edgekd.microcontrollers.c import toolchain
from edgekd.microcontrollers.c.cores import CORES
from tests.microcontrollers.c.programs import needs_emulator, needs_host

M55 = CORES["cortex-m55"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "right.c").write_text("int main(void) { return 0; }\n")
    return tmp_path / "right.c"


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(script if script.startswith("#!") or not script else f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@needs_host
def test_options_in_cc_belong_to_the_compiler(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setenv("CC", f"{toolchain.host_compiler()[0]} -DRIGHT")
    toolchain.build([source], source.with_suffix(""))
    assert toolchain.host_compiler()[1:] == ["-DRIGHT"]


@pytest.mark.parametrize("named", ["no-such-compiler -m64", "/tmp", "'cc", "''"])
def test_a_cc_that_names_nothing_is_said_and_not_passed_over(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", named)
    with pytest.raises(InputError, match=r"\$CC is .* which is no program here: name a C compiler, or unset CC"):
        toolchain.host_compiler()


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("exit 1", "compiles nothing, not even an empty program: it ended with 1 and said nothing"),
        ("echo it: error: licence is over >&2; exit 1", "not even an empty program: it: error: licence is over"),
        ("exit 0", "compiles nothing: it ends well and writes no program"),
        ("#!/no/such/shell\n", "cannot be run: No such file or directory"),
        ("", "cannot be run: Exec format error"),
        (
            "echo as: /tmp/a.o: No space left on device >&2; exit 1",
            r"no space left for what .* name another folder in \$",
        ),
    ],
)
def test_a_compiler_that_compiles_nothing_is_bad_input(
    script: str, wrong: str, monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    monkeypatch.setenv("CC", str(program(source.parent, "my-cc", script)))
    with pytest.raises(InputError, match=wrong) as refused:
        toolchain.build([source], source.with_suffix(""))
    assert "\n" not in str(refused.value)


@needs_host
def test_what_a_good_compiler_refuses_is_the_sources_fault(source: Path) -> None:
    source.write_text("int main(void) { return wrong; }\n")
    with pytest.raises(GateError, match=r"does not compile the exported C: .*right\.c:1:.*wrong"):
        toolchain.build([source], source.with_suffix(""))


def test_what_the_assembler_calls_an_error_is_told_and_another_compiler_asked_for(
    monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    says = (
        'case "$*" in *empty.c*) ;; *) echo "a.s: Assembler messages:\na.s:7: Error: selected FPU" >&2; exit 1;; esac'
    )
    monkeypatch.setenv("CC", str(program(source.parent, "my-cc", says)))
    with pytest.raises(GateError, match=r"C: a\.s:7: Error: selected FPU\. Another C compiler .* name it in \$CC\.$"):
        toolchain.build([source], source.with_suffix(""))


@needs_host
def test_a_library_that_ends_who_loads_it_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ends = "#include <stdlib.h>\n__attribute__((constructor)) static void ends(void) { exit(1); }\n"
    (tmp_path / "ends.c").write_text(ends)
    monkeypatch.setenv("CC", f"{toolchain.host_compiler()[0]} -DRIGHT")
    toolchain.build([tmp_path / "ends.c"], tmp_path / "ends.so", ["-shared", "-fPIC"])
    with pytest.raises(InputError, match=r"-DRIGHT compiles cannot be loaded here: it ended with 1.*out of \$CC"):
        toolchain.check_loads(tmp_path / "ends.so")


def test_compilers_write_where_python_does(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    says = 'echo "error: in $TMPDIR" >&2; exit 1'
    monkeypatch.setenv("CC", str(program(source.parent, "my-cc", says)))
    monkeypatch.setenv("TMPDIR", "/proc")
    with pytest.raises(InputError, match=f"in {tempfile.gettempdir()}"):
        toolchain.build([source], source.with_suffix(""))


@needs_emulator
def test_nothing_is_lacking_here() -> None:
    assert all(toolchain.lacking(core) == {} for core in CORES.values())


def test_programs_that_are_too_old_are_named_with_their_versions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As GCC 9 and QEMU 6.2 say it."""
    unknown = 'case "$*" in *cortex-m55*) echo "gcc: error: unrecognized -mcpu target: cortex-m55" >&2; exit 1;; esac'
    program(tmp_path, toolchain.CROSS_COMPILER, f"{unknown}\necho arm-none-eabi-gcc 9.2.1 20191025")
    program(tmp_path, toolchain.EMULATOR, "echo QEMU emulator version 6.2.0 '(Debian 1:6.2)'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    lacking = toolchain.lacking(M55)
    assert {lack.step for lack in lacking.values()} == {"install a newer one"}
    assert {name: lack.why for name, lack in lacking.items()} == {
        "arm-none-eabi-gcc": "arm-none-eabi-gcc 9.2.1 does not compile for cortex-m55 (gcc: error: unrecognized -mcpu "
        "target: cortex-m55)",
        "qemu-system-arm": "qemu-system-arm 6.2.0 is too old, 7.0 is the oldest that will do",
    }


def test_a_compiler_without_its_library_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, toolchain.CROSS_COMPILER, "echo nano.specs")  # what GCC answers where there is no such file
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    assert toolchain.lacking(M55)["arm-none-eabi-gcc"].why == "newlib is not installed for arm-none-eabi-gcc"
