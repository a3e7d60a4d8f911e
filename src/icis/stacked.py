"""Parameters of many small trainings in one tensor, their Adam, and a step as one CUDA graph.

What a training step of these methods costs is memory: every weight passes through Adam, 28 bytes a
component. On a GPU one small training cannot keep the memory busy; many stacked can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from icis.adam import adam_update

EAGER = 2
"""Steps taken before one is captured: what libraries set up at first use is then done."""


class StackedParameter:
    """A parameter of M trainings, ``value`` [M, …], with Adam's moments."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value.requires_grad_()
        self.first, self.second = torch.zeros_like(value), torch.zeros_like(value)
        self.steps = torch.zeros((), device=value.device)

    def keep(self, positions: torch.Tensor) -> None:
        """Keep some of the trainings, by their positions."""
        # one tensor after the other: the old one is freed before the next is copied
        self.value = self.value.detach()[positions].requires_grad_()
        self.first = self.first[positions]
        self.second = self.second[positions]


def adam_step(parameters: Iterable[StackedParameter], learning_rate: float) -> None:
    """Take one step of Adam, betas (0.9, 0.999) and no weight decay, and forget the gradients.

    Every training must have taken as many steps as the others. It waits for no device.
    """
    chosen = list(parameters)
    gradients = [each.value.grad for each in chosen]
    assert all(gradient is not None for gradient in gradients)
    counts = [each.steps for each in chosen]
    torch._foreach_add_(counts, 1)
    adam_update(
        [each.value for each in chosen], [g for g in gradients if g is not None],
        [each.first for each in chosen], [each.second for each in chosen],
        counts, learning_rate,
    )  # fmt: skip
    for each in chosen:
        each.value.grad = None


Step = Callable[..., None]


def repeated(step: Step, device: str) -> Step:
    """Return a step that is taken many times on tensors of the same shapes.

    On a GPU it is captured as a CUDA graph, so that the processor starts it as a whole; elsewhere
    it is the step itself. It must change tensors in place, and never wait for the device.
    """
    return CapturedStep(step, device) if device.startswith("cuda") else step


class CapturedStep:
    """A step as a CUDA graph. Its first calls run it as it is, on a stream of its own."""

    def __init__(self, step: Step, device: str) -> None:
        self.step, self.device, self.calls = step, device, 0
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.graph = torch.cuda.CUDAGraph()
        self.inputs: tuple[torch.Tensor, ...] = ()

    def __call__(self, *inputs: torch.Tensor) -> None:
        """Take the step on inputs of the same shapes as ever."""
        with torch.cuda.device(self.device):
            self._take(*inputs)

    def _take(self, *inputs: torch.Tensor) -> None:
        self.calls += 1
        if self.calls <= EAGER:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step(*inputs)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if not self.inputs:  # capturing records the step and does not take it
            self.inputs = tuple(each.clone() for each in inputs)
            with torch.cuda.graph(self.graph):
                self.step(*self.inputs)
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
