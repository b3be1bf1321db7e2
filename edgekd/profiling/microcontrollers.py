"""What a bundle of C takes of its board: memory by the cross compiler, instructions by the emulator, and what time and
energy they may come to.

An emulator counts no cycles. So time is a range, between the least and the most cycles that an instruction of the core
takes on average, and energy that time at the current that a datasheet gives: both are estimates, and are called so.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch

from edgekd.device.c import HEADERS, LIBRARY, SOURCES
from edgekd.errors import GateError
from edgekd.exporting.manifest import Bundle
from edgekd.exporting.runtimes.plain_c import NO_EMULATOR, PlainC
from edgekd.exporting.runtimes.plain_c.settings import PlainCSettings, Power
from edgekd.microcontrollers.c import host, measure, toolchain
from edgekd.microcontrollers.c.bounds import read_model
from edgekd.microcontrollers.c.cores import CORES, Core, core_of
from edgekd.microcontrollers.c.count import Instructions, instructions
from edgekd.microcontrollers.c.model import HEADER, sizes_of, state_bytes
from edgekd.report.results import Microcontroller

OTHER_C = (
    "its sources are not those of this edgekd, with which its constants were compiled and measured: they may take "
    "another time and other memory on the board. Next: export the run again, and profile that."
)


@dataclass(frozen=True)
class Published:
    """MLPerf Tiny, keyword spotting by a depthwise network, one inference: ms and mJ that were measured on a board."""

    board: str
    milliseconds: float
    millijoules: float | None
    where: str


_TINY = "https://github.com/mlcommons/tiny_results_"
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "cortex-m4": (
        Published("NUCLEO-L4R5ZI, 120 MHz, reference", 181.9, 7.37, f"{_TINY}v0.5"),
        Published("NUCLEO-L4R5ZI, 120 MHz, X-CUBE-AI 8.0", 72.7, 5.48, f"{_TINY}v1.1"),
    ),
    "cortex-m33": (Published("nRF5340 DK, microTVM with CMSIS-NN", 76.5, None, f"{_TINY}v1.1"),),
    "cortex-m7": (Published("NUCLEO-H7A3ZI-Q, X-CUBE-AI 7.3", 16.7, 2.37, f"{_TINY}v1.1"),),
}


def on_microcontroller(bundle: Bundle, example: torch.Tensor) -> Microcontroller | None:
    """What `bundle` takes of its board while it hears `example (1, S)`; None for a bundle that is no C.

    Where a program is missing, what it would have told is null, and `not_counted` says why.
    """
    target = bundle.manifest.target
    if target.runtime != PlainC.name or target.c is None:
        return None
    model = read_model(bundle.folder)
    sizes = sizes_of(model[HEADER])
    found = Microcontroller(
        core=target.c.core,
        clock_hz=target.c.clock_hz,
        constant_bytes=sizes["CONSTANT_BYTES"],
        state_bytes=state_bytes(sizes),
    )
    core = core_of(target.c.core, target.c.fpu)
    if core is None:
        return found.model_copy(update={"not_counted": NO_EMULATOR})
    lacking = toolchain.lacking(core)
    figures: dict[str, object] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="edgekd-") as name:
            objects = list[Path]()
            if toolchain.CROSS_COMPILER not in lacking:
                objects = measure.compiled(model, core, Path(name))
                pieces = measure.footprint(objects)
                figures |= {key: pieces[key] for key in ("flash_bytes", "stack_bytes")}
                figures["ram_bytes"] = found.state_bytes + pieces["stack_bytes"]
            if not lacking:
                counted = instructions(model, objects, core, host.in_16_bits(example.numpy())[0])
                figures |= _of_a_stream(counted, core, target.c, bundle.manifest.classifier.sample_rate)
            else:
                figures["not_counted"] = next(iter(lacking.values())).why
    except GateError as failure:
        figures["not_counted"] = str(failure)
    return found.model_copy(update=figures)


def _of_a_stream(counted: Instructions, core: Core, settings: PlainCSettings, sample_rate: int) -> dict[str, object]:
    """Counts and estimates of a second of sound, and the count of the longest push."""
    figures: dict[str, object] = {
        "emulator": f"{toolchain.EMULATOR} {toolchain.version(toolchain.EMULATOR)}, {core.emulated.machine}",
        "instructions": counted.total,
        "log_mel_instructions": counted.log_mel,
        "network_instructions": counted.network,
        "longest_push_instructions": counted.longest_push,
        "push_seconds": counted.push_samples / sample_rate,
    }
    if settings.clock_hz is None:
        return figures
    low, high = (counted.total * cycles / settings.clock_hz for cycles in core.cycles)
    figures["milliseconds"] = (1e3 * low, 1e3 * high)
    if settings.power is not None:
        least, most = settings.power.milliamperes
        figures["millijoules"] = (low * least * settings.power.volts, high * most * settings.power.volts)
    return figures


def board_notes(name: str, found: Microcontroller, bundle: Bundle) -> list[str]:
    """What a reader should know of these figures: what was counted, what assumed, and what others measured. What is so
    of every bundle for a core does not name this one: it is told once."""
    settings = bundle.manifest.target.c
    assert settings is not None
    other = [] if _is_of_this_version(bundle) else [f"{name}: {OTHER_C}"]
    if found.instructions is None:
        return [
            *other,
            f"{name}: no instructions were counted on {found.core}: {(found.not_counted or '').rstrip('.')}.",
        ]
    core = CORES[found.core]
    low, high = core.cycles
    notes = [
        *other,
        f"Instructions of a second of sound on a {found.core} were counted by {found.emulator}, with GCC "
        f"{toolchain.version(toolchain.CROSS_COMPILER)} at -O2, windows overlapping as in the bundle. A count of "
        "instructions is none of cycles.",
    ]
    if found.milliseconds is not None and settings.clock_hz is not None:
        notes.append(
            f"{name}: its milliseconds are an estimate, not a measurement: {low:g} to {high:g} cycles an instruction "
            f"({core.manual}) at {settings.clock_hz / 1e6:g} MHz, and no wait for flash or memory."
            f"{_current(settings.power)}{_late(found.milliseconds)}"
        )
        notes += _longest_push(name, found, core, settings.clock_hz)
    published = "; ".join(
        f"{each.milliseconds:g} ms{'' if each.millijoules is None else f' and {each.millijoules:g} mJ'} an inference "
        f"({each.board}; {each.where})"
        for each in PUBLISHED.get(found.core, ())
    )
    if published:
        notes.append(
            f"For comparison, MLPerf Tiny's keyword spotting, another network and of 1 s, measured on a {found.core}: "
            f"{published}."
        )
    return notes


def _is_of_this_version(bundle: Bundle) -> bool:
    """Whether the sources in `bundle` are those that its constants are compiled with here."""
    shipped = {Path(path).name: digest for path, digest in bundle.manifest.files.items()}
    ours = ((name, hashlib.sha256((SOURCES / name).read_bytes()).hexdigest()) for name in (*LIBRARY, *HEADERS))
    return all(shipped.get(name) == digest for name, digest in ours)


def _longest_push(name: str, found: Microcontroller, core: Core, clock_hz: int) -> list[str]:
    """How much sound arrives while the longest push lasts: what buffers before it must hold."""
    if found.longest_push_instructions is None or found.push_seconds is None:
        return []
    hop = 1e3 * found.push_seconds
    least, most = (1e3 * found.longest_push_instructions * cycles / clock_hz for cycles in core.cycles)
    buffers = "no more than one buffer of that length has to wait"
    if most > hop:
        buffers = f"let the microphone's buffers hold {ceil(most / hop) + 1} of that length"
    return [
        f"{name}: the longest push of {hop:.4g} ms of sound takes {found.longest_push_instructions:,} instructions, "
        f"{least:.3g} to {most:.3g} ms by the same estimate: {buffers}."
    ]


def _current(power: Power | None) -> str:
    if power is None:
        return " No energy: the target's TOML has no [c.power]."
    return (
        f" Energy is that time at {_span(*power.milliamperes)} mA and {power.volts:g} V, of the chip alone: nothing of "
        "sleep, microphone or memory card."
    )


def _late(milliseconds: tuple[float, float]) -> str:
    """Whether it keeps up with the sound, where that is not sure."""
    least, most = milliseconds
    if most < 1000:
        return ""
    return " It may not keep up with the sound." if least < 1000 else " It does not keep up with the sound."


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
