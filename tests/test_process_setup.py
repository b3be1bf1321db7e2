from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

USED_AGAIN = """
import resource
from edgekd.process_setup import keep_freed_memory
{}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(50 << 20)
before = faults()
for _ in range(10):
    bytearray(50 << 20)
print(faults() - before)
"""


def page_faults(first: str, **environment: str) -> int:
    """Of allocating 50 MB ten times over."""
    command = [sys.executable, "-c", USED_AGAIN.format(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_memory_that_was_freed_is_used_again_unless_the_user_says_otherwise() -> None:
    pages = 10 * (50 << 20) // os.sysconf("SC_PAGESIZE")
    plain = page_faults("")
    if plain < pages // 16:  # large pages, or another allocator
        pytest.skip(f"here it costs {plain} page faults to begin with")
    assert page_faults("keep_freed_memory()") < plain // 10
    assert page_faults("keep_freed_memory()", MALLOC_TRIM_THRESHOLD_="131072") > plain // 2
