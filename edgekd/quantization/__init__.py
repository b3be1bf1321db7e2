"""Quantisation: from a trained float student to an int8 one."""

from edgekd.quantization.qat import load_int8, quantize

__all__ = ["load_int8", "quantize"]
