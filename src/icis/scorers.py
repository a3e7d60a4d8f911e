"""Scorers: whatever gives every image a score for every class; a Head is the linear kind."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from icis.artifacts import atomic_path
from icis.errors import IcisError
from icis.heads import Head, class_rows


class Scorer(Protocol):
    """Scores classes: the one thing that evaluation knows of a method."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the scored classes, in the order of the columns."""

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Return scores [N, C] of features [N, D]; the highest is the prediction."""

    def restrict(self, classes: tuple[str, ...]) -> Scorer:
        """Return a scorer of some of the classes."""

    def to(self, device: str) -> Scorer:
        """Return the scorer on another device."""


@dataclass(frozen=True)
class ConseScorer:
    """ConSE (Norouzi et al., 2014): classes by the cosine to an expected seen descriptor.

    ``seen_descriptors`` [S, d] belong to the rows of ``seen_head``, ``descriptors`` [C, d] to
    ``classes``. ``top`` keeps the most probable seen classes only; 0 keeps all.
    """

    seen_head: Head
    seen_descriptors: torch.Tensor
    descriptors: torch.Tensor
    classes: tuple[str, ...]
    top: int = 0

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Return cosines [N, C] between expected descriptor and class descriptors."""
        probabilities = self.seen_head.scores(features).softmax(dim=1)
        if self.top:
            best = probabilities.topk(self.top, dim=1)
            kept = best.values / best.values.sum(dim=1, keepdim=True)
            probabilities = torch.zeros_like(probabilities).scatter(1, best.indices, kept)
        expected = torch.nn.functional.normalize(probabilities @ self.seen_descriptors)
        return expected @ torch.nn.functional.normalize(self.descriptors).T

    def restrict(self, classes: tuple[str, ...]) -> ConseScorer:
        """Return a scorer of some of the classes; the seen head stays whole."""
        rows = class_rows(self.classes, classes)
        kept = self.descriptors[rows]
        return ConseScorer(self.seen_head, self.seen_descriptors, kept, classes, self.top)

    def to(self, device: str) -> ConseScorer:
        """Return the scorer on another device."""
        return ConseScorer(
            self.seen_head.to(device),
            self.seen_descriptors.to(device),
            self.descriptors.to(device),
            self.classes,
            self.top,
        )


def save_scorers(path: Path, scorers: dict[str, Scorer], metadata: dict[str, Any]) -> None:
    """Write named scorers into one safetensors file, atomically.

    Class names and kind of each scorer stand in the file's metadata under ``icis``; ``digest`` is
    the SHA-256 of all the rest there and of every tensor.
    """
    tensors: dict[str, torch.Tensor] = {}
    described: dict[str, Any] = {}
    for role, scorer in scorers.items():
        parts, described[role] = _pack(scorer)
        for key, tensor in parts.items():  # copied: safetensors takes no shared memory
            tensors[f"{role}.{key}"] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    about = {**metadata, "scorers": described}
    about["digest"] = _digest(about, tensors)
    header = {"icis": json.dumps(about, sort_keys=True)}  # two keys would be written in any order
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_scorers(path: Path) -> tuple[dict[str, Scorer], dict[str, Any]]:
    """Read what ``save_scorers`` wrote: the scorers by role, and the metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("icis")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise IcisError(f"{path} is not a readable safetensors file: {error}") from error
    if header is None:
        raise IcisError(f"{path} holds no injected head: its metadata lacks the key 'icis'")
    metadata = _parse(header)
    if metadata.pop("digest", None) != _digest(metadata, tensors):
        raise IcisError(f"{path} is damaged: its contents do not have the recorded checksum")
    described = metadata.pop("scorers")
    scorers = {role: _unpack(role, about, tensors) for role, about in described.items()}
    return scorers, metadata


def load_head(path: Path | str, *, role: str = "joint") -> Scorer:
    """Load one scorer of a file: ``joint`` (all classes) or ``unseen`` (the unseen ones alone)."""
    scorers, metadata = load_scorers(Path(path))
    if role in scorers:
        return scorers[role]
    if role == "unseen" and "joint" in scorers and "unseen_classes" in metadata:
        return scorers["joint"].restrict(tuple(metadata["unseen_classes"]))
    raise IcisError(f"{path} has no scorer {role!r}, only {sorted(scorers)}")


def _parse(header: str) -> dict[str, Any]:
    try:
        metadata = json.loads(header)
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _digest(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    state = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        state.update(f"\n{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(tensor.numpy().tobytes())
    return state.hexdigest()


def _pack(scorer: Scorer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    if isinstance(scorer, Head):
        about: dict[str, Any] = {"kind": "linear", "classes": list(scorer.classes)}
        return {"weight": scorer.weight, "bias": scorer.bias}, about
    if isinstance(scorer, ConseScorer):
        tensors = {
            "seen_weight": scorer.seen_head.weight,
            "seen_bias": scorer.seen_head.bias,
            "seen_descriptors": scorer.seen_descriptors,
            "descriptors": scorer.descriptors,
        }
        seen = list(scorer.seen_head.classes)
        about = {"kind": "conse", "classes": list(scorer.classes), "seen_classes": seen}
        return tensors, {**about, "top": scorer.top}
    raise IcisError(f"a scorer of type {type(scorer).__name__} cannot be saved")


def _unpack(role: str, about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Scorer:
    classes = tuple(about["classes"])
    if about["kind"] == "linear":
        return Head(tensors[f"{role}.weight"], tensors[f"{role}.bias"], classes)
    seen = tuple(about["seen_classes"])
    return ConseScorer(
        Head(tensors[f"{role}.seen_weight"], tensors[f"{role}.seen_bias"], seen),
        tensors[f"{role}.seen_descriptors"],
        tensors[f"{role}.descriptors"],
        classes,
        about["top"],
    )
