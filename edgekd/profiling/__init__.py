"""Profiling: what teachers, students, bundles and engines score and cost, side by side."""

from edgekd.profiling.report import Remote, profile, write_report
from edgekd.profiling.results import Profile, read_profile

__all__ = ["Profile", "Remote", "profile", "read_profile", "write_report"]
