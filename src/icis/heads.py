"""Linear heads: a weight row and a bias for every class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from icis.errors import IcisError


@dataclass(frozen=True)
class Head:
    """A linear classifier: ``weight`` [C, D], ``bias`` [C], a class name for each row."""

    weight: torch.Tensor
    bias: torch.Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that the shapes fit one another and that no class stands twice."""
        rows = len(self.classes)
        if self.weight.ndim != 2 or self.weight.shape[0] != rows or self.bias.shape != (rows,):
            raise IcisError(
                f"a head of {rows} classes needs weight [{rows}, D] and bias [{rows}], "
                f"not {list(self.weight.shape)} and {list(self.bias.shape)}"
            )
        if len(set(self.classes)) != rows:
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise IcisError(f"a head's classes must differ, {twice!r} stands twice")

    @property
    def dim(self) -> int:
        """Return D, the dimension of the features that the head takes."""
        return self.weight.shape[1]

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C] of features [N, D]."""
        check_dim(features, self.dim)
        return torch.nn.functional.linear(features, self.weight, self.bias)

    def restrict(self, classes: tuple[str, ...]) -> Head:
        """Return the head of some of its classes, in the order given."""
        rows = class_rows(self.classes, classes)
        return Head(self.weight[rows], self.bias[rows], classes)

    def to(self, device: str) -> Head:
        """Return the head on another device."""
        return Head(self.weight.to(device), self.bias.to(device), self.classes)

    def joined(self) -> torch.Tensor:
        """Return [weight, bias] as one matrix [C, D + 1], the form that methods predict."""
        return torch.cat([self.weight, self.bias[:, None]], dim=1)

    @classmethod
    def from_joined(cls, matrix: torch.Tensor, classes: tuple[str, ...]) -> Head:
        """Split a matrix [C, D + 1] into weight and bias."""
        return cls(matrix[:, :-1].contiguous(), matrix[:, -1].contiguous(), classes)

    def append(self, other: Head) -> Head:
        """Return this head with the rows of another below its own."""
        return Head(
            torch.cat([self.weight, other.weight]),
            torch.cat([self.bias, other.bias]),
            self.classes + other.classes,
        )

    def digest(self) -> str:
        """Return the SHA-256 of classes and values, independent of the file they came from."""
        state = hashlib.sha256("\n".join(self.classes).encode())
        for tensor in (self.weight, self.bias):
            state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return state.hexdigest()


def check_dim(features: torch.Tensor, dim: int) -> None:
    """Refuse features of another dimension than the head's."""
    if features.ndim != 2 or features.shape[1] != dim:
        raise IcisError(
            f"the head takes features [N, {dim}], these are {list(features.shape)}: "
            "head and features must come from one backbone"
        )


def class_rows(have: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    """Return the row of each wanted class; name those that are missing."""
    rows = {name: row for row, name in enumerate(have)}
    missing = [name for name in wanted if name not in rows]
    if missing:
        raise IcisError(f"{len(missing)} classes have no row, the first is {missing[0]!r}")
    return [rows[name] for name in wanted]
