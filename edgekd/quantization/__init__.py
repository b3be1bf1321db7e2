"""Quantisation: from a trained float student to an int8 one."""

from edgekd.quantization.qat import load_int8, quantize
from edgekd.quantization.sensitivity import auto_mixed, sensitivity

__all__ = ["auto_mixed", "load_int8", "quantize", "sensitivity"]
