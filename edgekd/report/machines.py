"""The machines of a profile in words, as the page and Markdown show them."""

from __future__ import annotations

from edgekd.number_formats import NONE, celsius, load
from edgekd.report.results import Machine, Profile


def machines_of(profile: Profile) -> dict[str, Machine]:
    """The machines that times were taken on, by host; the one that made the report is `this machine`."""
    hosts = {subject.host or subject.name: subject.machine for subject in profile.subjects if subject.machine}
    return {"this machine": profile.machine, **hosts}


def machine_rows(profile: Profile) -> tuple[list[str], list[list[str]]]:
    """The names of the machines, and a row for each thing that is known of any of them: its name, then what it is on
    each; `NONE` where a machine does not tell it."""
    machines = {name: described(machine) for name, machine in machines_of(profile).items()}
    keys = dict.fromkeys(key for description in machines.values() for key in description)
    return list(machines), [[key, *(words.get(key, NONE) for words in machines.values())] for key in keys]


def described(machine: Machine) -> dict[str, str]:
    """What is known of a machine, in words."""
    known: dict[str, str | None] = {
        "CPU": f"{machine.cpu or 'not told'}, {machine.cpus} logical",
        "GPU": machine.gpu,
        "busy": "yes: others used it while it was timed" if machine.busy else "no",
        "load before": None if machine.load_average is None else load(machine.load_average),
        "used by others": None if machine.cpus_used_by_others is None else f"{load(machine.cpus_used_by_others)} CPUs",
        "governor": machine.governor,
        "clock after": _clocks(machine),
        "GPU clocks": "; ".join(
            f"{name}: {', '.join(f'{part} {mhz} MHz' for part, mhz in clocks.items())}"
            for name, clocks in machine.devices.items()
        ),
        "power mode": machine.power_mode,
        "temperatures": ", ".join(f"{sensor} {celsius(degrees)}" for sensor, degrees in machine.temperatures.items()),
        "throttled": ", ".join(machine.throttled),
    }
    return {key: words for key, words in known.items() if words}


def _clocks(machine: Machine) -> str | None:
    if not machine.mhz:
        return f"at most {machine.max_mhz} MHz" if machine.max_mhz else None
    low, high = min(machine.mhz), max(machine.mhz)
    most = f" of {machine.max_mhz}" if machine.max_mhz else ""
    return f"{low if low == high else f'{low} to {high}'}{most} MHz"
