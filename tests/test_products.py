"""Products against double precision, whatever the shapes, layouts and threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icis import products
from icis.products import libraries


def linear(x, weight, bias=None):
    return products.linear(x, weight, bias, libraries(x))


def outer(u, x, room=None):
    return products.outer(u, x, torch.empty(u.shape[1], x.shape[1]), libraries(x))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 30),
    inputs=st.integers(0, 70),
    outputs=st.integers(1, 70),
    with_bias=st.booleans(),
    turned=st.booleans(),
)
def test_linear_is_the_product_in_double_precision(rows, inputs, outputs, with_bias, turned):
    x, weight, bias = draw(rows, inputs), draw(outputs, inputs, seed=1), draw(outputs, seed=2)
    if turned:  # views of other layouts
        x, weight = x.t().contiguous().t(), weight.t().contiguous().t()
    found = linear(x, weight, bias if with_bias else None)
    truth = x.double() @ weight.double().t() + (bias.double() if with_bias else 0)
    assert found.shape == (rows, outputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-4)


def test_doubles_are_multiplied_as_doubles():
    x, weight = draw(3, 40).double(), draw(5, 40, seed=1).double()
    torch.testing.assert_close(linear(x, weight), x @ weight.t(), rtol=0, atol=1e-13)


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 30), inputs=st.integers(1, 70), outputs=st.integers(1, 70))
def test_outer_is_the_product_in_double_precision(rows, inputs, outputs):
    u, x, room = draw(rows, outputs), draw(rows, inputs, seed=1), torch.empty(outputs, inputs)
    truth = u.double().t() @ x.double()
    for found in (outer(u, x, room), outer(u, x)):
        torch.testing.assert_close(found.double(), truth, rtol=0, atol=1e-4)


def in_threads(work):
    """Return what each number of threads gives."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(work())
    finally:
        torch.set_num_threads(before)
    return found


@pytest.mark.parametrize(
    "shape", [(2219, 125), (513, 1000), (2049, 7), (1, 900), (300, 1)], ids=str
)
@pytest.mark.parametrize("rows", [1, 2, 7, 24])
def test_threads_change_no_bit(rows, shape):
    inputs, outputs = shape
    x, weight, bias = draw(rows, inputs), draw(outputs, inputs, seed=1), draw(outputs, seed=2)
    u, turned = draw(rows, outputs, seed=3), draw(inputs, rows, seed=4).t()

    def work():
        products = [linear(x, weight, bias), linear(u, weight.t()), outer(u, x), outer(u, turned)]
        return [*products, linear(turned, weight)]

    first, *others = in_threads(work)
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
