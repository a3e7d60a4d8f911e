"""ICIS and the MLP against a slow restatement: one row at a time, float64, Adam by hand."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icis.errors import IcisError
from icis.heads import Head
from icis.methods import Icis, InjectionProblem, Mlp
from icis.methods.encoders import (
    DISTANCES,
    Reconstruction,
    SlopeStop,
    build_networks,
    shuffled_epochs,
    train,
)
from icis.methods.icis import LossWeights

D_DESCRIPTOR, D_FEATURE, HIDDEN, SEEN, UNSEEN, BATCH = 7, 11, 16, 9, 4, 5
RATE = 1e-3
ALL = ("a2a", "w2w", "a2w", "w2a")


def make_problem(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    head = Head(normal(SEEN, D_FEATURE), normal(SEEN), tuple(f"seen{9 - i}" for i in range(SEEN)))
    return InjectionProblem(
        head,
        normal(SEEN, D_DESCRIPTOR),
        normal(UNSEEN, D_DESCRIPTOR),
        tuple(f"new{i}" for i in (3, 0, 2, 1)),
    )


def icis(*, losses=None, **settings_):
    weights = LossWeights(**(losses or {}))
    common = {"hidden": HIDDEN, "learning_rate": RATE, "batch_size": BATCH, "max_epochs": 40}
    return Icis(**{**common, **settings_}, losses=weights)


# --- the slow restatement ---------------------------------------------------------------------


def slow_cosine_distance(x, y):
    length_x = torch.sqrt((x * x).sum()).clamp(min=1e-8)
    length_y = torch.sqrt((y * y).sum()).clamp(min=1e-8)
    return 1 - (x * y).sum() / (length_x * length_y)


def slow_squared_error(x, y):
    return ((x - y) * (x - y)).sum() / len(x)


SLOW_DISTANCES = {"cosine": slow_cosine_distance, "l2": slow_squared_error}


def layers_of(networks):
    """Return {network: [[weight, bias], ...]} in float64, all of them trainable."""
    found = {}
    for name, network in networks.items():
        state = {key: value.double().clone() for key, value in network.state_dict().items()}
        numbers = sorted({int(key.split(".")[0]) for key in state})
        found[name] = [
            [state[f"{n}.weight"].requires_grad_(), state[f"{n}.bias"].requires_grad_()]
            for n in numbers
        ]
    return found


def slow_encode(layers, x):
    for weight, bias in layers:
        x = torch.clamp(weight @ x + bias, min=0)
    return x


def slow_decode(layers, x):
    for weight, bias in layers[:-1]:
        x = torch.clamp(weight @ x + bias, min=0)
    return layers[-1][0] @ x + layers[-1][1]


def slow_terms(networks, descriptors, targets, rows, distance):
    """Return all four terms; a row without a target takes part with weight 0."""
    sums = {"a2a": 0.0, "w2w": 0.0, "a2w": 0.0, "w2a": 0.0}
    seen = 0
    for row in rows:
        a = descriptors[row]
        mask = 1.0 if row < len(targets) else 0.0
        w = targets[row] if mask else torch.ones(targets.shape[1], dtype=torch.float64)
        from_a = slow_encode(networks["encode_a"], a)
        from_w = slow_encode(networks["encode_w"], w)
        sums["a2a"] = sums["a2a"] + distance(slow_decode(networks["decode_a"], from_a), a)
        sums["w2w"] = sums["w2w"] + mask * distance(slow_decode(networks["decode_w"], from_w), w)
        sums["a2w"] = sums["a2w"] + mask * distance(slow_decode(networks["decode_w"], from_a), w)
        sums["w2a"] = sums["w2a"] + mask * distance(slow_decode(networks["decode_a"], from_w), a)
        seen += int(mask)
    return {
        term: total / (len(rows) if term == "a2a" else max(seen, 1)) for term, total in sums.items()
    }


class SlowAdam:
    """Adam (Kingma & Ba, 2015, algorithm 1)."""

    def __init__(self, rate):
        self.rate, self.step_number, self.first, self.second = rate, 0, {}, {}

    def step(self, parameters, gradients):
        self.step_number += 1
        t = self.step_number
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is None:
                continue
            m = 0.9 * self.first.get(number, 0.0) + 0.1 * gradient
            v = 0.999 * self.second.get(number, 0.0) + 0.001 * gradient**2
            self.first[number], self.second[number] = m, v
            change = self.rate * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)
            with torch.no_grad():
                parameter -= change


def slow_stop_epoch(losses, threshold):
    """Return the epoch at which training ends, None if it goes on: the rule, word for word."""
    in_a_row = 0
    for epoch in range(22, len(losses) + 1):
        last_ten = losses[epoch - 10 : epoch]
        ten_before = losses[epoch - 20 : epoch - 10]
        slope = -(statistics.fmean(last_ten) - statistics.fmean(ten_before)) / 10
        in_a_row = in_a_row + 1 if slope < threshold else 0
        if in_a_row == 5:
            return epoch
    return None


def slow_train(
    networks, descriptors, targets, epochs, *, losses, distance, threshold, max_epochs, rate=RATE
):
    """Return history and the layers trained."""
    layers = layers_of(networks)
    descriptors, targets = descriptors.double(), targets.double()
    parameters = [tensor for pairs in layers.values() for pair in pairs for tensor in pair]
    adam, history = SlowAdam(rate), {"loss": [], **{term: [] for term in losses}}
    for batches in epochs:
        steps = []
        for rows in batches:
            terms = slow_terms(layers, descriptors, targets, rows.tolist(), distance)
            loss = sum(weight * terms[term] for term, weight in losses.items())
            adam.step(parameters, torch.autograd.grad(loss, parameters, allow_unused=True))
            steps.append({"loss": loss.item(), **{term: terms[term].item() for term in losses}})
        for term, values in history.items():
            values.append(statistics.fmean(step[term] for step in steps))
        ended = slow_stop_epoch(history["loss"], threshold) is not None
        if ended or len(history["loss"]) == max_epochs:
            break
    return history, layers


def slow_predict(layers, descriptors):
    rows = [
        slow_decode(layers["decode_w"], slow_encode(layers["encode_a"], a))
        for a in descriptors.double()
    ]
    return torch.stack(rows).detach()


def slow_fit(problem, method, *, losses, use_unseen, depth, seed):
    """Return history and predicted [weight, bias] of the unseen classes."""
    targets = torch.cat([problem.seen_head.weight, problem.seen_head.bias[:, None]], dim=1)
    rows = problem.seen_descriptors
    if use_unseen:
        rows = torch.cat([rows, problem.unseen_descriptors])
    networks = build_networks(
        {"a": D_DESCRIPTOR, "w": D_FEATURE + 1}, hidden=HIDDEN, depth=depth, seed=seed
    )
    history, layers = slow_train(
        networks,
        rows,
        targets,
        shuffled_epochs(len(rows), method.batch_size, seed),
        losses=losses,
        distance=SLOW_DISTANCES[method.distance],
        threshold=method.threshold,
        max_epochs=method.max_epochs,
        rate=method.learning_rate,
    )
    return history, slow_predict(layers, problem.unseen_descriptors)


def assert_same_course(found, expected):
    assert found.keys() == expected.keys()
    for term, values in expected.items():
        assert len(found[term]) == len(values), "another number of epochs"
        np.testing.assert_allclose(found[term], values, rtol=0, atol=3e-6, err_msg=term)


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
    model = Reconstruction(networks, descriptors, targets, losses, DISTANCES[distance])
    found = train(model, epochs, learning_rate=RATE, max_epochs=99, stop=lambda losses: False)
    assert_same_course(found, history)
    predicted = slow_predict(layers, problem.unseen_descriptors)
    assert (model.predict(problem.unseen_descriptors).double() - predicted).abs().max() < 1e-5


def test_terms_of_a_batch_without_seen_rows_are_zero():
    problem = make_problem()
    descriptors = torch.cat([problem.seen_descriptors, problem.unseen_descriptors])
    networks = build_networks({"a": D_DESCRIPTOR, "w": D_FEATURE + 1}, hidden=4, depth=2, seed=0)
    model = Reconstruction(networks, descriptors, problem.seen_head.joined(),
                           dict.fromkeys(ALL, 1.0), DISTANCES["cosine"])  # fmt: skip
    terms = model.terms(torch.tensor([9, 12]))
    assert list(terms) == list(ALL)
    assert terms["a2a"] > 0
    assert [float(terms[term].detach()) for term in ("w2w", "a2w", "w2a")] == [0, 0, 0]


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


# --- the slope stop ---------------------------------------------------------------------------


def stop_epoch(losses, threshold):
    stop, so_far = SlopeStop(threshold), []
    for epoch, loss in enumerate(losses, start=1):
        so_far.append(loss)
        if stop(so_far):
            return epoch
    return None


# multiples of 2⁻¹⁰ have exact sums, so that both sides round alike
noise = st.lists(st.integers(0, 4096), max_size=90).map(lambda ks: [k / 1024 for k in ks])
steps = st.lists(st.sampled_from([-64, -16, -2, 0, 0, 0, 1, 40]), max_size=90).map(
    lambda ks: [4 + float(s) / 1024 for s in np.cumsum(ks)] if ks else []
)


@settings(max_examples=400, deadline=None)
@given(losses=noise | steps, threshold=st.sampled_from([2e-3, 2e-6, 0.0, 0.05]))
def test_slope_stop_is_the_literal_rule(losses, threshold):
    assert stop_epoch(losses, threshold) == slow_stop_epoch(losses, threshold)


def test_first_possible_stop_is_epoch_26():
    assert stop_epoch([1.0] * 60, 2e-3) == 26
    assert stop_epoch([1.0] * 25, 2e-3) is None


def test_a_slope_equal_to_the_threshold_goes_on():
    assert stop_epoch([1.0] * 60, 0.0) is None


def test_falling_loss_never_stops():
    assert stop_epoch([10 - 0.01 * epoch for epoch in range(500)], 2e-3) is None


def test_the_counter_starts_anew_after_one_steep_epoch():
    flat = [1.0] * 25  # epochs 22 to 25 are flat: four in a row
    steep = [*flat, 0.5]  # slope 0.005 from here until the step leaves both windows
    assert stop_epoch(flat, 2e-3) is None
    assert stop_epoch(steep, 2e-3) is None
    long = [*steep, *[0.5] * 40]
    found = stop_epoch(long, 2e-3)
    assert found == slow_stop_epoch(long, 2e-3)
    assert found > 40


# --- initial weights and batches --------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_initial_weights(depth):
    networks = build_networks({"a": 300, "w": 500}, hidden=400, depth=depth, seed=1)
    linear = [m for m in networks.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == {2: 4, 3: 6, 4: 8}[depth]
    for layer in linear:
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(0.02, rel=0.02)
        assert abs(float(weight.mean())) < 3e-4
        assert float(weight.abs().max()) > 0.07, "not cut off: a normal, not a truncated one"
        assert not layer.bias.detach().any()


@pytest.mark.parametrize(
    ("depth", "shapes"),
    [
        (2, {"encode_a": [(8, 3)], "decode_w": [(5, 8)]}),
        (3, {"encode_a": [(8, 3)], "decode_w": [(1000, 8), (5, 1000)]}),
        (4, {"encode_a": [(8, 3), (8, 8)], "decode_w": [(1000, 8), (5, 1000)]}),
    ],
)
def test_layers_of_each_depth(depth, shapes):
    networks = build_networks({"a": 3, "w": 5}, hidden=8, depth=depth, seed=0)
    for name, expected in shapes.items():
        found = [tuple(m.weight.shape) for m in networks[name] if hasattr(m, "weight")]
        assert found == expected


def test_variants_that_share_networks_start_alike():
    both = build_networks({"a": 3, "w": 5}, hidden=8, depth=2, seed=4).state_dict()
    alone = build_networks({"a": 3}, hidden=8, depth=2, seed=4).state_dict()
    deep = build_networks({"a": 3, "w": 5}, hidden=8, depth=3, seed=4).state_dict()
    assert all(torch.equal(both[key], value) for key, value in alone.items())
    for key in ("encode_a.0.weight", "encode_w.0.weight"):
        assert torch.equal(both[key], deep[key])
    other = build_networks({"a": 3, "w": 5}, hidden=8, depth=2, seed=5).state_dict()
    assert not torch.equal(both["encode_a.0.weight"], other["encode_a.0.weight"])


def test_networks_of_one_shape_start_apart():
    state = build_networks({"a": 6, "w": 6}, hidden=6, depth=2, seed=0).state_dict()
    weights = [value for key, value in state.items() if key.endswith("weight")]
    for number, weight in enumerate(weights):
        assert not any(torch.equal(weight, other) for other in weights[:number])


@settings(deadline=None)
@given(rows=st.integers(1, 40), batch=st.integers(1, 12), seed=st.integers(0, 3))
def test_every_epoch_holds_every_row_once(rows, batch, seed):
    epochs = shuffled_epochs(rows, batch, seed)
    for _ in range(3):
        batches = next(epochs)
        assert sorted(torch.cat(batches).tolist()) == list(range(rows))
        assert [len(each) for each in batches[:-1]] == [batch] * (len(batches) - 1)
        assert len(batches) == math.ceil(rows / batch)


def test_epochs_are_reshuffled():
    epochs = shuffled_epochs(30, 7, 0)
    orders = [torch.cat(next(epochs)).tolist() for _ in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert torch.cat(next(shuffled_epochs(30, 7, 0))).tolist() == orders[0]
    assert torch.cat(next(shuffled_epochs(30, 7, 1))).tolist() != orders[0]


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
    calls = iter([1.0, 1.0, bad, 1.0])

    def row_loss(prediction, target):
        return (prediction - target).square().mean(dim=1) * next(calls)

    model = Reconstruction(networks, problem.seen_descriptors, problem.seen_head.joined(),
                           {"a2w": 1.0}, row_loss)  # fmt: skip
    with pytest.raises(IcisError, match=r"became (nan|inf) in epoch 3"):
        train(model, shuffled_epochs(SEEN, SEEN, 0), learning_rate=RATE, max_epochs=9,
              stop=lambda losses: False)  # fmt: skip


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
