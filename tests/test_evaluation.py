"""Metrics against scikit-learn, scipy and loops over images."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy, hmean
from sklearn.metrics import balanced_accuracy_score

from icis import evaluation
from icis.errors import IcisError
from icis.evaluation import accuracy, evaluate, predict
from icis.heads import Head
from icis.metrics import LabelledFeatures, harmonic_mean, per_class_accuracy
from icis.scorers import ConseScorer

SEEN = tuple(f"seen{i}" for i in (4, 1, 3, 0, 2))
UNSEEN = ("zebra", "ant", "mole")
DIM = 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def joint_head():
    return Head(normal(8, DIM), normal(8, seed=1), SEEN + UNSEEN)


def joint_conse():
    head = Head(normal(5, DIM), normal(5, seed=1), SEEN)
    return ConseScorer(head, normal(5, 4, seed=2), normal(8, 4, seed=3), SEEN + UNSEEN, 2)


def images_of(classes, count, seed):
    """Return images of some classes, uneven in number, drawn near their rows of the joint head."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.arange(1.0, len(classes) + 1)
    picked = torch.multinomial(shares, count, replacement=True, generator=generator)
    names = [classes[k] for k in picked.tolist()]
    rows = [(SEEN + UNSEEN).index(name) for name in names]
    return LabelledFeatures(normal(8, DIM)[rows] + normal(count, DIM, seed=seed + 1), names)


# --- per-class accuracy -----------------------------------------------------------------------

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


@settings(deadline=None)
@given(pairs)
def test_per_class_accuracy_is_sklearns_balanced_accuracy(drawn):
    predicted, target = (list(each) for each in zip(*drawn, strict=True))
    found = per_class_accuracy(torch.tensor(predicted), torch.tensor(target))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # predictions of classes without images
        expected = balanced_accuracy_score(target, predicted)
    assert found == pytest.approx(100 * expected)


def test_every_class_weighs_the_same():
    target = torch.tensor([0] * 90 + [7] * 10)
    assert per_class_accuracy(torch.zeros(100, dtype=torch.long), target) == pytest.approx(50)


def test_labels_and_predictions_must_fit():
    with pytest.raises(IcisError, match="3 predictions do not fit 2 labels"):
        per_class_accuracy(torch.zeros(3), torch.zeros(2))
    with pytest.raises(IcisError, match="0 predictions"):
        per_class_accuracy(torch.zeros(0), torch.zeros(0))
    with pytest.raises(IcisError, match="3 features do not fit 2 labels"):
        LabelledFeatures(torch.zeros(3, DIM), ["ant", "mole"])


# --- harmonic mean ----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(1e-3, 100), st.floats(1e-3, 100))
def test_harmonic_mean(seen, unseen):
    assert harmonic_mean(seen, unseen) == pytest.approx(hmean([seen, unseen]))


def test_harmonic_mean_with_zeros():
    assert harmonic_mean(0, 0) == 0
    assert harmonic_mean(80, 0) == 0
    assert harmonic_mean(0, 80) == 0
    assert harmonic_mean(88.0, 0.5) == pytest.approx(0.9944, abs=1e-4)  # ConSE on CUB, as printed


# --- predictions ------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", [joint_head(), joint_conse()])
def test_entropy_is_scipys(scorer):
    features = normal(40, DIM, seed=5)
    found = predict(scorer, features)
    scores = scorer.scores(features).double().numpy()
    expected = entropy(softmax(scores, axis=1), axis=1)
    np.testing.assert_allclose(found.entropy.double().numpy(), expected, atol=1e-5)
    assert (found.columns.numpy() == scores.argmax(1)).all()


def test_entropy_of_sure_and_unsure_predictions():
    features = torch.tensor([[0.0], [1e4]])
    head = Head(torch.tensor([[1.0], [0.0], [0.0], [0.0]]), torch.zeros(4), ("a", "b", "c", "d"))
    found = predict(head, features).entropy
    assert float(found[0]) == pytest.approx(np.log(4))
    assert float(found[1]) == 0


@pytest.mark.parametrize("scorer", [joint_head(), joint_conse()])
@pytest.mark.parametrize("chunk", [1, 7, 10, 30, 31])
def test_chunks_change_nothing(monkeypatch, scorer, chunk):
    features = normal(30, DIM, seed=5)
    whole = predict(scorer, features)
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    parts = predict(scorer, features)
    assert torch.equal(parts.columns, whole.columns)
    torch.testing.assert_close(parts.entropy, whole.entropy, rtol=0, atol=1e-6)


def test_chunks_are_no_larger_than_asked_for(monkeypatch):
    sizes = []

    class Listening:
        classes = SEEN

        def scores(self, features):
            sizes.append(len(features))
            return torch.zeros(len(features), 5)

        def to(self, device):
            return self

    monkeypatch.setattr(evaluation, "CHUNK", 10)
    predict(Listening(), torch.zeros(25, DIM))
    assert sizes == [10, 10, 5]


