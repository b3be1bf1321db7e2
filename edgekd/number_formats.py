"""Figures as people read them: one rule a quantity, for the terminal, pages, Markdown, pictures and messages alike.

| quantity                              | rule                                            | reads                   |
|---------------------------------------|-------------------------------------------------|-------------------------|
| ms, clips a second, days, MACs a byte | three digits, at most four decimals             | 0.0213, 3.40, 1,204     |
| parameters, MACs                      | three digits and k, M, G (powers of 1000)       | 812, 25.5 k, 1.10 G     |
| bytes                                 | three digits and KiB, MiB, GiB (powers of 1024) | 812 B, 96.3 KiB         |
| energy, power                         | three digits and µJ, mJ, J; W                   | 83.0 µJ, 1.20 J, 4.30 W |
| share (accuracy, time of a layer)     | per cent, one decimal                           | 92.5%                   |
| difference of shares                  | points, signed, one decimal                     | +1.1, −6.2              |
| points lost, which limits are set for | points, two decimals                            | 0.35                    |
| ratio (speed-up, smaller)             | two decimals, one from 3 on, none from 30 on    | 0.42, 9.2, 49           |
| real-time factor                      | two digits, never an exponent                   | 0.00016                 |
| span of time                          | two units at most                               | 4.5 s, 9 min 5 s, 2 d   |
| p-value                               | three decimals                                  | 0.031, < 0.001          |
| difference of probabilities           | two digits                                      | 0.0021, 1.2e-07         |
| signal to noise                       | dB, one decimal                                 | 41.3                    |
| temperature                           | whole degrees                                   | 61 °C                   |
| CPUs in use, load average             | two decimals                                    | 0.90                    |
| what was set (a limit, a length)      | as it was set                                   | −5 dB, 0.625 s          |
| interval                              | its ends like its figure, without units         | 85.5 to 96.8            |

A minus is U+2212, which screen readers speak. Files for programs (JSON, CSV) hold the numbers as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

NONE = "\N{EN DASH}"
"""Stands where a figure is not known."""
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def number(value: float) -> str:
    """`0.0213`, `0.214`, `3.40`, `23.9`, `1,204`: three digits, with at most four decimals; `< 0.0001` below."""
    if 0 < abs(value) < 0.00005:
        return "< 0.0001"
    for decimals, limit in ((4, 0.1), (3, 1), (2, 10), (1, 100)):
        if value != 0 and round(abs(value), decimals) < limit:
            return _signed(value, decimals)
    return _signed(value, 0)


def count(value: float) -> str:
    """`812`, `25.5 k`, `69.2 M`, `1.10 G`: of parameters and operations."""
    if abs(value) < 999.5:
        return _signed(value, 0)
    return _scaled(value, 1000, ("k", "M", "G", "T"))


def size(value: float) -> str:
    """`812 B`, `96.3 KiB`, `14.4 MiB`: of `value` bytes."""
    if abs(value) < 1024:
        return f"{_signed(value, 0)} B"
    return _scaled(value, 1024, ("KiB", "MiB", "GiB", "TiB"))


def energy(value: float) -> str:
    """`83.0 µJ`, `11.2 mJ`, `1.20 J`."""
    for unit, symbol in ((1.0, "J"), (1e-3, "mJ")):
        if round(value / unit, 3) >= 1:
            return f"{number(value / unit)} {symbol}"
    return f"{number(value * 1e6)} µJ"


def power(value: float) -> str:
    """`4.30 W`."""
    return f"{number(value)} W"


def percent(share: float) -> str:
    """`92.5%`, of a share from 0 to 1."""
    return f"{_signed(100 * share, 1)}%"


def area(share: float) -> str:
    """The area under a ROC curve: `0.93`."""
    return f"{share:.2f}"


def points(share: float) -> str:
    """`+1.1`, `−6.2`: a difference of shares, in points of a per cent."""
    return _signed(100 * share, 1, "+")


def points_lost(value: float) -> str:
    """`0.35`, `−0.10`: points of accuracy given up, which limits with such decimals are set for."""
    return _signed(value, 2)


def ratio(value: float) -> str:
    """`0.97`, `1.25`, `9.2`, `49`: finer near 1, where it says whether there is a difference at all."""
    return _signed(value, 2 if value < 2.995 else 1 if value < 29.95 else 0)


def times(value: float) -> str:
    """`9.2×`."""
    return ratio(value) + TIMES


def real_time_factor(value: float) -> str:
    """`0.00016`, `0.019`, `1.2`: two digits."""
    decimals = 1 if value == 0 else max(0, 1 - math.floor(math.log10(abs(value))))
    return _signed(value, decimals)


def span(seconds: float) -> str:
    """`4.5 s`, `9 min 5 s`, `1 h 30 min`, `2 d 3 h`: how long recordings are, or what lies between them."""
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for size, unit, part, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            count, left = divmod(round(whole / part), size // part)
            return f"{count} {unit}" + (f" {left} {name}" if left else "")
    raise AssertionError(seconds)


def p_value(value: float) -> str:
    """`0.031`, `< 0.001`."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def probability_difference(value: float) -> str:
    """`0.0021`, `1.2e-07`: how far two runtimes are apart in a class probability."""
    return f"{value:.2g}"


def decibels(value: float) -> str:
    """`41.3`, without the unit."""
    return _signed(value, 1)


def celsius(value: float) -> str:
    """`61 °C`."""
    return f"{_signed(value, 0)} °C"


def load(value: float) -> str:
    """`0.90`: CPUs in use on average, or a load average."""
    return f"{value:.2f}"


def setting(value: float) -> str:
    """`−5`, `0.625`: what somebody chose, as it was chosen."""
    return f"{value:g}".replace("-", MINUS, 1) if value < 0 else f"{value:g}"


def interval(low: float, high: float, written: Callable[[float], str]) -> str:
    """`85.5 to 96.8`: the ends by the rule `written` of their figure, without its unit."""
    return " to ".join(written(end).rstrip(f"%{TIMES}") for end in (low, high))


def _scaled(value: float, base: int, symbols: tuple[str, ...]) -> str:
    scaled, place = value / base, 0
    while abs(scaled) >= base - 0.5 and place < len(symbols) - 1:
        scaled, place = scaled / base, place + 1
    return f"{number(scaled)} {symbols[place]}"


def _signed(value: float, decimals: int, sign: str = "-") -> str:
    """`value` with commas between thousands; what rounds to 0 has no minus. `sign` "+" writes one before the rest."""
    rounded = round(value, decimals) + 0.0
    return f"{rounded:{sign},.{decimals}f}".replace("-", MINUS)
