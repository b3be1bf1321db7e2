"""Structural texture against kornia's pyramid and scipy's correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kornia.geometry.transform import build_laplacian_pyramid
from scipy import ndimage  # type: ignore[import-untyped]

from edgekd.errors import UsageError
from edgekd.losses.ssatkd.structural import StructuralTexture, _Banded, laplacian_bands, structural_loss

# Written out by hand: each is the one before, its outer ring moved one place counter-clockwise.
MASKS = [
    [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
    [[2, 1, 0], [1, 0, -1], [0, -1, -2]],
    [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
    [[0, -1, -2], [1, 0, -1], [2, 1, 0]],
    [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    [[-2, -1, 0], [-1, 0, 1], [0, 1, 2]],
    [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
]


def reference_texture(features: torch.Tensor, levels: int) -> np.ndarray:
    """The page's texture from kornia's pyramid and scipy's correlation, one channel and mask at a time."""
    bands = build_laplacian_pyramid(features, max_level=levels + 1)[1:]
    batch, channels = features.shape[:2]
    height, width = (size - 2 for size in bands[0].shape[2:])
    texture = np.zeros((batch, levels, channels, 8, height, width))
    for level, band in enumerate(bands):
        h, w = (size - 2 for size in band.shape[2:])
        for b in range(batch):
            for c in range(channels):
                for n, mask in enumerate(MASKS):
                    full = ndimage.correlate(band[b, c].numpy(), np.array(mask) / 8)
                    texture[b, level, c, n, :h, :w] = full[1:-1, 1:-1]
    return texture.reshape(batch, -1, height, width)


@pytest.mark.parametrize(
    ("shape", "levels"), [((2, 3, 64, 32), 3), ((1, 2, 32, 128), 3), ((1, 2, 64, 64), 4), ((2, 1, 16, 16), 2)]
)
def test_texture_of_power_of_two_maps_agrees_with_kornia_and_scipy(shape: tuple[int, ...], levels: int) -> None:
    features = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    texture = StructuralTexture(levels)(features)
    np.testing.assert_allclose(texture.numpy(), reference_texture(features, levels), atol=1e-12)
    single = StructuralTexture(levels)(features.float())
    torch.testing.assert_close(single.double(), texture, atol=1e-5, rtol=0)


def test_odd_sizes_are_zero_padded_at_the_bottom_and_right() -> None:
    features = torch.rand(2, 2, 61, 57)
    padded = torch.nn.functional.pad(features, (0, 7, 0, 3))
    torch.testing.assert_close(StructuralTexture(3)(features), StructuralTexture(3)(padded))
    for ours, kornias in zip(
        laplacian_bands(features, 3), build_laplacian_pyramid(padded, max_level=4)[1:], strict=True
    ):
        torch.testing.assert_close(ours, kornias, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((250, 32), (126, 14)), ((501, 62), (250, 30)), ((24, 24), (10, 10)), ((49, 1), (26, 10)), ((1, 1), (10, 10))],
)
def test_texture_has_the_documented_shape(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert StructuralTexture(3)(torch.rand(2, 5, *size)).shape == (2, 5 * 8 * 3, *expected)
    assert StructuralTexture(3, fusion="max")(torch.rand(2, 5, *size)).shape == (2, 5 * 3, *expected)


def test_max_fusion_keeps_the_strongest_of_the_eight_directions() -> None:
    features = torch.randn(2, 3, 40, 33)
    every = StructuralTexture(3)(features)
    strongest = StructuralTexture(3, fusion="max")(features)
    torch.testing.assert_close(strongest, every.unflatten(1, (9, 8)).amax(2))


@pytest.mark.parametrize("fusion", ["all", "max"])
@pytest.mark.parametrize("size", [(50, 27), (250, 32), (1, 1), (97, 1)])
def test_distance_is_the_loss_of_the_textures_with_its_gradient(fusion: str, size: tuple[int, int]) -> None:
    student, teacher = torch.rand(2, 3, 4, *size, dtype=torch.float64).requires_grad_()
    texture = StructuralTexture(3, fusion)  # type: ignore[arg-type]
    whole = structural_loss(texture(student), texture(teacher))
    found = texture.distance(student, teacher)
    torch.testing.assert_close(found, whole)
    for ours, expected in zip(
        torch.autograd.grad(found, (student, teacher)), torch.autograd.grad(whole, (student, teacher)), strict=True
    ):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-9)
    s, t = texture(student).flatten(1), texture(teacher).flatten(1)
    torch.testing.assert_close(whole, (1 - torch.nn.functional.cosine_similarity(s, t)).mean())


