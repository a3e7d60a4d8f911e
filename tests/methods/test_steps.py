"""The steps of a training: the same compiled or not, in blocks of any size, by either library."""

import pytest
import torch

from icis import layers
from icis.methods import steps
from icis.methods.encoders import shuffled_epochs
from icis.methods.networks import build_networks
from icis.methods.steps import TERMS, PairSteps
from icis.methods.subspace import span
from icis.products import Libraries
from tests.methods.slow import slow_cosine_distance

DIMS = {"a": 23, "w": 301}
SEEN, UNSEEN, BATCH = 31, 9, 8
LOSSES = {"a2a": 0.7, "w2w": 1.3, "a2w": 1.0, "w2a": 0.4, "subspace": 0.01}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(distance="cosine", losses=LOSSES, depth=2, hidden=270):
    """Return networks and steps, of layers that are several blocks."""
    descriptors, targets = drawn(SEEN + UNSEEN, DIMS["a"]), drawn(SEEN, DIMS["w"], seed=1)
    networks = build_networks(DIMS, hidden=hidden, depth=depth, seed=2)
    subspace = span(targets, over="batch", instead="") if "subspace" in losses else None
    made = PairSteps(
        networks, descriptors, targets, losses=losses, cosine=distance == "cosine",
        subspace=subspace,
    )  # fmt: skip
    return networks, made


def trained(batch=BATCH, **about):
    """Return the terms of some steps and the networks' parameters after them."""
    networks, made = problem(**about)
    batches = next(shuffled_epochs(SEEN + UNSEEN, batch, 0))[:5]
    found = [made(part, [1e-4] * len(part)) for part in (batches[:2], batches[2:])]
    return [torch.cat(found), *(each.clone() for each in networks.state_dict().values())]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("depth", [2, 4])
