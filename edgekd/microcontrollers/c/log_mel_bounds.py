"""Whether the constants of a log-mel, in floats or in fixed point, keep the C inside of its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np

from edgekd.microcontrollers.c.definitions import has_length, need
from edgekd.microcontrollers.integer.log_mel import LOG_PARTS, ROOT_PARTS
from edgekd.microcontrollers.integer.transform import LARGEST_RADIX

_MOST_BITS = 30  # of a magnitude, and of a row's fraction


def check_log_mel(log_mel: SimpleNamespace, sizes: Mapping[str, int]) -> None:
    """Raise `ValueError`, with what is wrong, where the constants of a log-mel would lead the C astray."""
    points, mels, length = log_mel.points, log_mel.mels, log_mel.window_length
    need(2 * points + 2 == sizes["SPECTRUM"], "EDGEKD_SPECTRUM is not that of .points")
    need(length == sizes["FRAME_SAMPLES"] and length <= 2 * points, "EDGEKD_FRAME_SAMPLES is not .window_length")
    steps = mels // max(log_mel.bins_per_step, 1)
    need(steps * log_mel.bins_per_step == mels and steps == sizes["BINS"], "EDGEKD_BINS is not that of .mels")
    has_length(log_mel.radices, log_mel.stages, "radices")
    product, twiddles, fixed = 1, 0, bool(sizes.get("FIXED_POINT"))
    for radix in log_mel.radices.tolist():
        need(radix in (2, 4) or (3 <= radix < LARGEST_RADIX and radix % 2), f"a stage of radix {radix}")
        turned = product - 1 if fixed else product  # in fixed point those of the first number are not among them
        twiddles += 2 * (radix - 1) * turned + (0 if radix in (2, 4) else 2 * radix)
        product *= radix
    need(product == points, "the product of the radices is not .points")
    lengths = {
        "order": points,
        "window": length,
        "twiddles": twiddles,
        "rotations": 2 * (points // 2 + (0 if fixed else 1)),
        "factor": steps,
        "offset": steps,
    }
    if fixed and not log_mel.of_magnitudes:
        edges = dict.fromkeys(("count", "rising", "falling"), mels + 1)
        lengths |= {"first": 1, **edges, **dict.fromkeys(("up", "down", "shift"), mels)}
    else:
        lengths |= {"first": mels, "count": mels}
    if fixed:
        lengths["logarithms"] = LOG_PARTS + 1
        need(log_mel.bits <= _MOST_BITS and 0 < log_mel.fraction_bits <= _MOST_BITS, "a row has too many bits")
        need(log_mel.count_bits <= 16, ".count_bits is more than a count has")
    if fixed and log_mel.of_magnitudes:
        lengths["roots"] = 3 * ROOT_PARTS + 1
        need(1 << 15 <= log_mel.least < 1 << 16, ".least is no number of 16 bits")
    for name, count in lengths.items():
        has_length(getattr(log_mel, name), count, name)
    need((log_mel.order < points).all(), "order has a place beyond .points")
    heard = int(log_mel.count.sum(dtype=np.int64))
    if fixed and not log_mel.of_magnitudes:
        need(int(log_mel.first[0]) + heard <= points + 1, "filters hear bins beyond the spectrum")
        return
    reach = log_mel.first.astype(np.int64) + log_mel.count
    need((reach <= points + 1).all(), "a filter hears bins beyond the spectrum")
    has_length(log_mel.filters, heard, "filters")
