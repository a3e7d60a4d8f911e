"""Backbones and seen heads."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from icis.config.datasets import DescriptorSource
from icis.config.names import Count, Name, Rate
from icis.schema import Strict


class Transform(Strict):
    """Changes to the evaluation transform that timm resolves for a model."""

    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] | None = None
    image_size: Count | None = None


class Training(Strict):
    """Training of a backbone on the seen classes' trainval images, from its starting weights."""

    epochs: Count = 10
    batch_size: Count = 32
    learning_rate: Rate = 1e-3
    """The peak of a one-cycle schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Smallest part of an image that a random crop keeps."""
    flip: bool = True
    selection: Literal["last", "holdout"] = "last"
    """Which epoch is kept: the last, or the best on a held-out part of trainval."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of each class's trainval images held out, with ``selection: holdout``."""
    seed: int = 0


class Backbone(Strict):
    """A timm model and where its weights come from."""

    model: str = ""
    """timm's name; may be empty for ``local-dir:`` weights, whose config.json names it."""
    weights: str = "pretrained"
    """``pretrained`` (timm's hub), ``random``, or ``local-dir:FOLDER``."""
    transform: Transform = Transform()
    train: Training | None = None
    """Train (or finetune) on the seen classes before extracting; left out: as it is."""
    batch_size: Count = 64
    """Images a batch in extraction; no influence on the features beyond rounding."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass in extraction."""

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        if value in ("pretrained", "random") or re.match("local-dir:.", value):
            return value
        raise ValueError("should be 'pretrained', 'random' or 'local-dir:FOLDER'")

    @model_validator(mode="after")
    def _check(self) -> Backbone:
        if not self.model and not self.weights.startswith("local-dir:"):
            raise ValueError("model: a timm model name is needed unless weights are a local-dir")
        if self.weights == "random" and self.train is None:
            raise ValueError(
                "weights are random and there is no training: the features would mean nothing; "
                "add 'train: {}'"
            )
        return self


class SeenHead(Strict):
    """The recipe of the seen head ("base classifier"): a linear layer on trainval features."""

    kind: Literal["trained"] = "trained"
    selection: Literal["last", "holdout", "test_seen"] = "last"
    """Which epoch is kept. ``test_seen`` repeats the paper's leak (best epoch on test images) and
    is labelled so wherever its numbers stand."""
    epochs: Count = 100
    learning_rate: Rate = 1e-4
    batch_size: Count | None = None
    """Rows a batch, always full; by default the data set's."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of each class's trainval rows held out, with ``selection: holdout``."""

    def resolve(self, *, batch_size: int) -> SeenHead:
        """Return the recipe with the data set's batch size where it has none of its own."""
        if self.batch_size is not None:
            return self
        return self.model_copy(update={"batch_size": batch_size})


class GivenHead(Strict):
    """A seen head that exists already, for example that of an ImageNet classifier.

    Rows of classes that are unseen in the data set are left out.
    """

    kind: Literal["given"]
    file: str | None = None
    """.npz or .safetensors with the arrays named below. Left out: the backbone's own classifier, of
    the weights that it came with or, where it is trained here, of that training."""
    weight: str = "weight"
    """Name of the weight matrix [C, D] in the file."""
    bias: str = "bias"
    """Name of the biases [C] in the file."""
    classes: str | None = None
    """The rows' class names: a text file, a name a line, or the name of an array in the .npz. Left
    out: the rows are the data set's seen classes, in their order."""
    descriptors: dict[Name, DescriptorSource] = {}
    """With ``classes``, a vector for every one, under the names of the data sets' descriptors. A
    file without names has its rows in the head's order."""
    test_seen: Name | None = None
    """With ``classes``: the data set whose test_seen images, as far as the head has their classes,
    measure S. Otherwise it is the data set itself."""
    optional: bool = False
    """Where its files are absent, leave the cells that need it empty instead of refusing to run."""

    @model_validator(mode="after")
    def _check(self) -> GivenHead:
        if self.file is not None and not self.file.endswith((".npz", ".safetensors")):
            raise ValueError(f"file: {self.file} should be a .npz or .safetensors")
        if self.classes is not None and not self.descriptors:
            raise ValueError("with 'classes', 'descriptors' should hold a vector for each of them")
        if self.classes is None and (self.descriptors or self.test_seen):
            raise ValueError("descriptors and test_seen go with 'classes', which is not given")
        return self

    def resolve(self, *, batch_size: int) -> GivenHead:
        """Return the head as it is: nothing of it depends on the data set's batch size."""
        return self

    @property
    def selection(self) -> str:
        """Say that nothing is selected here."""
        return "given"


def _head_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("kind", "trained")
    return getattr(value, "kind", "trained")  # what is no mapping at all is refused as one


AnyHead = Annotated[
    Annotated[SeenHead, Tag("trained")] | Annotated[GivenHead, Tag("given")],
    Discriminator(_head_kind),
]
