"""Tables, and the experiment as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from icis.config.datasets import AnyDataset
from icis.config.models import AnyHead, Backbone
from icis.config.names import Count, Name, Seeds
from icis.methods import AnyMethod
from icis.schema import Strict

Metric = Literal[
    "T1", "U", "S", "H", "entropy", "epochs", "seen_accuracy",
    "AUSUC", "U_cal", "S_cal", "H_cal", "offset", "U_norm", "S_norm", "H_norm", "norm_factor",
    "bias_gap", "to_seen", "norm_ratio",
    "train_loss", "held_out_loss", "held_out_cosine", "held_out_w2a",
]  # fmt: skip
Figure = Literal["bars", "curve", "classes", "ladder", "efficiency", "agreement"]


class Table(Strict):
    """A table: the product of its lists, a row a method."""

    title: str = ""
    datasets: list[Name]
    backbones: list[Name]
    heads: list[Name]
    descriptors: list[Name]
    methods: list[Name]
    n_seen: list[Count | Literal["all"]] = ["all"]
    """How many seen classes the methods learn from; the joint head keeps all of them. Which ones
    is drawn by the seed; a larger set contains the smaller ones."""
    metrics: list[Metric] = ["T1", "U", "S", "H"]
    seeds: Seeds | None = None
    """Seeds of this table, or how many; by default the experiment's."""
    published: str | None = None
    """The block of published numbers to set beside ours (see ``published.yaml``). Rows are joined
    by data set, descriptor, number of seen classes and the method's key in this file."""
    rescale: Literal["none", "gzsl", "transfer"] | None = None
    """The norm heuristic for all linear methods of this table, whatever their own settings say."""
    reference: Name | None = None
    """The method that the others are compared with, seed by seed; by default the last."""
    figures: list[Figure] = ["bars"]
    """What is drawn of the table, each in a file of its own."""

    @field_validator(
        "datasets", "backbones", "heads", "descriptors", "methods", "metrics", "n_seen", "figures"
    )
    @classmethod
    def _filled(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) != len(value):
            raise ValueError("should name at least one entry, and none twice")
        return value


NEED_HELD_OUT = {
    "U_cal", "S_cal", "H_cal", "offset", "U_norm", "S_norm", "H_norm", "norm_factor",
    "held_out_loss", "held_out_cosine", "held_out_w2a",
}  # fmt: skip
"""The metrics that come from runs with held-out classes."""


class HeldOut(Strict):
    """Seen classes treated as unseen, for diagnostics and for what calibrates seen against unseen.

    Cells are run so if a table that they are in shows one of these metrics.
    """

    part: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Part of the seen classes; 0: none, and no such numbers."""
    seeds: Count = 1
    """How many of a cell's seeds are trained once more without them."""


class Experiment(Strict):
    """One experiment: what there is, and the tables to make of it."""

    name: Name
    """Results are in ``results/<name>/``."""
    title: str = ""
    seeds: Seeds = 5
    """The seeds, or how many (counted from 0)."""
    held_out: HeldOut = HeldOut()
    datasets: dict[Name, AnyDataset]
    backbones: dict[Name, Backbone] = {}
    heads: dict[Name, AnyHead]
    methods: dict[Name, AnyMethod]
    tables: dict[Name, Table]

    def identity(self) -> dict[str, Any]:
        """Return the whole experiment as plain data."""
        return self.model_dump(mode="json")
