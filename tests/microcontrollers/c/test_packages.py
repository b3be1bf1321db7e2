"""A bundle's folder as build systems take it: CMake, sketches as C++, the program of its README."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.device.c import HEADERS, SOURCES
from edgekd.exporting.runtimes.plain_c.usage import usage
from edgekd.microcontrollers.c import folder, host, toolchain
from edgekd.microcontrollers.c.cores import CORES
from edgekd.microcontrollers.c.model import model_files
from edgekd.microcontrollers.c.packages import library_name, packages, placed
from tests.microcontrollers.c.programs import needs_emulator, needs_host
from tests.microcontrollers.c.test_host import PANNS, RATE, SAMPLES, quantised_student

CLASSES = ('a "b" \\', "größe ??/", "int", "a-b", "a b")
HEARD_FROM = dict.fromkeys(CLASSES, 0.0)
AS_ARDUINO = ("-DARDUINO=10819", "-O1", "-Wall", "-Wextra", "-Werror")
WARNINGS = ("-Wall", "-Wextra", "-pedantic", "-Werror")
needs_cpp = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which is not installed")
needs_cmake = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("make") is None, reason="needs cmake and make, not both installed"
)
ARDUINO = """\
#ifndef ARDUINO_H
#define ARDUINO_H
#include <stdio.h>
#include <stdint.h>
#include <time.h>
struct Port {
  void begin(long) {}
  operator bool() { return true; }
  void print(const char *text) { fputs(text, stdout); }
  void print(char letter) { putchar(letter); }
  void print(long number) { printf("%ld", number); }
  void println(const char *text) { puts(text); }
  void println(unsigned long number) { printf("%lu\\n", number); }
  int waiting = EOF;
  int available() { if (waiting == EOF) waiting = getchar(); return waiting != EOF; }
  int read() { int given = waiting; waiting = EOF; return given; }
};
static Port Serial;
static inline unsigned long micros() { return (unsigned long)clock(); }
static inline void delay(unsigned long) {}
void setup();
void loop();
#endif
"""
PDM = """\
#include "Arduino.h"
struct Microphone {
  void (*told)() = nullptr;
  void onReceive(void (*callback)()) { told = callback; }
  bool begin(int channels, int rate) { return channels == 1 && rate > 0; }
  int left = 0;
  int available() { return left; }
  int read(void *to, int bytes) { left -= bytes; return (int)fread(to, 1, (size_t)bytes, stdin); }
};
static Microphone PDM;
static inline bool hear() {
  int next = getchar();
  if (next == EOF) return false;
  ungetc(next, stdin);
  PDM.left = 700;
  PDM.told();
  return true;
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small student but for the manifest, in a folder whose name has a space, with stand-ins for
    Arduino's headers."""
    rng = np.random.default_rng(5)
    clips = torch.from_numpy((0.1 * rng.standard_normal((8, SAMPLES))).astype(np.float32))
    student, network = quantised_student(PANNS.at(RATE), clips)
    model = model_files(student, network, SAMPLES, 1_280)
    recordings = host.in_16_bits(clips[:2].numpy())
    scores = host.scores(host.HostClassifier(model), recordings)
    texts = folder.all_sources(CLASSES, HEARD_FROM, CORES["cortex-m4"], recordings, scores)
    place = tmp_path_factory.mktemp("a bundle")
    files = {**placed({**model, **texts}), **packages("/runs/é è", len(CLASSES), 16_000)}
    readme = usage(RATE, CORES["cortex-m4"], fixed_point=False, arduino=True)
    for path, text in {**files, "README.md": readme, "stubs/Arduino.h": ARDUINO, "stubs/PDM.h": PDM}.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text, encoding="utf-8")
    (place / "sound.raw").write_bytes(recordings.astype("<i2").tobytes())
    (place / "objects").mkdir()
    run("gcc", *AS_ARDUINO, "-std=gnu11", "-I../src", "-c", *place.glob("src/*.c"), at=place / "objects")
    return place


