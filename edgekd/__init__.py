"""edgekd: distil acoustic classifiers into int8 students that run, verified, on edge devices.

    run = edgekd.distill(edgekd.DistillConfig.model_validate({"data": {"data_dir": "recordings"}}))
    run = edgekd.quantize(run)
    bundle = edgekd.export(run, "raspberry-pi-5")
    profile = edgekd.profile(run)

The names are imported when they are first used: what they need takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.config import DistillConfig
    from edgekd.detection.detect import detect
    from edgekd.experiments.chain import quantize
    from edgekd.experiments.compare import compare
    from edgekd.exporting.export import export
    from edgekd.profiling.profiler import profile
    from edgekd.runs.run import Run
    from edgekd.training.distill import distill

__version__ = "0.1.0"
__all__ = ["DistillConfig", "Run", "compare", "detect", "distill", "export", "profile", "quantize"]

_MODULES = {
    "DistillConfig": "edgekd.config",
    "Run": "edgekd.runs.run",
    "compare": "edgekd.experiments.compare",
    "detect": "edgekd.detection.detect",
    "distill": "edgekd.training.distill",
    "export": "edgekd.exporting.export",
    "profile": "edgekd.profiling.profiler",
    "quantize": "edgekd.experiments.chain",
}


if not TYPE_CHECKING:  # else any name would do for a type checker

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module 'edgekd' has no attribute '{name}'")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
