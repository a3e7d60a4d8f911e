"""COSTA against closed forms and a literal loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import Costa, InjectionProblem

SEEN, UNSEEN, D_DESCRIPTOR, D_FEATURE = 8, 5, 6, 10


def make_problem(seen=None, unseen=None, pairs=None):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    seen = normal(SEEN, D_DESCRIPTOR).abs() if seen is None else seen
    unseen = normal(UNSEEN, D_DESCRIPTOR).abs() if unseen is None else unseen
    head = Head(
        normal(len(seen), D_FEATURE),
        normal(len(seen)),
        tuple(f"s{9 - i}" for i in range(len(seen))),
    )
    return InjectionProblem(head, seen, unseen, tuple(f"u{i}" for i in range(len(unseen))), pairs)


def predicted(problem, **settings):
    joint = Costa(**settings).inject(problem, seed=0, device="cpu").joint
    assert joint.classes == problem.seen_head.classes + problem.unseen_classes
    kept = joint.joined()[: len(problem.seen_head.classes)]
    assert torch.equal(kept, problem.seen_head.joined()), "every seen row stays"
    return joint.restrict(problem.unseen_classes).joined()


def literal_rows(problem, pairs, epsilon):
    rows = []
    for a_u in problem.unseen_descriptors.double().numpy():
        products = {}
        for s in pairs:
            a_s = problem.seen_descriptors[s].double().numpy()
            products[s] = sum(x * y for x, y in zip(a_u, a_s, strict=True))
        total = sum(products.values()) + epsilon
        seen = problem.seen_head.joined().double().numpy()
        rows.append(sum(products[s] / total * seen[s] for s in pairs))
    return np.array(rows)


@pytest.mark.parametrize("pairs", [None, (5, 0, 3), (2,)])
@pytest.mark.parametrize("epsilon", [0.0, 1e-4, 0.7])
def test_rows_equal_the_literal_loop(pairs, epsilon):
    problem = make_problem(pairs=pairs)
    expected = literal_rows(problem, range(SEEN) if pairs is None else pairs, epsilon)
    found = predicted(problem, epsilon=epsilon)
    np.testing.assert_allclose(found.double().numpy(), expected, atol=2e-6)


def test_orthonormal_descriptors_give_the_closed_form():
    mixture = torch.tensor([[0.5, 0.25, 0.0], [0.0, 0.0, 3.0]])
    problem = make_problem(torch.eye(3), mixture)
    rows = problem.seen_head.joined()
    expected = torch.stack(
        [(0.5 * rows[0] + 0.25 * rows[1]) / (0.75 + 1e-4), 3 * rows[2] / (3 + 1e-4)]
    )
    torch.testing.assert_close(predicted(problem), expected)


def test_without_epsilon_the_scale_of_the_descriptors_does_not_count():
    problem = make_problem()
    scaled = replace(
        problem,
        seen_descriptors=problem.seen_descriptors * 3,
        unseen_descriptors=problem.unseen_descriptors * 7,
    )
    torch.testing.assert_close(predicted(problem, epsilon=0.0), predicted(scaled, epsilon=0.0))


def test_no_randomness():
    one, other = (Costa().fit(make_problem(), seed=s, device="cpu").joint for s in (0, 1))
    assert one.digest() == other.digest()


@pytest.mark.parametrize(
    ("descriptor", "epsilon"),
    [
        ([1.0, -1.0, 0.0], 0.0),  # inner products 1, -1
        ([-1.0, 0.0, 0.0], 1.0),  # epsilon makes up for them
        ([0.0, 0.0, 1.0], 1e-4),  # no seen class has anything in common
        ([1e6, -1e6, 0.0], 1e-4),  # epsilon is nothing beside them
    ],
)
def test_weights_that_sum_to_zero_are_refused_by_name(descriptor, epsilon):
    seen = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    unseen = torch.tensor([[1.0, 1.0, 0.0], descriptor])
    with pytest.raises(IcisError, match=r"'u1'.*sum to .*without negative components"):
        predicted(make_problem(seen, unseen), epsilon=epsilon)


def test_a_negative_sum_is_taken():
    problem = make_problem(torch.eye(2), torch.tensor([[-1.0, -3.0]]))
    expected = problem.seen_head.joined().T @ torch.tensor([0.25, 0.75])
    torch.testing.assert_close(predicted(problem, epsilon=0.0)[0], expected)


def test_a_negative_epsilon_is_refused():
    with pytest.raises(ValidationError, match="epsilon"):
        Costa(epsilon=-1e-4)
