"""What an engine computes its layers in, by what TensorRT's inspector says of one that was built to tell.

A layer has a name of its own, which begins with that of an ONNX node, `network.stem.0/conv_U104_myl0_11`, or joins
those of several, `a + b`; and newer releases list the nodes that it comes from, `[ONNX Layer: network.stem.0/conv]`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterable

_PRODUCTS = re.compile(r"conv|correlation|gemm|matmul|matrix|fully", re.IGNORECASE)
_SUFFIX = re.compile(r"(_U\d+)?(_myl\d+_\d+)?$")  # what the compiler inside TensorRT appends


def layer_types(information: str, names: Iterable[str]) -> dict[str, str]:
    """ONNX node -> "int8" or "float", of what it reads; of `names` those that the `information` (JSON) tells of."""
    try:
        layers = [layer for layer in json.loads(information)["Layers"] if isinstance(layer, dict)]
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}  # without names, layers are numbers or plain text
    return types_of(layers, names)


def types_of(layers: Iterable[dict[str, Any]], names: Iterable[str]) -> dict[str, str]:
    """`layer_types` of the inspector's layers."""
    own: dict[str, str] = {}
    listed: dict[str, str] = {}
    for layer in layers:
        kind = _reads(layer)
        if kind is None:
            continue
        for part in str(layer.get("Name", "")).split(" + "):
            own.setdefault(_SUFFIX.sub("", part.strip()), kind)
        if _PRODUCTS.search(str(layer.get("LayerType", ""))):  # others list the nodes whose scales they took over
            for node in re.findall(r"\[ONNX Layer: (.*?)\]", str(layer.get("Metadata", ""))):
                listed.setdefault(node, kind)
    found = {name: own.get(name, listed.get(name)) for name in names}
    return {name: kind for name, kind in found.items() if kind is not None}


def _reads(layer: dict[str, Any]) -> str | None:
    """The type of a layer's first input, of its activations; None where that is not told."""
    inputs = layer.get("Inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    if not isinstance(first, dict):
        return None
    told = str(first.get("Format/Datatype") or first.get("Datatype") or "")
    return ("int8" if "int8" in told.lower() else "float") if told else None
