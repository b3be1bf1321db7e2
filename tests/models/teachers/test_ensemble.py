"""The average of several teachers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekd.config import FrontendConfig
from edgekd.models.outputs import TeacherOutput
from edgekd.models.teachers.convnet import ConvNet
from edgekd.models.teachers.ensemble import Ensemble, averaged
from edgekd.models.weights import save_weights

SMALL = FrontendConfig(n_fft=256, hop_length=128, n_mels=32, f_max=1_900)


def members(count: int = 2) -> list[ConvNet]:
    torch.manual_seed(0)
    return [ConvNet(3, 4_000, SMALL).eval() for _ in range(count)]


def said(logits: list[list[float]], embedding: list[list[float]] | None = None) -> TeacherOutput:
    tap = torch.rand(len(logits), 2, 3, 4)
    return TeacherOutput(torch.tensor(logits), tap, None if embedding is None else torch.tensor(embedding))


def test_the_average_is_that_of_probabilities() -> None:
    sure, unsure = said([[100.0, 0.0]]), said([[0.0, 1.0]])
    together = averaged([sure, unsure])
    expected = (sure.logits.softmax(1) + unsure.logits.softmax(1)) / 2
    torch.testing.assert_close(together.logits.softmax(1), expected)
    torch.testing.assert_close(together.logits.exp().sum(1), torch.ones(1))
    assert together.tap is sure.tap


def test_one_teacher_twice_says_what_it_says_once() -> None:
    one = said([[0.3, -0.2, 2.0]])
    torch.testing.assert_close(averaged([one, one]).logits.softmax(1), one.logits.softmax(1))


def test_embeddings_count_alike_whatever_their_size() -> None:
    embedding = averaged([said([[0.0]], [[3.0, 4.0]]), said([[0.0]], [[0.0, 0.05, 0.0]])]).embedding
    assert embedding is not None
    torch.testing.assert_close(embedding, torch.tensor([[0.6, 0.8, 0.0, 1.0, 0.0]]))


def test_what_one_does_not_give_all_do_not() -> None:
    assert averaged([said([[0.0]], [[1.0]]), said([[0.0]])]).embedding is None
    silent = TeacherOutput(torch.empty(1, 0), torch.rand(1, 2, 3, 4), torch.ones(1, 2))
    assert averaged([said([[0.0]], [[1.0]]), silent]).logits.shape == (1, 0)


def test_an_ensemble_is_a_teacher() -> None:
    first, second = each = members()
    ensemble = Ensemble(each).eval()
    waveforms = torch.randn(2, 4_000)
    with torch.no_grad():
        output, (embedding, tap) = ensemble(waveforms), ensemble.embed(waveforms)
        expected = averaged([first(waveforms), second(waveforms)])
    torch.testing.assert_close(output.logits, expected.logits)
    assert torch.equal(tap, first.tap(waveforms)) and torch.equal(ensemble.tap(waveforms), tap)
    assert embedding.shape == (2, ensemble.embedding_size) == (2, first.embedding_size + second.embedding_size)
    assert ensemble.tap_channels == first.tap_channels
    assert ensemble.classifier() is None and ensemble.front_end() is None
    assert ensemble.classifies


@pytest.mark.parametrize("headless", [False, True])
def test_an_ensemble_is_stored_and_read_back(headless: bool, tmp_path: Path) -> None:
    ensemble = Ensemble(members())
    if headless:
        ensemble.each()[1].drop_head()
    path = tmp_path / "best.safetensors"
    save_weights(path, ensemble.state_dict())
    other = Ensemble(members())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_stored(path)
    assert other.classifies is not headless
    found = other.state_dict()
    assert found.keys() == ensemble.state_dict().keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in ensemble.state_dict().items())
