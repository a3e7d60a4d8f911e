"""ICIS and the MLP: against the slow restatement, and as whole methods."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import Icis, InjectionProblem, Mlp
from icis.methods.encoders import Reconstruction, shuffled_epochs, train
from icis.methods.icis import LossWeights
from icis.methods.networks import DISTANCES, build_networks
from tests.methods.slow import (
    ALL,
    BATCH,
    D_DESCRIPTOR,
    D_FEATURE,
    HIDDEN,
    RATE,
    SEEN,
    SLOW_DISTANCES,
    UNSEEN,
    assert_same_course,
    icis,
    layers_of,
    make_problem,
    slow_cosine_distance,
    slow_decode,
    slow_encode,
    slow_fit,
    slow_predict,
    slow_train,
)

# --- whole runs -------------------------------------------------------------------------------

CASES = {
    "full": icis(),
    "full, l2": icis(distance="l2"),
    "without a2a": icis(losses={"a2a": 0.0}, unseen_descriptors=False),
    "without w2w": icis(losses={"w2w": 0.0}),
    "without w2a": icis(losses={"w2a": 0.0}),
    "cross-modal": icis(unseen_descriptors=False),
    "single-modal": icis(losses={"w2a": 0.0}, unseen_descriptors=False),
    "a2w alone": icis(losses={"a2a": 0.0, "w2w": 0.0, "w2a": 0.0}, unseen_descriptors=False),
    "unequal": icis(losses={"a2a": 0.3, "w2w": 2.0, "a2w": 1.7, "w2a": 0.05}),
    "unequal, l2": icis(losses={"a2a": 4.0, "w2w": 0.5, "w2a": 0.0}, distance="l2"),
    # deep networks amplify float32's rounding, the more the faster they learn
    "depth 3": icis(depth=3, learning_rate=3e-4, max_epochs=15),
    "depth 3, l2": icis(depth=3, distance="l2", max_epochs=8),
    "depth 4": icis(depth=4, learning_rate=3e-4, max_epochs=15),
    "depth 4, l2, no unseen": icis(depth=4, distance="l2", unseen_descriptors=False, max_epochs=8),
    "one-cycle": icis(schedule="one-cycle", learning_rate=5e-3, max_epochs=30),
    "one-cycle, l2": icis(schedule="one-cycle", distance="l2", max_epochs=12),
    "slope stop": icis(slope_threshold=0.03, max_epochs=45),
    "slope stop, l2": icis(distance="l2", slope_threshold=0.03, max_epochs=45),
}


@pytest.mark.parametrize("case", CASES)
def test_icis_equals_the_slow_restatement(case):
    method, problem = CASES[case], make_problem()
    losses = {term: getattr(method.losses, term) for term in ALL if getattr(method.losses, term)}

    injection = method.fit(problem, seed=3, device="cpu")
    history, predicted = slow_fit(
        problem,
        method,
        losses=losses,
        use_unseen=method.unseen_descriptors,
        depth=method.depth,
        seed=3,
    )

    assert_same_course(injection.history, history)
    rows = injection.joint.joined()[SEEN:].double()
    assert (rows - predicted).abs().max() < 1e-5
    assert predicted.std() > 1e-3, "training moved nothing: the comparison says nothing"
    if "slope stop" in case:
        assert 26 <= injection.epochs < method.max_epochs


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_mlp_equals_the_slow_restatement(distance):
    problem = make_problem()
    method = Mlp(
        hidden=HIDDEN, learning_rate=RATE, batch_size=BATCH, max_epochs=40, distance=distance
    )
    injection = method.fit(problem, seed=1, device="cpu")
    history, predicted = slow_fit(
        problem, method, losses={"a2w": 1.0}, use_unseen=False, depth=2, seed=1
    )
    assert_same_course(injection.history, history)
    assert (injection.joint.joined()[SEEN:].double() - predicted).abs().max() < 1e-5


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("without", [None, "a2a", "w2w", "w2a"])
def test_batches_without_seen_rows_and_short_batches(distance, without):
    """Zero gradients still move weights by Adam's momentum: no batch may be skipped."""
    problem = make_problem()
    targets = problem.seen_head.joined()
    descriptors = torch.cat([problem.seen_descriptors, problem.unseen_descriptors])
    epochs = [
        [torch.tensor(rows) for rows in batches]
        for batches in (
            ([0, 1, 2, 3, 4], [9, 10, 11, 12], [5, 6, 7, 8]),
            ([12, 11, 10, 9], [8, 7, 6, 5, 4], [3, 2, 1, 0]),
            ([9, 0, 10, 11, 12], [1, 2, 3, 4, 5], [6, 7], [8]),
            ([12], [0, 9], [10, 11], [8, 7, 6, 5, 4, 3, 2, 1]),
        )
    ] * 3
    losses = {term: 1.0 for term in ALL if term != without}
    networks = build_networks({"a": D_DESCRIPTOR, "w": D_FEATURE + 1}, hidden=HIDDEN, depth=2,
                              seed=5)  # fmt: skip
    history, layers = slow_train(
        networks,
        descriptors,
        targets,
        epochs,
        losses=losses,
        distance=SLOW_DISTANCES[distance],
        threshold=-math.inf,
        max_epochs=len(epochs),
    )
    model = Reconstruction(networks, descriptors, targets, losses, distance)
    found = train(model, epochs, learning_rate=RATE, max_epochs=99, stop=lambda losses: False)
    assert_same_course(found, history)
    predicted = slow_predict(layers, problem.unseen_descriptors)
    assert (model.predict(problem.unseen_descriptors).double() - predicted).abs().max() < 1e-5


