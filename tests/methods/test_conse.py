"""ConSE against a literal loop over images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import Conse, InjectionProblem
from icis.scorers import ConseScorer

SEEN, UNSEEN, D_DESCRIPTOR, D_FEATURE, IMAGES = 8, 5, 6, 10, 30


def make_problem(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    head = Head(normal(SEEN, D_FEATURE), normal(SEEN), tuple(f"s{7 - i}" for i in range(SEEN)))
    problem = InjectionProblem(
        head,
        normal(SEEN, D_DESCRIPTOR),
        normal(UNSEEN, D_DESCRIPTOR),
        tuple(f"u{i}" for i in range(UNSEEN)),
    )
    return problem, normal(IMAGES, D_FEATURE)


def literal_scores(problem, images, top):
    """Return the cosine of every image to all classes, seen first (Norouzi et al., section 3)."""
    weight = problem.seen_head.weight.double().numpy()
    bias = problem.seen_head.bias.double().numpy()
    seen = problem.seen_descriptors.double().numpy()
    classes = np.concatenate([seen, problem.unseen_descriptors.double().numpy()])
    scores = np.zeros((len(images), len(classes)))
    for image, x in enumerate(images.double().numpy()):
        logits = [weight[s] @ x + bias[s] for s in range(SEEN)]
        powers = [np.exp(z - max(logits)) for z in logits]
        probability = [p / sum(powers) for p in powers]
        ranked = sorted(range(SEEN), key=lambda s: -probability[s])[: top or SEEN]
        total = sum(probability[s] for s in ranked)
        expected = sum(probability[s] / total * seen[s] for s in ranked)
        for c, descriptor in enumerate(classes):
            lengths = np.linalg.norm(expected) * np.linalg.norm(descriptor)
            scores[image, c] = expected @ descriptor / lengths
    return scores


@pytest.mark.parametrize("top", [0, 1, 2, 5, SEEN])
def test_scores_equal_the_literal_loop(top):
    problem, images = make_problem()
    injection = Conse(top=top).fit(problem, seed=0, device="cpu")
    found = injection.joint.scores(images)
    expected = literal_scores(problem, images, top)
    np.testing.assert_allclose(found.double().numpy(), expected, atol=2e-6)
    assert (found.argmax(1).numpy() == expected.argmax(1)).all()
    assert injection.joint.classes == problem.seen_head.classes + problem.unseen_classes


def test_all_seen_classes_is_the_same_as_top_of_all():
    problem, images = make_problem()
    everything = Conse().fit(problem, seed=0, device="cpu").joint.scores(images)
    top = Conse(top=SEEN).fit(problem, seed=0, device="cpu").joint.scores(images)
    torch.testing.assert_close(everything, top, rtol=0, atol=1e-6)


def test_the_most_probable_class_alone_is_its_own_nearest():
    problem, images = make_problem()
    scorer = Conse(top=1).fit(problem, seed=0, device="cpu").joint
    scores = scorer.scores(images)
    winners = problem.seen_head.scores(images).argmax(1)
    assert torch.equal(scores.argmax(1), winners)
    assert (scores.max(dim=1).values - 1).abs().max() < 1e-6


def test_no_history_and_no_randomness():
    problem, images = make_problem()
    one = Conse().fit(problem, seed=0, device="cpu")
    other = Conse().fit(problem, seed=1, device="cpu")
    assert one.epochs == 0
    assert one.history == {}
    assert torch.equal(one.joint.scores(images), other.joint.scores(images))


def test_top_larger_than_the_seen_classes_is_refused():
    problem, _ = make_problem()
    with pytest.raises(IcisError, match="top is 9, but there are only 8 seen classes"):
        Conse(top=9).fit(problem, seed=0, device="cpu")


def test_restricted_scores_are_columns_of_the_joint_ones():
    problem, images = make_problem()
    joint = Conse(top=3).fit(problem, seed=0, device="cpu").joint
    chosen = ("u3", "s0", "u1")
    part = joint.restrict(chosen)
    columns = [joint.classes.index(name) for name in chosen]
    assert isinstance(part, ConseScorer)
    assert part.classes == chosen
    assert part.seen_head.classes == problem.seen_head.classes, "the seen head stays whole"
    torch.testing.assert_close(part.scores(images), joint.scores(images)[:, columns])
    with pytest.raises(IcisError, match="'u9'"):
        joint.restrict(("u1", "u9"))


def test_features_of_another_dimension_are_refused():
    problem, _ = make_problem()
    joint = Conse().fit(problem, seed=0, device="cpu").joint
    with pytest.raises(IcisError, match=r"\[N, 10\], these are \[2, 11\]"):
        joint.scores(torch.zeros(2, 11))


def test_extreme_logits_stay_finite():
    problem, images = make_problem()
    scores = Conse().fit(problem, seed=0, device="cpu").joint.scores(images * 1e4)
    assert scores.isfinite().all()
    assert float(scores.abs().max()) <= 1 + 1e-5


@pytest.mark.parametrize("top", [0, 2])
def test_expectations_are_over_the_known_classes_scores_over_all(top):
    problem, images = make_problem()
    pairs = (6, 0, 3)
    few = replace(problem, pairs=pairs)
    joint = Conse(top=top).fit(few, seed=0, device="cpu").joint
    assert joint.classes == problem.seen_head.classes + problem.unseen_classes

    chosen = problem.seen_head.restrict(tuple(problem.seen_head.classes[row] for row in pairs))
    every = torch.cat([problem.seen_descriptors, problem.unseen_descriptors])
    known = problem.seen_descriptors[list(pairs)]
    powers = chosen.scores(images).double().exp()
    for image in range(IMAGES):
        ranked = powers[image].argsort(descending=True)[: top or len(pairs)]
        expected = sum(powers[image, s] * known[s].double() for s in ranked)
        cosines = [torch.cosine_similarity(expected, a.double(), dim=0) for a in every]
        found = joint.scores(images[image : image + 1])[0]
        torch.testing.assert_close(found.double(), torch.stack(cosines), rtol=0, atol=2e-6)


def test_top_larger_than_the_known_classes_is_refused():
    problem, _ = make_problem()
    few = replace(problem, pairs=(6, 0, 3))
    with pytest.raises(IcisError, match="top is 4, but there are only 3 seen classes to learn"):
        Conse(top=4).fit(few, seed=0, device="cpu")


def test_it_is_not_linear():
    assert not Conse.linear
