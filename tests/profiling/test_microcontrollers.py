"""What a profile says of a bundle of C: counts, ranges that are called estimates, and what was left out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekd.config import ProfileConfig
from edgekd.exporting.export import export
from edgekd.exporting.manifest import Bundle
from edgekd.exporting.targets import load_target
from edgekd.profiling.microcontrollers import board_notes, on_microcontroller
from edgekd.profiling.profiler import profile
from edgekd.report.csv_table import report_csv
from edgekd.report.markdown import report_markdown
from edgekd.report.results import Microcontroller, Profile
from edgekd.report.terminal_profile import print_profile
from edgekd.runs.run import Run
from tests.microcontrollers.c.programs import needs_emulator, needs_host

pytestmark = needs_host
QUICK = ProfileConfig(
    repetitions=2, seconds=0.01, memory=False, noise=None, batches=(), energy=False, probes=False, layers=False
)


@pytest.fixture(scope="module")
def bundle(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(tiny_run, "audiomoth", tmp_path_factory.mktemp("c") / "audiomoth")


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> Profile:
    return profile(bundle, QUICK)


@needs_emulator
def test_instructions_memory_and_ranges_are_there(found: Profile) -> None:
    (subject,) = found.subjects
    board = subject.microcontroller
    assert board is not None
    assert board.instructions is not None
    assert board.instructions == (board.log_mel_instructions or 0) + (board.network_instructions or 0)
    assert board.ram_bytes == board.state_bytes + (board.stack_bytes or 0)
    assert (board.flash_bytes or 0) > board.constant_bytes == subject.cost.file_bytes
    assert board.milliseconds == pytest.approx((board.instructions / 48e3, board.instructions / 24e3))
    assert board.millijoules == pytest.approx([ms * 1e-3 * 10.8 * 3 for ms in board.milliseconds])


@needs_emulator
def test_a_reader_is_told_that_it_is_an_estimate(found: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    notes = " ".join(found.notes)
    for words in ("an estimate, not a measurement", "1 to 2 cycles an instruction", "10.8 mA and 3 V", "MLPerf Tiny"):
        assert words in notes
    assert "keep up" not in notes
    assert re.search(r"the longest push of \S+ ms of sound takes \S+ instructions, \S+ to \S+ ms by the same", notes)
    here, there = found.verdict[:2]
    assert here.startswith("audiomoth, compiled for this machine, answers in ")
    assert re.fullmatch(
        r"On its board, a cortex-m4, audiomoth takes \S+ KiB of flash and \S+ KiB of RAM; a second of sound is \S+ "
        r"[kM] instructions \(log-mel \S+ [kM], network \S+ [kM]\), \S+ to \S+ ms by estimate\.",
        there,
    ), there
    assert "at least" in report_markdown(found)
    assert "board_milliseconds_most" in report_csv(found)
    print_profile(found, None)
    shown = capsys.readouterr().out
    assert "ms and mJ are estimated" in shown
    assert Profile.model_validate(found.to_dict()) == found


def test_the_bundle_is_scored_as_its_c_answers(found: Profile, bundle: Bundle) -> None:
    (subject,) = found.subjects
    assert subject.scores is not None
    assert subject.scores.measure == pytest.approx(bundle.manifest.provenance.test_accuracy)
    assert (subject.cost.parameters or 0) > 1_000
    assert (subject.cost.macs or 0) > 10_000


def for_board(bundle: Bundle, board: str) -> Bundle:
    """The same classifier as a bundle for `board`."""
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"target": load_target(board)}))


def on_board(bundle: Bundle) -> Microcontroller:
    found = on_microcontroller(bundle, 0.1 * torch.randn(1, bundle.manifest.classifier.clip_samples))
    assert found is not None
    return found


def test_what_is_not_emulated_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    found = on_board(for_board(bundle, "esp32-s3"))
    assert (found.instructions, found.milliseconds, found.flash_bytes) == (None, None, None)
    notes = board_notes("mine", found, bundle)
    assert notes == ["mine: no instructions were counted on xtensa-lx7: there is no emulator of it here."]
    monkeypatch.setattr("edgekd.microcontrollers.c.toolchain.CROSS_COMPILER", "no-such-gcc")
    notes = board_notes("mine", on_board(bundle), bundle)
    assert notes == ["mine: no instructions were counted on cortex-m4: no-such-gcc is not installed."]


def test_a_reader_is_told_where_what_was_measured_is_not_what_the_bundle_has(bundle: Bundle) -> None:
    changed = bundle.manifest.model_copy(update={"files": bundle.manifest.files | {"src/edgekd_network.c": "0" * 64}})
    pico = for_board(bundle, "esp32-s3")
    notes = board_notes("mine", on_board(pico), replace(bundle, manifest=changed))
    assert notes[0].startswith("mine: its sources are not those of this edgekd, with which its constants were compiled")
    assert notes[1:] == board_notes("mine", on_board(pico), bundle)


@needs_emulator
def test_a_board_that_may_be_late_is_told_of_and_one_without_a_current_has_no_energy(bundle: Bundle) -> None:
    pico = for_board(bundle, "rp2040")
    found = on_board(pico)
    assert found.milliseconds is not None
    assert found.millijoules is None
    slow = found.model_copy(update={"milliseconds": (800.0, 1600.0)})
    notes = " ".join(board_notes("mine", slow, pico))
    assert "No energy: the target's TOML has no [c.power]. It may not keep up with the sound." in notes
    late = found.model_copy(update={"push_seconds": 0.016, "longest_push_instructions": 4_000_000})  # at 133 MHz
    assert "30.1 to 60.2 ms by the same estimate: let the microphone's buffers hold 5 of that length." in " ".join(
        board_notes("mine", late, pico)
    )


def test_a_bundle_that_is_no_c_has_no_microcontroller(tiny_bundle: Path) -> None:
    assert profile(tiny_bundle, QUICK).subjects[0].microcontroller is None