def test_compiled_or_not_the_bits_are_the_same(distance, depth, monkeypatch):
    found = trained(distance=distance, depth=depth)
    assert isinstance(steps.compiled(steps.epoch), torch.jit.ScriptFunction)
    monkeypatch.setattr(steps, "compiled", lambda function: function)
    assert same(found, trained(distance=distance, depth=depth))


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("depth", [2, 4])
def test_threads_change_no_bit(rows, depth):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(trained(rows, hidden=1100, depth=depth))
    finally:
        torch.set_num_threads(before)
    assert all(same(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("block", "rows"), [(1, 128), (10**6, 1), (4000, 7), (10**6, 10**6)])
def test_blocks_of_any_size_give_the_same(block, rows, monkeypatch):
    expected = trained()
    monkeypatch.setattr(layers, "BLOCK", block)
    monkeypatch.setattr(layers, "ROWS", rows)
    for value, other in zip(trained(), expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("by", [(False, False), (True, False), (True, True)])
def test_each_library_gives_the_same(by, monkeypatch):
    expected = trained()
    monkeypatch.setattr(steps, "libraries", lambda like: Libraries(*by))
    for value, other in zip(trained(), expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=2e-6)


def test_networks_without_an_active_term_stay_as_they_are():
    losses = {"a2w": 1.0}
    before = {key: value.clone() for key, value in problem(losses=losses)[0].state_dict().items()}
    networks, made = problem(losses=losses)
    made([torch.arange(8)], [1e-3])
    moved = {
        key.split(".")[0]
        for key, value in networks.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert moved == {"encode_a", "decode_w"}


def test_terms_come_in_the_order_of_the_losses():
    rows = [torch.tensor([3, 35, 1, 39])]
    _, forwards = problem()
    turned = dict(reversed(LOSSES.items()))
    _, backwards = problem(losses=turned)
    assert [*turned] == [*reversed(TERMS)]
    assert torch.equal(forwards(rows, [1e-3]), backwards(rows, [1e-3]).flip(1))


def test_terms_of_a_batch_without_seen_rows_are_zero():
    _, made = problem()
    [terms] = made([torch.tensor([SEEN, SEEN + 3])], [1e-3]).tolist()
    found = dict(zip(LOSSES, terms, strict=True))
    assert found["a2a"] > 0
    assert found["subspace"] > 0
    assert [found[term] for term in ("w2w", "a2w", "w2a")] == [0, 0, 0]


# --- gradients that are written down, against autograd ------------------------------------------


def by_hand(function, x, *arguments):
    """Return a value and the gradient that a function adds to a matrix of ones, in float64."""
    above = torch.ones_like(x)
    value = function(x, *arguments, above)
    return value, above - 1


def by_autograd(function, x):
    x = x.clone().requires_grad_()
    value = function(x)
    value.backward()
    return value.detach(), x.grad


def assert_same_gradient(found, expected):
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-9, atol=1e-12)


def pairs(*, cosine=True, basis=None, over_rows=True):
    nothing = torch.zeros(0, 0, dtype=torch.float64)
    spanning = [nothing, nothing] if basis is None else [basis, basis.t().contiguous()]
    return steps.Pairs(nothing, nothing, [1.0] * 5, cosine, spanning, over_rows)


@pytest.mark.parametrize("length", [1.0, 1e-7, 1e-10])
def test_the_gradient_of_the_cosine_distance(length):
    """Rows shorter than eps are divided by eps, whatever their length."""
    x, y = drawn(6, 40).double() * length, drawn(6, 40, seed=1).double()
    found = by_hand(steps.reconstruction, x, y, 0.3, pairs())
    value, gradient = by_autograd(
        lambda rows: torch.stack([*map(slow_cosine_distance, rows, y)]).mean(), x
    )
    assert_same_gradient(found, (value, 0.3 * gradient))


def test_the_gradient_of_the_squared_error():
    x, y = drawn(6, 40).double(), drawn(6, 40, seed=1).double()
    found = by_hand(steps.reconstruction, x, y, 0.3, pairs(cosine=False))
    value, gradient = by_autograd(lambda each: (each - y).square().mean(), x)
    assert_same_gradient(found, (value, 0.3 * gradient))


@pytest.mark.parametrize("over", ["rows", "batch"])
def test_the_gradient_of_the_distance_to_a_span(over):
    known, x = drawn(7, 40, seed=1).double(), drawn(6, 40).double()
    subspace = span(known, over=over, instead="")
    about = pairs(basis=subspace.basis, over_rows=over == "rows")
    above = torch.zeros_like(x)
    value = steps.from_span(x, 0.3, about, above, Libraries(onednn=False, mkl_at_home=False))
    expected, gradient = by_autograd(subspace.distance, x)
    assert_same_gradient((value, above), (expected, 0.3 * gradient))


def test_a_row_in_the_span_has_no_gradient():
    basis = torch.eye(5, 2, dtype=torch.float64)
    x = torch.tensor([[3.0, 4.0, 0, 0, 0]], dtype=torch.float64)
    for over_rows in (True, False):
        above = torch.zeros_like(x)
        about = pairs(basis=basis, over_rows=over_rows)
        value = steps.from_span(x, 1.0, about, above, Libraries(onednn=False, mkl_at_home=False))
        assert (float(value), above.abs().sum()) == (0, 0)


def test_a_step_stays_on_its_device():
    """Torch's device without memory stands in for a GPU: whatever left it would raise."""
    networks = build_networks(DIMS, hidden=20, depth=2, seed=0).to("meta")
    targets = drawn(SEEN, DIMS["w"], seed=1)
    subspace = span(targets, over="rows", instead="").to("meta")
    made = PairSteps(
        networks, drawn(SEEN + UNSEEN, DIMS["a"]).to("meta"), targets.to("meta"),
        losses=LOSSES, cosine=True, subspace=subspace,
    )  # fmt: skip
    terms = made([torch.arange(8), torch.tensor([SEEN, SEEN + 1])], [1e-3, 1e-3])
    assert (terms.device.type, terms.shape) == ("meta", (2, len(LOSSES)))