def test_a_map_that_does_not_learn_gets_no_gradient() -> None:
    student, teacher = torch.rand(3, 4, 50, 27, requires_grad=True), torch.rand(3, 4, 50, 27)
    StructuralTexture().distance(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("value", [0.0, 1.0, -80.0])
def test_distance_of_constant_maps_is_finite_with_a_finite_gradient(value: float) -> None:
    features = torch.full((2, 4, 64, 32), value, requires_grad=True)
    for other in (torch.rand(2, 4, 64, 32), torch.zeros(2, 4, 64, 32), features.detach()):
        distance = StructuralTexture().distance(features, other)
        (gradient,) = torch.autograd.grad(distance, features)
        assert torch.isfinite(distance)
        assert torch.isfinite(gradient).all()


def test_a_cpu_multiplies_banded_matrices_in_blocks() -> None:
    matrix = torch.eye(100).roll(1, 1).triu() + torch.eye(100)
    maps = torch.rand(100, 5, 6)
    banded = _Banded(matrix)
    assert sum(block.numel() for block, _ in banded.blocks) < 0.4 * matrix.numel()
    expected = (torch.einsum("ij,jkl->ikl", rows, maps) for rows in (matrix, matrix.mT))
    torch.testing.assert_close((banded.down_columns(maps), banded.adjoint.down_columns(maps)), tuple(expected))


def test_loss_is_zero_for_equal_and_two_for_opposite_textures() -> None:
    texture = StructuralTexture()(torch.rand(2, 4, 32, 32))
    assert structural_loss(texture, texture).item() == pytest.approx(0, abs=1e-6)
    assert structural_loss(texture, 3 * texture).item() == pytest.approx(0, abs=1e-6)
    assert structural_loss(texture, -texture).item() == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("fusion", ["all", "max"])
def test_gradient_agrees_with_finite_differences(fusion: str) -> None:
    features = torch.rand(1, 1, 7, 13, dtype=torch.float64, requires_grad=True)
    other = StructuralTexture(2)(torch.rand(1, 1, 7, 13, dtype=torch.float64))
    texture = StructuralTexture(2, fusion)  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(texture, features)
    if fusion == "all":
        assert torch.autograd.gradcheck(lambda x: structural_loss(texture(x), other), features)


@pytest.mark.parametrize("value", [0.0, 1.0, -80.0])
def test_constant_maps_give_finite_loss_and_gradient(value: float) -> None:
    features = torch.full((2, 4, 64, 32), value, requires_grad=True)
    texture = StructuralTexture()
    for other in (torch.rand(2, 4, 64, 32), torch.zeros(2, 4, 64, 32), features.detach()):
        loss = structural_loss(texture(features), texture(other))
        (gradient,) = torch.autograd.grad(loss, features)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    features = torch.rand(1, 2, 32, 32).bfloat16()
    expected = StructuralTexture()(features.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(StructuralTexture()(features), expected)
        torch.testing.assert_close(StructuralTexture()(features.float()), expected)


def test_training_works_after_a_first_use_in_inference_mode() -> None:
    features = torch.rand(1, 2, 72, 56)  # a size no other test has put into the cache
    with torch.inference_mode():
        StructuralTexture()(features)
    StructuralTexture()(features.requires_grad_()).sum().backward()
    assert features.grad is not None


def test_unknown_fusion_names_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"Unknown structural fusion 'maximum'.*all, max"):
        StructuralTexture(fusion="maximum")  # type: ignore[arg-type]
