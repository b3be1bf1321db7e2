"""Recipes, the choice of clips, and the ranges read from them."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.errors import InputError, UsageError
from edgekd.models.build import build_student
from edgekd.quantization.calibration import CalibrationRecipe, calibrate, correct_biases, load_recipe, select_clips
from edgekd.quantization.fake_quant import set_enabled
from edgekd.quantization.observers import ObserverName
from edgekd.quantization.prepare import QuantizedNetwork, prepare
from edgekd.resources import named_resources


@pytest.fixture
def network() -> QuantizedNetwork:
    torch.manual_seed(0)
    return prepare(build_student("hltdnn_ds", 3).network, torch.randn(2, 1, 32, 32))


def test_default_recipe_file_says_what_the_code_defaults_to() -> None:
    assert load_recipe("default") == CalibrationRecipe()


def test_a_recipe_is_read_from_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('clips = 7\nobserver = "percentile"\npercentile = 99.9\nbias_correction = true\n')
    assert load_recipe(str(path)) == CalibrationRecipe(
        clips=7, observer="percentile", percentile=99.9, bias_correction=True
    )


@pytest.mark.parametrize("name", ["default", "fast", "thorough"])
def test_a_shipped_recipe_states_every_setting(name: str) -> None:
    stated = tomllib.loads(named_resources("calibration")[name].read_text())
    assert set(stated) >= set(CalibrationRecipe.model_fields) - {"percentile"}
    assert load_recipe(name).observer == "mse"


def test_an_unknown_observer_is_refused_with_the_valid_ones(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('observer = "kl"\n')
    with pytest.raises(UsageError, match=r"mine.toml: observer = 'kl': .*'entropy'"):
        load_recipe(str(path))


def test_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(UsageError, match=r"Unknown calibration recipe 'defualt'. Did you mean 'default'"):
        load_recipe("defualt")


def test_unknown_key_in_a_recipe_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("clip = 7\n")
    with pytest.raises(UsageError, match=r"mine.toml: unknown key 'clip'. Did you mean 'clips'"):
        load_recipe(str(path))


def test_stratified_choice_takes_as_many_of_each_class_until_one_runs_out() -> None:
    labels = [0] * 50 + [1] * 50 + [2] * 3
    rows = select_clips(labels, range(len(labels)), CalibrationRecipe(clips=23), seed=1)
    assert Counter(labels[row] for row in rows) == {0: 10, 1: 10, 2: 3}


def test_choice_is_decided_by_the_seed_and_stays_within_the_rows_given() -> None:
    labels, train = [0, 1] * 40, list(range(10, 60))
    recipe = CalibrationRecipe(clips=12)
    first = select_clips(labels, train, recipe, seed=3)
    assert first == select_clips(labels, train, recipe, seed=3)
    assert first != select_clips(labels, train, recipe, seed=4)
    assert len(set(first)) == 12
    assert set(first) <= set(train)


def test_fewer_clips_than_asked_are_all_taken() -> None:
    assert select_clips([0, 1, 0], [2, 0], CalibrationRecipe(clips=10), seed=0) == [0, 2]
    assert select_clips([0, 1, 0], [2, 0], CalibrationRecipe(clips=10, selection="random"), seed=0) == [0, 2]


def test_calibrated_range_of_the_input_is_its_largest_magnitude(network: QuantizedNetwork) -> None:
    batches = [torch.randn(2, 1, 32, 32), 3 * torch.randn(2, 1, 32, 32)]
    calibrate(network, batches, CalibrationRecipe(observer="absmax"))
    largest = torch.cat(batches).abs().max().item()
    assert network.quantisers()["log_mel_quant"].scale.item() == pytest.approx(largest / 127)
    assert all(torch.isfinite(value).all() for name, value in network.state_dict().items() if name.endswith("scale"))


def test_percentile_recipe_narrows_the_range_and_stays_in_training(network: QuantizedNetwork) -> None:
    batch = torch.randn(2, 1, 32, 32)
    batch[0, 0, 0, 0] = 100.0
    calibrate(network, [batch], CalibrationRecipe(observer="percentile", percentile=99.0))
    quantiser = network.quantisers()["log_mel_quant"]
    assert quantiser.scale.item() < 5 / 127
    network.train()(batch)
    assert quantiser.scale.item() < 5 / 127


def test_calibration_sees_the_float_network(network: QuantizedNetwork) -> None:
    """Scales from a network that was already rounding would depend on those it had before."""
    batch = torch.randn(2, 1, 32, 32)
    calibrate(network, [batch], CalibrationRecipe(observer="absmax"))
    once = {name: value.clone() for name, value in network.state_dict().items()}
    calibrate(network, [batch], CalibrationRecipe(observer="absmax"))
    assert all(torch.equal(once[name], value) for name, value in network.state_dict().items())


def test_calibration_without_clips_says_so(network: QuantizedNetwork) -> None:
    with pytest.raises(InputError, match="no clips"):
        calibrate(network, [], CalibrationRecipe(observer="absmax"))


def test_calibration_on_nan_names_the_activation(network: QuantizedNetwork) -> None:
    with pytest.raises(InputError, match="'log_mel_quant' is not finite"):
        calibrate(network, [torch.full((1, 1, 32, 32), float("nan"))], CalibrationRecipe(observer="absmax"))


def test_a_branch_that_is_always_zero_gets_a_finite_scale() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, bias=False)
            self.head = nn.Linear(2, 2)
            nn.init.zeros_(self.conv.weight)

        def forward(self, log_mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            tap = torch.relu(self.conv(log_mel))
            return self.head(tap.mean(dim=(2, 3))), tap

    log_mel = torch.randn(2, 1, 8, 8)
    network = prepare(Dead(), log_mel)
    calibrate(network, [log_mel], CalibrationRecipe(observer="absmax"))
    assert torch.isfinite(network(log_mel)[0]).all()


def test_silence_alone_is_refused(network: QuantizedNetwork) -> None:
    """Every frame alike, though not 0: the normalised level of silence differs from mel bin to mel bin."""
    silence = torch.linspace(-3, -1, 32).expand(2, 1, 32, 32)
    with pytest.raises(InputError, match="heard only silence"):
        calibrate(network, [silence, silence], CalibrationRecipe())
    calibrate(network, [silence, torch.randn(1, 1, 32, 32)], CalibrationRecipe())  # one clip with sound is enough


@pytest.mark.parametrize("observer", ["percentile", "mse"])
def test_a_scale_follows_training_with_the_coverage_that_calibration_gave_it(
    network: QuantizedNetwork, observer: ObserverName
) -> None:
    torch.manual_seed(0)
    batch = torch.distributions.StudentT(4.0).sample((8, 1, 32, 32))
    calibrate(network, [batch], CalibrationRecipe(observer=observer, percentile=99.9))
    quantiser = network.quantisers()["log_mel_quant"]
    before = quantiser.scale.item()
    inside = (batch.abs() <= 127 * before).float().mean().item()
    assert 0.99 < inside < 1
    assert quantiser.coverage == pytest.approx(inside, abs=1e-4)
    network.train()
    for _ in range(30):
        network(batch)
    assert quantiser.scale.item() == pytest.approx(before, rel=0.05)


def test_corrected_biases_bring_back_the_means(network: QuantizedNetwork) -> None:
    torch.manual_seed(1)
    batches = [torch.randn(4, 1, 32, 32) for _ in range(3)]
    every = torch.cat(batches)
    with torch.no_grad():
        for layer, _ in network.layers():  # weights rounded so that their error has a mean
            layer.layer.weight.copy_(layer.layer.weight.abs() + 0.01)
    set_enabled(network, False)
    expected = network(every)[0].detach()
    set_enabled(network, True)
    calibrate(network, batches, CalibrationRecipe(observer="absmax"))
    before = network(every)[0].detach()
    correct_biases(network, batches)
    after = network(every)[0].detach()
    torch.testing.assert_close(after.mean(0), expected.mean(0), rtol=1e-5, atol=0)
    assert (before.mean(0) - expected.mean(0)).abs().max() > 1


def test_a_recipe_with_bias_correction_goes_through_its_clips_more_than_once(network: QuantizedNetwork) -> None:
    batches = (torch.randn(2, 1, 32, 32) for _ in range(2))  # once only
    before = {name: value.clone() for name, value in network.state_dict().items() if name.endswith("bias")}
    calibrate(network, batches, CalibrationRecipe(bias_correction=True))
    after = network.state_dict()
    assert all(torch.isfinite(after[name]).all() for name in before)
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_a_channel_of_zeros_is_rounded_to_zeros(network: QuantizedNetwork) -> None:
    layer = network.layers()[2][0]
    with torch.no_grad():
        layer.layer.weight[1] = 0
    log_mel = torch.randn(2, 1, 32, 32)
    calibrate(network, [log_mel], CalibrationRecipe())
    assert not layer.integer_weight()[1].any()
    assert layer.integer_weight()[0].any()
    assert torch.isfinite(network(log_mel)[0]).all()
