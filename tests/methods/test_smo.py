"""SMO: the exact solver against another one and the conditions of optimality; the descent against
a literal loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import InjectionProblem, Smo
from icis.methods.smo import descend, nearest_in_hull
from icis.seeding import derive_seed

D_FEATURE = 10


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make_problem(seen=8, unseen=5, dim=6, pairs=None, seed=0):
    descriptors = normal(seen + unseen, dim, seed=seed).abs().float()
    descriptors /= descriptors.norm(dim=1, keepdim=True)
    rows = normal(seen, D_FEATURE + 1, seed=seed + 1).float()
    return InjectionProblem(
        Head.from_joined(rows, tuple(f"s{seen - i}" for i in range(seen))),
        descriptors[:seen],
        descriptors[seen:],
        tuple(f"u{i}" for i in range(unseen)),
        pairs,
    )


def loss_of(p, corners, points):
    return (p @ corners - points).square().sum(dim=1)


def assert_on_simplex(p):
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(dim=1), torch.ones(len(p), dtype=torch.float64))


def assert_optimal(p, corners, points):
    """Check the conditions of optimality (KKT), relative to the size of the descriptors.

    With the multiplier of the sum at its best, no class's slope is lower than that of the
    classes in use.
    """
    slopes = (p @ corners - points) @ corners.T
    gap = (p * slopes).sum(dim=1) - slopes.min(dim=1).values
    scale = max(float(corners.abs().max()), float(points.abs().max()), 1e-300) ** 2
    assert float(gap.max()) <= 1e-10 * scale * corners.shape[1]


# --- exact ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seen", "dim"), [(8, 3), (8, 6), (5, 20), (15, 4)])
def test_the_optimum_equals_another_solver_s(seen, dim):
    corners, points = normal(seen, dim), normal(6, dim, seed=1)
    p = nearest_in_hull(corners, points)
    assert_on_simplex(p)
    for row, point in enumerate(points.numpy()):
        A = corners.numpy()
        found = minimize(
            lambda q, A=A, point=point: np.sum((q @ A - point) ** 2),
            np.full(seen, 1 / seen),
            jac=lambda q, A=A, point=point: 2 * A @ (q @ A - point),
            bounds=[(0, 1)] * seen,
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        ours = float(loss_of(p[row : row + 1], corners, points[row : row + 1]))
        assert ours == pytest.approx(found.fun, abs=1e-6)
        assert ours <= found.fun + 1e-9


@settings(deadline=None, max_examples=100)
@given(
    seen=st.integers(1, 30),
    dim=st.integers(1, 40),
    rank=st.integers(1, 40),
    copies=st.integers(0, 3),
    shift=st.sampled_from([0.0, 1.0, 100.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 1000),
)
def test_the_optimum_meets_the_conditions_of_optimality(
    seen, dim, rank, copies, shift, scale, seed
):
    base = normal(rank, dim, seed=seed)  # of deficient rank where rank < dim
    corners = normal(seen, rank, seed=seed + 1) @ base
    corners = scale * (torch.cat([corners, corners[:copies]]) + shift)
    points = scale * (normal(4, rank, seed=seed + 2) @ base + shift)
    p = nearest_in_hull(corners, points)
    assert_on_simplex(p)
    assert_optimal(p, corners, points)


@settings(deadline=None, max_examples=30)
@given(seen=st.integers(1, 20), dim=st.integers(1, 20), seed=st.integers(0, 1000))
def test_a_point_of_the_hull_is_rebuilt(seen, dim, seed):
    corners = normal(seen, dim, seed=seed)
    inside = normal(3, seen, seed=seed + 1).softmax(dim=1)
    points = torch.cat([inside @ corners, corners[:1]])
    p = nearest_in_hull(corners, points)
    assert_on_simplex(p)
    torch.testing.assert_close(p @ corners, points, rtol=0, atol=1e-7)


def test_independent_corners_give_the_known_weights():
    corners = torch.eye(3, dtype=torch.float64)
    points = torch.tensor(
        [[0.2, 0.3, 0.5], [0.5, 0.5, -3.0], [9.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64
    )
    expected = torch.tensor(
        [[0.2, 0.3, 0.5], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]],
        dtype=torch.float64,
    )
    torch.testing.assert_close(nearest_in_hull(corners, points), expected)


def test_one_seen_class_takes_all():
    corners = normal(1, 4)
    for points in (normal(2, 4, seed=1), corners):
        assert (nearest_in_hull(corners, points) == 1).all()


@pytest.mark.parametrize("pairs", [None, (5, 0, 3), (2,)])
@pytest.mark.parametrize("solver", ["exact", "descent"])
def test_rows_are_the_weighted_sums_of_the_known_rows(pairs, solver):
    problem = make_problem(pairs=pairs)
    joint = Smo(solver=solver).fit(problem, seed=4, device="cpu").joint
    chosen = list(range(8) if pairs is None else pairs)
    seen, unseen = problem.seen_descriptors[chosen].double(), problem.unseen_descriptors.double()
    if solver == "exact":
        p = nearest_in_hull(seen, unseen)
    else:
        p = descend(seen, unseen, seed=4, max_steps=100_000)
    expected = p @ problem.seen_head.joined()[chosen].double()
    torch.testing.assert_close(joint.joined()[8:].double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(joint.joined()[:8], problem.seen_head.joined()), "every seen row stays"
    assert joint.classes == problem.seen_head.classes + problem.unseen_classes


def test_a_solver_that_gives_up_is_a_reason(monkeypatch):
    def give_up(*args, **kwargs):
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr("scipy.optimize.nnls", give_up)
    with pytest.raises(IcisError, match="gave up .*iterations.* set solver: descent"):
        Smo().fit(make_problem(), seed=0, device="cpu")


# --- descent ----------------------------------------------------------------------------------


def literal_descent(corners, point, r, max_steps):
    """Return softmax(r) and the number of steps for one point, scalar by scalar."""
    S, d = len(corners), len(point)
    best, last, counts, steps = math.inf, math.inf, 0, 0
    while counts < 11 and steps < max_steps:
        steps += 1
        powers = [math.exp(x - max(r)) for x in r]
        p = [x / sum(powers) for x in powers]
        error = [sum(p[s] * corners[s][k] for s in range(S)) - point[k] for k in range(d)]
        loss = sum(e * e for e in error) / d
        if abs(last - loss) < 1e-7 or loss >= best:
            counts += 1
        best, last = min(best, loss), loss
        by_p = [2 / d * sum(error[k] * corners[s][k] for k in range(d)) for s in range(S)]
        by_r = [
            sum(by_p[t] * p[t] * ((1.0 if s == t else 0.0) - p[s]) for t in range(S))
            for s in range(S)
        ]
        r = [x - 1000 * slope for x, slope in zip(r, by_r, strict=True)]
    powers = [math.exp(x - max(r)) for x in r]
    return [x / sum(powers) for x in powers], steps


@pytest.mark.parametrize("max_steps", [1, 7, 2000])
def test_the_descent_equals_the_literal_loop(max_steps):
    problem = make_problem(seen=6, unseen=4, dim=40)
    seen, unseen = problem.seen_descriptors.double(), problem.unseen_descriptors.double()
    found = descend(seen, unseen, seed=3, max_steps=max_steps)
    generator = torch.Generator().manual_seed(derive_seed("smo start", 3))
    starts = torch.randn(4, 6, generator=generator, dtype=torch.float64) * 2 / 6
    steps = set()
    for row in range(4):
        expected, taken = literal_descent(
            seen.tolist(), unseen[row].tolist(), starts[row].tolist(), max_steps
        )
        np.testing.assert_allclose(found[row].numpy(), expected, rtol=0, atol=1e-8)
        steps.add(taken)
    if max_steps == 2000:
        assert max(steps) < 2000
        assert len(steps) > 1, "each class stops on its own"


def test_each_class_descends_alone():
    problem = make_problem(seen=16)
    seen, unseen = problem.seen_descriptors.double(), problem.unseen_descriptors.double()
    together = descend(seen, unseen, seed=0, max_steps=5000)
    first = descend(seen, unseen[:2], seed=0, max_steps=5000)  # the same starts
    torch.testing.assert_close(first, together[:2])


@pytest.mark.parametrize(("seen", "dim", "left"), [(40, 85, 0.05), (150, 300, 0.4), (60, 20, 0.4)])
def test_the_descent_approaches_the_optimum_from_above(seen, dim, left):
    """The published stop and rate end it early on some shapes: part of the way is left."""
    problem = make_problem(seen=seen, unseen=10, dim=dim)
    corners, points = problem.seen_descriptors.double(), problem.unseen_descriptors.double()
    least = loss_of(nearest_in_hull(corners, points), corners, points)
    even = loss_of(torch.full((10, seen), 1 / seen, dtype=torch.float64), corners, points)
    p = descend(corners, points, seed=0, max_steps=100_000)
    assert_on_simplex(p)
    reached = loss_of(p, corners, points)
    assert (reached >= least - 1e-12).all()
    assert float((reached - least).mean()) < left * float((even - least).mean())


# --- settings ---------------------------------------------------------------------------------


def test_randomness():
    problem = make_problem()

    def digest(seed, **settings_):
        return Smo(**settings_).fit(problem, seed=seed, device="cpu").joint.digest()

    assert digest(0) == digest(1)
    assert digest(0, solver="descent") == digest(0, solver="descent")
    assert digest(0, solver="descent", max_steps=5) != digest(1, solver="descent", max_steps=5)


def test_the_norm_heuristic_is_on_by_default():
    injection = Smo().inject(make_problem(), seed=0, device="cpu")
    rows = injection.joint.joined()[8:]
    assert float(rows.norm(dim=1).mean()) == pytest.approx(0.1)
    assert injection.unseen is not None
    assert injection.epochs == 0


def test_selection_says_how_the_search_ended():
    assert Smo().selection == "no training"
    text = Smo(solver="descent", max_steps=50).selection
    assert "11 counts" in text
    assert "at most 50 steps" in text


def test_steps_of_the_exact_solver_are_refused():
    with pytest.raises(ValidationError, match="max_steps is the descent's"):
        Smo(max_steps=10)
    with pytest.raises(ValidationError, match="max_steps"):
        Smo(solver="descent", max_steps=0)
