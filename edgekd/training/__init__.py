"""Training: the teacher adapted, the student distilled."""
