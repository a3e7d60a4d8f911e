"""The layers of wDAE's graph network on the CPU against the same with all pairs, in float64."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from icis.methods import graph_layers
from icis.methods.graph_layers import Joined, Messages, SeededDropout

WIDTH_IN = 5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_messages(width, *, dropout=0.7, seed=3):
    layer = Messages(WIDTH_IN, width, SeededDropout(dropout, torch.Generator().manual_seed(seed)))
    norm = layer.activation.norm
    with torch.no_grad():
        layer.linear.weight.copy_(normal(width, WIDTH_IN, seed=1))
        norm.weight.copy_(normal(width, seed=2))
        norm.bias.copy_(normal(width, seed=3))
        norm.running_mean.copy_(normal(width, seed=4))
        norm.running_var.copy_(normal(width, seed=5).abs() + 0.1)
    return layer


def make_edges(nodes, neighbours, *, alone=None):
    """Return edges [N, K] to others and shares; node ``alone`` is nobody's neighbour."""
    generator = torch.Generator().manual_seed(nodes)
    found = []
    for node in range(nodes):
        others = torch.tensor([n for n in range(nodes) if n not in (node, alone)])
        found.append(others[torch.randperm(len(others), generator=generator)[:neighbours]])
    return torch.stack(found), normal(nodes, neighbours, seed=6).softmax(dim=1)


def answer(layer, x, edges, shares):
    """Return the messages, the gradients (input first) and the running statistics."""
    x = x.clone().requires_grad_()
    messages = layer([x], edges, shares.to(x.dtype))
    wanted = [x, *layer.parameters()]
    gradients = torch.autograd.grad(messages, wanted, normal(*messages.shape, seed=8).to(x.dtype))
    norm = layer.activation.norm
    return messages.detach(), *gradients, norm.running_mean.clone(), norm.running_var.clone()


def assert_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        error = (one.double() - other).abs().max()
        assert error <= 5e-6 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.7])
@pytest.mark.parametrize(
    ("nodes", "neighbours", "width", "alone"),
    [(12, 3, 6, None), (12, 1, 7, 4), (40, 10, 333, 0), (30, 2, 4099, 29), (3, 2, 1, None)],
)
def test_messages_equal_those_by_way_of_all_pairs(
    nodes, neighbours, width, alone, dropout, training
):
    """In one part of the columns or three, with one part of the nodes or many."""
    quick = make_messages(width, dropout=dropout).train(training)
    slow = copy.deepcopy(quick).double()
    x, edges = normal(nodes, WIDTH_IN, seed=7), make_edges(nodes, neighbours, alone=alone)
    for _ in range(2):  # the running statistics and the draws go on alike
        assert_alike(answer(quick, x, *edges), answer(slow, x.double(), *edges))
    norms = quick.activation.norm, slow.activation.norm
    assert norms[0].num_batches_tracked == norms[1].num_batches_tracked == 2 * training


def test_a_mean_far_from_zero_costs_no_digits():
    quick = make_messages(50, dropout=0.0)
    slow = copy.deepcopy(quick).double()
    x, edges = normal(20, WIDTH_IN, seed=7) + 30, make_edges(20, 4)
    found, expected = (layer([x.to(t)], edges[0], edges[1].to(t)) for layer, t in (
        (quick, torch.float32), (slow, torch.float64)
    ))  # fmt: skip
    assert (found - expected).abs().max() < 2e-4


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_threads_changes_no_bit(count, monkeypatch):
    monkeypatch.setattr(graph_layers, "COLUMNS", 64)
    x, edges = normal(40, WIDTH_IN, seed=7), make_edges(40, 6)
    expected = answer(make_messages(333), x, *edges)
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        found = answer(make_messages(333), x, *edges)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


@pytest.mark.parametrize(("columns", "values"), [(7, 100), (64, 64), (10**6, 10**6)])
def test_parts_change_no_draw_and_no_message(columns, values, monkeypatch):
    """Gradients are added up in the order of the parts, which do not depend on the machine."""
    x, edges = normal(40, WIDTH_IN, seed=7), make_edges(40, 6)
    expected = answer(make_messages(333), x, *edges)
    monkeypatch.setattr(graph_layers, "COLUMNS", columns)
    monkeypatch.setattr(graph_layers, "VALUES", values)
    found = answer(make_messages(333), x, *edges)
    assert torch.equal(found[0], expected[0])
    assert_alike(found, [each.double() for each in expected])


