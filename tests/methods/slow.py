"""A slow restatement of ICIS, the MLP and Sub.Reg.: one row at a time, float64, Adam by hand."""

import math
import statistics

import numpy as np
import torch

from icis.heads import Head
from icis.methods import Icis, InjectionProblem
from icis.methods.encoders import shuffled_epochs
from icis.methods.icis import LossWeights
from icis.methods.networks import build_networks

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


def slow_residual(x, spanning):
    """Return x without its projection on the span of rows, by the normal equations."""
    coefficients = torch.linalg.solve(spanning @ spanning.T, spanning @ x)
    return x - spanning.T @ coefficients


def slow_subspace(networks, descriptors, rows, spanning, over):
    """Return the distance of predictions to a span: rows' mean, or of the batch as one vector."""
    squares = [
        (slow_residual(slow_decode(networks["decode_w"], slow_encode(networks["encode_a"],
         descriptors[row])), spanning) ** 2).sum()
        for row in rows
    ]  # fmt: skip
    if over == "rows":
        return sum(torch.sqrt(square) for square in squares) / len(rows)
    return torch.sqrt(sum(squares))


def principal(weights, rank):
    """Return the first directions of an uncentred principal component analysis, [rank, D + 1]."""
    _, vectors = torch.linalg.eigh(weights.double().T @ weights.double())  # ascending
    return vectors.T.flip(0)[:rank]


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

    def step(self, parameters, gradients, rate=None):
        """Take a step, at a rate of its own if one is given."""
        rate = self.rate if rate is None else rate
        self.step_number += 1
        t = self.step_number
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is None:
                continue
            m = 0.9 * self.first.get(number, 0.0) + 0.1 * gradient
            v = 0.999 * self.second.get(number, 0.0) + 0.001 * gradient**2
            self.first[number], self.second[number] = m, v
            change = rate * (m / (1 - 0.9**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)
            with torch.no_grad():
                parameter -= change


def slow_one_cycle(peak, steps):
    """Return the rate of every step: along half a cosine up from peak/25, then one down to 0.

    Up over 30 % of the steps; the last rate is peak/250000.
    """
    total = max(steps, 2)
    top, end = 0.3 * total - 1, total - 1
    rates = []
    for step in range(steps):
        begin, first, last, goal = (0, peak / 25, top, peak)
        if step > top:
            begin, first, last, goal = (top, peak, end, peak / 25 / 1e4)
        way = (step - begin) / (last - begin)
        rates.append(goal + (first - goal) * (1 + math.cos(math.pi * way)) / 2)
    return rates


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
    networks,
    descriptors,
    targets,
    epochs,
    *,
    losses,
    distance,
    threshold,
    max_epochs,
    rate=RATE,
    rates=None,
    spanning=None,
    over=None,
):
    """Return history and the layers trained; ``rates`` is an iterator over those of the steps."""
    layers = layers_of(networks)
    descriptors, targets = descriptors.double(), targets.double()
    parameters = [tensor for pairs in layers.values() for pair in pairs for tensor in pair]
    adam, history = SlowAdam(rate), {"loss": [], **{term: [] for term in losses}}
    for batches in epochs:
        steps = []
        for rows in batches:
            terms = slow_terms(layers, descriptors, targets, rows.tolist(), distance)
            if "subspace" in losses:
                terms["subspace"] = slow_subspace(
                    layers, descriptors, rows.tolist(), spanning, over
                )
            loss = sum(weight * terms[term] for term, weight in losses.items())
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            adam.step(parameters, gradients, next(rates) if rates else None)
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


def slow_fit(problem, method, *, losses, use_unseen, depth, seed, over=None, rank=None):
    """Return history and predicted [weight, bias] of the unseen classes."""
    targets = torch.cat([problem.seen_head.weight, problem.seen_head.bias[:, None]], dim=1)
    rows = problem.seen_descriptors
    if use_unseen:
        rows = torch.cat([rows, problem.unseen_descriptors])
    networks = build_networks(
        {"a": D_DESCRIPTOR, "w": D_FEATURE + 1}, hidden=HIDDEN, depth=depth, seed=seed
    )
    rates = None
    if method.schedule == "one-cycle":
        steps = method.max_epochs * -(-len(rows) // method.batch_size)
        rates = iter(slow_one_cycle(method.learning_rate, steps))
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
        rates=rates,
        spanning=targets.double() if rank is None else principal(targets, rank),
        over=over,
    )
    return history, slow_predict(layers, problem.unseen_descriptors)


def assert_same_course(found, expected):
    assert found.keys() == expected.keys()
    for term, values in expected.items():
        assert len(found[term]) == len(values), "another number of epochs"
        np.testing.assert_allclose(found[term], values, rtol=0, atol=3e-6, err_msg=term)
