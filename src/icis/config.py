"""The typed model of an experiment file; ``params.yaml`` is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from icis.errors import ConfigError
from icis.methods import METHODS, AnyMethod
from icis.schema import Strict, suggest

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A name that is part of paths: letters, digits, dot, underscore, hyphen."""
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Metric = Literal["T1", "U", "S", "H", "entropy", "epochs", "seen_accuracy"]


def _check_seeds(value: Any) -> Any:
    listed = value if isinstance(value, list) else [value]
    whole = all(type(seed) is int and 0 <= seed < 2**63 for seed in listed)
    if not whole or not value or len(set(listed)) != len(listed):
        raise ValueError("should be how many seeds (1 or more), or a list of different ones from 0")
    return value


Seeds = Annotated[list[int] | Count, BeforeValidator(_check_seeds)]
"""A list of seeds, or how many (counted from 0)."""


class DescriptorSource(Strict):
    """A vector for every class, from a .mat, .npy, .csv or .parquet file."""

    file: str
    """The file; ``${NAME}`` and ``${NAME:-default}`` are taken from the environment. A relative
    path that does not exist here is looked for inside the data set's ``root``."""
    key: str = "att"
    """.mat: the variable, [d, C] or [C, d]."""
    classes: str | None = None
    """.npy, .mat: a text file with a class name per row (text after a tab is ignored). Default:
    the names in the .mat file, else the order of the data set's classes."""
    class_column: str = "class"
    """.csv, .parquet: the column of class names; every other column is a component."""
    normalize: Literal["none", "l2"] = "none"
    """Scale each class's vector to length 1."""


class Dataset(Strict):
    """What all kinds of data sets share."""

    kind: str
    descriptors: dict[Name, DescriptorSource] = {}
    batch_size: Count = 16
    """Rows a batch, for seen heads and injectors that name none themselves."""
    split_version: str = "own"
    """Which published split this is, for the record: for example ``xlsa17-2.0``."""


class DrawnDataset(Dataset):
    """The embedded data set: images that the project draws itself from visual attributes."""

    kind: Literal["drawn"]
    classes: Count = 80
    unseen: Count = 20
    trainval_per_class: Count = 30
    test_per_class: Count = 15
    image_size: Annotated[int, Field(ge=16)] = 64
    seed: Annotated[int, Field(ge=0)] = 0
    descriptors: dict[Name, DescriptorSource] = {
        "att": DescriptorSource(file="attributes.csv", normalize="l2")
    }
    split_version: str = "drawn"

    @model_validator(mode="after")
    def _check(self) -> DrawnDataset:
        if self.unseen > self.classes - 2:
            raise ValueError(
                f"{self.unseen} unseen of {self.classes} classes leave too few seen: "
                "at least 2 classes must be seen"
            )
        return self


class ImagesDataset(Dataset):
    """Images in a folder or a tar, with a CSV or Parquet file of splits."""

    kind: Literal["images"]
    root: str
    """A folder, or an uncompressed .tar that is read in place."""
    splits: str = "splits.csv"
    """The table of splits: a row an image, in ``root`` or elsewhere."""
    file_column: str = "file"
    """The column with the image's path inside ``root``."""
    class_column: str = "class"
    split_column: str = "split"
    """Holds trainval, test_seen or test_unseen."""
    class_list: str | None = None
    """A text file of class names, one a line (text after a tab is ignored), which fixes their
    order. Default: the classes of the splits, sorted."""


class Xlsa17Dataset(Dataset):
    """Features and splits in the xlsa17 layout, with any file names."""

    kind: Literal["xlsa17"]
    splits: str
    """The .mat file with ``allclasses_names``, ``trainval_loc``, ``test_seen_loc``,
    ``test_unseen_loc``."""
    features: Annotated[dict[Name, str], Field(min_length=1)]
    """Backbone name to a .mat file with ``features`` [D, N], ``labels`` and ``image_files``."""

    @model_validator(mode="before")
    @classmethod
    def _own_descriptors(cls, data: Any) -> Any:
        if (
            isinstance(data, dict)
            and "descriptors" not in data
            and isinstance(data.get("splits"), str)
        ):
            return {**data, "descriptors": {"att": {"file": data["splits"]}}}
        return data


