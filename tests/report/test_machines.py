"""A machine is described by what it tells, each machine of a profile once."""

from __future__ import annotations

from edgekd.number_formats import NONE
from edgekd.report.machines import described, machine_rows
from edgekd.report.results import Profile


def test_a_machine_is_described_by_what_it_tells(sample_profile: Profile) -> None:
    words = described(sample_profile.machine)
    assert words["clock after"] == "2698 to 2700 of 3500 MHz"
    assert words["busy"].startswith("yes")
    silent = sample_profile.machine.model_copy(
        update={"cpu": None, "governor": None, "mhz": (), "max_mhz": None, "temperatures": {}, "busy": False}
    )
    assert described(silent) == {
        "CPU": "not told, 2 logical",
        "busy": "no",
        "load before": "1.70",
        "used by others": "0.90 CPUs",
    }


def test_every_machine_is_a_column_and_what_it_does_not_tell_a_dash(sample_profile: Profile) -> None:
    machines, rows = machine_rows(sample_profile)
    assert machines == ["this machine", "pi@field-7"]
    table = {name: cells for name, *cells in rows}
    assert table["CPU"] == ["Intel(R) Xeon(R) Processor @ 2.70GHz, 2 logical", "Cortex-A76, 4 logical"]
    assert table["temperatures"] == ["package 61 °C", NONE]
