"""The DFT of real frames in up to three factors, and its weights as places on a circle.

With `N = N1 A B`, samples `n = A B n1 + B i + l` of a frame and bins `k = c + N1 (first + a + A b)`,

    X[k] = sum_l W_B^(l b)  sum_i W_AB^((B i + l) a)  sum_n1 w[n] x[n] W_N^(n (c + N1 first)),    W_M = exp(-2 pi j/M),

Cooley and Tukey's factorisation (1965) twice, the twiddle factors put into the sum after which they come. As x is real
only the classes c = 0 .. N1/2 are computed: a bin of another is the mirror image N - k of one of these. `first` begins
the bins at the lowest that is needed, counted round the circle, so that those above a front end's f_max are left out.

Frames begin a hop apart, and A B divides the hop: the first sum is then a convolution over hops, with a group for
each residue B i + l of the samples and a channel for each sample that a hop has of it.

All weights are cosines of whole numbers of steps on one circle; a sine is a cosine a quarter on. They are given as such
numbers, which are exact: float32 angles of thousands of turns are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# ONNX Runtime was quickest with 16 on x86-64, for DFTs of 256 to 1408 points: fewer and the classes 0 and N1/2, whose
# halves are one another's mirror images, weigh more; more and the sums do.
OUTER = 16


@dataclass(frozen=True)
class Factors:
    """`N = outer * middle * inner`; the frames are `hop` samples apart and `window` long, the rest of N being zeros.

    `bins`: how many b there are, `first` as above.
    """

    outer: int
    middle: int
    inner: int
    hop: int
    window: int
    first: int
    bins: int

    @property
    def length(self) -> int:
        """N."""
        return self.outer * self.residues

    @property
    def residues(self) -> int:
        """A B."""
        return self.middle * self.inner

    @property
    def classes(self) -> int:
        """How many c there are."""
        return self.outer // 2 + 1

    @property
    def circle(self) -> int:
        """Steps of the circle: N, or twice as many where N has no quarter."""
        return math.lcm(self.length, 4)

    @property
    def hops(self) -> int:
        """How many hops a window reaches into."""
        return math.ceil(self.window / self.hop)

    @cached_property
    def residue(self) -> Tensor:
        """`(A B,)`: B i + l, in the order (l, i) in which the sums take them."""
        return (self.inner * torch.arange(self.middle) + torch.arange(self.inner)[:, None]).flatten()

    @cached_property
    def sample(self) -> Tensor:
        """`(A B, channels, hops)`: the n of each weight of a kernel; channels of a hop that no window reaches are not
        there, and those that the last one does not reach are beyond `window`."""
        reached = self.hop if self.hops > 1 else min(self.hop, self.residues * math.ceil(self.window / self.residues))
        channel, hop = torch.arange(0, reached, self.residues)[:, None], self.hop * torch.arange(self.hops)
        return self.residue[:, None, None] + channel + hop

    @cached_property
    def source(self) -> Tensor:
        """`(A B * channels,)`: which sample of a hop each channel of the convolution is."""
        return self.sample[:, :, 0].flatten()

    @cached_property
    def frequency(self) -> Tensor:
        """`(classes,)`: c + N1 first, modulo N."""
        return (torch.arange(self.classes) + self.outer * self.first) % self.length

    @cached_property
    def first_steps(self) -> Tensor:
        """Of the first sum's kernels `(A B, re|im, classes, channels, hops)`; the window is not in them."""
        steps = self.circle // self.length * self.sample[:, None, None] * self.frequency[:, None, None]
        return steps + _quarters(self.circle)[:, 0, None, None, None]

    @cached_property
    def second_steps(self) -> Tensor:
        """Of the second sum's matrices `(l, (re|im, a), (i, re|im))`."""
        turns = self.residue.view(self.inner, 1, self.middle) * torch.arange(self.middle)[:, None]  # (l, a, i)
        steps = turns * (self.circle // self.residues)
        matrices = steps[:, None, :, :, None] + _quarters(self.circle)[:, None, None, :]
        return matrices.reshape(self.inner, 2 * self.middle, 2 * self.middle)

    @cached_property
    def third_steps(self) -> Tensor:
        """Of the third sum's matrix `((re|im, b), (l, re|im))`."""
        turns = torch.arange(self.inner) * torch.arange(self.bins)[:, None]  # (b, l)
        steps = turns * (self.circle // self.inner)
        matrix = steps[None, :, :, None] + _quarters(self.circle)[:, None, None, :]
        return matrix.reshape(2 * self.bins, 2 * self.inner)

    @cached_property
    def row(self) -> Tensor:
        """`(N/2+1,)`: in which row (b, a, c) of the result each bin is; 0 for one that is in none."""
        groups = self.outer * torch.arange(self.bins * self.middle)[:, None]
        bins = ((self.frequency + groups) % self.length).flatten()
        held = torch.minimum(bins, self.length - bins)
        rows = torch.zeros(self.length // 2 + 1, dtype=torch.int64)
        for row in reversed(range(len(held))):  # of rows that hold the same bin the first
            rows[held[row]] = row
        return rows


def factors_of(n_fft: int, hop: int, window: int, heard: Tensor) -> Factors:
    """The factors for frames of `window` samples every `hop`; `heard (n_fft/2+1,)`: the bins that are needed.

    Where DFT and hop have no common divisor it is one strided convolution, slower but right.
    """
    common = math.gcd(n_fft, hop)
    residues = min(_divisors(common), key=lambda d: abs(math.log(n_fft / d / OUTER)))
    outer = n_fft // residues
    inner = max((d for d in _divisors(residues) if 1 < d * d <= residues), default=residues)
    middle = residues // inner
    bins = torch.arange(outer // 2 + 1) + outer * torch.arange(residues)[:, None]
    needed = heard[torch.minimum(bins, n_fft - bins)].any(dim=1)  # by group, 0 .. A B - 1
    groups = (needed.nonzero()[:, 0] + residues // 2) % residues - residues // 2  # the upper half as negative ones
    first, last = int(groups.min()), int(groups.max())
    count = math.ceil((last - first + 1) / middle)
    if count >= inner:
        first, count = 0, inner
    return Factors(outer, middle, inner, hop, window, first, count)


def cosines(steps: Tensor, circle: int) -> Tensor:
    """Cosines float64 of so many steps on a circle of `circle`."""
    return (2 * math.pi / circle * (steps % circle).double()).cos()


def _quarters(circle: int) -> Tensor:
    """`(re|im, re|im)`: what a product with exp(-j angle) adds to the angle, from the column's part to the row's:
    re' = cos re + sin im, im' = -sin re + cos im."""
    part = torch.arange(2)
    return circle // 4 * ((part[:, None] - part) % 4)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
