"""What runs a classifier on a microcontroller: sources in C99 that are copied into its bundle as they are."""

from pathlib import Path

SOURCES = Path(__file__).parent
