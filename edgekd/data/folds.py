"""Which folds a data set has, which it lacks, and which of them test and validate."""

from __future__ import annotations

from edgekd.config import DataConfig
from edgekd.data.index import ClipIndex, Note


def folds_of(index: ClipIndex) -> list[int]:
    """The folds that clips of `index` are in, in order."""
    return sorted({clip.fold for clip in index if clip.fold is not None})


def validation_fold(folds: list[int], config: DataConfig) -> int:
    """The fold that validates: the one given, else the next one after the test fold that is there, after the last the
    first."""
    if config.val_fold is not None:
        return config.val_fold
    return next((fold for fold in folds if fold > config.fold), folds[0])


def missing_folds(index: ClipIndex, config: DataConfig, published: int = 0) -> list[Note]:
    """A note where some of the `published` folds (of a table: of those up to the largest) are not there."""
    folds = folds_of(index)
    if not folds or not config.given_split:
        return []
    gone = sorted({*range(1, max(published, *folds) + 1)} - {*folds})
    if not gone:
        return []
    named = ", ".join(map(str, folds))
    use = (
        f" Fold {config.fold} tests and fold {validation_fold(folds, config)} validates."
        if config.fold in folds
        else ""
    )
    return [
        Note(
            "folds",
            f"of {len(gone) + len(folds)} folds only {named} are there ({', '.join(map(str, gone))} missing): scores "
            f"do not compare with those of all folds.{use}",
        )
    ]