@settings(deadline=None)
@given(
    x=st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6),
    y=st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6),
)
def test_row_losses_by_hand(x, y):
    x, y = torch.tensor([x]), torch.tensor([y])
    a, b = x[0].double().numpy(), y[0].double().numpy()
    lengths = max(np.linalg.norm(a), 1e-8) * max(np.linalg.norm(b), 1e-8)
    assert float(DISTANCES["cosine"](x, y)) == pytest.approx(1 - a @ b / lengths, abs=1e-5)
    assert float(DISTANCES["l2"](x, y)) == pytest.approx(((a - b) ** 2).mean(), rel=1e-5, abs=1e-6)


# --- defaults ---------------------------------------------------------------------------------


def test_defaults_are_the_papers():
    for method in (Icis(), Mlp()):
        assert (method.hidden, method.learning_rate, method.max_epochs) == (2048, 1e-5, 1000)
        assert method.batch_size is None, "the data set's"
        assert method.resolve(batch_size=20).batch_size == 20
        assert method.model_copy(update={"batch_size": 3}).resolve(batch_size=20).batch_size == 3
    assert Icis().losses == LossWeights(a2a=1, w2w=1, a2w=1, w2a=1)
    assert Icis().unseen_descriptors
    assert Icis().depth == 2
    assert (Icis().distance, Icis().threshold) == ("cosine", 2e-3)
    assert (Mlp().distance, Mlp().threshold) == ("l2", 2e-6)
    assert Icis(distance="l2").threshold == 2e-6
    assert Mlp(distance="cosine").threshold == 2e-3
    assert Icis(slope_threshold=0.0).threshold == 0


# --- the whole method -------------------------------------------------------------------------


def test_only_a2w_without_unseen_is_the_mlp_with_cosine():
    problem = make_problem()
    only = icis(
        losses={"a2a": 0.0, "w2w": 0.0, "w2a": 0.0}, unseen_descriptors=False, max_epochs=60
    )
    mlp = Mlp(hidden=HIDDEN, learning_rate=RATE, batch_size=BATCH, max_epochs=60, distance="cosine")
    one = only.fit(problem, seed=7, device="cpu")
    other = mlp.fit(problem, seed=7, device="cpu")
    assert one.history == other.history
    assert torch.equal(one.joint.weight, other.joint.weight)
    assert torch.equal(one.joint.bias, other.joint.bias)


