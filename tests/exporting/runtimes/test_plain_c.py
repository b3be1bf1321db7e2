"""Bundles of C: from a run to a program that agrees, on this machine and on an emulated core."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from edgekd.config import FrontendConfig
from edgekd.device import edgekd_runner
from edgekd.device.c import HEADERS, LIBRARY
from edgekd.errors import GateError, InputError, UsageError
from edgekd.exporting.budget import TooLarge, untrained
from edgekd.exporting.export import export
from edgekd.exporting.kept_rejection import Rejection
from edgekd.exporting.manifest import Bundle, Check, read_bundle
from edgekd.exporting.predict import open_predictor
from edgekd.exporting.runtimes import RUNTIMES
from edgekd.exporting.runtimes.plain_c import PlainC
from edgekd.exporting.targets import load_target
from edgekd.microcontrollers.c.bounds import check_model
from edgekd.microcontrollers.c.cores import CORES, core_of
from edgekd.microcontrollers.c.host import HostClassifier, classify
from edgekd.microcontrollers.c.measure import compiled, footprint
from edgekd.microcontrollers.c.model import HEADER, MODEL, sizes_of, state_bytes
from edgekd.microcontrollers.c.packages import by_name, place
from edgekd.progress import silent
from edgekd.resources import named_resources
from edgekd.runs.run import Run
from tests.microcontrollers.c.programs import needs_emulator, needs_host

pytestmark = needs_host


@pytest.fixture(scope="module")
def bundle(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(tiny_run, "cortex-m4f", tmp_path_factory.mktemp("c") / "bundle")


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return shutil.copytree(bundle.folder, tmp_path / "bundle")


def like_m4f(tmp_path: Path, old: str, new: str, board: str = "cortex-m4f") -> str:
    text = named_resources("targets")[board].read_text()
    assert old in text
    (tmp_path / "board.toml").write_text(text.replace(old, new))
    return str(tmp_path / "board.toml")


def test_a_bundle_holds_all_that_its_programs_need(bundle: Bundle) -> None:
    library = {f"src/{name}" for name in (*LIBRARY, *HEADERS, MODEL, HEADER, "edgekd_classes.h")}
    names = {name for name in bundle.manifest.files if name.startswith("src/")}
    assert names == library  # what Arduino and PlatformIO compile: nothing with a main
    assert {"examples/Verify/golden.h", "Makefile", "README.md"} < set(bundle.manifest.files)
    written = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert written == {*bundle.manifest.files, "manifest.json"}
    assert bundle.manifest.parity.agreement == 1
    assert bundle.manifest.float_operators.network == ()


def test_a_bundle_says_what_it_takes_of_its_core(bundle: Bundle) -> None:
    measured = [check.figures for check in bundle.manifest.checks if "flash_bytes" in (check.figures or {})]
    readme = (bundle.folder / "README.md").read_text()
    if measured:
        assert measured[0] is not None
        assert f"| Takes | {measured[0]['flash_bytes']:,} bytes of flash (" in readme
    else:
        assert "| Not checked by " in readme
        assert "| Takes |" not in readme


def test_the_library_of_a_machine_without_a_cross_compiler_is_made(tiny_run: Run, tmp_path: Path) -> None:
    folder = export(tiny_run, "esp32-s3", tmp_path / "bundle").folder
    subprocess.run(["make", "-C", str(folder), "library"], capture_output=True, check=True)
    assert (folder / "libedgekd.a").stat().st_size > 10_000
    assert "| Not checked by xtensa-lx7 |" in (folder / "README.md").read_text()


def test_make_verify_agrees_and_notices_another_score(copy: Path) -> None:
    make = ["make", "-C", str(copy), "verify", "CFLAGS=-std=c99 -fsanitize=address,undefined -ffp-contract=off"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert "this board agrees" in done.stdout, done.stdout + done.stderr
    golden = copy / "examples" / "Verify" / "golden.h"
    text = golden.read_text()
    scores = text.index("golden_scores_0[")
    number = text.index("\n    ", scores) + 5
    golden.write_text(text[:number] + "1" + text[number:])
    (copy / "verify-host").unlink()
    changed = subprocess.run([*make[:-1], "CFLAGS=-std=c99"], capture_output=True, text=True, check=False)
    assert changed.returncode
    assert "does NOT agree" in changed.stdout


def test_the_program_for_a_stream_says_what_predict_says(bundle: Bundle, copy: Path, tmp_path: Path) -> None:
    subprocess.run(["make", "-C", str(copy), "stream"], capture_output=True, check=True)
    samples = np.round(3_000 * np.random.default_rng(0).standard_normal(4_000)).astype("<i2")
    done = subprocess.run([str(copy / "stream")], input=samples.tobytes(), capture_output=True, check=True)
    soundfile.write(tmp_path / "a.wav", samples, 4_000, subtype="PCM_16")
    scores, _ = open_predictor(bundle.folder).predict_file(tmp_path / "a.wav")
    second, name, score, *heard = done.stdout.decode().split()
    assert (float(second), name) == (1, bundle.manifest.classifier.classes[scores.argmax()])
    assert float(score) == pytest.approx(scores.max(), abs=0.0006)
    heard_from = bundle.manifest.detection.open.get(name, 2.0)  # the background never is
    assert heard == ["heard"] * (float(score) >= heard_from)


@needs_emulator
def test_the_core_is_measured_and_its_scores_are_those_of_this_machine(bundle: Bundle) -> None:
    _, compiled, emulated = bundle.manifest.checks
    assert compiled.figures is not None
    assert 10_000 < compiled.figures["flash_bytes"] < 120_000  # type: ignore[operator]
    assert 200 < compiled.figures["stack_bytes"] < 4_000  # type: ignore[operator]
    assert "mps2-an386" in emulated.by
    assert emulated.figures == {"clips": 2, "scores_that_differ": 0}


TIES = ("agreement = 0.97", "agreement = 0.9")  # a student that has hardly learned takes one class for another


@needs_emulator
def test_a_core_without_an_fpu_has_its_log_mel_in_fixed_point(bundle: Bundle, tiny_run: Run, tmp_path: Path) -> None:
    fixed = export(tiny_run, like_m4f(tmp_path, *TIES, board="cortex-m0plus"), tmp_path / "bundle")
    manifest = fixed.manifest
    assert manifest.float_operators.frontend == {}
    assert manifest.parity.clips >= 64
    assert manifest.parity.largest_difference < 0.03
    _, against_float, compiled, emulated = manifest.checks
    figures = against_float.figures
    assert figures is not None
    assert figures["frames"] > 2_000  # type: ignore[operator]
    assert 0 < figures["db_of_99_in_100"] < figures["largest_db"] < 0.25  # type: ignore[operator]
    assert 0 < figures["inputs_that_differ"] < 0.02  # type: ignore[operator]
    assert compiled.figures is not None
    assert emulated.figures == {"clips": 2, "scores_that_differ": 0}
    assert "#define EDGEKD_FIXED_POINT 1\n" in (fixed.folder / place(HEADER)).read_text()
    assert "#define EDGEKD_FIXED_POINT 0\n" in (bundle.folder / place(HEADER)).read_text()
    assert "float" not in (fixed.folder / place(MODEL)).read_text()


def test_a_board_without_the_fpu_of_its_core_has_no_float_either(tmp_path: Path) -> None:
    target = load_target(like_m4f(tmp_path, 'core = "cortex-m4"', 'core = "cortex-m4"\nfpu = false'))
    assert target.c is not None
    assert target.c.fixed_point
    core = core_of(target.c.core, target.c.fpu)
    assert core is not None
    assert "-mfloat-abi=soft" in core.flags


def test_windows_that_do_not_overlap_take_the_memory_of_one(tmp_path: Path) -> None:
    frontend = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)
    student = untrained(("hltdnn_micro", 0.5), 3, frontend, 4_000, 4_000, "int8")

    def sizes(seconds: str) -> dict[str, int]:
        board = load_target(like_m4f(tmp_path, "flash_bytes", f"{seconds}flash_bytes"))
        return sizes_of(by_name(PlainC().emit({"int8": student}, board, silent))[HEADER])

    half, whole, thrice = (sizes(asked) for asked in ("", "hop_seconds = 1.0\n", "hop_seconds = 3.1\n"))
    assert [found["HOP_SAMPLES"] for found in (half, whole, thrice)] == [16 * 128, 31 * 128, 97 * 128]
    assert half == {**whole, "HOP_SAMPLES": half["HOP_SAMPLES"]}
    of_a_window = 4 * (3 + half["MEMORY_WORDS"])
    assert state_bytes(half) == state_bytes(thrice) + of_a_window


def test_a_log_mel_that_is_too_far_off_is_refused(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.exporting.runtimes.plain_c.log_mel_error.MOST_NEAR_DB", 1e-4)
    board = like_m4f(tmp_path, *TIES, board="cortex-m0plus")
    with pytest.raises(
        GateError, match=r"The log-mel in fixed point at 4000 Hz is up to 0\.\d+ dB off .*board with an FPU"
    ):
        export(tiny_run, board, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_from_before_the_fixed_point_is_still_read(bundle: Bundle) -> None:
    texts = {name: (bundle.folder / place(name)).read_text() for name in (MODEL, HEADER)}
    texts[HEADER] = texts[HEADER].replace("#define EDGEKD_FIXED_POINT 0\n", "")
    check_model(texts, "here")
    clip = np.round(3_000 * np.random.default_rng(0).standard_normal(4_000)).astype(np.int16)
    now = RUNTIMES["c"].open(bundle.folder)(np.float32(clip[None]) / 32_768)
    assert np.array_equal(classify(HostClassifier(texts))(np.float32(clip[None]) / 32_768), now)


@needs_emulator
def test_the_makefile_of_the_bundle_runs_the_emulator(copy: Path) -> None:
    done = subprocess.run(["make", "-C", str(copy), "library", "emulate"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "this board agrees" in done.stdout + done.stderr
    assert (copy / "libedgekd.a").is_file()


def test_without_the_emulator_the_check_is_said_to_be_left_out(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.microcontrollers.c.toolchain.CROSS_COMPILER", "no-such-gcc")
    checks = export(tiny_run, "cortex-m4f", tmp_path / "bundle").manifest.checks
    assert [check.not_run for check in checks[1:]] == ["no-such-gcc is not installed"] * 2


def further_checks(bundle: Bundle, board: str) -> list[Check]:
    """What an export of the same classifier for `board` has checked beside its classes."""
    files = {place(name): (bundle.folder / place(name)).read_bytes() for name in (MODEL, HEADER)}
    clips = 0.1 * torch.randn(2, bundle.manifest.classifier.clip_samples)
    return list(PlainC().checks(files, None, None, clips, load_target(board), silent))  # type: ignore[arg-type]


@needs_emulator
@pytest.mark.parametrize("board", ["cortex-m7", "cortex-m55", "rp2040", "stm32u5"])
def test_every_core_that_is_emulated_gives_the_scores_of_this_machine(board: str, bundle: Bundle) -> None:
    settings = load_target(board).c
    assert settings is not None
    _, emulated = further_checks(bundle, board)
    assert emulated.figures == {"clips": 2, "scores_that_differ": 0}
    assert CORES[settings.core].emulated.machine in emulated.by


def test_a_core_without_an_emulator_is_checked_here_alone_and_says_so(bundle: Bundle) -> None:
    checks = further_checks(bundle, "esp32-s3")
    assert [(check.by, check.not_run) for check in checks] == [("xtensa-lx7", "there is no emulator of it here")]


@pytest.mark.parametrize(
    ("board", "message"),
    [
        ("esp32-s3", "target 'esp32-s3' is xtensa-lx7, which is not emulated"),
        ("host-c", "target 'host-c' is host, which is not emulated"),
        ("cpu", "target 'cpu' runs no C"),
    ],
)
def test_an_emulator_that_cannot_be_is_not_required(board: str, message: str, tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--require-emulator: {message}"):
        export(tiny_run, board, tmp_path / "bundle", require_emulator=True)


def test_a_required_emulator_that_is_not_there_is_an_error(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.microcontrollers.c.toolchain.EMULATOR", "no-such-qemu")
    with pytest.raises(InputError, match=r"--require-emulator: no-such-qemu is not installed\. Next: apt install"):
        export(tiny_run, "cortex-m4f", tmp_path / "bundle", require_emulator=True)
    assert not (tmp_path / "bundle").exists()


def test_without_a_compiler_nothing_is_written(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError, match="No C compiler is installed"):
        export(tiny_run, "host-c", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@needs_emulator
def test_a_board_with_less_memory_than_is_measured_is_told_of_the_largest_student_that_fits(
    bundle: Bundle, tiny_run: Run, tmp_path: Path
) -> None:
    measured = bundle.manifest.checks[1].figures
    assert measured is not None
    ram = int(measured["ram_bytes"])  # type: ignore[arg-type]
    board = like_m4f(tmp_path, "memory_bytes = 65_536", f"memory_bytes = {ram - 1}")
    with pytest.raises(GateError) as refused:
        export(tiny_run, board, tmp_path / "bundle")
    line = str(refused.value)
    assert line.startswith(
        f"The classifier takes {ram:,} bytes of RAM; target 'cortex-m4f' allows {ram - 1:,} (memory_"
    )
    found = re.search(
        r"'(\S+) x(\S+)' fits \(([\d,]+) bytes of flash, ([\d,]+) bytes of RAM\): edgekd distill --config (\S+) "
        r"--student (\S+) --width (\S+)\.$",
        line,
    )
    assert found is not None, line
    name, width, flash_of_it, ram_of_it, config, *flags = found.groups()
    assert (config, flags) == (str(tiny_run.folder / "config.toml"), [name, width])
    heard = tiny_run.config.frontend, tiny_run.config.data.sample_rate, bundle.manifest.classifier.clip_samples
    other = untrained((name, float(width)), len(tiny_run.classes), *heard, "int8")
    files = PlainC().emit({"int8": other}, load_target(board), silent)
    exactly = footprint(compiled(by_name(files), CORES["cortex-m4"], tmp_path))
    assert abs(int(flash_of_it.replace(",", "")) - exactly["flash_bytes"]) < 64
    assert int(ram_of_it.replace(",", "")) < ram


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "flash_bytes = 262_144",
            "flash_bytes = 2_000",
            r"[\d,]+ bytes of flash; target 'cortex-m4f' allows 2,000 \(c\.f",
        ),
        (
            "memory_bytes = 65_536",
            "memory_bytes = 4_096",
            r"[\d,]+ bytes of RAM; target 'cortex-m4f' allows 4,096 \(mem",
        ),
    ],
)
def test_without_a_cross_compiler_constants_and_state_alone_may_be_too_much(
    old: str, new: str, message: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.microcontrollers.c.toolchain.CROSS_COMPILER", "no-such-gcc")
    with pytest.raises(TooLarge, match=f"takes at least {message}"):
        further_checks(bundle, like_m4f(tmp_path, old, new))


def test_a_board_with_less_memory_is_told_of_a_student_that_fits(tiny_run: Run, tmp_path: Path) -> None:
    board = like_m4f(tmp_path, "activation_bytes = 61_440", "activation_bytes = 12_000")
    with pytest.raises(
        GateError, match=r"bytes live, 12,000 allowed .* fits .*edgekd distill --config \S+ --student hltd"
    ):
        export(tiny_run, board, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('precisions = ["int8"]', 'precisions = ["int8", "fp32"]', r"C is written of int8 students; write \['int8'\]"),
        ('architecture = "armv7e-m"', 'architecture = "xtensa"', "a cortex-m4 has 'armv7e-m'"),
        ("batch = 1", 'frontend = "external"', "the log-mel is part of the C; write 'graph'"),
        ('core = "cortex-m4"', 'core = "cortex-m9"', "c.core"),
        ("flash_bytes = 262_144", "flash_bytes = 12", "c.flash_bytes"),
        ('core = "cortex-m4"', 'core = "cortex-m0plus"\nfpu = true', "fpu = true: a cortex-m0plus has none; leave it"),
        ('core = "cortex-m4"', 'core = "cortex-m55"\nfpu = false', "fpu = false: a cortex-m55 has one; leave it out"),
        ("clock_hz = 80_000_000", "power = { volts = 3.0, milliamperes = [1.0, 2.0] }", "clock_hz, which is missing"),
        (
            "clock_hz = 80_000_000",
            "clock_hz = 9\npower = { volts = 3, milliamperes = [2.0, 1.0] }",
            "lower figure comes",
        ),
    ],
)
def test_a_board_that_c_cannot_serve_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        load_target(like_m4f(tmp_path, old, new))


def test_a_run_that_tells_the_unknown_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    with pytest.raises(UsageError, match=r"C99 does not say how familiar a clip is.*pass --reject off"):
        export(run, "host-c", tmp_path / "bundle", reject=Rejection.named("energy"))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (MODEL, "static const uint8_t", "int here(void) { return 1; }\nstatic const uint8_t"),
        (MODEL, "static const uint8_t", '#include "/etc/hostname"\nstatic const uint8_t'),
        (HEADER, "#endif", "#include <stdlib.h>\n#endif"),
    ],
)
def test_code_among_the_numbers_of_a_bundle_is_not_compiled(copy: Path, name: str, old: str, new: str) -> None:
    path = copy / place(name)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=f"{name} is not one that this edgekd wrote"):
        RUNTIMES["c"].open(copy)


def test_a_bundle_from_when_all_lay_in_one_folder_is_opened(copy: Path) -> None:
    clips = 0.1 * np.random.default_rng(0).standard_normal((2, 2_000)).astype(np.float32)
    contents = json.loads((copy / "manifest.json").read_text())
    clips = np.resize(clips, (2, contents["classifier"]["clip_samples"]))
    expected = RUNTIMES["c"].open(copy)(clips)
    guards = '#ifdef __cplusplus\nextern "C" {\n#endif\n\n', "#ifdef __cplusplus\n}\n#endif\n\n"
    header = (copy / place(HEADER)).read_text()
    assert all(guard in header for guard in guards)
    (copy / place(HEADER)).write_text(header.replace(guards[0], "").replace(guards[1], ""))
    flat = [(copy / path).rename(copy / Path(path).name) for path in contents["files"]]
    contents["files"] = {path.name: edgekd_runner.file_digest(path) for path in flat}
    contents["sha256"] = edgekd_runner.manifest_digest(contents)
    (copy / "manifest.json").write_text(json.dumps(contents))
    bundle = read_bundle(copy)
    assert (bundle.model, bundle.model.exists()) == (copy / MODEL, True)
    np.testing.assert_array_equal(RUNTIMES["c"].open(copy)(clips), expected)


def test_a_bundle_that_was_changed_is_refused(copy: Path) -> None:
    path = copy / place(MODEL)
    path.write_text(path.read_text().replace("1, ", "2, ", 1))
    with pytest.raises(InputError, match=f"{place(MODEL)}: changed since the bundle was written"):
        read_bundle(copy)
