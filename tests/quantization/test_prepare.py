"""What `prepare` does to a network: folding, and where it rounds."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError, UsageError
from edgekd.models.build import build_student
from edgekd.models.histogram import HistogramLayer
from edgekd.models.outputs import StudentOutput
from edgekd.models.students.table import STUDENTS
from edgekd.quantization.calibration import CalibrationRecipe, calibrate
from edgekd.quantization.fake_quant import ActivationFakeQuant, set_enabled, set_frozen
from edgekd.quantization.prepare import QuantizedNetwork, prepare


class Residual(nn.Module):
    """A residual block between a strided stem and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, log_mel: Tensor) -> StudentOutput:
        tap = self.pool(self.relu(self.stem_norm(self.stem(log_mel))))
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(tap)))))
        return StudentOutput(self.head(self.relu(inner + tap).mean(dim=(2, 3))), tap)


@pytest.fixture
def log_mel() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 1, 40, 32)


@pytest.fixture
def residual(log_mel: Tensor) -> nn.Module:
    return with_statistics(Residual(), log_mel)


def with_statistics(network: nn.Module, log_mel: Tensor) -> nn.Module:
    """Give the batch norms something to fold: statistics and affine parameters other than the initial ones."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    network.train()
    for _ in range(5):
        network(log_mel * 2 + 1)
    return network.eval()


def prepared(network: nn.Module, log_mel: Tensor) -> QuantizedNetwork:
    quantised = prepare(network, log_mel)
    calibrate(quantised, [log_mel], CalibrationRecipe(observer="absmax"))
    return quantised


@pytest.mark.parametrize("name", STUDENTS)
def test_folding_batch_norm_changes_nothing_in_float(name: str, log_mel: Tensor) -> None:
    network = with_statistics(build_student(name, 4).network, log_mel)
    quantised = prepare(network, log_mel)
    set_enabled(quantised, False)
    for before, after in zip(network(log_mel), quantised(log_mel), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_batch_norm_after_a_convolution_is_gone_and_after_an_average_stays(log_mel: Tensor) -> None:
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in prepare(build_student("hltdnn_ds", 4).network, log_mel).modules()
    )
    kept = [m for m in prepare(build_student("hltdnn", 4).network, log_mel).modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(kept) == 1


def test_every_convolution_and_linear_layer_is_quantised(log_mel: Tensor) -> None:
    network = build_student("hltdnn_ds", 4).network
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules())
    assert len(prepare(network, log_mel).layers()) == layers


def test_the_network_passed_in_is_left_as_it_is(residual: nn.Module, log_mel: Tensor) -> None:
    before = copy.deepcopy(residual.state_dict())
    prepared(residual, log_mel)
    after = residual.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_every_layer_sees_and_gives_at_most_256_values(residual: nn.Module, log_mel: Tensor) -> None:
    quantised = prepared(residual, log_mel)
    seen: list[Tensor] = []
    for layer, _ in quantised.layers():
        layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    logits, tap, _ = quantised(log_mel)
    assert len(seen) == 4
    for values in (*seen, tap):
        assert values.unique().numel() <= 256
    assert logits.unique().numel() == logits.numel()


@pytest.mark.parametrize("pair", [tuple, list])
def test_outputs_may_be_any_pair_and_its_logits_are_not_rounded(log_mel: Tensor, pair: type) -> None:
    class Plain(Residual):
        def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
            return pair(super().forward(log_mel))

    quantised = prepared(with_statistics(Plain(), log_mel), log_mel)
    assert len(quantised.layers()) == 4
    (head,) = (node for node in quantised.graph.nodes if node.target == "head")
    assert [user.op for user in head.users] == ["output"]
    assert quantised(log_mel)[0].unique().numel() == quantised(log_mel)[0].numel()


def test_both_inputs_and_the_output_of_a_residual_addition_are_rounded(residual: nn.Module, log_mel: Tensor) -> None:
    quantised = prepare(residual, log_mel)
    addition = next(node for node in quantised.graph.nodes if node.op == "call_function" and node.name == "add")
    assert all("quant" in str(term.target) for term in addition.all_input_nodes)
    (relu,) = addition.users
    assert [str(user.target) for user in relu.users] == [f"{relu.name}_quant"]


def test_a_max_pool_keeps_the_scale_of_its_input_and_loses_nothing(residual: nn.Module, log_mel: Tensor) -> None:
    quantised = prepared(residual, log_mel)
    (pool,) = (node for node in quantised.graph.nodes if node.target == "pool")
    (after,) = pool.users
    assert pool.all_input_nodes[0].target == after.target
    values: dict[str, Tensor] = {}
    quantised.pool.register_forward_hook(lambda module, inputs, output: values.update(pool=output))
    _, tap, _ = quantised(log_mel)
    assert torch.equal(tap, values["pool"])


def test_quantisers_know_what_cannot_be_negative(residual: nn.Module, log_mel: Tensor) -> None:
    signs = {name: quantiser.non_negative for name, quantiser in prepare(residual, log_mel).quantisers().items()}
    assert signs == {
        "log_mel_quant": False,
        "relu_quant": True,
        "relu_1_quant": True,
        "conv2_quant": False,
        "relu_2_quant": True,
        "mean_quant": True,
    }


def test_histogram_layer_stays_whole_and_in_float(log_mel: Tensor) -> None:
    quantised = prepare(build_student("hltdnn", 4).network, log_mel)
    (histogram,) = (module for module in quantised.modules() if isinstance(module, HistogramLayer))
    assert not any(isinstance(module, ActivationFakeQuant) for module in histogram.modules())


def test_the_classifier_input_is_rounded_before_dropout_scales_it(log_mel: Tensor) -> None:
    quantised = prepare(build_student("hltdnn", 4).network, log_mel)
    (dropout,) = (node for node in quantised.graph.nodes if node.target == "dropout")
    assert dropout.all_input_nodes[0].target == "cat_quant"
    assert [user.target for user in dropout.users] == ["classifier"]


def test_state_dict_rebuilds_a_trained_quantised_network(residual: nn.Module, log_mel: Tensor) -> None:
    trained = prepared(residual, log_mel).train()
    trained(log_mel)
    rebuilt = prepare(Residual(), log_mel)
    rebuilt.load_state_dict(trained.state_dict())
    assert torch.equal(rebuilt(log_mel)[0], trained.eval()(log_mel)[0])


def test_quantised_training_lowers_the_loss_and_frozen_scales_stay(residual: nn.Module, log_mel: Tensor) -> None:
    clips = log_mel * torch.tensor([0.3, 1.0, 3.0]).view(3, 1, 1, 1)
    quantised = prepared(residual, clips).train()
    set_frozen(quantised, True)
    scales = {name: value.clone() for name, value in quantised.state_dict().items() if name.endswith("scale")}
    optimiser = torch.optim.AdamW(quantised.parameters(), lr=1e-2)
    labels = torch.tensor([0, 1, 2])
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(quantised(clips)[0], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(quantised.state_dict()[name], value) for name, value in scales.items())


def test_a_layer_kept_in_float_is_the_folded_layer_and_rounds_nothing(residual: nn.Module, log_mel: Tensor) -> None:
    quantised = prepare(residual, log_mel, ["stem"])
    calibrate(quantised, [log_mel], CalibrationRecipe(observer="absmax"))
    assert quantised.float_layers() == ["stem"]
    assert quantised.layer_names() == ["conv1", "conv2", "head"]
    assert isinstance(quantised.stem, nn.Conv2d)
    assert set(prepare(residual, log_mel).quantisers()) - set(quantised.quantisers()) == {"log_mel_quant"}
    outputs: dict[str, Tensor] = {}
    quantised.stem.register_forward_hook(lambda module, inputs, output: outputs.update(stem=output))
    quantised(log_mel)
    expected = residual.stem_norm(residual.stem(log_mel))  # type: ignore[operator]
    torch.testing.assert_close(outputs["stem"], expected, rtol=1e-4, atol=1e-5)


def test_what_an_int8_layer_gives_is_rounded_though_a_float_layer_reads_it(
    residual: nn.Module, log_mel: Tensor
) -> None:
    """Without that its own convolution would be run in float."""
    quantised = prepare(residual, log_mel, ["conv1"])
    assert "relu_quant" in quantised.quantisers()  # from the stem to conv1, and to the addition
    assert "relu_1_quant" in quantised.quantisers()  # from conv1 to conv2
    assert "relu_1_quant" not in prepare(residual, log_mel, ["conv1", "conv2"]).quantisers()


def test_a_run_of_float_layers_passes_floats_between_them(log_mel: Tensor) -> None:
    network = build_student("hltdnn_ds", 4).network
    whole = set(prepare(network, log_mel).quantisers())
    kept = prepare(network, log_mel, ["blocks.3.0.0", "blocks.3.1.0"])
    assert whole - set(kept.quantisers()) == {"blocks_3_0_2_quant"}
    assert len(kept.layers()) == len(kept.layer_names()) == 12


@pytest.mark.parametrize("name", ["stem.0", "blocks.2.1.0", "classifier"])
def test_state_dict_rebuilds_a_network_with_float_layers(name: str, log_mel: Tensor) -> None:
    kept = prepare(with_statistics(build_student("hltdnn_ds", 4).network, log_mel), log_mel, [name])
    calibrate(kept, [log_mel], CalibrationRecipe())
    rebuilt = prepare(build_student("hltdnn_ds", 4).network, log_mel, [name])
    rebuilt.load_state_dict(kept.state_dict())
    assert torch.equal(rebuilt(log_mel)[0], kept(log_mel)[0])


def test_an_unknown_layer_is_refused_with_the_nearest(log_mel: Tensor) -> None:
    network = build_student("hltdnn_ds", 4).network
    with pytest.raises(UsageError, match=r"Unknown layer 'stem'. Did you mean 'stem.0'\? Valid: blocks.0.0.0, "):
        prepare(network, log_mel, ["stem"])


def test_leaving_nothing_to_quantise_is_refused(residual: nn.Module, log_mel: Tensor) -> None:
    with pytest.raises(UsageError, match="leaves none to quantise"):
        prepare(residual, log_mel, ["stem", "conv1", "conv2", "head"])


def test_weights_that_are_not_finite_are_refused_with_their_layer(residual: nn.Module, log_mel: Tensor) -> None:
    with torch.no_grad():
        residual.conv1.weight[0, 0] = float("nan")  # type: ignore[union-attr,operator,index]
    with pytest.raises(InputError, match=r"The student's 'conv1.weight' holds NaN or infinite values"):
        prepare(residual, log_mel)


def test_a_network_that_branches_on_its_mode_is_refused(log_mel: Tensor) -> None:
    class Moody(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(log_mel.shape[3], 3)

        def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
            Moody.calls += 1
            return self.classifier(log_mel.mean(dim=(1, 2))) * Moody.calls, log_mel

    with pytest.raises(InputError, match=r"^Moody cannot be made int8: traced, it differs by .* must not depend on"):
        prepare(Moody(), log_mel)
