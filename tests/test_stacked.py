"""Stacked parameters and their Adam, and a step as a graph on a GPU that is played here."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from icis.stacked import EAGER, CapturedStep, StackedParameter, adam_step, repeated


def test_stacked_adam_is_torchs_own_whoever_leaves():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, 5, generator=generator)
    stacked = StackedParameter(start.clone())
    alone = [torch.nn.Parameter(each.clone()) for each in start]
    optimizers = [torch.optim.Adam([each], lr=0.01) for each in alone]
    left = [0, 1, 2]
    for step in range(9):
        gradients = torch.randn(3, 4, 5, generator=generator)
        stacked.value.grad = gradients[left]
        adam_step([stacked], 0.01)
        assert stacked.value.grad is None
        for number in left:
            alone[number].grad = gradients[number].clone()
            optimizers[number].step()
        for position, number in enumerate(left):
            assert (stacked.value[position] - alone[number]).abs().max() < 1e-6
        if step in (2, 5):
            left = [left[0], *left[2:]]
            stacked.keep(torch.tensor([0] if step == 5 else [0, 2]))
    assert left == [0]


def test_elsewhere_than_on_a_gpu_a_step_is_itself():
    def step():
        pass

    assert repeated(step, "cpu") is step


class Played:
    """What ``CapturedStep`` asks of torch.cuda: capturing takes no step, a replay takes it."""

    def __init__(self, state):
        self.state, self.captures, self.replays = state, 0, 0
        self.step = None

    def stream(self, *_):
        class Stream:
            def wait_stream(self, other):
                pass

        return Stream()

    def graph_object(self):
        played = self

        class Graph:
            def replay(self):
                played.replays += 1
                played.step()

        return Graph()

    @contextmanager
    def graph(self, _):
        before = self.state.clone()
        yield
        self.state.copy_(before)
        self.captures += 1


@pytest.fixture
def played(monkeypatch):
    found = Played(torch.zeros(2))
    changes = {
        "Stream": found.stream, "current_stream": found.stream, "CUDAGraph": found.graph_object,
        "graph": found.graph, "stream": nullcontext, "device": nullcontext,
    }  # fmt: skip
    for name, value in changes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return found


@pytest.mark.parametrize("count", [1, EAGER, EAGER + 1, EAGER + 4])
def test_every_step_is_taken_once_with_its_own_inputs(played, count):
    def step(rows, factor):
        played.step = lambda: step(rows, factor)  # a graph keeps the addresses that it was given
        played.state.add_(rows * factor)

    captured = repeated(step, "cuda:1")
    assert isinstance(captured, CapturedStep)
    expected = torch.zeros(2)
    for number in range(count):
        rows, factor = torch.tensor([1.0, 10.0]) + number, torch.tensor(2.0 + number)
        captured(rows, factor)
        expected += rows * factor
        rows.fill_(torch.nan)  # what was given may be reused
    assert torch.equal(played.state, expected)
    assert played.captures == (count > EAGER)
    assert played.replays == max(count - EAGER, 0)
