"""Stages in a row, as the commands and the cells of a comparison do them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from edgekd import processes
from edgekd.config import DistillConfig, QuantizeConfig
from edgekd.exporting.rejection import fit_answering
from edgekd.progress import Progress, silent
from edgekd.quantization import qat
from edgekd.quantization.sensitivity import Mixed, auto_mixed
from edgekd.runs.at_work import at_work, changes_run
from edgekd.runs.run import Run, can_go_on
from edgekd.training.distill import distill


def distill_and_quantize(
    config: DistillConfig,
    progress: Progress = silent,
    *,
    int8: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    teacher_run: Run | None = None,
) -> Run:
    """A student as `distill` trains it and, with `int8`, its int8 student; `resume` goes on with either, and makes no
    int8 student of a run that was begun without.

    Processes that `torchrun --max-restarts` has started again go on with the run that they had begun. Raises what
    `distill` and `quantize` raise.
    """
    with at_work(config.out, config.device):
        if _restarted() and processes.from_first(lambda: can_go_on(config)):
            resume, overwrite = True, False
        run = distill(config, progress, resume=resume, overwrite=overwrite, teacher_run=teacher_run, quantized=int8)
        if int8 and not (resume and _ends_in_float(run)):
            quantize(run, progress=progress, resume=resume)
    return run


@changes_run
def quantize(
    run: Run,
    config: QuantizeConfig | None = None,
    progress: Progress = silent,
    *,
    resume: bool = False,
    trust: Sequence[str] = (),
) -> Run:
    """`edgekd.quantization.qat.quantize`; the new int8 student of a run that was exported with `--reject` rejects the
    unknown as the one before did."""
    qat.quantize(run, config, progress, resume=resume, trust=trust)
    fit_answering(run, progress=progress)
    return run


@changes_run
def quantize_mixed(run: Run, config: QuantizeConfig, max_drop: float, progress: Progress = silent) -> Mixed:
    """Make the int8 student of a finished `run` with the fewest layers in float that lose at most `max_drop` points of
    validation accuracy, as `auto_mixed` finds them.

    Raises what `auto_mixed` and `quantize` raise.
    """
    mixed = auto_mixed(run, max_drop, config.recipe, progress)
    quantize(run, config.model_copy(update={"keep_float": mixed.keep_float}), progress)
    return mixed


def _ends_in_float(run: Run) -> bool:
    """Whether the run was begun without an int8 student, and nobody has begun one since."""
    return processes.from_first(lambda: bool(run.report().get("only_float")))


def _restarted() -> bool:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
