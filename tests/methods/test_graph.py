"""The graph network of wDAE against a slow one: one node, one neighbour at a time, float64."""

import contextlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icis.errors import IcisError
from icis.methods import Wdae
from icis.methods.graph import (
    COPIES,
    DenoisingGraph,
    SeededDropout,
    corrupted,
    edges,
    replaced_quarters,
    train_graph,
)

SEEN, WIDTH = 11, 8
RATE = 1e-2


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_network(*, layers=2, dropout=0.0, seed=0):
    """Return a network in float64, its norms moved away from their starting values."""
    network = DenoisingGraph(
        WIDTH, layers=layers, factor=3, dropout=dropout, seed=seed, device="cpu"
    ).double()
    for number, module in enumerate(network.modules()):
        if isinstance(module, torch.nn.BatchNorm1d):
            values = normal(4, module.num_features, seed=100 + number, dtype=torch.float64)
            module.running_mean.copy_(values[0])
            module.running_var.copy_(values[1].abs() + 0.1)
            with torch.no_grad():
                module.weight.copy_(values[2])
                module.bias.copy_(values[3])
    return network


# --- the slow restatement ---------------------------------------------------------------------


def slow_shares(nodes, neighbours, temperature):
    """Return {j: a_ij} of every node: softmax over all others, the K largest renormalised."""
    found = []
    for i, x in enumerate(nodes):
        powers = {j: math.exp(temperature * float(x @ y)) for j, y in enumerate(nodes) if j != i}
        total = sum(powers.values())
        softmax = {j: power / total for j, power in powers.items()}
        nearest = sorted(softmax, key=softmax.get, reverse=True)[:neighbours]
        kept = sum(softmax[j] for j in nearest)
        found.append({j: softmax[j] / kept for j in nearest})
    return found


def slow_norm(norm, rows, training):
    """Return the normalised rows, the mean and the (biased) variance column by column."""
    if training:
        mean = sum(rows) / len(rows)
        variance = sum((row - mean) ** 2 for row in rows) / len(rows)
    else:
        mean, variance = norm.running_mean, norm.running_var
    return [(row - mean) / torch.sqrt(variance + 1e-5) * norm.weight + norm.bias for row in rows]


def slow_leaky(x):
    return torch.where(x > 0, x, 0.01 * x)


def slow_forward(network, graphs, *, neighbours=3, temperature=0.3, training=False):
    """Return the refined rows of every graph, without dropout."""
    shares, offset = {}, 0
    for graph in graphs:
        for i, each in enumerate(slow_shares(graph, neighbours, temperature)):
            shares[offset + i] = {offset + j: share for j, share in each.items()}
        offset += len(graph)
    x = [row for graph in graphs for row in graph]
    rows = list(x)
    for layer, messages in enumerate(network.messages):
        pairs = [(i, j) for i in shares for j in shares[i]]
        weight = messages.linear.weight
        raw = [weight @ x[i] + weight @ x[j] for i, j in pairs]
        heard = [slow_leaky(m) for m in slow_norm(messages.activation.norm, raw, training)]
        sums = [torch.zeros(weight.shape[0], dtype=torch.float64) for _ in x]
        for (i, j), message in zip(pairs, heard, strict=True):
            sums[i] = sums[i] + shares[i][j] * message
        both = [torch.cat([own, message]) for own, message in zip(x, sums, strict=True)]
        if layer < len(network.updates):
            raw = [network.updates[layer].weight @ each for each in both]
            fresh = slow_norm(network.activations[layer].norm, raw, training)
            x = [torch.cat([own, slow_leaky(f)]) for own, f in zip(x, fresh, strict=True)]
    refined = []
    for row, each in zip(rows, both, strict=True):
        out = network.output.weight @ each + network.output.bias
        residual, gate = out[: len(row)], out[len(row) :]
        refined.append(row + residual / (1 + torch.exp(-gate)))
    return torch.stack(refined).view(graphs.shape)


def refine(network, graphs, neighbours=3, temperature=0.3):
    return Wdae(neighbours=neighbours, temperature=temperature).refine(network, graphs)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("neighbours", "temperature"), [(3, 0.3), (8, 5.0), (1, 1.0)])
