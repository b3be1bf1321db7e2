"""Ships under way: how the vessels of a class are drawn, and the sound each makes at 1 m.

That sound is the sum of
- propeller cavitation: noise with a hump below some 100 Hz and about -20 dB/decade above it (Ross 1976), whose level
  goes with 60 log10(speed) + 20 log10(length) (MacGillivray and de Jong 2021, with their reference speeds per class). A
  share of it that grows with frequency is amplitude-modulated: each blade flares as it passes the wake behind the hull,
  no two blades alike and no two passages alike. DEMON analysis shows this as lines at the shaft and the blade rate;
- lines: blade-rate harmonics, engine cycle and firing-rate harmonics (2- or 4-stroke), generator sets and the 50 or
  60 Hz family, gear mesh with sidebands. Each shaft has its own slow wander, so a line has a finite width that grows
  with its order. Arveson and Vendittis (2000) show blade, firing and generator lines on one bulk carrier.

The ranges of `DESIGNS` are chosen in the light of these sources and overlap on purpose; within a class, what is
drawn is independent, except that shaft, engine and speed follow one throttle.

Ross, *Mechanics of Underwater Noise* (1976). MacGillivray and de Jong, *A reference spectrum model for estimating
source levels of marine shipping*, J. Mar. Sci. Eng. 9, 369 (2021). Arveson and Vendittis, *Radiated noise
characteristics of a modern cargo ship*, JASA 107, 118 (2000). Carlton, *Marine Propellers and Propulsion* (2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from edgekd.data.fourier import fast_length
from edgekd.data.simulation import ocean
from edgekd.data.simulation.ocean import Samples, Values
from edgekd.errors import unknown_name

Range = tuple[float, float]
Drive = Literal["direct", "geared", "electric"]
Choice = TypeVar("Choice")

_LINE_RATE = 4000.0  # Hz, at least: lines and envelopes have nothing above half of it, and are made at this rate


@dataclass(frozen=True)
class Design:
    """How the vessels of a class are drawn: each range is uniform, each table gives weights."""

    length_m: Range
    service_kn: Range
    reference_kn: float  # of the source level model, per class
    rated_shaft_hz: Range
    blades: dict[int, float]
    twin_screw: float  # probability
    propeller_depth_m: Range
    drives: dict[Drive, float]
    cylinders: tuple[int, ...]
    geared_crank_hz: Range
    hump_hz: Range
    slope_db_decade: Range
    modulation: Range
    sharpness: Range
    irregularity: Range
    intermittence: Range
    unsteadiness_db: Range
    line_prominence_db: Range


DESIGNS: dict[str, Design] = {
    # Bulk carriers, container and general cargo ships: one large slow propeller on a two-stroke engine.
    "cargo": Design(
        length_m=(90, 300),
        service_kn=(11, 20),
        reference_kn=13.9,
        rated_shaft_hz=(1.5, 2.5),
        blades={4: 0.35, 5: 0.45, 6: 0.20},
        twin_screw=0.03,
        propeller_depth_m=(4, 9),
        drives={"direct": 0.8, "geared": 0.2},
        cylinders=(5, 6, 7, 8, 9),
        geared_crank_hz=(7, 12),
        hump_hz=(40, 110),
        slope_db_decade=(17.5, 20.5),
        modulation=(0.35, 0.6),
        sharpness=(1.2, 3),
        irregularity=(0.15, 0.4),
        intermittence=(0.1, 0.3),
        unsteadiness_db=(0.3, 1),
        line_prominence_db=(16, 26),
    ),
    # Ferries and cruise ships: two finer, faster propellers made to be quiet, four-stroke or diesel-electric drive.
    "passengership": Design(
        length_m=(60, 300),
        service_kn=(12, 23),
        reference_kn=9.7,
        rated_shaft_hz=(1.9, 3.6),
        blades={4: 0.50, 5: 0.40, 6: 0.10},
        twin_screw=0.8,
        propeller_depth_m=(2.5, 6),
        drives={"geared": 0.6, "electric": 0.4},
        cylinders=(6, 8, 9, 12, 16),
        geared_crank_hz=(7, 13),
        hump_hz=(60, 220),
        slope_db_decade=(19, 23),
        modulation=(0.1, 0.3),
        sharpness=(0.7, 2),
        irregularity=(0.05, 0.2),
        intermittence=(0.05, 0.2),
        unsteadiness_db=(0.3, 1),
        line_prominence_db=(24, 34),
    ),
    # Full hulls: the wake is deep and narrow, so that blades flare briefly and strongly (Carlton 2012, chapter 5).
    "tanker": Design(
        length_m=(100, 330),
        service_kn=(9, 16),
        reference_kn=12.4,
        rated_shaft_hz=(1.1, 1.75),
        blades={3: 0.05, 4: 0.60, 5: 0.35},
        twin_screw=0.02,
        propeller_depth_m=(5, 12),
        drives={"direct": 0.9, "geared": 0.1},
        cylinders=(5, 6, 7),
        geared_crank_hz=(7, 12),
        hump_hz=(35, 90),
        slope_db_decade=(18.5, 21.5),
        modulation=(0.5, 0.8),
        sharpness=(3, 9),
        irregularity=(0.1, 0.3),
        intermittence=(0.05, 0.2),
        unsteadiness_db=(0.3, 1),
        line_prominence_db=(12, 22),
    ),
    # Small, fast-turning, often ducted propellers under heavy and changing load.
    "tug": Design(
        length_m=(20, 60),
        service_kn=(6, 13),
        reference_kn=3.7,
        rated_shaft_hz=(2.6, 5.5),
        blades={3: 0.15, 4: 0.70, 5: 0.15},
        twin_screw=0.6,
        propeller_depth_m=(2, 4.5),
        drives={"geared": 1.0},
        cylinders=(6, 8, 9, 12, 16),
        geared_crank_hz=(10, 28),
        hump_hz=(120, 360),
        slope_db_decade=(15.5, 19),
        modulation=(0.3, 0.65),
        sharpness=(1.2, 3.5),
        irregularity=(0.1, 0.4),
        intermittence=(0.4, 1),
        unsteadiness_db=(1, 3),
        line_prominence_db=(16, 28),
    ),
}


@dataclass(frozen=True)
class Lines:
    """Lines at `orders` times one rate, each `prominence_db` over the cavitation noise in 1 Hz at its frequency."""

    rate_hz: float
    orders: tuple[float, ...]
    prominence_db: tuple[float, ...]
    on_shaft: bool  # turns with the propeller, and wanders with it


@dataclass(frozen=True)
class Vessel:
    """One ship under way. `engine_*` describes the main engine (the generators' engines, under an electric drive)."""

    class_name: str
    length_m: float
    speed_kn: float
    shaft_hz: float
    blades: int
    screws: int
    propeller_depth_m: float
    drive: Drive
    engine_hz: float
    cylinders: int
    strokes: int
    mains_hz: float
    level_db: float  # of the cavitation noise at 1 kHz, dB re 1 uPa^2/Hz at 1 m
    hump_hz: float
    slope_db_decade: float
    modulation: float  # 0..1, share of a blade's flare in the amplitude of the modulated noise
    modulated_above_hz: float  # where half of the noise power is modulated
    sharpness: float  # concentration (von Mises) of the flare within a blade period
    blade_strength: tuple[float, ...]  # one a blade, around 1
    intermittence: float  # spread (log-normal) of a flare from passage to passage
    unsteadiness_db: float  # slow change of the cavitation level
    wander: float  # relative spread of the shaft rate
    lines: tuple[Lines, ...]

    @property
    def blade_hz(self) -> float:
        return self.blades * self.shaft_hz

    def cavitation_level(self, frequency: Values) -> Values:
        """Mean spectrum level of the cavitation noise in dB re 1 uPa^2/Hz at 1 m."""

        def shape(hertz: Values) -> Values:
            ratio = hertz / self.hump_hz
            return -10 * np.log10(ratio**-2.0 + ratio ** (self.slope_db_decade / 10))

        return self.level_db + shape(frequency) - shape(np.array(1000.0))


def vessel(class_name: str, rng: np.random.Generator) -> Vessel:
    """Draw a ship of one of the four classes in `DESIGNS`. Raises `UsageError` for any other name."""
    if class_name not in DESIGNS:
        raise unknown_name("vessel class", class_name, DESIGNS)
    design = DESIGNS[class_name]
    throttle = rng.uniform(0.8, 1.0)
    length, service = rng.uniform(*design.length_m), rng.uniform(*design.service_kn)
    shaft_hz = throttle * rng.uniform(*design.rated_shaft_hz)
    blades = _pick(design.blades, rng)
    drive = _pick(design.drives, rng)
    mains_hz = _pick({60.0: 0.7, 50.0: 0.3}, rng)
    cylinders = int(rng.choice(design.cylinders))
    # A generator turns at its mains frequency over its pole pairs: 600, 720, 750 or 900 rpm.
    generator_hz = mains_hz / _pick({4: 0.4, 5: 0.6}, rng)
    engine_hz = {
        "direct": shaft_hz,
        "geared": throttle * rng.uniform(*design.geared_crank_hz),
        "electric": generator_hz,
    }[drive]
    strokes = 2 if drive == "direct" else 4
    prominence = rng.uniform(*design.line_prominence_db)

    families = [Lines(blades * shaft_hz, *_falling(tuple(range(1, 7)), prominence, 3.0, rng), on_shaft=True)]
    families.append(Lines(engine_hz, *_engine(cylinders, strokes, prominence, rng), on_shaft=drive != "electric"))
    if drive != "electric":  # an auxiliary set besides the main engine
        auxiliary = _engine(int(rng.choice((5, 6, 8))), 4, prominence - 4, rng)
        families.append(Lines(generator_hz, *auxiliary, on_shaft=False))
    families.append(Lines(mains_hz, *_falling((1, 2, 3, 4, 6, 8, 12), prominence - 4, 1.0, rng), on_shaft=False))
    if drive == "geared":
        teeth = int(rng.integers(23, 48))
        turn = shaft_hz / engine_hz  # sidebands where the wheel's run-out modulates the mesh
        orders = (teeth - turn, teeth, teeth + turn, 2 * teeth)
        families.append(Lines(engine_hz, *_falling(orders, prominence - 2, 2.0, rng), on_shaft=True))

    speed = throttle * service
    speed_law = 60 * np.log10(speed / design.reference_kn) + 20 * np.log10(length / 91.44)
    irregularity = rng.uniform(*design.irregularity)
    return Vessel(
        class_name=class_name,
        length_m=length,
        speed_kn=speed,
        shaft_hz=shaft_hz,
        blades=blades,
        screws=2 if rng.random() < design.twin_screw else 1,
        propeller_depth_m=rng.uniform(*design.propeller_depth_m),
        drive=drive,
        engine_hz=engine_hz,
        cylinders=cylinders,
        strokes=strokes,
        mains_hz=mains_hz,
        level_db=131 + float(speed_law) + rng.normal(0, 5),  # 131 dB at 1 kHz: the model's value at reference speed
        hump_hz=float(np.exp(rng.uniform(*np.log(design.hump_hz)))),
        slope_db_decade=rng.uniform(*design.slope_db_decade),
        modulation=rng.uniform(*design.modulation),
        modulated_above_hz=float(np.exp(rng.uniform(np.log(150), np.log(500)))),
        sharpness=float(np.exp(rng.uniform(*np.log(design.sharpness)))),
        blade_strength=tuple(np.maximum(0.1, 1 + irregularity * rng.standard_normal(blades)).tolist()),
        intermittence=rng.uniform(*design.intermittence),
        unsteadiness_db=rng.uniform(*design.unsteadiness_db),
        wander=float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-3)))),
        lines=tuple(families),
    )


