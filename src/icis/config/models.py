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
    frozen_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs at the start in which only the new classifier is trained, as is usual where pretrained
    weights meet few images. They fall into the schedule's warm-up, its first 30 %."""
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
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the forward pass; weights and their updates are float32. ``auto``: bfloat16 on a GPU of
    compute capability 8, float16 with scaled gradients on an older one, and float32 on the CPU."""
    seed: int = 0


class Backbone(Strict):
    """A timm model and where its weights come from."""

    model: str = ""
    """timm's name, such as ``resnet101.tv_in1k``. May be empty where the weights are a folder or a
    hub repository, whose config.json names the architecture. Beside a folder that says otherwise it
    is refused; a hub repository's config.json decides, whatever the name here."""
    weights: str = "pretrained"
    """``pretrained``: timm's repository of the model on the Hugging Face hub, ``hf-hub:ORG/NAME``
    or ``hf-hub:ORG/NAME@REVISION``: another one, ``local-dir:FOLDER``: a folder in the same layout,
    config.json and model.safetensors. ``random``: drawn from ``train.seed``. The environment's
    HF_ENDPOINT and HF_HOME say which mirror of the hub and which cache are used."""
    transform: Transform = Transform()
    train: Training | None = None
    """Train (or finetune) on the seen classes before extracting; left out: as it is."""
    batch_size: Count | Literal["auto"] = "auto"
    """Images a forward pass in extraction; no influence on the features beyond rounding. ``auto``:
    16 on the CPU, what the memory takes on a GPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the forward pass in extraction. ``auto``: bfloat16 where the hardware is made for it (a
    GPU of compute capability 8, a CPU with AMX or AVX512-BF16), else float16 on a GPU of 7, else
    float32."""
    unreadable: Literal["list", "stop"] = "list"
    """An image that cannot be read fails extraction: at the end, with the names of all such images,
    or at the first one."""

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        hub = r"hf-hub:[\w.-]+/[\w.-]+(@[\w./-]+)?"
        if re.fullmatch(f"pretrained|random|local-dir:.+|{hub}", value):
            return value
        raise ValueError(
            "should be 'pretrained', 'random', 'local-dir:FOLDER' or 'hf-hub:ORG/NAME'"
        )

    @model_validator(mode="after")
    def _check(self) -> Backbone:
        if not self.model and self.weights in ("pretrained", "random"):
            raise ValueError(
                "model: a timm model name is needed unless weights are a local-dir or an hf-hub"
            )
        if re.search("[:/]", self.model):
            raise ValueError(
                f"model: {self.model} is no timm model name; a folder or a hub repository is named "
                "by 'weights': local-dir:FOLDER or hf-hub:ORG/NAME"
            )
        if self.weights == "random" and self.train is None:
            raise ValueError(
                "weights are random and there is no training: the features would mean nothing; "
                "add 'train: {}'"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """Return what the features depend on, as plain data."""
        others = {"batch_size", "unreadable"}
        return {key: value for key, value in super().identity().items() if key not in others}


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
    """The rows' class names: a text file, a name a line, or the name of an array in the .npz, or
    ``imagenet-1k`` for ImageNet's 1000 wnids in sorted order, as in every ImageNet classifier. Left
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