def test_joint_head_is_the_seen_head_with_predicted_rows_below():
    problem = make_problem()
    injection = icis().fit(problem, seed=0, device="cpu")
    joint = injection.joint
    assert joint.classes == problem.seen_head.classes + problem.unseen_classes
    assert torch.equal(joint.weight[:SEEN], problem.seen_head.weight)
    assert torch.equal(joint.bias[:SEEN], problem.seen_head.bias)
    assert joint.weight.shape == (SEEN + UNSEEN, D_FEATURE)
    assert not joint.weight.requires_grad
    assert injection.unseen is None
    assert injection.epochs == len(injection.history["loss"]) == 40


def test_predictions_follow_the_order_of_the_unseen_classes():
    problem = make_problem()
    order = [2, 0, 3, 1]
    turned = InjectionProblem(
        problem.seen_head,
        problem.seen_descriptors,
        problem.unseen_descriptors[order],
        tuple(problem.unseen_classes[k] for k in order),
    )
    method = icis(unseen_descriptors=False)
    one = method.fit(problem, seed=0, device="cpu").joint.restrict(problem.unseen_classes)
    other = method.fit(turned, seed=0, device="cpu").joint.restrict(problem.unseen_classes)
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-7)
    torch.testing.assert_close(one.bias, other.bias, rtol=0, atol=1e-7)


def test_same_seed_same_bits_other_seed_other_numbers():
    problem = make_problem()
    torch.manual_seed(1)
    first = icis().fit(problem, seed=11, device="cpu")
    torch.manual_seed(2)  # no part of it may come from the global generator
    second = icis().fit(problem, seed=11, device="cpu")
    third = icis().fit(problem, seed=12, device="cpu")
    assert first.history == second.history
    assert first.joint.digest() == second.joint.digest()
    assert first.joint.digest() != third.joint.digest()
    assert first.history["loss"] != third.history["loss"]


def test_unseen_descriptors_change_the_predictions():
    problem = make_problem()
    with_them = icis().fit(problem, seed=0, device="cpu").joint
    without = icis(unseen_descriptors=False).fit(problem, seed=0, device="cpu").joint
    assert (with_them.weight[SEEN:] - without.weight[SEEN:]).abs().max() > 1e-4