def radiate(ship: Vessel, sample_rate: int, samples: int, rng: np.random.Generator) -> Samples:
    """Pressure in uPa at 1 m `(samples,)`."""
    decimation = max(1, int(sample_rate / _LINE_RATE))
    size = decimation * fast_length(-(-samples // decimation))
    line_rate, line_samples = sample_rate / decimation, size // decimation
    other = ship.shaft_hz * (1 + rng.choice((-1, 1)) * rng.uniform(2e-3, 2e-2))  # two shafts are never quite in step
    shafts = [_turns(rate, ship.wander, line_rate, line_samples, rng) for rate in (ship.shaft_hz, other)[: ship.screws]]

    def modulated_to_steady(hertz: Values) -> Values:
        return (hertz / ship.modulated_above_hz) ** 2

    def steady(hertz: Values) -> Values:
        return ship.cavitation_level(hertz) - _decibels(1 + modulated_to_steady(hertz))

    def modulated(hertz: Values) -> Values:
        return ship.cavitation_level(hertz) - _decibels(len(shafts) * (1 + 1 / modulated_to_steady(hertz)))

    spectrum = ocean.noise_spectrum(steady, sample_rate, size, rng)
    lines = np.fft.rfft(_line_sum(ship, shafts, line_rate, rng)) * np.float32(decimation)
    spectrum[: lines.size - 1] += lines[:-1]
    pressure = np.fft.irfft(spectrum, size)
    for turns in shafts:  # each screw has noise and an envelope of its own
        flares = envelope(ship, turns, rng)
        flares = ocean.join(np.append(flares, flares[-1]), decimation, size).astype(np.float32)
        pressure += ocean.coloured_noise(modulated, sample_rate, size, rng) * flares
    pressure *= ocean.fading(ship.unsteadiness_db, 2.0, sample_rate, size, rng)
    return pressure[:samples]


def envelope(ship: Vessel, turns: Values, rng: np.random.Generator) -> Values:
    """Amplitude of the modulated cavitation noise, of mean square 1, at each shaft position `turns` (in revolutions).

    The n-th passage of a blade through the wake is a von Mises pulse centred where `blades * turns = n`, as strong as
    that blade is, times a log-normal factor of its own.
    """
    passage = turns * ship.blades
    first = int(np.floor(passage[0]))
    number = np.arange(first, int(passage[-1]) + 2)
    strength = np.asarray(ship.blade_strength)[number % ship.blades]
    strength = strength * np.exp(ship.intermittence * rng.standard_normal(number.size))
    pulse = np.exp(ship.sharpness * (np.cos(2 * np.pi * passage) - 1))
    flare = np.interp(passage, number, strength) * pulse / pulse.mean()
    amplitude = 1 - ship.modulation + ship.modulation * flare
    return amplitude / np.sqrt(np.mean(amplitude**2))


def _line_sum(ship: Vessel, shafts: list[Values], rate: float, rng: np.random.Generator) -> Samples:
    """All lines of `ship` below 0.45 of `rate`, at 1 m in uPa; two shafts share the power of what they drive."""
    samples = shafts[0].size
    total = np.zeros(samples, np.float32)
    for family in ship.lines:
        if family.on_shaft:
            angles = [turns * (family.rate_hz / ship.shaft_hz) for turns in shafts]
        else:
            angles = [_turns(family.rate_hz, 5e-4, rate, samples, rng)]
        orders, prominence = np.array(family.orders), np.array(family.prominence_db)
        kept = orders * family.rate_hz < 0.45 * rate
        level = ship.cavitation_level(orders[kept] * family.rate_hz) + prominence[kept]
        height = np.sqrt(2 * 10 ** (level / 10) / len(angles)).astype(np.float32)
        for angle in angles:
            gain = ocean.fading(1.0, 3.0, int(rate), samples, rng)
            phase = rng.random((height.size, 1))
            for start in range(0, samples, 4096):  # in pieces that stay in the cache
                piece = slice(start, start + 4096)
                cycles = orders[kept, None] * angle[piece] + phase
                cycles -= np.floor(cycles)  # in double precision, so that the cosine can be single
                total[piece] += gain[piece] * (height @ np.cos(np.float32(2 * np.pi) * cycles.astype(np.float32)))
    return total


def _turns(rate_hz: float, wander: float, rate: float, samples: int, rng: np.random.Generator) -> Values:
    """Revolutions made by each sample `(samples,)` of a shaft at about `rate_hz`, from a random position."""
    step = max(1, int(rate / 5))
    speed = rate_hz * (1 + wander * ocean.drift(3.0, samples / rate, rate / step, rng))
    return rng.random() + np.cumsum(ocean.join(speed, step, samples)) / rate


def _engine(
    cylinders: int, strokes: int, prominence: float, rng: np.random.Generator
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Orders of the crank rate, and their prominences, of a diesel engine.

    They are harmonics of its working cycle (so half-orders of a four-stroke); those of the firing rate, which is
    `cylinders` a cycle, are strongest.
    """
    per_turn = 2 / strokes  # cycles a revolution of the crank
    firing = [cylinders * harmonic for harmonic in range(1, 7)]
    others = [int(cycle) for cycle in rng.choice(np.arange(1, 3 * cylinders), 6, replace=False) if cycle % cylinders]
    orders = tuple(per_turn * cycle for cycle in firing + others)
    prominences = [prominence - 2 * harmonic for harmonic in range(6)] + [prominence - 8] * len(others)
    return orders, tuple((prominences + rng.normal(0, 3, len(orders))).tolist())


def _falling(
    orders: tuple[float, ...], prominence: float, step_db: float, rng: np.random.Generator
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Orders, and their prominences: `step_db` less from each to the next, with 3 dB of chance."""
    levels = prominence - step_db * np.arange(len(orders)) + rng.normal(0, 3, len(orders))
    return orders, tuple(levels.tolist())


def _pick(weights: dict[Choice, float], rng: np.random.Generator) -> Choice:
    names = list(weights)
    return names[int(rng.choice(len(names), p=np.array(list(weights.values())) / sum(weights.values())))]


def _decibels(power: ArrayLike) -> Values:
    return 10 * np.log10(np.asarray(power, np.float64))