def test_forward_equals_the_slow_restatement(layers, neighbours, temperature):
    network = make_network(layers=layers).eval()
    graphs = 0.5 * normal(2, 9, WIDTH, dtype=torch.float64)
    found = refine(network, graphs, neighbours, temperature)
    expected = slow_forward(network, graphs, neighbours=neighbours, temperature=temperature)
    assert (found - expected).abs().max() < 1e-10
    single = refine(network.float(), graphs.float(), neighbours, temperature)
    assert (single.double() - expected).abs().max() < 1e-5
    assert (expected - graphs).abs().max() > 1e-2, "the network does nothing"


def slow_training(network, clean, predicted, *, epochs, target, seed):
    """Return losses; the network's parameters are moved by Adam written out."""
    parameters = list(network.parameters())
    first, second = [0.0] * len(parameters), [0.0] * len(parameters)
    quarters, losses = replaced_quarters(len(clean), seed), []
    for t in range(1, epochs + 1):
        copies = next(quarters).tolist()
        graphs = torch.stack([
            torch.stack([b if where == copy else a for a, b, where in zip(
                clean, predicted, copies, strict=True
            )])
            for copy in range(4)
        ])  # fmt: skip
        answer = slow_forward(network, graphs, training=True)
        aims = graphs if target == "published" else torch.stack([clean] * 4)
        loss = sum(((a - b) ** 2).sum() for a, b in zip(answer, aims, strict=True)) / aims.numel()
        losses.append(loss.item())
        for k, gradient in enumerate(torch.autograd.grad(loss, parameters)):
            first[k] = 0.9 * first[k] + 0.1 * gradient
            second[k] = 0.999 * second[k] + 0.001 * gradient**2
            rise = torch.sqrt(second[k] / (1 - 0.999**t)) + 1e-8
            with torch.no_grad():
                parameters[k] -= RATE * (first[k] / (1 - 0.9**t)) / rise
    return losses


@pytest.mark.parametrize("target", ["published", "clean"])
def test_training_equals_the_slow_restatement(target):
    clean = 0.5 * normal(SEEN, WIDTH, dtype=torch.float64)
    predicted = 0.5 * normal(SEEN, WIDTH, seed=5, dtype=torch.float64)
    network, slow = make_network(), make_network()
    found = train_graph(
        network, clean, predicted, refine=refine, noise=0.0, target=target, learning_rate=RATE,
        max_epochs=3, stop=lambda losses: False, seed=4,
    )  # fmt: skip
    expected = slow_training(slow, clean, predicted, epochs=3, target=target, seed=4)
    assert found == pytest.approx(expected, abs=1e-9)
    assert found[-1] < found[0]
    graphs = clean[None]
    answers = refine(network.train(), graphs), slow_forward(slow, graphs, training=True)
    assert (answers[0] - answers[1]).abs().max() < 1e-6


def train(network, rows, **changes):
    settings = {
        "refine": refine, "noise": 0.08, "target": "published", "learning_rate": RATE,
        "max_epochs": 4, "stop": lambda losses: False, "seed": 4,
    }  # fmt: skip
    return train_graph(network, rows[0], rows[1], **settings | changes)


@pytest.mark.parametrize("dropout", [0.0, 0.7])
def test_training_in_float32_equals_that_by_way_of_all_pairs_in_float64(dropout):
    """Noise is left out: its draws are others in another type."""
    rows = 0.5 * normal(2, SEEN, WIDTH)
    found = train(make_network(dropout=dropout).float(), rows, noise=0.0)
    expected = train(make_network(dropout=dropout), rows.double(), noise=0.0)
    assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("rate", [RATE, 1e30])
def test_nothing_is_left_at_the_parameters_after_training(rate):
    network, rows = make_network().float(), normal(2, SEEN, WIDTH)
    with contextlib.suppress(IcisError):
        train(network, rows, learning_rate=rate, max_epochs=20)
    assert all(values.grad is None for values in network.parameters())
    before = [values.detach().clone() for values in network.parameters()]
    refine(network, rows).sum().backward()
    assert all(values.grad is not None for values in network.parameters())
    assert all(
        torch.equal(*both) or not both[0].isfinite().all()
        for both in zip(network.parameters(), before, strict=True)
    )


