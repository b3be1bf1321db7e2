"""Training: teacher adaptation, SSATKD distillation, and the run folder it leaves."""

from edgekd.training.distill import distill
from edgekd.training.run import Run

__all__ = ["Run", "distill"]
