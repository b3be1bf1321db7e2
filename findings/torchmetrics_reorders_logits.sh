#!/usr/bin/env bash
# torchmetrics ranks logits otherwise than the same values as ranks, and otherwise in two batches than in one.
#
# Expected: AUROC and average precision depend on the order of the scores alone, so any increasing transform, and any
# split into batches, gives the same.
# Seen (torchmetrics 1.9.0, torch 2.13.0): values outside 0..1 are taken for logits and go through a float32 sigmoid, in
# which all above 17 are 1. Average precision of logits around 5, and of events around 17: 0.344, where scikit-learn
# 1.9.1, and torchmetrics from the ranks of the same logits, say 0.460. It is decided for each update anew: two batches
# of separable logits, the first of them between 0 and 1, give an AUROC of 0.997 in two updates, and 1 in one.
# Matters: a sure net, which is what distillation without a temperature makes, scores below a timid one that ranks
# clips equally, and the figure depends on the batch size. Pass ranks, or a float64 sigmoid.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 scikit-learn==1.9.1 torch==2.13.0 torchmetrics==1.9.0
cd "$work"
venv/bin/python -I - <<'PY'
import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

random = np.random.default_rng(0)
events = random.random(2000) < 0.1
logits = (random.standard_normal(2000) * 8 + 12 * events + 5).astype("float32")
ranks = (logits.argsort().argsort() / 2000).astype("float32")
truth = torch.from_numpy(events.astype("int64"))
found = {}
for name, metric, oracle in (
    ("AP", BinaryAveragePrecision, average_precision_score),
    ("AUROC", BinaryAUROC, roc_auc_score),
):
    found[name] = [float(metric()(torch.from_numpy(scores), truth)) for scores in (logits, ranks)]
    found[name].append(float(oracle(events, logits)))
    print(name, "of logits, of ranks, by scikit-learn:", found[name])
    assert abs(found[name][1] - found[name][2]) < 1e-5
assert found["AP"][0] < found["AP"][2] - 0.05
assert found["AUROC"][0] < found["AUROC"][2] - 0.001

batches = [torch.linspace(0.05, 0.95, 200), torch.linspace(-6.0, 6.0, 200)]
one, two = BinaryAUROC(), BinaryAUROC()
one.update(torch.cat(batches), (torch.cat(batches) > 0.5).long())
for batch in batches:
    two.update(batch, (batch > 0.5).long())
print("one update:", float(one.compute()), "two:", float(two.compute()))
assert abs(float(one.compute()) - 1) < 1e-6
assert float(two.compute()) < 0.999
PY
