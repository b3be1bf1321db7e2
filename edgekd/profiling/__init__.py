"""Profiling: what a run's teacher and students, or a bundle, score and cost."""

from edgekd.profiling.report import Profile, profile

__all__ = ["Profile", "profile"]
