"""What goes over ssh shares no code with the runner; what they must agree on is compared here."""

from __future__ import annotations

from edgekd.device import host_agent
from edgekd.device.runner import errors, trtexec


def test_it_looks_for_trtexec_where_the_runner_does() -> None:
    assert host_agent.TRTEXEC == trtexec.TRTEXEC


def test_a_runner_that_disagrees_is_no_reason_to_stop() -> None:
    assert host_agent.GOES_ON == (0, errors.DISAGREES)
