"""edgekd: distil acoustic classifiers into int8 students that run, verified, on edge devices."""

__version__ = "0.1.0"