def run(*command: str | Path, at: Path, sound: bool = False) -> str:
    given = (at / "sound.raw").read_bytes() if sound else b""
    done = subprocess.run([str(each) for each in command], cwd=at, input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("/data/runs/esc-micro", "edgekd-esc-micro"),
        ("Häfen & Schiffe/", "edgekd-H-fen-Schiffe"),
        ("runs/§$%", "edgekd"),
        ("x" * 80, "edgekd-" + "x" * 56),
    ],
)
def test_a_library_has_a_name_that_libraries_may_have(run: str, name: str) -> None:
    assert library_name(run) == name
    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}", name)


def test_the_descriptions_are_what_their_readers_read() -> None:
    files = packages("runs/\nharbour\n", 3, 44_100)
    library = json.loads(files["library.json"])
    assert (library["name"], library["build"]["srcDir"]) == ("edgekd-harbour", "src")
    properties = dict(line.split("=", 1) for line in files["library.properties"].splitlines())
    wanted = "name version author maintainer sentence paragraph category url architectures"
    assert all(properties[key] for key in wanted.split())
    assert "examples/Scores/Scores.ino" in files
    assert "examples/Microphone/Microphone.ino" not in files  # no board's microphone has that rate


@needs_cpp
@needs_host
def test_each_header_is_for_cpp_too(built: Path) -> None:
    public = (*(name for name in HEADERS if not re.search("kernels|exact|helium", name)), "edgekd_classes.h")
    for name in public:
        command = ("g++", *WARNINGS, "-std=c++11", "-fsyntax-only", "-x", "c++", "-Isrc", f"src/{name}")
        run(*command, "-Wno-pragma-once-outside-header", at=built)


@needs_cpp
@needs_host
@pytest.mark.parametrize("name", ["Scores", "Microphone", "Verify"])
def test_a_sketch_compiles_and_does_what_it_says(name: str, built: Path) -> None:
    work = built / f"sketch-{name}"
    work.mkdir()
    sketch = built / "examples" / name / f"{name}.ino"
    loop = "while (hear()) loop();\n  while (written != heard) loop();" if name == "Microphone" else "loop();"
    main = f'#include "Arduino.h"\n#include "{sketch}"\nint main() {{\n  setup();\n  {loop}\n}}\n'
    (work / "sketch.cpp").write_text(main)
    paths = (f"-I{built}/src", f"-I{built}/stubs", f"-I{built}/examples/Verify")
    for source in sketch.parent.glob("*.c"):
        run("gcc", *AS_ARDUINO, "-std=gnu11", *paths, "-c", source, at=work)
    run("g++", *AS_ARDUINO, "-std=gnu++11", *paths, "-c", "sketch.cpp", at=work)
    run("g++", *work.glob("*.o"), *built.glob("objects/*.o"), "-o", "sketch", "-lm", at=work)
    (work / "sound.raw").write_bytes((built / "sound.raw").read_bytes())
    said = run("./sketch", at=work, sound=True)
    if name == "Verify":
        assert "clip 1 of 1: scores that differ 0" in said
        assert "this board agrees" in said
    elif name == "Scores":
        assert "microseconds a second of sound" in said
        assert said.count(" heard") == len(CLASSES) * windows(SAMPLES * 2)
    else:
        assert said.count(" lost 0") == len(CLASSES) * windows(SAMPLES * 2)


