"""Passive sonar, simulated: what a hydrophone records of ships of four classes, and of the sea without one.

A vessel (`vessels`) passes on a straight track through a sea (`ocean`). Sea, track, signal-to-noise ratio and recorder
gain are drawn alike for every class, so what tells the classes apart is mostly how the sound is woven in time and in
lines, less its mean spectrum, and never its level.

Definition of `snr_db`: power of the vessel over power of the ambient noise, both at the hydrophone, in `snr_band` (1 to
4 kHz, where DEMON analysis is done), over the middle quarter of the recording. It fixes the level; the range decides
interference, absorption and how the level changes along the track. Below that band the ratio is usually higher.

In a notebook:

    rng = np.random.default_rng(0)
    ship = vessel("tug", rng)
    pressure = render(ship, scene(ship, (10, 10), 30.0, rng), sample_rate=8000, seconds=30.0, rng=rng)
"""

from __future__ import annotations

import csv
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from edgekd.config import SimulationConfig
from edgekd.data.simulation import ocean
from edgekd.data.simulation.ocean import Samples, Sea, Track
from edgekd.data.simulation.vessels import Range, Vessel, radiate, vessel
from edgekd.errors import InputError
from edgekd.files import folders
from edgekd.progress import Progress, silent

__all__ = ["CLASSES", "Scene", "Vessel", "band_power", "record", "render", "scene", "simulate", "snr_band", "vessel"]

CLASSES = ("background", "cargo", "passengership", "tanker", "tug")

_KNOT = 1852 / 3600  # m/s


@dataclass(frozen=True)
class Scene:
    """Where and when a recording is made. `track` and `snr_db` are None where no vessel passes."""

    sea: Sea
    track: Track | None
    snr_db: float | None


def scene(ship: Vessel | None, snr_db: Range, seconds: float, rng: np.random.Generator) -> Scene:
    """Draw the sea, and for a ship its track and signal-to-noise ratio, from the same ranges whatever the class."""
    sea = Sea(
        wind_m_s=rng.uniform(3, 12),
        shipping=rng.uniform(0.1, 0.8),
        rain_mm_h=rng.uniform(1, 15) if rng.random() < 0.15 else 0.0,
        snaps_per_s=rng.uniform(0.5, 8) if rng.random() < 0.15 else 0.0,
    )
    if ship is None:
        return Scene(sea, None, None)
    closest = float(np.exp(rng.uniform(np.log(150), np.log(1500))))
    speed = ship.speed_kn * _KNOT
    track = Track(
        closest_m=closest,
        start_m=rng.uniform(-2, 2) * closest - speed * seconds / 2,
        speed_m_s=speed,
        source_depth_m=ship.propeller_depth_m,
        receiver_depth_m=float(np.exp(rng.uniform(np.log(15), np.log(120)))),
    )
    return Scene(sea, track, rng.uniform(*snr_db))


def render(ship: Vessel | None, where: Scene, sample_rate: int, seconds: float, rng: np.random.Generator) -> Samples:
    """Pressure in uPa `(round(seconds * sample_rate),)` at the hydrophone: ambient noise, and `ship` passing in it."""
    samples = round(seconds * sample_rate)
    noise = ocean.ambient(where.sea, sample_rate, samples, rng)
    if ship is None or where.track is None or where.snr_db is None:
        return noise
    lead = where.track.lead(seconds)
    source = radiate(ship, sample_rate, round((seconds + 2 * lead) * sample_rate), rng)
    signal = ocean.propagate(source, where.track, where.sea.wind_m_s, sample_rate, samples)
    ratio = band_power(signal, sample_rate) / band_power(noise, sample_rate)
    return noise + signal * np.float32(np.sqrt(10 ** (where.snr_db / 10) / ratio))


def snr_band(sample_rate: int) -> Range:
    """The band in Hz that `snr_db` is about: 1 to 4 kHz, or as much of it as a low `sample_rate` leaves."""
    return min(1000.0, 0.2 * sample_rate), min(4000.0, 0.45 * sample_rate)