def test_no_images_give_no_predictions():
    found = predict(joint_head(), torch.zeros(0, DIM))
    assert len(found.columns) == len(found.entropy) == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    head = joint_head()
    weight = head.weight.clone()
    weight[2, 3] = bad
    with pytest.raises(IcisError, match="NaN or infinite"):
        predict(Head(weight, head.bias, head.classes), normal(4, DIM))


def test_dimensions_that_differ_are_named():
    with pytest.raises(IcisError, match=r"takes features \[N, 6\], these are \[3, 7\]"):
        predict(joint_head(), torch.zeros(3, 7))


# --- T1, U, S, H ------------------------------------------------------------------------------


def loop_accuracy(scorer, images, allowed):
    """Return the mean over classes of each one's accuracy, image by image, in percent."""
    right, count = {}, {}
    for vector, name in zip(images.vectors, images.classes, strict=True):
        scores = dict(zip(scorer.classes, scorer.scores(vector[None])[0].tolist(), strict=True))
        best = max(allowed, key=lambda each: scores[each])
        right[name] = right.get(name, 0) + (best == name)
        count[name] = count.get(name, 0) + 1
    return 100 * sum(right[name] / count[name] for name in count) / len(count)


@pytest.mark.parametrize("joint", [joint_head(), joint_conse()])
def test_evaluate_equals_loops_over_images(joint):
    test_seen, test_unseen = images_of(SEEN, 120, 10), images_of(UNSEEN, 70, 20)
    found = evaluate(joint, joint.restrict(UNSEEN), test_seen=test_seen, test_unseen=test_unseen)
    seen = loop_accuracy(joint, test_seen, SEEN + UNSEEN)
    unseen = loop_accuracy(joint, test_unseen, SEEN + UNSEEN)
    alone = loop_accuracy(joint, test_unseen, UNSEEN)
    assert found["S"] == pytest.approx(seen)
    assert found["U"] == pytest.approx(unseen)
    assert found["T1"] == pytest.approx(alone)
    assert found["H"] == pytest.approx(2 * seen * unseen / (seen + unseen))
    assert len({round(value, 6) for value in (seen, unseen, alone)}) == 3
    scores = torch.cat([joint.scores(each.vectors) for each in (test_seen, test_unseen)])
    expected = entropy(softmax(scores.double().numpy(), axis=1), axis=1).mean()
    assert found["entropy"] == pytest.approx(expected, abs=1e-6)
    assert found["chance_T1"] == pytest.approx(100 / 3)
    assert found["chance_all"] == pytest.approx(12.5)


def test_t1_comes_from_the_unseen_scorer():
    """A method may score the unseen classes alone otherwise than among all."""
    test_seen, test_unseen = images_of(SEEN, 50, 10), images_of(UNSEEN, 50, 20)
    own = Head(normal(3, DIM, seed=77), normal(3, seed=78), ("mole", "zebra", "ant"))
    found = evaluate(joint_head(), own, test_seen=test_seen, test_unseen=test_unseen)
    assert found["T1"] == pytest.approx(loop_accuracy(own, test_unseen, UNSEEN))
    assert found["T1"] == accuracy(own, test_unseen)


def test_the_order_of_a_heads_rows_does_not_matter():
    test_seen, test_unseen = images_of(SEEN, 80, 10), images_of(UNSEEN, 50, 20)
    joint = joint_head()
    turned = joint.restrict(UNSEEN[::-1] + SEEN[::-1])
    parts = {"test_seen": test_seen, "test_unseen": test_unseen}
    one = evaluate(joint, joint.restrict(UNSEEN), **parts)
    other = evaluate(turned, turned.restrict(UNSEEN[::-1]), **parts)
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=1e-5), name


def test_labels_of_unknown_classes_are_named_before_any_scoring(monkeypatch):
    joint = joint_head()
    known = images_of(SEEN, 10, 1)
    strange = LabelledFeatures(normal(3, DIM), ["ant", "unicorn", "dragon"])
    monkeypatch.setattr(evaluation, "predict", lambda *args, **kwargs: pytest.fail("scored"))
    with pytest.raises(IcisError, match="2 classes have no row, the first is 'unicorn'"):
        evaluate(joint, joint.restrict(UNSEEN), test_seen=known, test_unseen=strange)
    with pytest.raises(IcisError, match="'unicorn'"):
        evaluate(joint, joint.restrict(UNSEEN), test_seen=strange, test_unseen=known)
    with pytest.raises(IcisError, match="'seen"):
        accuracy(joint.restrict(UNSEEN), known)


@settings(deadline=None)
@given(st.lists(st.sampled_from(SEEN), max_size=20))
def test_columns_of_images(names):
    images = LabelledFeatures(torch.zeros(len(names), 1), names)
    assert images.columns(SEEN).tolist() == [SEEN.index(name) for name in names]
