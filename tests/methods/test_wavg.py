"""WAvg against a literal loop, and at the ends of eta."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import InjectionProblem, Wavg

SEEN, UNSEEN, D_DESCRIPTOR, D_FEATURE = 8, 5, 6, 10


def make_problem(pairs=None, seed=0, scale=0.3):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return InjectionProblem(
        Head(normal(SEEN, D_FEATURE), normal(SEEN), tuple(f"s{7 - i}" for i in range(SEEN))),
        scale * normal(SEEN, D_DESCRIPTOR),
        scale * normal(UNSEEN, D_DESCRIPTOR),
        tuple(f"u{i}" for i in range(UNSEEN)),
        pairs,
    )


def predicted(problem, **settings_):
    joint = Wavg(**settings_).fit(problem, seed=0, device="cpu").joint
    assert joint.classes == problem.seen_head.classes + problem.unseen_classes
    assert torch.equal(joint.joined()[:SEEN], problem.seen_head.joined()), "every seen row stays"
    return joint.joined()[SEEN:]


def literal_rows(problem, pairs, eta):
    seen = problem.seen_head.joined().double().numpy()
    rows = []
    for a_u in problem.unseen_descriptors.double().numpy():
        row = np.zeros(D_FEATURE + 1)
        for s in pairs:
            a_s = problem.seen_descriptors[s].double().numpy()
            distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(a_u, a_s, strict=True)))
            row += math.exp(-eta * distance) * seen[s]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("pairs", [None, (5, 0, 3), (2,)])
@pytest.mark.parametrize("eta", [0.5, 5.0])
def test_rows_equal_the_literal_loop(pairs, eta):
    problem = make_problem(pairs)
    expected = literal_rows(problem, range(SEEN) if pairs is None else pairs, eta)
    found = predicted(problem, eta=eta).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 1e-9])
@pytest.mark.parametrize("pairs", [None, (5, 0, 3)])
def test_without_eta_it_is_the_sum_of_the_seen_rows(eta, pairs):
    problem = make_problem(pairs)
    total = problem.known_head.joined().sum(dim=0)
    torch.testing.assert_close(predicted(problem, eta=eta), total.expand(UNSEEN, -1))


def test_with_a_large_eta_an_equal_descriptor_gives_the_seen_row():
    problem = make_problem()
    unseen = problem.seen_descriptors[[3, 1, 0, 2, 4]]
    problem = replace(problem, unseen_descriptors=unseen)
    expected = problem.seen_head.joined()[[3, 1, 0, 2, 4]]
    torch.testing.assert_close(predicted(problem, eta=1e4), expected)


@settings(deadline=None, max_examples=50)
@given(eta=st.floats(0, 20), shift=st.floats(-2, 2), seed=st.integers(0, 5))
def test_a_shift_of_all_descriptors_changes_nothing(eta, shift, seed):
    problem = make_problem(seed=seed)
    moved = replace(
        problem,
        seen_descriptors=problem.seen_descriptors.double() + shift,
        unseen_descriptors=problem.unseen_descriptors.double() + shift,
    )
    torch.testing.assert_close(
        predicted(problem, eta=eta), predicted(moved, eta=eta), rtol=1e-5, atol=1e-6
    )


def test_the_norm_heuristic_is_on_by_default():
    problem = make_problem()
    injection = Wavg().inject(problem, seed=0, device="cpu")
    rows = injection.joint.joined()[SEEN:]
    assert float(rows.norm(dim=1).mean()) == pytest.approx(0.1)
    assert torch.equal(injection.unseen.joined(), predicted(problem))


def test_no_randomness():
    one, other = (Wavg().fit(make_problem(), seed=s, device="cpu").joint for s in (0, 1))
    assert one.digest() == other.digest()


def test_descriptors_too_far_apart_are_refused_by_name():
    problem = make_problem()
    far = problem.unseen_descriptors.clone()
    far[2] += 100
    problem = replace(problem, unseen_descriptors=far)
    with pytest.raises(IcisError, match=r"'u2'.*with eta 5 all its weights are 0: lower eta"):
        predicted(problem)


def test_a_negative_eta_is_refused():
    with pytest.raises(ValidationError, match="eta"):
        Wavg(eta=-1.0)
