"""Lengths at which a Fourier transform is quick."""

from __future__ import annotations


def fast_length(samples: int) -> int:
    """The smallest length of at least `samples` whose only prime factors are 2, 3 and 5, and that is even.

    `scipy.fft.next_fast_len(samples, real=True)` without scipy, but for odd lengths.
    """
    best = 1 << max(1, (samples - 1).bit_length())
    five = 1
    while five < best:
        three = five
        while three < best:
            need = -(-samples // three)
            best = min(best, three << max(1, (need - 1).bit_length()))
            three *= 3
        five *= 5
    return best
