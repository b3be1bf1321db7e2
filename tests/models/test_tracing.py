"""What int8 asks of a network, refused in one line where it is not there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import InputError
from edgekd.models.build import build_student
from edgekd.models.histogram import HistogramLayer
from edgekd.models.students.table import STUDENTS
from edgekd.models.tracing import EmbeddingLayer, check_layers, embedding_layer, trace

Outputs = tuple[Tensor, Tensor] | list[Tensor]


class Net(nn.Module):
    """A small network whose `forward` is `way(self, log_mel)`."""

    def __init__(self, way: Callable[[Net, Tensor], Outputs]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.linear = nn.Linear(4, 3)
        self.way = way

    def forward(self, log_mel: Tensor) -> Outputs:
        return self.way(self, log_mel)


def plain(net: Net, log_mel: Tensor) -> Outputs:
    tap = net.again(net.conv(log_mel)).relu()
    return net.linear(tap.mean((2, 3))), tap


def by_its_data(net: Net, log_mel: Tensor) -> Outputs:
    return plain(net, log_mel if log_mel.mean() > 0 else -log_mel)


def by_its_shape(net: Net, log_mel: Tensor) -> Outputs:
    parts = [plain(net, log_mel[:, :, frame : frame + 5]) for frame in range(log_mel.shape[2] // 5)]
    return sum(logits for logits, _ in parts), parts[0][1]


def by_function(net: Net, log_mel: Tensor) -> Outputs:
    tap = F.conv2d(log_mel, net.conv.weight)
    return net.linear(tap.mean((2, 3))), tap


def twice(net: Net, log_mel: Tensor) -> Outputs:
    tap = net.again(net.again(net.conv(log_mel)))
    return net.linear(tap.mean((2, 3))), tap


def without_layers(net: Net, log_mel: Tensor) -> Outputs:
    return log_mel.mean((1, 2))[:, :3], log_mel


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_is_traced_with_its_histogram_whole(name: str) -> None:
    network = build_student(name, 4).network.eval()
    traced, log_mel = trace(name, network), torch.randn(2, 1, 60, 64)
    for before, after in zip(network(log_mel)[:2], traced(log_mel)[:2], strict=True):
        assert torch.equal(before, after)
    layers = [sum(isinstance(module, HistogramLayer) for module in each.modules()) for each in (network, traced)]
    assert layers[0] == layers[1]


def test_a_plain_pair_is_traced_as_it_is() -> None:
    network, log_mel = Net(plain).eval(), torch.randn(2, 1, 20, 32)
    logits, tap = trace("Net", network)(log_mel)
    assert torch.equal(logits, network(log_mel)[0]) and torch.equal(tap, network(log_mel)[1])


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (by_its_data, r"TraceError: .*test_tracing\.py, line \d+;"),
        (by_its_shape, r"TypeError: .*test_tracing\.py, line \d+;"),
    ],
)
def test_a_network_that_is_no_graph_is_refused_in_one_line(way: Callable[[Net, Tensor], Outputs], reason: str) -> None:
    words = (
        rf"^Student 'm:f': tracing its forward failed: {reason}.*must not branch on its data, their shape or the mode"
    )
    with pytest.raises(InputError, match=words) as caught:
        trace("Student 'm:f'", Net(way))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (by_function, r"it calls conv2d itself, whose weight cannot be rounded: make it a nn\.Conv2d\."),
        (twice, r"its layer 'again' is called 2 times, and may be once\."),
        (without_layers, r"it has no convolution or linear layer\."),
    ],
)
def test_layers_that_int8_cannot_do_are_refused_in_one_line(way: Callable[[Net, Tensor], Outputs], reason: str) -> None:
    traced = trace("Net", Net(way))
    with pytest.raises(InputError, match=rf"^Net cannot be made int8: {reason} Change it, or stay in float \(--no-qu"):
        check_layers("Net", traced)
    check_layers("Net", trace("Net", Net(plain)))


def test_a_pair_that_a_layer_makes_is_refused() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lstm = nn.Conv2d(1, 1, 1), nn.LSTM(32, 3)

        def forward(self, log_mel: Tensor) -> Outputs:
            return self.lstm(self.conv(log_mel)[:, 0])

    with pytest.raises(InputError, match="its forward must make the pair of logits and tap itself"):
        trace("Net", Recurrent().eval())


@pytest.mark.parametrize("name", STUDENTS)
def test_what_enters_the_classifier_of_a_student_is_its_embedding(name: str) -> None:
    network = build_student(name, 4).network
    layer = embedding_layer(network)
    assert layer is not None
    assert layer.name == "dropout", "before dropout"
    classifier = network.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    assert layer.size == classifier.in_features


def by_a_sum(net: Net, log_mel: Tensor) -> Outputs:
    logits, tap = plain(net, log_mel)
    return logits + logits, tap


def by_a_layer_twice(net: Net, log_mel: Tensor) -> Outputs:
    tap = net.again(net.conv(log_mel)).relu()
    return net.linear(torch.cat([net.linear(tap.mean((2, 3))), tap.amax((2, 3))[:, :1]], dim=1)), tap


def test_the_embedding_of_a_network_of_the_users_own_is_found_where_a_linear_layer_ends_it() -> None:
    assert embedding_layer(Net(plain)) == EmbeddingLayer("linear", 4)
    for way in (by_a_sum, by_a_layer_twice, without_layers, by_its_data):
        assert embedding_layer(Net(way)) is None, way.__name__
