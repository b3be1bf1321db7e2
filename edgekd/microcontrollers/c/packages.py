"""What lets Arduino, PlatformIO, Zephyr, ESP-IDF and CMake take a bundle as it lies.

    src/                 the library: all that is compiled into a user's program, and nothing else
    examples/NAME/       sketches for Arduino; Verify has the recordings that a board is compared with
    extras/              programs for this machine and for the emulator
    zephyr/              the module's description, and an application that compares a board

Arduino and PlatformIO compile whatever lies under `src`, so nothing with a `main` may lie there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgekd import __version__
from edgekd.device.c import HEADERS, LIBRARY, SOURCES
from edgekd.microcontrollers.c.model import CLASSES, HEADER, MODEL

LIBRARY_FOLDER = "src"
MICROPHONE_RATES = (16_000,)  # Hz, of Arduino's PDM library on all its boards
_PACKAGES = SOURCES / "packages"
_VERIFY, _EXTRAS, _MICROPHONE = "examples/Verify", "extras", "examples/Microphone"
_PLACES = {
    **dict.fromkeys((*LIBRARY, *HEADERS, MODEL, HEADER, CLASSES), LIBRARY_FOLDER),
    **dict.fromkeys(("main_verify.c", "golden.h", "edgekd_report.h"), _VERIFY),
    **dict.fromkeys(("main_stream.c", "host.c", "emulator.c", "emulator.ld"), _EXTRAS),
}
_LONGEST_NAME = 63  # of a library of Arduino's


def place(name: str) -> str:
    """Where a file called `name` lies in a bundle."""
    folder = _PLACES.get(name)
    return name if folder is None else f"{folder}/{name}"


def placed(files: Mapping[str, str]) -> dict[str, str]:
    """`files` by their places in a bundle."""
    return {place(name): content for name, content in files.items()}


def by_name(files: Mapping[str, bytes]) -> dict[str, str]:
    """The files of a bundle as text, by their names alone."""
    return {PurePosixPath(path).name: content.decode() for path, content in files.items()}


def find(folder: Path, name: str) -> Path:
    """The file called `name` of the bundle in `folder`; older bundles have all in one folder."""
    path = folder / place(name)
    return path if path.exists() else folder / name


def model_in(folder: Path) -> dict[str, str]:
    """The constants of the bundle in `folder`, by name."""
    return {name: find(folder, name).read_text(encoding="utf-8") for name in (MODEL, HEADER)}


def packages(run: str, classes: int, rate: int) -> dict[str, str]:
    """The descriptions and examples for each build system by their places in a bundle, of the classifier of `run` with
    so many `classes` that hears `rate` samples a second."""
    files = {
        path.relative_to(_PACKAGES).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(_PACKAGES.rglob("*"))
        if path.is_file()
    }
    if rate not in MICROPHONE_RATES:
        files = {name: content for name, content in files.items() if not name.startswith(_MICROPHONE)}
    name, sentence = library_name(run), f"An audio classifier of {classes} classes, for 16-bit samples at {rate} Hz."
    return {
        **files,
        "library.properties": _ARDUINO.format(name=name, version=__version__, sentence=sentence),
        "library.json": json.dumps(_platformio(name, sentence), indent=2) + "\n",
        "idf_component.yml": f'version: "{__version__}"\ndescription: "{sentence}"\n',
    }


def library_name(run: str) -> str:
    """A name that libraries of Arduino and PlatformIO may have, for the classifier of the run in the folder `run`."""
    own = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(run).name).strip("-")
    return f"edgekd-{own}"[:_LONGEST_NAME].rstrip("-")


def _platformio(name: str, sentence: str) -> dict[str, object]:
    return {
        "name": name,
        "version": __version__,
        "description": sentence,
        "keywords": "audio, classifier, int8",
        "headers": "edgekd.h",
        "frameworks": "*",
        "platforms": "*",
        "build": {"srcDir": LIBRARY_FOLDER, "includeDir": LIBRARY_FOLDER, "flags": "-ffp-contract=off"},
    }


_ARDUINO = """\
name={name}
version={version}
author=edgekd
maintainer=edgekd
sentence={sentence}
paragraph=Its numbers are in src/edgekd_model.c; README.md says how it is checked and used.
category=Signal Input/Output
url=README.md
architectures=*
includes=edgekd.h,edgekd_classes.h
"""
