"""An epoch of a seen head: compiled or not, the same bits; its steps are those of torch's Adam."""

import pytest
import torch
from torch.nn import functional

from icis import head_steps
from icis.compiled import compiled
from icis.head_steps import HeadSteps


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(rows, *, classes=70, dim=300, dtype=torch.float32, epochs=2):
    """Return weight, bias and each epoch's loss."""
    x = drawn(200, dim).to(dtype)
    y = torch.arange(200) % classes
    weight, bias = drawn(classes, dim, seed=1).to(dtype) / 10, torch.zeros(classes, dtype=dtype)
    batches = torch.randint(0, 200, (epochs, 9, rows), generator=torch.Generator().manual_seed(2))
    steps = HeadSteps(weight, bias, 1e-3)
    return [weight, bias, torch.tensor([steps(x, y, each) for each in batches])], (x, y, batches)


@pytest.mark.parametrize("rows", [1, 16, 90])
@pytest.mark.parametrize("classes", [5, 70])
def test_compiled_or_not_the_bits_are_the_same(rows, classes, monkeypatch):
    found, _ = trained(rows, classes=classes)
    assert isinstance(compiled(head_steps.epoch), torch.jit.ScriptFunction)
    monkeypatch.setattr(head_steps, "compiled", lambda function: function)
    plain, _ = trained(rows, classes=classes)
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_without_torchscript_it_runs_all_the_same(monkeypatch):
    monkeypatch.delattr(torch.jit, "script")
    assert compiled.__wrapped__(head_steps.epoch) is head_steps.epoch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_steps_are_those_of_autograd_and_adam(dtype):
    (weight, bias, losses), (x, y, batches) = trained(16, dtype=dtype)
    truth = torch.nn.Linear(x.shape[1], 70, dtype=torch.float64)
    with torch.no_grad():
        truth.weight.copy_(drawn(70, x.shape[1], seed=1).to(dtype) / 10)
        truth.bias.zero_()
    optimizer, expected = torch.optim.Adam(truth.parameters(), lr=1e-3), []
    for epoch in batches:
        found = []
        for batch in epoch:
            optimizer.zero_grad()
            loss = functional.cross_entropy(truth(x[batch].double()), y[batch])
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        expected.append(sum(found) / len(found))
    close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}
    torch.testing.assert_close(weight.double(), truth.weight.detach(), **close)
    torch.testing.assert_close(bias.double(), truth.bias.detach(), **close)
    torch.testing.assert_close(losses.double(), torch.tensor(expected).double(), rtol=0, atol=1e-5)