def test_progress_hears_every_epoch():
    heard = []
    injection = icis(max_epochs=6).fit(
        make_problem(), seed=0, device="cpu", progress=lambda *each: heard.append(each)
    )
    assert heard == list(enumerate(injection.history["loss"], start=1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_the_epoch(bad):
    problem = make_problem()
    networks = build_networks({"a": D_DESCRIPTOR, "w": D_FEATURE + 1}, hidden=4, depth=2, seed=0)
    model = Reconstruction(networks, problem.seen_descriptors, problem.seen_head.joined(),
                           {"a2w": 1.0}, "l2")  # fmt: skip

    def spoil(epoch, loss):
        if epoch == 2:
            networks["decode_w"][0].bias.fill_(bad)

    with pytest.raises(IcisError, match=rf"became {bad} in epoch 3"):
        train(model, shuffled_epochs(SEEN, SEEN, 0), learning_rate=RATE, max_epochs=9,
              stop=lambda losses: False, progress=spoil)  # fmt: skip


def test_a_learning_rate_that_is_far_too_large_raises():
    with pytest.raises(IcisError, match=r"in epoch \d+: lower the learning rate"):
        icis(learning_rate=1e30).fit(make_problem(), seed=0, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seen_descriptors": torch.ones(SEEN + 1, D_DESCRIPTOR)}, "9 seen classes need .*10, 7"),
        ({"unseen_descriptors": torch.ones(3, D_DESCRIPTOR)}, "4 unseen classes need .*3, 7"),
        ({"unseen_descriptors": torch.ones(UNSEEN, 8)}, "7 components, unseen ones 8"),
        ({"unseen_classes": ("new3", "seen5", "new2", "new1")}, "seen and unseen.*'seen5'"),
    ],
)
def test_a_problem_that_does_not_fit_together_is_refused(changes, message):
    parts = {**vars(make_problem()), **changes}
    with pytest.raises(IcisError, match=message):
        InjectionProblem(**parts)


# --- classes held out to be watched -----------------------------------------------------------


def with_truth(problem):
    generator = torch.Generator().manual_seed(99)
    weight = torch.randn(UNSEEN, D_FEATURE, generator=generator)
    bias = torch.randn(UNSEEN, generator=generator)
    return dataclasses.replace(problem, truth=Head(weight, bias, problem.unseen_classes))


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_watching_records_the_losses_of_held_out_classes_and_changes_nothing(distance):
    plain = make_problem()
    watched = with_truth(plain)
    for epochs in (1, 7):
        method = icis(distance=distance, max_epochs=epochs)
        one = method.fit(plain, seed=2, device="cpu")
        other = method.fit(watched, seed=2, device="cpu")
        assert one.joint.digest() == other.joint.digest()
        extra = {"held_out", "held_out_w2a"}
        assert other.history.keys() - one.history.keys() == extra
        assert all(other.history[term] == values for term, values in one.history.items())
        assert all(len(other.history[term]) == epochs for term in extra)
        row_loss = SLOW_DISTANCES[distance]
        by_hand = [
            float(row_loss(x.double(), y.double()))
            for x, y in zip(one.joint.joined()[SEEN:], watched.truth.joined(), strict=True)
        ]
        assert other.history["held_out"][-1] == pytest.approx(np.mean(by_hand), abs=1e-5)


def test_watched_descriptors_come_from_the_true_weights():
    problem = with_truth(make_problem())
    truth, descriptors = problem.truth.joined().double(), problem.unseen_descriptors.double()
    layers = layers_of(
        build_networks({"a": D_DESCRIPTOR, "w": D_FEATURE + 1}, hidden=HIDDEN, depth=2, seed=4)
    )
    losses = [
        slow_cosine_distance(slow_decode(layers["decode_a"], slow_encode(layers["encode_w"], w)), a)
        for w, a in zip(truth, descriptors, strict=True)
    ]
    injection = icis(max_epochs=1, learning_rate=1e-12).fit(problem, seed=4, device="cpu")
    expected = np.mean([each.item() for each in losses])
    assert injection.history["held_out_w2a"] == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize(
    ("method", "has_path"),
    [
        (icis(losses={"w2a": 0.0}, max_epochs=2), True),
        (icis(losses={"w2w": 0.0}, max_epochs=2), True),
        (icis(losses={"w2w": 0.0, "w2a": 0.0}, max_epochs=2), False),
        (icis(losses={"a2a": 0.0, "w2a": 0.0}, unseen_descriptors=False, max_epochs=2), False),
        (Mlp(hidden=HIDDEN, batch_size=BATCH, max_epochs=2), False),
    ],
)
def test_the_way_back_is_watched_where_it_is_trained(method, has_path):
    history = method.fit(with_truth(make_problem()), seed=0, device="cpu").history
    assert ("held_out_w2a" in history) == has_path
    assert len(history["held_out"]) == 2


def test_only_known_pairs_are_learnt_from_and_all_seen_rows_stay():
    problem = make_problem()
    known = dataclasses.replace(problem, pairs=(7, 2, 4, 0))
    few = InjectionProblem(known.known_head, known.known_descriptors, problem.unseen_descriptors,
                           problem.unseen_classes)  # fmt: skip
    injection = icis().fit(known, seed=1, device="cpu")
    reference = icis().fit(few, seed=1, device="cpu")
    assert injection.history == reference.history
    assert torch.equal(injection.joint.joined()[SEEN:], reference.joint.joined()[4:])
    assert torch.equal(injection.joint.joined()[:SEEN], problem.seen_head.joined())
