"""Classes of different size: how much a clip's label counts, and how often a clip is heard.

    class_weights = "balanced":  w_c = N / (K n_c) for class c with n_c of N clips in K classes; the loss of a batch is
                                 sum(w loss) / sum(w), over all of it, however many processes and parts it is in
    sampling = "balanced":       an epoch draws N clips, N / K of each class

Drawn so, the clips of a small class are heard several times an epoch, each in other views, and some of a large one not
at all: which, is drawn anew in each epoch. Weights hear every clip once and let those of small classes count for more.

Where clips may be of several classes, a clip of two counts as the mean of both weights, and one of none counts 1; an
epoch draws as many clips for each class from those that have it (class-aware sampling: Shen, Lin and Huang, ECCV 2016,
arXiv 1512.05830), and as many from those of none. How often classes come together stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def class_weights(
    kind: Literal["none", "balanced"], labels: Tensor, rows: Sequence[int], num_classes: int
) -> Tensor | None:
    """How much a label of each class counts, `(K,)`, 1 on average over the clips `rows`; None where all count alike.

    `labels`: of the index, classes or memberships. A class without clips weighs as one with a single clip.
    """
    if kind == "none":
        return None
    known = labels[torch.tensor(rows)]
    counts = known.sum(0) if known.ndim == 2 else torch.bincount(known, minlength=num_classes)
    present = int((counts > 0).sum())
    return len(rows) / (present * counts.clamp_min(1).float())


def weights_of(targets: Tensor, weights: Tensor, *, several: bool = False) -> Tensor:
    """How much each clip counts, `(B,)`, whose `targets` are classes `(B,)` or shares of each `(B, K)`; `several`: of
    classes that do not exclude each other."""
    if several:
        held = targets.sum(1)
        return torch.where(held > 0, targets.float() @ weights / held.clamp_min(1e-9), 1.0)
    return targets.float() @ weights if targets.ndim == 2 else weights[targets]


def on_average_1(counts: Tensor) -> Tensor | None:
    """How much the label of each clip counts, `(B,)`, 1 on average over them all; None where each counts alike."""
    return None if bool((counts == 1).all()) else counts / counts.mean().clamp_min(1e-9)


def balanced_rows(rows: Sequence[int], labels: Tensor, generator: torch.Generator | None = None) -> list[int]:
    """As many of `rows` as there are, every class as often as any other, up to one; `labels`: of the index, classes
    or memberships."""
    drawn = torch.tensor(rows)
    pools = _pools(drawn, labels[drawn])
    quota, more = divmod(len(rows), len(pools))
    found = []
    for place, number in enumerate(torch.randperm(len(pools), generator=generator).tolist()):
        members = pools[number]
        wanted = quota + (place < more)
        passes = -(-wanted // len(members))
        order = [torch.randperm(len(members), generator=generator) for _ in range(passes)]
        found.append(members[torch.cat(order)[:wanted]] if passes else members[:0])
    return torch.cat(found).tolist()


def _pools(drawn: Tensor, labels: Tensor) -> list[Tensor]:
    """Of the rows `drawn (N,)` those of each class that there are any of, and those of none."""
    if labels.ndim == 1:
        return [drawn[labels == each] for each in labels.unique()]
    members = torch.cat([labels > 0, (labels == 0).all(1, keepdim=True)], dim=1)
    return [drawn[of] for of in members.unbind(1) if bool(of.any())]
