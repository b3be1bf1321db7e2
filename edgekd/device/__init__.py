"""What runs on the device, so it imports nothing of edgekd but its own room.

`edgekd_runner.py`, joined from the parts in `runner/`, is copied into every bundle; `host_agent.py` goes over ssh.
"""

from __future__ import annotations

from pathlib import Path

RUNNER_FILE = Path(__file__).with_name("edgekd_runner.py")
