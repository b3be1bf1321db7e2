"""The cores that C is compiled for, and the boards of QEMU that stand in for them.

    core            emulated board   what is not that core's own
    cortex-m0plus   mps2-an385       the board's core is an M3, which runs an M0+'s instructions as they are
    cortex-m4       mps2-an386
    cortex-m7       mps2-an500
    cortex-m33      mps2-an505
    cortex-m55      mps3-an547

Instructions are counted by SysTick while QEMU has one instruction take a nanosecond (`-icount shift=0`): a tick is as
many of them as the board's clock has nanoseconds a period.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Emulated:
    """A board of QEMU: where its core finds its vectors, where code and all else may lie, as address and size, and
    instructions in a tick of SysTick."""

    machine: str
    vectors: int
    code: tuple[int, int]
    ram: tuple[int, int]
    instructions_a_tick: float

    @property
    def linker_symbols(self) -> dict[str, int]:
        """What `emulator.ld` asks for."""
        (code, code_size), (ram, ram_size) = self.code, self.ram
        return {
            "EMULATOR_VECTORS": self.vectors,
            "EMULATOR_CODE": code,
            "EMULATOR_CODE_SIZE": code_size,
            "EMULATOR_RAM": ram,
            "EMULATOR_RAM_SIZE": ram_size,
        }


@dataclass(frozen=True)
class Core:
    """How GCC is told of a core, and what emulates it; `fpu`: it has single-precision floating point.

    `cycles`: the least and the most that an instruction takes on average, where memory never makes the core wait;
    `manual`: where the cycles of each are, or that two are begun at once.
    """

    name: str
    flags: tuple[str, ...]
    emulated: Emulated
    fpu: bool
    cycles: tuple[float, float]
    manual: str


# Of the M0+ and M4 the manuals have a table: 1 for most instructions, 2 for a load or a branch and more for a taken one
# and for divisions. Of the others they have none, but say that a cycle may begin two.
ONE_AT_ONCE, TWO_AT_ONCE = (1.0, 2.0), (0.5, 2.0)
_ARM = "https://developer.arm.com/documentation"
_MIB = 1 << 20
_HARD = "-mfloat-abi=hard"


def _mps2(machine: str) -> Emulated:
    return Emulated(machine, 0, (0x1000, 4 * _MIB - 0x1000), (0x2000_0000, 4 * _MIB), 40)


CORES = {
    core.name: core
    for core in (
        Core(
            "cortex-m0plus",
            ("-mcpu=cortex-m0plus",),
            _mps2("mps2-an385"),
            False,
            ONE_AT_ONCE,
            f"{_ARM}/ddi0484/latest/",
        ),
        Core(
            "cortex-m4",
            ("-mcpu=cortex-m4", _HARD, "-mfpu=fpv4-sp-d16"),
            _mps2("mps2-an386"),
            True,
            ONE_AT_ONCE,
            f"{_ARM}/100166/latest/",
        ),
        Core(
            "cortex-m7",
            ("-mcpu=cortex-m7", _HARD, "-mfpu=fpv5-sp-d16"),
            _mps2("mps2-an500"),
            True,
            TWO_AT_ONCE,
            f"{_ARM}/ddi0489/latest/",
        ),
        Core(
            "cortex-m33",
            ("-mcpu=cortex-m33", _HARD, "-mfpu=fpv5-sp-d16"),
            Emulated("mps2-an505", 0x1000_0000, (0x1000_1000, 4 * _MIB - 0x1000), (0x3800_0000, 4 * _MIB), 50),
            True,
            TWO_AT_ONCE,
            f"{_ARM}/100230/latest/",
        ),
        Core(
            "cortex-m55",
            ("-mcpu=cortex-m55", _HARD),
            Emulated("mps3-an547", 0, (0x0100_0000, 2 * _MIB), (0x2000_0000, _MIB // 2), 31.25),
            True,
            TWO_AT_ONCE,
            f"{_ARM}/101051/latest/",
        ),
    )
}

SOFT = {"cortex-m4": "cortex-m4", "cortex-m7": "cortex-m7+nofp", "cortex-m33": "cortex-m33+nofp"}
"""Cores that are sold without an FPU too, and what GCC calls them then."""


def core_of(name: str, fpu: bool | None = None) -> Core | None:
    """The core of this name, with its FPU or without; None for one that is not compiled for here.

    `fpu`: where it is not as most are of that name, for those in `SOFT`.
    """
    core = CORES.get(name)
    if core is None or fpu is None or fpu == core.fpu:
        return core
    return replace(core, flags=(f"-mcpu={SOFT[name]}", "-mfloat-abi=soft"), fpu=False)
