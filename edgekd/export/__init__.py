"""Export: a run's int8 student as a verified bundle for a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.console import Progress, silent

if TYPE_CHECKING:
    from edgekd.export.bundle import Bundle
    from edgekd.export.targets import Target
    from edgekd.training.run import Run


def export(
    run: Run, target: Target | str, out: Path | None = None, progress: Progress = silent, *, overwrite: bool = False
) -> Bundle:
    """Write a bundle of `run`'s int8 student for `target` into `out` (`run.folder/bundle-NAME` where None).

    See `edgekd.export.pipeline.export_run`, which does it and imports what is heavy.
    """
    from edgekd.export.pipeline import export_run
    from edgekd.export.targets import load_target

    board = load_target(target) if isinstance(target, str) else target
    return export_run(run, board, out or run.folder / f"bundle-{board.name}", progress, overwrite=overwrite)


__all__ = ["export"]
