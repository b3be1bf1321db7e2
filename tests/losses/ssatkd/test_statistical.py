"""Statistical texture against loops written from its equations; its loss against POT's exact transport."""

from __future__ import annotations

import math

import numpy as np
import ot  # type: ignore[import-untyped]
import pytest
import torch

from edgekd.errors import UsageError
from edgekd.losses.ssatkd.statistical import (
    NORM_FLOOR,
    Bandwidth,
    Cooccurrence,
    StatisticalTexture,
    _similarity_to_mean,
    statistical_loss,
)


def reference_texture(features: np.ndarray, levels: int, relative: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """P and q of one sample `(C, H, W)`, one place at a time."""
    _, height, width = features.shape
    mean = features.mean((1, 2))
    similarity = np.empty((height, width))
    for h in range(height):
        for w in range(width):
            place = features[:, h, w]
            similarity[h, w] = place @ mean / (np.linalg.norm(place) * np.linalg.norm(mean))
    low, high = similarity.min(), similarity.max()
    q = np.array([(2 * n + 1) / (2 * levels) * (high - low) + low for n in range(levels)])
    sigma = (high - low) / levels if relative else 2 / levels

    def assigned(value: float) -> list[float]:
        shares = [math.exp(-((value - level) ** 2) / sigma**2) for level in q]
        return [share / sum(shares) for share in shares] if relative else shares

    counts = np.zeros((levels, levels))
    for h in range(height - 1):
        for w in range(width - 1):
            here, there = assigned(similarity[h, w]), assigned(similarity[h + 1, w + 1])
            for m in range(levels):
                for n in range(levels):
                    counts[m, n] += here[m] * there[n]
    return counts / counts.sum(), q


def reference_published(p: Cooccurrence, t: Cooccurrence) -> float:
    """The published distance, p the teacher and t the student, in four loops."""
    batch, size = p.levels.shape
    total = 0.0
    for b in range(batch):
        ap = p.cooccurrence[b].numpy().cumsum(1).cumsum(0)
        at = t.cooccurrence[b].numpy().cumsum(1).cumsum(0)
        qp, qt = p.levels[b].tolist(), t.levels[b].tolist()
        for i in range(size):
            for j in range(size):
                for k in range(size):
                    distance = math.sqrt((qp[j] - qt[k]) ** 2 + (qp[i] - qt[j]) ** 2)
                    total += distance * (ap[i, j] - at[j, k]) ** 2
    return total / (batch * size)


def random_texture(batch: int, size: int, concentration: float, rng: np.random.Generator) -> Cooccurrence:
    mass = rng.dirichlet(np.full(size * size, concentration), batch)
    low = rng.uniform(0, 0.8, (batch, 1))
    high = rng.uniform(low + 0.05, 1)
    q = low + (np.arange(size) + 0.5) / size * (high - low)
    return Cooccurrence(torch.tensor(mass).view(batch, size, size), torch.tensor(q))


def exact_distance(p: np.ndarray, q: np.ndarray, p_levels: np.ndarray, q_levels: np.ndarray) -> float:
    """POT's exact earth mover's distance of two `(N, N)` distributions at `(q_m, q_n)`."""
    here = np.stack(np.meshgrid(p_levels, p_levels, indexing="ij"), -1).reshape(-1, 2)
    there = np.stack(np.meshgrid(q_levels, q_levels, indexing="ij"), -1).reshape(-1, 2)
    return float(ot.emd2(p.ravel() / p.sum(), q.ravel() / q.sum(), ot.dist(here, there, metric="euclidean")))


def exact_distances(a: Cooccurrence, b: Cooccurrence) -> np.ndarray:
    return np.array(
        [
            exact_distance(*(x.numpy() for x in (p, q, s, t)))
            for p, q, s, t in zip(a.cooccurrence, b.cooccurrence, a.levels, b.levels, strict=True)
        ]
    )


@pytest.mark.parametrize("bandwidth", ["paper", "relative"])
@pytest.mark.parametrize(("levels", "size"), [(4, (7, 9)), (2, (8, 8)), (8, (5, 12))])
def test_texture_agrees_with_a_loop_over_places(levels: int, size: tuple[int, int], bandwidth: Bandwidth) -> None:
    features = torch.rand(2, 3, *size, dtype=torch.float64) - 0.3
    texture = StatisticalTexture(levels, bandwidth)(features)
    for b in range(2):
        cooccurrence, q = reference_texture(features[b].numpy(), levels, bandwidth == "relative")
        np.testing.assert_allclose(texture.cooccurrence[b].numpy(), cooccurrence, rtol=1e-9)
        np.testing.assert_allclose(texture.levels[b].numpy(), q, rtol=1e-9)


def test_relative_bandwidth_tells_textures_apart_that_the_papers_makes_alike() -> None:
    """After a ReLU, similarities span little: smooth and rough maps of the same values differ in their neighbours."""
    rough = 1 + 0.2 * torch.rand(1, 6, 32, 32, generator=torch.Generator().manual_seed(0))
    order = rough[0, 0].flatten().argsort()
    smooth = rough.flatten(2)[:, :, order].view_as(rough)  # the same places, neighbours alike
    distances, entropies = {}, {}
    for bandwidth in ("paper", "relative"):
        texture = StatisticalTexture(4, bandwidth)  # type: ignore[arg-type]
        first, second = texture(rough).cooccurrence, texture(smooth).cooccurrence
        distances[bandwidth] = (first - second).abs().sum().item()
        entropies[bandwidth] = -(first * first.log()).sum().item() / math.log(16)
    assert entropies["paper"] > 0.99
    assert entropies["relative"] < 0.95
    assert distances["relative"] > 5 * distances["paper"]


def test_unknown_bandwidth_names_the_valid_ones() -> None:
    with pytest.raises(UsageError, match=r"Unknown bandwidth 'wide'.*paper, relative"):
        StatisticalTexture(bandwidth="wide")  # type: ignore[arg-type]


def test_single_rows_and_columns_pair_with_the_next_place() -> None:
    column = torch.rand(2, 3, 10, 1, dtype=torch.float64)
    # Repeated columns have the places of one column, each with the next frame diagonally below.
    wide = column.expand(-1, -1, -1, 2)
    texture = StatisticalTexture()(column)
    torch.testing.assert_close(texture, StatisticalTexture()(wide))
    torch.testing.assert_close(texture, StatisticalTexture()(column.mT))
    assert torch.isfinite(StatisticalTexture()(column[:, :, :1]).cooccurrence).all()


def test_texture_gradient_agrees_with_finite_differences() -> None:
    features = torch.rand(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(StatisticalTexture(3)(x)), features)


def test_the_written_gradient_of_similarity_is_the_differentiated_one() -> None:
    features = torch.randn(3, 4, 6, 5, dtype=torch.float64).relu()
    features[:, :, 2] = 0  # places without activation, whose norm is the floor
    features[1] = 0
    features.requires_grad_()
    mean, floor = features.mean((2, 3), keepdim=True), NORM_FLOOR**2
    lengths = (each.square().sum(1).clamp_min(floor).sqrt() for each in (features, mean))
    expected = (features * mean).sum(1) / math.prod(lengths)
    found = _similarity_to_mean(features)
    torch.testing.assert_close(found, expected)
    wanted = torch.randn_like(found)
    (ours,), (theirs,) = (torch.autograd.grad(each, features, wanted) for each in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("kind", ["sinkhorn", "published"])
def test_gradient_reaches_features_through_cooccurrence_and_through_levels(kind: str) -> None:
    features = torch.rand(2, 4, 12, 10, requires_grad=True)
    teacher = StatisticalTexture()(torch.rand(2, 4, 12, 10) ** 3)
    p, q = StatisticalTexture()(features)
    for student in (Cooccurrence(p, q.detach()), Cooccurrence(p.detach(), q)):
        loss = statistical_loss(student, teacher, kind)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 1e-7


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("concentration", [0.03, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sinkhorn_is_within_2_percent_of_the_exact_distance(
    size: int, concentration: float, dtype: torch.dtype
) -> None:
    rng = np.random.default_rng(size)
    a, b = random_texture(20, size, concentration, rng), random_texture(20, size, concentration, rng)
    exact = exact_distances(a, b)
    for i in range(20):
        one, other = (Cooccurrence(*(field[i : i + 1].to(dtype) for field in texture)) for texture in (a, b))
        assert statistical_loss(one, other).item() == pytest.approx(exact[i], rel=0.02, abs=1e-4)


def test_sinkhorn_is_within_2_percent_on_the_same_bins() -> None:
    rng = np.random.default_rng(5)
    for concentration in (0.01, 0.1, 1.0):
        a, b = random_texture(40, 4, concentration, rng), random_texture(40, 4, concentration, rng)
        b = Cooccurrence(b.cooccurrence, a.levels)
        assert statistical_loss(a, b).item() == pytest.approx(exact_distances(a, b).mean(), rel=0.02)


def test_sinkhorn_of_single_bins_is_their_distance() -> None:
    levels = torch.tensor([[0.1, 0.3, 0.5, 0.7]])
    one, other = torch.zeros(2, 1, 4, 4)
    one[0, 0, 1], other[0, 3, 2] = 1, 1
    one.requires_grad_()
    loss = statistical_loss(Cooccurrence(one, levels), Cooccurrence(other, levels))
    assert loss.item() == pytest.approx(math.hypot(0.6, 0.2), rel=1e-3)
    loss.backward()
    assert one.grad is not None
    assert torch.isfinite(one.grad).all()


def test_sinkhorn_gradient_follows_the_exact_programme() -> None:
    rng = np.random.default_rng(3)
    agreements = []
    for _ in range(15):
        a, b = random_texture(1, 4, 1.0, rng), random_texture(1, 4, 1.0, rng)
        p, q = a.cooccurrence.clone().requires_grad_(), a.levels.clone().requires_grad_()
        statistical_loss(Cooccurrence(p, q), b).backward()
        assert p.grad is not None
        assert q.grad is not None

        def exact(p_step: np.ndarray, q_step: np.ndarray, a: Cooccurrence = a, b: Cooccurrence = b) -> float:
            p, q = a.cooccurrence[0].numpy() + p_step, a.levels[0].numpy() + q_step
            return exact_distance(p, b.cooccurrence[0].numpy(), q, b.levels[0].numpy())

        step = 1e-6
        levels = [(exact(np.zeros((4, 4)), e) - exact(np.zeros((4, 4)), -e)) / 2 for e in step * np.eye(4)]
        # Mass can only be moved: between each bin and the fullest one.
        fullest = int(a.cooccurrence.argmax())
        moves = [step * (e - np.eye(16)[fullest]).reshape(4, 4) for e in np.eye(16)]
        masses = [(exact(e, np.zeros(4)) - exact(-e, np.zeros(4))) / 2 for e in moves]
        for ours, theirs in (
            (q.grad[0].numpy(), np.array(levels) / step),
            ((p.grad.flatten() - p.grad.flatten()[fullest]).numpy(), np.array(masses) / step),
        ):
            agreements.append(ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs)))
    assert min(agreements) > 0.97
    assert np.median(agreements) > 0.998


def test_equal_textures_are_at_distance_zero_with_a_finite_gradient() -> None:
    features = torch.rand(2, 4, 30, 20, requires_grad=True)
    loss = statistical_loss(StatisticalTexture()(features), StatisticalTexture()(features.detach()))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, features)
    # Scaling iterations that stop short of the fixed point leave some slope: how much, in units of features, depends
    # on the features; beside the pull of another texture it is small.
    apart = statistical_loss(StatisticalTexture()(features), StatisticalTexture()(torch.rand(2, 4, 30, 20)))
    (pull,) = torch.autograd.grad(apart, features)
    assert gradient.abs().max() < 0.1 * pull.abs().max()


@pytest.mark.parametrize("bandwidth", ["paper", "relative"])
@pytest.mark.parametrize("kind", ["sinkhorn", "published"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_maps_give_finite_loss_and_gradient(kind: str, value: float, bandwidth: Bandwidth) -> None:
    features = torch.full((2, 4, 16, 8), value, requires_grad=True)
    texture = StatisticalTexture(4, bandwidth)
    for other in (torch.rand(2, 4, 16, 8), torch.zeros(2, 4, 16, 8), features.detach()):
        student, teacher = texture(features), texture(other)
        loss = statistical_loss(student, teacher, kind)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, features)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_published_form_agrees_with_four_loops_in_their_call_order() -> None:
    rng = np.random.default_rng(1)
    student, teacher = random_texture(3, 4, 0.5, rng), random_texture(3, 4, 0.5, rng)
    loss = statistical_loss(student, teacher, kind="published").item()
    assert loss == pytest.approx(reference_published(teacher, student), rel=1e-9)
    assert loss != pytest.approx(reference_published(student, teacher), rel=1e-3)


def test_published_form_has_the_gradient_of_finite_differences() -> None:
    rng = np.random.default_rng(2)
    teacher = random_texture(2, 3, 1.0, rng)
    p, q = (field.requires_grad_() for field in random_texture(2, 3, 1.0, rng))
    assert torch.autograd.gradcheck(lambda p, q: statistical_loss(Cooccurrence(p, q), teacher, "published"), (p, q))


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    features = torch.rand(1, 4, 16, 8).bfloat16()
    expected = StatisticalTexture()(features.float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(StatisticalTexture()(features), expected)
        torch.testing.assert_close(StatisticalTexture()(features.float()), expected)


def test_unknown_kind_names_the_valid_ones() -> None:
    texture = StatisticalTexture()(torch.rand(1, 2, 4, 4))
    with pytest.raises(UsageError, match=r"Unknown statistical loss 'sinkhron'. Did you mean 'sinkhorn'"):
        statistical_loss(texture, texture, "sinkhron")  # type: ignore[arg-type]