def test_noise_is_part_of_the_input_but_not_of_the_target():
    """A network that returned its input would be left with the noise as its error."""
    inputs, clean = [], normal(SEEN, WIDTH)

    def as_it_is(network, graphs):
        inputs.append(graphs)
        return graphs + 0 * network.output.bias.sum()

    losses = train_graph(
        make_network().float(), clean, clean, refine=as_it_is, noise=0.5, target="published",
        learning_rate=RATE, max_epochs=20, stop=lambda losses: False, seed=0,
    )  # fmt: skip
    noise = torch.stack(inputs) - clean
    assert losses == pytest.approx(noise.square().mean(dim=(1, 2, 3)).tolist(), rel=1e-5)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0, 0], noise[0, 1]), "each copy has noise of its own"


# --- properties -------------------------------------------------------------------------------


def test_a_closed_gate_gives_back_the_input():
    network = make_network().eval()
    with torch.no_grad():
        network.output.bias[WIDTH:] = -math.inf
    graphs = normal(2, 9, WIDTH, dtype=torch.float64)
    assert torch.equal(refine(network, graphs), graphs)


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(9)), training=st.booleans())
def test_classes_in_another_order_give_the_rows_in_that_order(order, training):
    network = make_network().train(training)
    graph = normal(1, 9, WIDTH, dtype=torch.float64)
    found = refine(network, graph[:, order])
    torch.testing.assert_close(found, refine(network, graph)[:, order], rtol=0, atol=1e-10)


def test_graphs_of_a_batch_do_not_hear_of_one_another():
    network = make_network().eval()
    graphs = normal(3, 9, WIDTH, dtype=torch.float64)
    alone = torch.cat([refine(network, graph[None]) for graph in graphs])
    torch.testing.assert_close(refine(network, graphs), alone, rtol=0, atol=1e-12)


def test_edges_lead_to_the_nearest_others_and_shares_sum_to_one():
    graphs = normal(2, 9, WIDTH)
    found, shares = edges(graphs, neighbours=8, temperature=5.0)
    for node, others in enumerate(found.tolist()):
        start = node // 9 * 9
        assert sorted(others) == [n for n in range(start, start + 9) if n != node]
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(18))
    assert shares.isfinite().all()
    # products in the thousands overflow a plain exp
    assert edges(100 * graphs, neighbours=3, temperature=5.0)[1].isfinite().all()


@settings(deadline=None)
@given(classes=st.integers(1, 60), seed=st.integers(0, 5))
def test_each_epoch_replaces_each_class_in_one_copy(classes, seed):
    quarters = replaced_quarters(classes, seed)
    clean, predicted = torch.zeros(classes, 2), torch.ones(classes, 2)
    for _ in range(3):
        graphs = corrupted(clean, predicted, next(quarters))
        assert graphs.shape == (COPIES, classes, 2)
        assert torch.equal(graphs.sum(dim=0), torch.ones(classes, 2))
        sizes = graphs[:, :, 0].sum(dim=1)
        assert sizes.max() - sizes.min() <= 1
    assert not clean.any(), "the clean rows are left as they are"


def test_quarters_change_from_epoch_to_epoch_and_with_the_seed():
    quarters = replaced_quarters(40, 0)
    drawn = [tuple(next(quarters).tolist()) for _ in range(4)]
    assert len(set(drawn)) == 4
    assert tuple(next(replaced_quarters(40, 0)).tolist()) == drawn[0]
    assert tuple(next(replaced_quarters(40, 1)).tolist()) != drawn[0]


def test_dropout_keeps_its_part_and_the_mean():
    dropout = SeededDropout(0.7, torch.Generator().manual_seed(0))
    x = torch.ones(400, 500)
    found = dropout(x)
    assert sorted(found.unique().tolist()) == pytest.approx([0, 1 / 0.3])
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(dropout(x), found)
    assert dropout.eval()(x) is x


def test_initial_weights():
    network = DenoisingGraph(50, layers=2, factor=3, dropout=0.7, seed=0, device="cpu")
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["messages.0.linear.weight"] == (150, 50)
    assert shapes["updates.0.weight"] == (150, 200)
    assert shapes["messages.1.linear.weight"] == (150, 200)
    assert shapes["output.weight"] == (100, 350)
    weight = network.updates[0].weight.detach()
    assert float(weight.abs().max()) == pytest.approx(200**-0.5, rel=0.01)
    assert float(weight.std()) == pytest.approx(200**-0.5 / 3**0.5, rel=0.02)
    biases = [name for name in shapes if name.endswith("bias") and "norm" not in name]
    assert biases == ["output.bias"]


# --- the whole method -------------------------------------------------------------------------
