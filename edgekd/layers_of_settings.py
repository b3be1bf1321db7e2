"""Settings that are put over others: flags over a file, those of a method over what all methods share.

Some things can be said in two ways, such as a hop in ms or in samples. Where both are said at once the configuration
refuses them; where one is put over the other, the later one displaces the earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SAME_THING = (
    ("frontend.window_ms", "frontend.window_length"),
    ("frontend.window_ms", "frontend.n_fft"),
    ("frontend.hop_ms", "frontend.hop_length"),
    ("augment.time_mask_share", "augment.time_mask_frames"),
)


def displaced(dotted: str, section: Mapping[str, Any]) -> set[str]:
    """The settings beside `dotted`, in its `section`, that say the same thing in another way."""
    if dotted == "frontend.n_fft" and section.get("convention") == "yamnet":  # where the window may be shorter
        return set()
    others = [{*pair} - {dotted} for pair in _SAME_THING if dotted in pair]
    return {name.rpartition(".")[2] for names in others for name in names}
