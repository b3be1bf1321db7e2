"""The operators of `known (B,)`, how familiar a clip is; see `edgekd.exporting.known`."""

from __future__ import annotations

from edgekd.exporting.known import KnownScore
from edgekd.exporting.onnx_writer.shaping import reduced, unsqueeze
from edgekd.exporting.onnx_writer.sheet import Sheet, Value

KNOWN_SCOPE = "known"


def write_known(
    sheet: Sheet, score: KnownScore, logits: Value, probabilities: Value, embedding: Value | None, output: str
) -> Value:
    """`score` of `logits (B, K)`, `probabilities (B, K)` and `embedding (B, D)`, all in float32, under the name
    `output`."""
    last = None if score.shift else output
    batch = logits.shape[:1]
    if score.gaussians is None and score.independent:
        each = sheet.node("Softplus", [logits], logits.shape)
        known = reduced(sheet, "ReduceSum", each, [1], keep=False, output=last)
    elif score.gaussians is None:
        highest = reduced(sheet, "ReduceMax", logits, [1], keep=False)
        share = reduced(sheet, "ReduceMax", probabilities, [1], keep=False)
        known = sheet.node("Sub", [highest, sheet.node("Log", [share], batch)], batch, output=last)
    else:
        assert embedding is not None
        means, factors, nearness = score.arrays()
        (classes, size), directions = means.shape, factors.shape[1]
        shape = (*batch, classes, size)
        apart = sheet.node("Sub", [unsqueeze(sheet, embedding, 1), sheet.array(means, "known.means")], shape)
        along = sheet.node("MatMul", [apart, sheet.array(factors, "known.factors")], (*batch, classes, directions))
        far = reduced(sheet, "ReduceSum", sheet.node("Mul", [apart, apart], shape), [2], keep=False)
        near = reduced(sheet, "ReduceSum", sheet.node("Mul", [along, along], along.shape), [2], keep=False)
        scaled = sheet.node("Mul", [far, sheet.array(nearness)], far.shape)
        each = sheet.node("Sub", [near, scaled], near.shape)
        known = reduced(sheet, "ReduceMax", each, [1], keep=False, output=last)
    if score.shift:
        known = sheet.node("Add", [known, sheet.number(score.shift, known.dtype)], batch, output=output)
    return known