def test_the_number_of_threads_is_left_as_it_was():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        answer(make_messages(33), normal(12, WIDTH_IN), *make_edges(12, 3))
        with ThreadPoolExecutor(1) as pool:
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (3, 3)
    finally:
        torch.set_num_threads(threads)


def test_shares_that_ask_for_a_gradient_get_one():
    layer, (edges, shares) = make_messages(9, dropout=0.0), make_edges(12, 3)
    x = normal(12, WIDTH_IN, seed=7)
    layer([x], edges, shares.requires_grad_()).square().sum().backward()
    assert shares.grad.abs().min() > 0


def test_same_seed_same_bits_and_the_global_generators_are_left_alone():
    layers = [make_messages(50, seed=seed) for seed in (3, 3, 4)]
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    x, edges = normal(12, WIDTH_IN, seed=7), make_edges(12, 3)
    first, same, other = (layer([x], *edges) for layer in layers)
    first.sum().backward()
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


# --- draws ------------------------------------------------------------------------------------


def drawn(probability, rows=500, columns=1001, seed=0):
    dropout = SeededDropout(probability, torch.Generator().manual_seed(seed))
    return dropout.draw(rows, columns)


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.7, 0.999])
def test_the_share_that_is_kept_is_the_nominal_one(probability):
    kept = drawn(probability)
    assert set(kept.unique().tolist()) == {0, 1}
    spread = (probability * (1 - probability) / kept.numel()) ** 0.5
    assert abs(float(kept.double().mean()) - (1 - probability)) < 5 * spread + 2**-17
    for dim in (0, 1):
        line = kept.double().mean(dim=dim)
        spread = (probability * (1 - probability) / kept.shape[dim]) ** 0.5
        assert float(line.std()) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize(("probability", "share"), [(1e-9, 1), (1 - 1e-9, 0)])
def test_probabilities_next_to_zero_and_one(probability, share):
    assert (drawn(probability) == share).all()


def test_neighbouring_draws_have_nothing_to_do_with_one_another():
    signs = 2 * drawn(0.5, columns=1000).double() - 1
    for lag in (1, 2, 3, 4, 5):
        assert abs(float((signs[:, lag:] * signs[:, :-lag]).mean())) < 5 / signs.numel() ** 0.5
    assert abs(float((signs[1:] * signs[:-1]).mean())) < 5 / signs.numel() ** 0.5


def test_draws_do_not_depend_on_parts_and_go_on_from_call_to_call(monkeypatch):
    dropout = SeededDropout(0.3, torch.Generator().manual_seed(0))
    pieces = torch.cat([dropout.draw(rows, 1001) for rows in (1, 99, 400)])
    assert torch.equal(pieces, drawn(0.3))
    monkeypatch.setattr(graph_layers, "VALUES", 700)
    assert torch.equal(pieces, drawn(0.3))
    assert not torch.equal(pieces, drawn(0.3, seed=1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("wanted", [(True, True, True), (False, True, False)])
def test_joined_rows_give_what_rows_put_together_give(wanted, bias):
    layer = Joined(9, 4, bias=bias).double()
    parts = [normal(6, width, seed=width).double() for width in (2, 3, 4)]
    leaves = [part.clone().requires_grad_(wants) for part, wants in zip(parts, wanted, strict=True)]
    pull = normal(6, 4).double()
    (layer(*leaves) * pull).sum().backward()
    found = [*(leaf.grad for leaf in leaves), *(each.grad for each in layer.parameters())]

    plain = torch.nn.Linear(9, 4, bias=bias).double()
    plain.load_state_dict(layer.state_dict())
    whole = torch.cat(parts, dim=1).requires_grad_()
    assert (layer(*parts) - plain(whole)).abs().max() < 1e-12
    (plain(whole) * pull).sum().backward()
    of_parts = whole.grad.split([2, 3, 4], dim=1)
    expected = [part if wants else None for part, wants in zip(of_parts, wanted, strict=True)]
    expected += [each.grad for each in plain.parameters()]
    for ours, truth in zip(found, expected, strict=True):
        assert (ours is None) == (truth is None)
        assert ours is None or (ours - truth).abs().max() < 1e-12
