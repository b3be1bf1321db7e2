"""Export: a run's int8 student as a verified bundle for a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekd.console import Progress, silent
from edgekd.errors import InputError

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


def kind_of(folder: Path) -> Literal["run", "bundle"]:
    """What `folder` holds, by its description file. Raises `InputError` for one that is neither."""
    if (folder / "manifest.json").is_file():
        return "bundle"
    if (folder / "config.toml").is_file():
        return "run"
    if folder.is_dir():
        raise InputError(f"{folder}: neither a run folder (config.toml) nor a bundle (manifest.json).")
    reason = "a file" if folder.exists() else "no such folder"
    raise InputError(f"{folder}: {reason}. Name a run ('edgekd distill') or a bundle ('edgekd export').")


__all__ = ["export", "kind_of"]
