"""How much the cheaper front ends of `edgekd.front_end_presets` cost in accuracy.

    python -m tests.benchmarks.front_end_presets esc10 DIR
    python -m tests.benchmarks.front_end_presets sonar_sim DIR

For each preset: random convolutions over the normalised log-mel, two layers of them, their means and maxima, and ridge
regression to the classes. That is no student, but it is made of what students are made of, in seconds, and its seeds
are cheap. The regularisation is chosen on the validation side of each part (fold, or split by groups). Prints accuracy
on the validation and the test sides, and differences to the first preset, paired over clips and seeds, with 95 %
intervals over recordings and seeds.

A preset is chosen by the validation side; the test side is for the report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.config import DistillConfig, parse
from edgekd.data.load import load_index
from edgekd.data.splits import make_split
from edgekd.front_end_presets import PRESETS
from edgekd.log_mel import LogMel
from edgekd.runs.data import RunData, open_clips
from edgekd.runs.predictions import Predictions
from edgekd.scoring.differences import Trial, difference

SEEDS = (0, 1, 2)
PENALTIES = [10.0**power for power in range(-1, 6)]
BATCH = 25


def config_of(dataset: str, folder: Path, preset: str, part: int) -> DistillConfig:
    data: dict[str, Any] = {"dataset": dataset, "data_dir": str(folder), "sample_rate": PRESETS[preset].sample_rate}
    if dataset == "sonar_sim":
        data |= {"clip_seconds": 3.0, "split_seed": part, "simulation": {"windows_per_vessel": 4}}
    else:
        data["fold"] = part
    return parse(DistillConfig, {"data": data, "frontend": dict(PRESETS[preset].settings)}, preset)


def random_layers(seed: int) -> nn.Sequential:
    """Two random convolutions, each with a ReLU; 0.1 s and 6 bins are seen by the second at a hop of 10 ms."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(1, 48, 5, stride=2), nn.ReLU(), nn.BatchNorm2d(48, affine=False), nn.Conv2d(48, 192, 3, stride=2)
    )
    for parameter in layers.parameters():
        nn.init.normal_(parameter)
    return layers.append(nn.ReLU())


@torch.no_grad()
def features(log_mels: Tensor, seed: int) -> Tensor:
    """`(N, 1, T, F)`, each mel bin normalised -> `(N, 2 * 192)`."""
    layers = random_layers(seed).train()
    layers(log_mels[:: max(1, len(log_mels) // BATCH)])  # the norm's statistics
    layers[2].momentum = 1.0
    layers(log_mels[:: max(1, len(log_mels) // BATCH)])
    layers.eval()
    maps = [layers(batch).flatten(2) for batch in log_mels.split(BATCH)]
    return torch.cat([torch.cat([each.mean(dim=2), each.amax(dim=2)], dim=1) for each in maps])


def ridge(inputs: Tensor, labels: Tensor, rows: Sequence[int], classes: int, penalty: float) -> Tensor:
    """Scores `(N, K)` of all clips, learned from those in `rows`."""
    rows = list(rows)
    train = inputs[rows].double()
    normal = (inputs.double() - train.mean(dim=0)) / train.std(dim=0).clamp(min=1e-6)
    targets = nn.functional.one_hot(labels[rows], classes).double()
    taught, mean = normal[rows], targets.mean(dim=0)
    kernel = taught @ taught.T + penalty * torch.eye(len(rows), dtype=torch.float64)
    return normal @ (taught.T @ torch.linalg.solve(kernel, targets - mean)) + mean


def said(data: RunData, rows: Sequence[int], scores: Tensor) -> Predictions:
    clips = data.at(rows)
    return Predictions(clips.rows, clips.groups, clips.labels, scores[list(rows)].float().numpy())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", choices=("esc10", "sonar_sim"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", type=int, default=5)
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[Trial, Predictions]]] = {}
    classes = 0
    for preset in PRESETS:
        start = time.process_time()
        config = config_of(arguments.dataset, arguments.folder, preset, 1)
        index = load_index(config.data)
        store, classes = open_clips(index, config.data), len(index.classes)
        front_end = LogMel(config.frontend, config.data.sample_rate)
        rows = range(len(index.clips))
        with torch.no_grad():
            log_mels = torch.cat(
                [front_end(store.waveforms(rows[at : at + BATCH])) for at in range(0, len(rows), BATCH)]
            )
            log_mels = (log_mels - log_mels.mean(dim=(0, 1, 2))) / log_mels.std(dim=(0, 1, 2))
        labels = torch.tensor([clip.label for clip in index.clips])
        sides: dict[str, dict[Trial, Predictions]] = {"validation": {}, "test": {}}
        for seed in SEEDS:
            inputs = features(log_mels, seed)
            for part in range(1, arguments.parts + 1):
                split = make_split(index, config_of(arguments.dataset, arguments.folder, preset, part).data)
                data, trial = RunData(index, split, store), (f"part {part}", seed)
                tried = [ridge(inputs, labels, split.train, classes, penalty) for penalty in PENALTIES]
                best = max(tried, key=lambda scores: _right(said(data, split.validation, scores)))
                sides["validation"][trial] = said(data, split.validation, best)
                sides["test"][trial] = said(data, split.test, best)
        found[preset] = sides
        means = {side: np.mean([_right(each) for each in trials.values()]) for side, trials in sides.items()}
        told = ", ".join(f"{side} {100 * mean:.1f} %" for side, mean in means.items())
        print(f"{preset:<14}{told}   ({time.process_time() - start:.0f} s)", flush=True)
        first = next(iter(found.values()))
        for side in () if len(found) == 1 else ("validation", "test"):
            apart = difference(sides[side], first[side], classes)
            low, high = (100 * end for end in apart.accuracy_interval)
            print(f"{'':<14}{side}: {100 * apart.accuracy:+.1f} ({low:+.1f}, {high:+.1f})", flush=True)


def _right(told: Predictions) -> float:
    return float((told.predicted == told.labels).mean())


if __name__ == "__main__":
    main()
