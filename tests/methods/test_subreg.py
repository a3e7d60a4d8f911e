"""Sub.Reg. and ICIS + Sub.Reg. against the slow restatement; what has no span is refused."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import Icis, InjectionProblem, Mlp, SubReg
from icis.methods.subspace import span
from tests.methods.slow import (
    ALL,
    BATCH,
    D_DESCRIPTOR,
    D_FEATURE,
    HIDDEN,
    RATE,
    SEEN,
    assert_same_course,
    icis,
    make_problem,
    slow_fit,
    slow_residual,
)

COMMON = {"hidden": HIDDEN, "learning_rate": RATE, "batch_size": BATCH, "max_epochs": 25}


def subreg(**settings):
    return SubReg(**{**COMMON, **settings})


@pytest.mark.parametrize(
    "method",
    [
        subreg(),
        subreg(weight=0.5),
        subreg(weight=2.0, rank=1),
        subreg(weight=2.0, rank=4),
        subreg(weight=0.5, rank=SEEN),
        subreg(weight=20.0, distance="cosine"),
        subreg(weight=0.5, slope_threshold=0.05, max_epochs=45),
    ],
)
def test_subreg_equals_the_slow_restatement(method):
    problem = make_problem()
    injection = method.fit(problem, seed=2, device="cpu")
    losses = {"a2w": 1.0, "subspace": method.weight}
    history, predicted = slow_fit(
        problem, method, losses=losses, use_unseen=False, depth=2, seed=2,
        over="rows", rank=method.rank,
    )  # fmt: skip
    assert_same_course(injection.history, history)
    assert (injection.joint.joined()[SEEN:].double() - predicted).abs().max() < 1e-5
    assert injection.epochs < 45
    if method.weight >= 0.5:
        plain = Mlp(**COMMON, distance=method.distance).fit(problem, seed=2, device="cpu")
        moved = injection.joint.joined()[SEEN:] - plain.joint.joined()[SEEN:]
        assert moved.abs().max() > 1e-3, "the term does nothing: the comparison says nothing"


@pytest.mark.parametrize(
    "method",
    [
        icis(subspace=1e-3, max_epochs=25),
        icis(subspace=0.5, max_epochs=25),
        icis(subspace=0.5, max_epochs=25, distance="l2"),
        icis(subspace=0.5, max_epochs=25, unseen_descriptors=False),
        icis(subspace=0.3, max_epochs=12, depth=3, learning_rate=3e-4),
        icis(
            losses={"a2a": 0.0, "w2w": 0.0, "w2a": 0.0},
            subspace=0.5, max_epochs=25, unseen_descriptors=False,
        ),
    ],
)  # fmt: skip
def test_icis_with_the_subspace_equals_the_slow_restatement(method):
    problem = make_problem()
    losses = {term: getattr(method.losses, term) for term in ALL if getattr(method.losses, term)}
    injection = method.fit(problem, seed=3, device="cpu")
    history, predicted = slow_fit(
        problem, method, losses={**losses, "subspace": method.subspace},
        use_unseen=method.unseen_descriptors, depth=method.depth, seed=3, over="batch",
    )  # fmt: skip
    assert_same_course(injection.history, history)
    assert (injection.joint.joined()[SEEN:].double() - predicted).abs().max() < 1e-5


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_without_weight_it_is_the_mlp_to_the_bit(distance):
    problem = make_problem()
    one = subreg(weight=0.0, distance=distance).fit(problem, seed=7, device="cpu")
    other = Mlp(**COMMON, distance=distance).fit(problem, seed=7, device="cpu")
    assert one.history == other.history
    assert one.joint.digest() == other.joint.digest()


def test_without_weight_icis_is_itself():
    problem = make_problem()
    one = icis(subspace=0.0).fit(problem, seed=7, device="cpu")
    assert "subspace" not in one.history
    assert one.joint.digest() == icis().fit(problem, seed=7, device="cpu").joint.digest()


def test_defaults_are_the_papers():
    assert (SubReg().weight, SubReg().rank, SubReg().distance) == (1e-3, None, "l2")
    assert SubReg().threshold == 2e-6
    assert SubReg(distance="cosine").threshold == 2e-3
    assert Icis().subspace == 0
    assert SubReg().resolve(batch_size=20).batch_size == 20


def test_rows_in_the_span_are_at_distance_0_others_at_their_residuals():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 12, generator=generator)
    rows = torch.randn(3, 12, generator=generator)
    lengths = [float(slow_residual(x.double(), weights.double()).norm()) for x in rows]
    each, together = (span(weights, over=over, instead="") for over in ("rows", "batch"))
    assert float(each.distance(rows)) == pytest.approx(np.mean(lengths), abs=1e-5)
    assert float(together.distance(rows)) == pytest.approx(math.hypot(*lengths), abs=1e-5)
    for subspace in (each, together):
        assert float(subspace.distance(weights)) == pytest.approx(0, abs=1e-5)


def test_a_row_that_lies_in_the_span_exactly_has_a_gradient():
    """The unsquared distance has no slope at 0, where 0/0 would stop the training."""
    subspace = span(torch.eye(3, 6), over="rows", instead="")
    rows = torch.eye(6)[:4].requires_grad_()
    subspace.distance(rows).backward()
    assert rows.grad.isfinite().all()
    assert not rows.grad[:3].any()
    assert float(rows.grad[3].norm()) == pytest.approx(0.25)


def test_dependent_rows_span_no_more_than_they_do():
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(3, 12, generator=generator)
    doubled = torch.cat([weights, weights * 2, torch.zeros(2, 12)])
    rows = torch.randn(4, 12, generator=generator)
    one = span(weights, over="rows", instead="").distance(rows)
    other = span(doubled, over="rows", instead="").distance(rows)
    assert float(other) == pytest.approx(float(one), abs=1e-6)
    with pytest.raises(IcisError, match="8 known classes span only 3 directions.*at most 3"):
        span(doubled, over="rows", rank=4, instead="")


# --- what is refused --------------------------------------------------------------------------


def many_classes(count):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(count, D_FEATURE, generator=generator)
    head = Head(weight, torch.ones(count), tuple(f"seen{i}" for i in range(count)))
    descriptors = torch.randn(count + 2, D_DESCRIPTOR, generator=generator)
    return InjectionProblem(head, descriptors[:count], descriptors[count:], ("new0", "new1"))


def test_a_rank_larger_than_the_number_of_known_classes_is_refused():
    problem = make_problem()
    with pytest.raises(IcisError, match="rank is 10, but only 9 classes.*at most 9"):
        subreg(rank=10).fit(problem, seed=0, device="cpu")
    few = dataclasses.replace(problem, pairs=(1, 4, 6))
    with pytest.raises(IcisError, match="rank is 4, but only 3 classes"):
        subreg(rank=4).fit(few, seed=0, device="cpu")
    assert subreg(rank=3, max_epochs=2).fit(few, seed=0, device="cpu").epochs == 2


@pytest.mark.parametrize("method", [subreg(), subreg(rank=2), icis(subspace=1e-3)])
def test_weights_that_are_all_0_are_refused(method):
    problem = make_problem()
    zeros = Head(torch.zeros(SEEN, D_FEATURE), torch.zeros(SEEN), problem.seen_head.classes)
    with pytest.raises(IcisError, match="all 9 known classes are 0.*check the seen head"):
        method.fit(dataclasses.replace(problem, seen_head=zeros), seed=0, device="cpu")


@pytest.mark.parametrize("count", [D_FEATURE + 1, D_FEATURE + 3])
def test_a_span_that_is_everything_is_refused(count):
    problem = many_classes(count)
    with pytest.raises(IcisError, match="span all 12 dim.*smaller rank, or use the method mlp"):
        subreg().fit(problem, seed=0, device="cpu")
    with pytest.raises(IcisError, match="span all 12 dimensions.*set subspace: 0"):
        icis(subspace=1e-3).fit(problem, seed=0, device="cpu")
    with pytest.raises(IcisError, match="span all 12 dimensions"):
        subreg(rank=12).fit(problem, seed=0, device="cpu")
    assert subreg(rank=11, max_epochs=1).fit(problem, seed=0, device="cpu").epochs == 1
    assert subreg(weight=0.0, max_epochs=1).fit(problem, seed=0, device="cpu").epochs == 1


@pytest.mark.parametrize("settings", [{"rank": 0}, {"weight": -1.0}, {"rank": 1.5}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        SubReg(**settings)
    with pytest.raises(ValidationError):
        Icis(subspace=-1.0)
