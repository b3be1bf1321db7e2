"""What runs a classifier on a microcontroller: sources in C99 that are copied into its bundle as they are."""

from pathlib import Path

SOURCES = Path(__file__).parent

LIBRARY = ("edgekd.c", "edgekd_kernels.c", "edgekd_log_mel.c", "edgekd_log_mel_fixed.c", "edgekd_network.c")
HEADERS = (
    "edgekd.h",
    "edgekd_core.h",
    "edgekd_exact.h",
    "edgekd_exp.h",
    "edgekd_kernels.h",
    "edgekd_kernels_dsp.h",
    "edgekd_kernels_helium.h",
    "edgekd_kernels_thumb.h",
    "edgekd_log_mel.h",
    "edgekd_log_mel_helium.h",
    "edgekd_network.h",
)


def text(name: str) -> str:
    """One of them."""
    return (SOURCES / name).read_text(encoding="utf-8")
