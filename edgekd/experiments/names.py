"""Whether all that a configuration names is there: asked before anything slow is done, and answered all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgekd.config import DistillConfig
from edgekd.data.load import check_dataset
from edgekd.errors import check_all
from edgekd.losses.terms import TERMS, check_classes, check_pretraining, check_terms, check_unlabelled, needs_teacher
from edgekd.models.build import check_models


def check_names(config: DistillConfig, int8: bool) -> None:
    """Raise one `UsageError` for all the names in `config` that are in no table: of loss terms, the data set, the
    student, where there is one the teacher, and with `int8` the calibration recipe.

    Models of the user's own are imported: raises `InputError` where that fails.
    """
    check_all(_checks(config, int8))


def check_pretraining_names(config: DistillConfig) -> None:
    """`check_names` of a pre-training."""

    def checks() -> Iterator[Callable[[], object]]:
        yield lambda: check_terms([*config.loss.terms, *config.loss.weights])
        if all(term in TERMS for term in config.loss.terms):
            yield lambda: check_pretraining(config.loss.terms, config.data.unlabelled)
        yield lambda: check_dataset(config.data.dataset)
        yield lambda: check_models(config, taught=True)

    check_all(checks())


def _checks(config: DistillConfig, int8: bool) -> Iterator[Callable[[], object]]:
    taught = needs_teacher(term for term in config.loss.terms if term in TERMS)
    yield lambda: check_terms([*config.loss.terms, *config.loss.weights])
    if all(term in TERMS for term in config.loss.terms):
        yield lambda: check_classes(config.loss.terms)
        yield lambda: check_unlabelled(config.loss.terms, config.data.unlabelled)
    yield lambda: check_dataset(config.data.dataset)
    yield lambda: check_models(config, taught)
    if int8:
        from edgekd.quantization.calibration import load_recipe

        yield lambda: load_recipe(config.quantize.recipe)
