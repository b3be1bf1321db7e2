"""Export: a run's student as a verified bundle for a board."""
