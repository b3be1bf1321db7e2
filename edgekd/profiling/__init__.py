"""Profiling: what teachers, students, bundles and engines score and cost, side by side."""
