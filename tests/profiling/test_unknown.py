"""What subjects of a profile make of sounds that are no class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from edgekd.config import ProfileConfig
from edgekd.exporting.export import export
from edgekd.exporting.kept_rejection import Rejection
from edgekd.exporting.manifest import Reject
from edgekd.profiling.accuracy import clips_of_run
from edgekd.profiling.probes import Sounds
from edgekd.profiling.subjects import candidates
from edgekd.profiling.unknown import Ear, made_of, unknown_sounds
from edgekd.report.results import Unknown
from edgekd.runs.run import Run
from edgekd.scoring.familiarity import auroc


@pytest.fixture(scope="module")
def heard(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Unknown]:
    """Of the run, and of a bundle that rejects, with a recording of the site."""
    import shutil

    folder = tmp_path_factory.mktemp("heard")
    run = Run.open(shutil.copytree(tiny_run.folder, folder / "run"))
    bundle = export(run, "cpu", folder / "bundle", reject=Rejection.named("energy"))
    soundfile.write(folder / "site.wav", 0.01 * np.random.default_rng(0).standard_normal(12_000), 4_000)
    return unknown_sounds(candidates([run, bundle], ProfileConfig()), [folder / "site.wav"])


def test_each_subject_has_the_scores_that_it_can_have(heard: dict[str, Unknown]) -> None:
    scores = {name: list(found.probes[0].auroc) for name, found in heard.items()}
    assert scores == {
        "teacher": ["softmax", "energy"],
        "student": ["softmax", "energy", "mahalanobis"],
        "int8": ["softmax", "energy", "mahalanobis"],
        "bundle": ["softmax", "energy"],
    }
    assert {name: found.rejects for name, found in heard.items()} == {
        "teacher": None,
        "student": None,
        "int8": "energy",
        "bundle": "energy",
    }


def test_the_bundle_and_the_student_it_is_of_say_the_same(heard: dict[str, Unknown]) -> None:
    for there, here in zip(heard["bundle"].probes, heard["int8"].probes, strict=True):
        assert (there.kind, there.clips) == (here.kind, here.clips)
        assert there.auroc["energy"] == pytest.approx(here.auroc["energy"], abs=0.1)
    assert heard["bundle"].thresholds["energy"] == pytest.approx(heard["int8"].thresholds["energy"], abs=1e-4)
    assert heard["bundle"].probes[-1].kind == "your site"
    assert heard["bundle"].probes[-1].clips == 3


def test_what_is_rejected_is_not_answered_with_confidence(tiny_run: Run) -> None:
    clips, sounds = (
        clips_of_run(tiny_run),
        {"white noise": Sounds.apart(torch.ones(4, 4_000)), "digital silence": Sounds.apart(torch.zeros(1, 4_000))},
    )

    def sure(waveforms: torch.Tensor) -> torch.Tensor:
        shares = torch.full((len(waveforms), len(clips.classes)), 0.001)
        shares[:, 2] = 0.995
        return shares

    reject = Reject(score="energy", threshold=0.5, span=1.0, share=0.05, clips=10)
    ear = Ear(sure, lambda clip: {"energy": 1 - clip.mean(dim=1)}, None, None, tiny_run.config.data)
    noise, silence = made_of(ear, clips, sounds).probes
    assert (noise.confident, noise.named, noise.false_alarms) == (1.0, clips.classes[2], {})
    noise, silence = made_of(replace(ear, rejects=reject), clips, sounds).probes
    assert (noise.confident, silence.confident) == (0.0, 1.0)
    assert noise.false_alarms == {"energy": 0.0} and silence.false_alarms == {"energy": 1.0}
    known = 1 - clips.store.waveforms(clips.rows).mean(dim=1).numpy()
    assert noise.auroc["energy"] == pytest.approx(auroc(known, np.zeros(4)), abs=1e-6)
    assert noise.auroc["softmax"] == 0.5


def test_figures_have_intervals_over_recordings(tiny_run: Run) -> None:
    """Of clips that say the same but for one recording; of the sounds windows of one recording are one."""
    clips = clips_of_run(tiny_run)
    first = clips.groups[0]
    of_first = {
        float(clips.store.waveforms([row])[0, 0])
        for row, group in zip(clips.rows, clips.groups, strict=True)
        if group == first
    }

    def other(waveforms: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0 if float(each[0]) in of_first else 1.0 for each in waveforms])

    ear = Ear(
        lambda clip: torch.full((len(clip), len(clips.classes)), 0.2),
        lambda clip: {"energy": other(clip)},
        Reject(score="energy", threshold=0.5, span=1.0, share=0.05, clips=10),
        None,
        tiny_run.config.data,
    )
    sounds = torch.tensor([[next(iter(of_first))], [7.0], [7.0], [7.0]] * 3).expand(12, 4_000)
    apart, together = made_of(ear, clips, {"a": Sounds.apart(sounds), "b": Sounds(sounds, ("one",) * 12)}).probes
    found = made_of(ear, clips, {"a": Sounds.apart(sounds)})
    assert apart.false_alarms == together.false_alarms == {"energy": 0.75}
    low, high = apart.false_alarms_interval["energy"]
    assert 0 < low < 0.75 < high <= 1 and together.false_alarms_interval["energy"] == (0.0, 1.0)
    low, high = found.lost_interval["energy"]
    assert low < found.lost["energy"] < high
    low, high = apart.auroc_interval["energy"]
    assert low < apart.auroc["energy"] < high
