"""The norm heuristics against literal loops, and as a step of every linear method."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import AnyMethod, Conse, Injection, InjectionProblem, Method, Wavg
from icis.rescaling import match_norms, rescaled, shrink
from icis.scorers import ConseScorer

SEEN, UNSEEN, D = ("s0", "s1", "s2"), ("u0", "u1"), 4


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def head(classes, seed=0, scale=1.0):
    rows = scale * normal(len(classes), D + 1, seed=seed)
    return Head.from_joined(rows, classes)


def make_problem():
    return InjectionProblem(head(SEEN, seed=1), normal(3, 2, seed=2), normal(2, 2, seed=3), UNSEEN)


class Given(Method):
    """Returns the injection that it is given."""

    method: str = "given"

    def fit(self, problem, *, seed, device, progress=None):
        return FOUND[self.name]


FOUND = {}


def inject(injection, rescale):
    FOUND["test"] = injection
    return Given(name="test", rescale=rescale).inject(make_problem(), seed=0, device="cpu")


def length(values):
    return math.sqrt(sum(float(value) ** 2 for value in values))


def test_none_returns_what_the_method_predicted():
    injection = Injection(head(SEEN + UNSEEN))
    assert inject(injection, "none") is injection


def test_gzsl_divides_the_joint_rows_by_ten_times_their_mean_norm():
    predicted = make_problem().seen_head.append(head(UNSEEN, seed=5, scale=7.0))
    rebuilt = normal(3, D + 1)
    given = Injection(predicted, history={"loss": [1.0]}, seen_predictions=rebuilt)
    injection = inject(given, "gzsl")

    rows = predicted.joined()[3:]
    divisor = 10 * (length(rows[0]) + length(rows[1])) / 2
    torch.testing.assert_close(injection.joint.joined()[3:], rows / divisor)
    assert torch.equal(injection.joint.joined()[:3], predicted.joined()[:3])
    assert torch.equal(injection.unseen.joined(), rows), "I-ZSL stays as predicted"
    assert injection.unseen.classes == UNSEEN
    assert injection.history == {"loss": [1.0]}
    assert injection.seen_predictions is rebuilt


def test_transfer_gives_both_scorers_the_norms_of_the_seen_head():
    problem = make_problem()
    predicted = problem.seen_head.append(head(UNSEEN, seed=5, scale=7.0))
    injection = inject(Injection(predicted), "transfer")

    seen, unseen = problem.seen_head, predicted.restrict(UNSEEN)
    mean_seen = sum(length(row) for row in seen.weight) / 3
    mean_unseen = sum(length(row) for row in unseen.weight) / 2
    weight = unseen.weight * mean_seen / mean_unseen
    bias = unseen.bias * length(seen.bias) / length(unseen.bias)
    for scorer in (injection.joint.restrict(UNSEEN), injection.unseen):
        torch.testing.assert_close(scorer.weight, weight)
        torch.testing.assert_close(scorer.bias, bias)
    assert torch.equal(injection.joint.joined()[:3], predicted.joined()[:3])


@pytest.mark.parametrize("rescale", ["gzsl", "transfer"])
def test_rows_are_found_by_name_and_an_own_unseen_scorer_is_kept(rescale):
    mixed = head(("u1", "s0", "s2", "u0", "s1"), seed=6)  # seen rows of its own, as wDAE has
    own = head(UNSEEN, seed=7, scale=0.1)
    injection = inject(Injection(mixed, own), rescale)

    assert injection.joint.classes == mixed.classes
    assert torch.equal(injection.joint.restrict(SEEN).joined(), mixed.restrict(SEEN).joined()), (
        "seen rows, replaced ones too, are left alone"
    )
    ratio = injection.joint.restrict(UNSEEN).weight / mixed.restrict(UNSEEN).weight
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    assert float(ratio[0, 0]) != pytest.approx(1)
    if rescale == "gzsl":
        assert injection.unseen is own
    else:
        expected = match_norms(own, UNSEEN, make_problem().seen_head)
        assert torch.equal(injection.unseen.joined(), expected.joined())


@settings(deadline=None, max_examples=50)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 20))
def test_the_scale_of_the_prediction_does_not_count(scale, seed):
    one, other = head(UNSEEN, seed=seed), head(UNSEEN, seed=seed, scale=scale)
    reference = head(SEEN, seed=21)
    for found in (lambda h: shrink(h, UNSEEN), lambda h: match_norms(h, UNSEEN, reference)):
        torch.testing.assert_close(found(one).joined(), found(other).joined())
    assert float(shrink(other, UNSEEN).joined().norm(dim=1).mean()) == pytest.approx(0.1)
    matched = match_norms(other, UNSEEN, reference)
    assert float(matched.weight.norm(dim=1).mean()) == pytest.approx(
        float(reference.weight.norm(dim=1).mean())
    )
    assert float(matched.bias.norm()) == pytest.approx(float(reference.bias.norm()))


def test_heads_and_their_inputs_stay_as_they_are():
    predicted = make_problem().seen_head.append(head(UNSEEN))
    before = predicted.digest()
    for rescale in ("gzsl", "transfer"):
        injection = inject(Injection(predicted), rescale)
        assert injection.joint.weight.dtype == torch.float32
    assert predicted.digest() == before


@pytest.mark.parametrize(
    ("rescale", "weight", "bias", "what"),
    [
        ("gzsl", 0.0, 0.0, "rows"),
        ("transfer", 0.0, 0.0, "weights"),
        ("transfer", 0.0, 1.0, "weights"),
        ("transfer", 1.0, 0.0, "biases"),
    ],
)
def test_predictions_that_are_all_zero_are_refused(rescale, weight, bias, what):
    zeros = Head(torch.full((2, D), weight), torch.full((2,), bias), UNSEEN)
    injection = Injection(make_problem().seen_head.append(zeros))
    with pytest.raises(IcisError, match=f"predicted {what} are all zero.*set rescale: none"):
        inject(injection, rescale)


def test_heads_without_biases_keep_none():
    reference = Head(normal(3, D), torch.zeros(3), SEEN)
    part = Head(normal(2, D, seed=1), torch.zeros(2), UNSEEN)
    assert not match_norms(part, UNSEEN, reference).bias.any()


def test_a_method_without_weights_cannot_be_rescaled():
    with pytest.raises(ValidationError, match="conse predicts no .* set rescale: none"):
        Conse(rescale="gzsl")
    problem = make_problem()
    scorer = ConseScorer(
        problem.seen_head, problem.seen_descriptors, torch.eye(2), UNSEEN
    )  # a method that does not say so
    with pytest.raises(IcisError, match="ConseScorer has no weights to rescale"):
        rescaled(Injection(scorer), problem, "gzsl")


@pytest.mark.parametrize("method", ["icis", "mlp", "costa", "wavg", "smo"])
def test_every_linear_method_takes_it(method):
    adapter = TypeAdapter(AnyMethod)
    found = adapter.validate_python({"method": method, "rescale": "transfer"})
    assert found.identity()["rescale"] == "transfer"
    with pytest.raises(ValidationError, match="rescale"):
        adapter.validate_python({"method": method, "rescale": "gzls"})


def test_the_default_is_no_difference():
    assert Wavg().differences() == {}
    assert Wavg(rescale="none").differences() == {"rescale": "none"}
