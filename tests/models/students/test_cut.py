"""Students cut from a teacher: the same numbers as the teacher's own layers, and names that are understood."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from edgekd.config import DistillConfig, FrontendConfig
from edgekd.errors import UsageError
from edgekd.models.build import (
    as_teacher_hears,
    build_student,
    build_teacher,
    check_models,
    with_default_student,
)
from edgekd.models.students.cut import CutNetwork, cut_network, first_layers, folded, narrowed, pooled
from edgekd.models.students.names import Cut, cut_of, trains_head_alone
from edgekd.models.tracing import check_layers, trace


def waveforms(rate: int) -> torch.Tensor:
    return 0.1 * torch.randn(2, 2 * rate, generator=torch.Generator().manual_seed(0))


def disturb(module: torch.nn.Module) -> None:
    """Batch norms as after training, so that folding one wrongly shows."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for values in (norm.weight.data, norm.running_mean, norm.running_var, norm.bias.data):
                assert values is not None
                values.copy_(0.5 + torch.rand(values.shape, generator=generator))


def test_names_say_the_teacher_and_the_layers() -> None:
    assert cut_of("yamnet-cut7") == Cut("yamnet", 7)
    assert cut_of("mine:make-cut3") == Cut("mine:make", 3)
    assert cut_of("hltdnn_ds") is None
    assert cut_of("yamnet-cut0") is None


