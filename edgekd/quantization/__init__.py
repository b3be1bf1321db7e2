"""Quantisation: from a trained float student to an int8 one."""