def band_power(pressure: Samples, sample_rate: int) -> float:
    """Mean square in `snr_band` of the middle quarter of a recording."""
    quarter = max(256, pressure.size // 4)
    start = max(0, (pressure.size - quarter) // 2)
    middle = pressure[start : start + quarter]
    spectrum = np.fft.rfft(middle * np.hanning(middle.size).astype(np.float32))
    first, last = (round(edge * middle.size / sample_rate) for edge in snr_band(sample_rate))
    power = np.sum(np.abs(spectrum[first : last + 1]) ** 2, dtype=np.float64)
    return float(2 * power / (0.375 * middle.size**2))  # 0.375: mean square of the Hann window


def record(pressure: Samples, rng: np.random.Generator) -> NDArray[np.int16]:
    """What a recorder makes of `pressure`: 16-bit samples, its gain set to the recording, somewhere.

    The rms level is drawn from -38 to -20 dB re full scale whatever the pressure was, so that level tells nothing; it
    is lowered where a peak would clip.
    """
    level = 10 ** (rng.uniform(-38, -20) / 20)
    rms = np.sqrt(np.mean(np.square(pressure), dtype=np.float64))
    gain = min(level / rms, 0.99 / float(np.abs(pressure).max()))
    return np.rint(pressure * np.float32(32767 * gain)).astype(np.int16)


def simulate(
    folder: Path, config: SimulationConfig, sample_rate: int, clip_seconds: float, progress: Progress = silent
) -> None:
    """Write `folder/<class>/<class>-<nn>.wav`, one mono 16-bit recording a vessel, and the truth, `recordings.csv`.

    A recording lasts `config.windows_per_vessel * clip_seconds` s; a vessel has one, so the recording is the group.
    Each depends on `config.seed`, its class and its number alone. All is written beside `folder`, then renamed.
    Raises `InputError` when `folder` exists or cannot be written.
    """
    if folder.exists():
        raise InputError(f"{folder}: already exists. Remove it, or simulate into another folder.")
    seconds = config.windows_per_vessel * clip_seconds
    total = len(CLASSES) * config.vessels_per_class
    rows: list[dict[str, object]] = []
    try:
        with folders.held(folder):
            work = folders.begin(folder)
            try:
                for class_name in CLASSES:
                    (work / class_name).mkdir(parents=True)
                    for number in range(config.vessels_per_class):
                        rng = np.random.default_rng([config.seed, zlib.crc32(class_name.encode()), number])
                        ship = None if class_name == "background" else vessel(class_name, rng)
                        where = scene(ship, config.snr_db, seconds, rng)
                        samples = record(render(ship, where, sample_rate, seconds, rng), rng)
                        path = work / class_name / f"{class_name}-{number:02d}.wav"
                        path.write_bytes(_wav(samples, sample_rate))
                        rows.append(_truth(path.relative_to(work), class_name, ship, where, seconds))
                        progress("simulate", len(rows), total)
                with open(work / "recordings.csv", "w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, rows[-1].keys())
                    writer.writeheader()
                    writer.writerows(rows)
                folders.install(work, folder, replace=False)
            finally:
                folders.remove(work)
    except OSError as failure:
        raise InputError(
            f"{folder}: the simulated recordings cannot be written: {failure.strerror or failure}."
        ) from None


def _truth(path: Path, class_name: str, ship: Vessel | None, where: Scene, seconds: float) -> dict[str, object]:
    """One row of `recordings.csv`; cells that need a vessel are empty where none passes."""
    row: dict[str, object] = {"file": path.as_posix(), "class": class_name, "vessel": path.stem}
    row |= {"wind_m_s": where.sea.wind_m_s, "shipping": where.sea.shipping}
    row |= {"rain_mm_h": where.sea.rain_mm_h, "snaps_per_s": where.sea.snaps_per_s, "snr_db": where.snr_db}
    track = where.track
    row |= {
        "range_m": None if track is None else float(track.horizontal_range(seconds / 2)),
        "closest_m": None if track is None else track.closest_m,
        "source_depth_m": None if track is None else track.source_depth_m,
        "receiver_depth_m": None if track is None else track.receiver_depth_m,
    }
    columns = (
        "speed_kn length_m shaft_hz blades screws drive engine_hz cylinders strokes mains_hz "
        "level_db hump_hz slope_db_decade modulation sharpness intermittence"
    )
    row |= {name: getattr(ship, name, None) for name in columns.split()}
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}


def _wav(samples: NDArray[np.int16], sample_rate: int) -> bytes:
    """The bytes of a WAV file; built in memory, so that a full disk is an `OSError` and not a file cut short."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