def windows(samples: int) -> int:
    """That are complete, of those that begin every 1,280 samples; sketches push whole frames of 128 samples."""
    return (samples // 128 * 128 - SAMPLES) // 1_280 + 1


@needs_host
def test_the_program_of_the_readme_hears_what_its_buffer_is_filled_with(built: Path) -> None:
    (program,) = re.findall(r"```c\n(.*?)```", (built / "README.md").read_text(), re.DOTALL)
    assert len(program.splitlines()) < 27
    before = "#include <stdio.h>\n#include <stdlib.h>\nstatic void sleep_until_interrupt(void);\n"
    before += "static void report_late(void) { exit(9); }\nstatic int reports;\n"
    before += "static void report(int k) { (void)k; reports++; }\n"
    after = """
static void sleep_until_interrupt(void) {
    if (fread(buffer[filled % 2], sizeof buffer[0], 1, stdin) < 1) {
        printf("%d", reports);
        exit(0);
    }
    if (filled % 2) microphone_done();
    else microphone_half_done();
}
"""
    (built / "dma.c").write_text(before + program + after)
    linked = ("dma.c", *built.glob("objects/*.o"), "-o", "dma", "-lm")
    run("gcc", "-std=c99", *WARNINGS, "-O1", "-Isrc", *linked, at=built)
    assert int(run("./dma", at=built, sound=True)) == len(CLASSES) * windows(SAMPLES * 2)


@needs_cmake
@needs_host
def test_cmake_builds_it_alone_and_compares(built: Path) -> None:
    run("cmake", "-B", "build", "-G", "Unix Makefiles", at=built)
    run("cmake", "--build", "build", at=built)
    assert "100% tests passed" in run("ctest", "--test-dir", "build", at=built)


@needs_cmake
@needs_host
def test_esp_idf_reads_it_as_a_script_and_as_a_component(built: Path, tmp_path: Path) -> None:
    early = 'macro(idf_component_register)\n  message("${ARGV}")\n  return()\nendmacro()\n'
    early += f'include("{built}/CMakeLists.txt")\n'
    (tmp_path / "early.cmake").write_text(early)
    said = subprocess.run(["cmake", "-P", tmp_path / "early.cmake"], capture_output=True, text=True, check=False)
    assert (said.returncode, "edgekd_model.c" in said.stderr) == (0, True), said.stderr
    function = 'function(idf_component_register)\n  cmake_parse_arguments(_ "" "" "SRCS;INCLUDE_DIRS" ${ARGN})\n'
    function += "  add_library(mine STATIC ${__SRCS})\n  target_include_directories(mine PUBLIC ${__INCLUDE_DIRS})\n"
    function += "  set(COMPONENT_LIB mine PARENT_SCOPE)\nendfunction()\n"
    text = "cmake_minimum_required(VERSION 3.13)\nproject(app C)\n" + function
    (tmp_path / "CMakeLists.txt").write_text(f'{text}add_subdirectory("{built}" edgekd)\n')
    run("cmake", "-B", "build", "-G", "Unix Makefiles", at=tmp_path)
    assert "-ffp-contract=off" in (tmp_path / "build/edgekd/CMakeFiles/mine.dir/flags.make").read_text()


@needs_cmake
@needs_cpp
@needs_host
def test_cmake_adds_it_to_a_program_in_cpp(built: Path, tmp_path: Path) -> None:
    text = "cmake_minimum_required(VERSION 3.13)\nproject(mine CXX)\n"
    text += f'add_subdirectory("{built}" edgekd)\nadd_executable(mine mine.cpp)\ntarget_link_libraries(mine edgekd)\n'
    (tmp_path / "CMakeLists.txt").write_text(text)
    main = "static edgekd_t c;\nint main() { edgekd_init(&c); return edgekd_push(&c, nullptr, 0); }\n"
    (tmp_path / "mine.cpp").write_text(f"#include <edgekd.h>\n{main}")
    run("cmake", "-B", "build", "-G", "Unix Makefiles", at=tmp_path)
    run("cmake", "--build", "build", at=tmp_path)
    run("build/mine", at=tmp_path)


@needs_emulator
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m55"])
def test_kernels_compile_at_every_level(core: str, tmp_path: Path) -> None:
    """Their assembly takes most registers: no frame pointer may be too much."""
    for level in ("-O0", "-Os", "-O3"):
        sources = [SOURCES / "edgekd_kernels.c", SOURCES / "edgekd_network.c"]
        flags = ("-std=gnu11", level, "-fno-omit-frame-pointer", "-Werror")
        toolchain.cross_objects(sources, tmp_path, CORES[core], flags)