@pytest.mark.parametrize("teacher", ["yamnet", "mobilenetv1", "convnet"])
def test_layers_up_to_the_tap_give_the_teachers_tap(teacher: str) -> None:
    rate = {"yamnet": 16_000, "mobilenetv1": 32_000, "convnet": 8_000}[teacher]
    frontend = FrontendConfig().at(rate)
    if teacher == "yamnet":
        frontend = FrontendConfig(convention="yamnet").at(rate)
    built = build_teacher(teacher, 5, None, rate, frontend).eval()
    disturb(built)
    chain = built.layers()
    assert chain is not None
    name = f"{teacher}-cut{max(2, chain.tap)}"
    student = build_student(name, 5, rate, frontend).eval()
    student.network = cut_network(built, name, 5, 1.0).eval()
    norm = built.input_norm()
    if norm is not None:
        student.norm = norm
    sound = waveforms(rate)
    with torch.no_grad():
        expected, tap = built.tap(sound), student(sound).tap
    torch.testing.assert_close(tap, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1e-3


def test_a_layer_of_each_teacher_is_a_convolution_and_what_follows_it() -> None:
    for teacher, rate, layers in (("yamnet", 16_000, 27), ("mobilenetv1", 32_000, 27), ("convnet", 8_000, 12)):
        built = build_teacher(teacher, 5, None, rate)
        chain = built.layers()
        assert chain is not None
        assert len(chain.modules) == layers
        convolutions = [module for module in built.modules() if isinstance(module, torch.nn.Conv2d)]
        found = [next(layer.children()) for layer in chain.modules]
        assert all(any(layer is each for each in convolutions) for layer in found)


def test_folding_changes_no_number() -> None:
    built = build_teacher("mobilenetv1", 5, None, 32_000).eval()
    disturb(built)
    chain = built.layers()
    assert chain is not None
    features = torch.rand(2, 1, 40, 32)
    for layer in chain.modules[:4]:
        layer.eval()
        assert not [module for module in folded(layer).modules() if isinstance(module, torch.nn.BatchNorm2d)]
        torch.testing.assert_close(folded(layer)(features), layer(features), rtol=1e-4, atol=1e-4)
        features = layer(features)


def test_pooled_features_are_mean_maximum_and_movement() -> None:
    features = torch.rand(2, 3, 7, 5)
    mean, largest, moved = pooled(features).chunk(3, dim=1)
    torch.testing.assert_close(mean, features.mean((2, 3)))
    torch.testing.assert_close(largest, features.amax((2, 3)))
    torch.testing.assert_close(moved, features.mean(3).std(2, correction=0))


def test_width_leaves_channels_out_and_depthwise_layers_follow() -> None:
    built = build_teacher("yamnet", 5, None, 16_000)
    layers = narrowed([folded(layer) for layer in first_layers(built, "yamnet-cut7").modules], 0.5)
    shapes = [next(layer.children()) for layer in layers]
    outputs = [each.out_channels for each in shapes if isinstance(each, torch.nn.Conv2d)]
    assert outputs == [16, 16, 32, 32, 64, 64, 64]
    assert torch.nn.Sequential(*layers)(torch.rand(1, 1, 40, 32)).shape == (1, 64, 10, 8)


def test_it_is_a_graph_that_int8_can_be_made_of() -> None:
    student = build_student("yamnet-cut5", 4, 16_000, width=0.5)
    check_layers("student", trace("student", student.network))


def test_its_norms_stand_still_in_training() -> None:
    student = build_student("convnet-cut3", 4, 8_000).train()
    assert isinstance(student.network, CutNetwork)
    assert not student.norm.training
    assert not student.network.spread.training
    assert build_student("hltdnn_micro", 4, 8_000).train().norm.training


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("yamnet-cut99", "has 27 convolutions"),
        ("hubert-cut3", "is no chain of convolutions"),
        ("yamnett-cut3", "Did you mean 'yamnet'"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(student: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_student(student, 4, 16_000)


def test_a_width_above_one_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves channels out"):
        build_student("yamnet-cut5", 4, 16_000, width=1.5)


def test_it_hears_what_its_teacher_does_or_is_refused() -> None:
    with pytest.raises(UsageError, match="hears 16000 Hz"):
        build_student("yamnet-cut5", 4, 32_000)
    with pytest.raises(UsageError, match=r"frontend\.n_mels is 64, not 32"):
        build_student("yamnet-cut5", 4, 16_000, FrontendConfig(convention="yamnet", n_mels=32).at(16_000))


def test_rate_front_end_and_recipe_follow_where_nothing_is_said() -> None:
    config = as_teacher_hears(DistillConfig(student="yamnet-cut7"))
    assert config.data.sample_rate == 16_000
    assert (config.frontend.convention, config.frontend.hop_length, config.frontend.bins_per_step) == ("yamnet", 320, 2)
    assert config.loss.terms == ("classification", "distillation")
    assert config.quantize.method == "ptq"
    assert config.augment.mixes_per_clip > 0
    assert trains_head_alone(config)
    assert as_teacher_hears(config) == config


def test_what_is_said_stays() -> None:
    given = DistillConfig.model_validate(
        {
            "student": "yamnet-cut7",
            "frontend": {"hop_ms": 40.0},
            "loss": {"terms": ["classification"]},
            "quantize": {"method": "qat"},
        }
    )
    config = as_teacher_hears(given)
    assert config.frontend.hop_length == 640
    assert config.loss.terms == ("classification",)
    assert config.augment.mixes_per_clip == 0  # nobody says what is in a mixture
    assert config.quantize.method == "qat"
    with pytest.raises(UsageError, match="leave --sample-rate out"):
        rate = as_teacher_hears(
            DistillConfig.model_validate({"student": "yamnet-cut7", "data": {"sample_rate": 8_000}})
        )
        build_student(rate.student, 4, rate.data.sample_rate, rate.frontend)


def test_a_whole_adaptation_keeps_the_recipe_of_other_students() -> None:
    config = as_teacher_hears(
        DistillConfig.model_validate({"student": "yamnet-cut7", "training": {"adaptation": "full"}})
    )
    assert config.loss.terms == DistillConfig().loss.terms
    assert config.quantize.method == "qat"


def test_other_students_are_left_alone() -> None:
    assert as_teacher_hears(DistillConfig()) == DistillConfig()


def test_names_are_checked_before_anything_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr("edgekd.models.build.build_teacher", lambda *_, **__: built.append("teacher"))
    check: Callable[[DistillConfig, bool], None] = check_models
    with pytest.raises(UsageError, match="no chain of convolutions"):
        check(DistillConfig(student="wav2vec2-cut2"), False)
    assert not built


def test_under_yamnet_a_student_cut_from_it_is_the_default() -> None:
    chosen = with_default_student(DistillConfig.model_validate({"teacher": {"name": "yamnet"}}))
    assert (chosen.student, chosen.width) == ("yamnet-cut9", 0.65)
    assert as_teacher_hears(chosen).data.sample_rate == 16_000
    said = {"teacher": {"name": "yamnet"}, "data": {"sample_rate": 16_000}}  # which is what it hears anyway
    assert with_default_student(DistillConfig.model_validate(said)).student == "yamnet-cut9"


@pytest.mark.parametrize(
    "said",
    [
        {"teacher": {"name": "convnet"}},
        {"teacher": {"name": "yamnet"}, "student": "hltdnn_micro"},
        {"teacher": {"name": "yamnet"}, "width": 0.5},
        {"teacher": {"name": "yamnet"}, "data": {"sample_rate": 32_000}},
        {"teacher": {"name": "yamnet"}, "frontend": {"n_mels": 40}},
        {"teacher": {"name": "yamnet"}, "loss": {"terms": ["classification", "structural"]}},
    ],
)
def test_what_is_said_of_the_student_decides(said: dict) -> None:
    config = DistillConfig.model_validate(said)
    assert with_default_student(config) == config