AnyDataset = Annotated[DrawnDataset | ImagesDataset | Xlsa17Dataset, Field(discriminator="kind")]


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


class Table(Strict):
    """A table: the product of its lists, a row a method."""

    title: str = ""
    datasets: list[Name]
    backbones: list[Name]
    heads: list[Name]
    descriptors: list[Name]
    methods: list[Name]
    metrics: list[Metric] = ["T1", "U", "S", "H"]
    seeds: Seeds | None = None
    """Seeds of this table, or how many; by default the experiment's."""

    @field_validator("datasets", "backbones", "heads", "descriptors", "methods", "metrics")
    @classmethod
    def _filled(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) != len(value):
            raise ValueError("should name at least one entry, and none twice")
        return value


class Experiment(Strict):
    """One experiment: what there is, and the tables to make of it."""

    name: Name
    """Results are in ``results/<name>/``."""
    title: str = ""
    seeds: Seeds = 5
    """The seeds, or how many (counted from 0)."""
    datasets: dict[Name, AnyDataset]
    backbones: dict[Name, Backbone] = {}
    heads: dict[Name, SeenHead]
    methods: dict[Name, AnyMethod]
    tables: dict[Name, Table]

    def identity(self) -> dict[str, Any]:
        """Return the whole experiment as plain data."""
        return self.model_dump(mode="json")


def read_experiment(path: Path) -> Experiment:
    """Read and validate an experiment file (YAML or JSON)."""
    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [f"it cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"it is no text in UTF-8: {error}"]) from error
    except (YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
            what = f"{error.problem} (line {error.problem_mark.line + 1})"
        raise ConfigError(str(path), [f"it is no valid YAML: {what}"]) from error
    return parse_experiment(data, source=str(path))


def parse_experiment(data: Any, *, source: str) -> Experiment:
    """Validate an experiment given as plain data; list every problem with its path."""
    if not isinstance(data, dict):
        raise ConfigError(source, ["it should be a mapping with the keys name, datasets, …"])
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        problems = [_in_words(each) for each in error.errors(include_url=False)]
        raise ConfigError(source, problems) from None


TAGS = {"datasets": ("kind", ("drawn", "images", "xlsa17")), "methods": ("method", tuple(METHODS))}
"""Where an entry's kind decides on its keys: by which key, and the kinds there are."""

IN_WORDS = {
    "bool_type": "should be true or false",
    "dict_type": "should be a mapping of names to entries",
    "float_type": "should be a number",
    "int_type": "should be a whole number",
    "list_type": "should be a list",
    "model_attributes_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "string_pattern_mismatch": "should consist of letters, digits, '.', '_' and '-' and begin "
    "with a letter or digit (it is part of paths)",
    "string_type": "should be text",
    "too_short": "should have at least one entry",
}


def _in_words(problem: ErrorDetails) -> str:
    """Return a problem with the key's path as the user wrote it."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    path = [str(step) for step in problem["loc"]]
    if path and path[0] in TAGS:
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            key, known = TAGS[path[0]]
            where = ".".join([*path, key])
            if kind == "union_tag_not_found":
                return f"{where}: it is missing; there are: {', '.join(known)}"
            tag = context["tag"]
            return f"{where}: there is no {key} {tag!r}; {suggest(tag, known)}"
        del path[2:3]  # the entry's kind, which stands in no path of the file
    where = ".".join(step for step in path if step != "[key]") or "the experiment"
    if kind in ("missing", "unknown_key"):
        return f"{where}: " + ("it is missing" if kind == "missing" else problem["msg"])
    message = IN_WORDS.get(kind, problem["msg"].removeprefix("Value error, "))
    message = re.sub("^(Input|String) should", "should", message)
    if isinstance(value, dict) and kind not in IN_WORDS:  # it concerns several keys and names them
        return f"{where}: {message}"
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:79]}…"
    message += ", and is empty" if value is None else f", not {shown}"
    if kind == "literal_error" and isinstance(value, str):
        hint = suggest(value, re.findall("'(.*?)'", context["expected"]))
        message += f"; {hint}" if "mean" in hint else ""
    return f"{where}: {message}"
